"""The hypervisor driver: what compute asks of a host.

One Protocol; `qemu` (real virtual machines) and `simulated` (API only) implement it and pass the same suite,
`tests/drivers/test_hypervisor.py`. Every call is an *ensure*: repeatable after any crash, with the same result.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

Power = Literal["running", "paused", "shutdown", "crashed"]


class HypervisorError(Exception):
    """The hypervisor could not do what was asked; the text is fit for a server's `fault`."""


class Nic(Struct, frozen=True):
    """One virtual network card. `tap` names the device the dataplane opens for it (`Taps.open_tap`)."""

    port_id: str
    network_id: str
    mac: str
    mtu: int = 1500


class RootDisk(Struct, frozen=True):
    """The disk a server boots from: a copy-on-write child of a file that never changes.

    `image` is the path of the (inspected) image file, `format` its real format, `image_id` names the cached base.
    `size_gb` of 0 keeps the image's own size.
    """

    image: str
    format: Literal["qcow2", "raw"]
    image_id: str
    size_gb: int = 0


class ServerSpec(Struct, frozen=True):
    """All a host needs to run one server. `config_drive` maps paths (`openstack/latest/meta_data.json`) to contents."""

    id: str
    name: str
    vcpus: int
    memory_mb: int
    root: RootDisk
    nics: tuple[Nic, ...] = ()
    config_drive: Mapping[str, bytes] | None = None


class ServerState(Struct, frozen=True):
    """What a host observed of one server."""

    id: str
    power: Power
    pid: int | None = None


class HostInfo(Struct, frozen=True):
    """What the host is and offers. `virt_type` is `kvm`, `qemu` (TCG) or `simulated`; `reason` says why it was chosen."""

    hostname: str
    hypervisor_type: str
    hypervisor_version: int
    virt_type: str
    reason: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    cpu_model: str = ""


class Taps(Protocol):
    """What a hypervisor asks of the dataplane: an open tap, already plugged into the port's network."""

    async def open_tap(self, network_id: str, port_id: str, mac: str) -> int:
        """Return a file descriptor of the port's tap; the device lives as long as a process holds it."""
        ...


PowerListener = Callable[[str, Power], Awaitable[None]]
"""Called with (server id, new power state) when a server's power changes without being asked to: the guest shut down."""


class Hypervisor(Protocol):
    """A host's hypervisor. Server ids are the API's UUIDs."""

    async def start(self, listener: PowerListener | None = None) -> None:
        """Make ready and reconnect to every server that still runs from before."""
        ...

    async def stop(self) -> None:
        """Let go of all servers without disturbing them."""
        ...

    async def host_info(self) -> HostInfo: ...

    async def ensure_server(self, spec: ServerSpec) -> ServerState:
        """Create the disk and the machine if they are missing and run it; returns once it runs."""
        ...

    async def ensure_stopped(self, server_id: str, *, grace: float = 30.0) -> None:
        """Press the power button, wait `grace` seconds, then pull the plug. The disk stays. Done already: no effect."""
        ...

    async def reboot(self, spec: ServerSpec, *, hard: bool, grace: float = 30.0) -> None:
        """Restart the guest: soft asks it (and goes on hard after `grace` seconds), hard starts the machine anew."""
        ...

    async def pause(self, server_id: str) -> None: ...

    async def unpause(self, server_id: str) -> None: ...

    async def attach_nic(self, server_id: str, nic: Nic) -> None:
        """Plug the card into the running machine. A server that does not run gets it at its next start, by its spec."""
        ...

    async def detach_nic(self, server_id: str, port_id: str) -> None:
        """Take the card from the running machine; returns once the guest has let go of it, HypervisorError if it does not.
        Not there, or a server that does not run: no effect."""
        ...

    async def snapshot(self, server_id: str) -> Path:
        """The root disk as it is at one moment, as a qcow2 file without a parent, which the caller removes when done with
        it. Asked again it is made anew; it goes with the server. HypervisorError for a server that has no disk."""
        ...

    async def remove_disk(self, server_id: str) -> None:
        """Pull the plug and remove the root disk: the next start makes a new one of its image. Gone already: no effect."""
        ...

    async def grow_disk(self, server_id: str, size_gb: int) -> None:
        """Have the root disk of a server that is off be at least so large; as it was it is kept aside, once."""
        ...

    async def restore_disk(self, server_id: str) -> None:
        """Put what `grow_disk` kept aside back, for a server that is off. Nothing kept: no effect."""
        ...

    async def drop_kept_disk(self, server_id: str) -> None:
        """Remove what `grow_disk` kept aside. Nothing kept: no effect."""
        ...

    async def remove_server(self, server_id: str) -> None:
        """Leave nothing behind: process, control group, sockets, disks. Unknown server: no effect."""
        ...

    async def observe(self) -> dict[str, ServerState]:
        """Every server this host holds anything of, running or not."""
        ...

    async def console_log(self, server_id: str, lines: int | None = None) -> str:
        """What the guest wrote to its first serial port; the last `lines` lines, or all (up to 1 MiB)."""
        ...

    async def vnc_address(self, server_id: str) -> str:
        """The path of the unix socket on which the guest's screen is served as RFB (RFC 6143), without password."""
        ...
