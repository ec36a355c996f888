"""Images, networking, placement and a hypervisor, as small as compute's tests need them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import msgspec

from cumulet.core.context import Caller, system_caller
from cumulet.core.errors import Conflict, NotFound
from cumulet.services.compute.drivers import (
    HostInfo,
    HypervisorError,
    Nic,
    Power,
    PowerListener,
    ServerSpec,
    ServerState,
)
from cumulet.services.image.interface import ImageInfo
from cumulet.services.network.interface import FixedIp, NetworkInfo, NewPort, PortInfo
from cumulet.services.placement.interface import Inventory, NoCandidate

IMAGE = "11111111-1111-4111-8111-111111111111"
OTHER_IMAGE = "55555555-5555-4555-8555-555555555555"
QUEUED_IMAGE = "22222222-2222-4222-8222-222222222222"
NETWORK = "33333333-3333-4333-8333-333333333333"
OTHER_NETWORK = "44444444-4444-4444-8444-444444444444"


class FakeImages:
    """Three images, of which one is not active."""

    def __init__(self) -> None:
        self.images = {
            IMAGE: self._image(IMAGE, "active"),
            OTHER_IMAGE: self._image(OTHER_IMAGE, "active"),
            QUEUED_IMAGE: self._image(QUEUED_IMAGE, "queued"),
        }

    @staticmethod
    def _image(id: str, status: str) -> ImageInfo:
        return ImageInfo(
            id=id, name="guest", status=status, disk_format="qcow2", container_format="bare", size=1 << 20,
            virtual_size=1 << 20, min_disk=0, min_ram=64, owner="project-admin", visibility="public", properties={},
        )  # fmt: skip

    async def show(self, caller: Caller, image_id: str) -> ImageInfo:
        try:
            return self.images[image_id]
        except KeyError:
            raise NotFound("image", image_id) from None

    async def path(self, image_id: str) -> Path:
        if image_id not in self.images:
            raise NotFound("image", image_id)
        return Path("/nowhere") / image_id

    async def ensure_image(
        self, image_id: str, caller: Caller, name: str, file: Path, *, disk_format: str, visibility: str,
        properties: Mapping[str, Any] | None = None,
    ) -> ImageInfo:  # fmt: skip
        raise NotImplementedError

    async def ensure_queued(
        self, image_id: str, caller: Caller, name: str, *, disk_format: str, visibility: str,
        properties: Mapping[str, Any] | None = None, min_disk: int = 0, min_ram: int = 0,
    ) -> ImageInfo:  # fmt: skip
        if image_id not in self.images:
            self.images[image_id] = ImageInfo(
                image_id, name, "queued", disk_format, "bare", None, None, min_disk, min_ram, caller.project_id,
                visibility, properties or {},
            )  # fmt: skip
        return self.images[image_id]

    async def fill(self, image_id: str, file: Path) -> None:
        size = len(await asyncio.to_thread(file.read_bytes))
        image = await self.show(system_caller(), image_id)
        self.images[image_id] = msgspec.structs.replace(image, status="active", size=size, virtual_size=1 << 20)

    async def discard(self, image_id: str) -> None:
        if image_id in self.images and self.images[image_id].status != "active":
            del self.images[image_id]


@dataclass
class FakeNetworking:
    """Networks of project-demo, and ports in memory."""

    networks: dict[str, NetworkInfo] = field(default_factory=dict)
    ports: dict[str, PortInfo] = field(default_factory=dict)
    next_address: int = 10
    realised: list[str] = field(default_factory=list)

    def add_network(self, id: str, name: str, project: str = "project-demo", **more: Any) -> None:
        values: dict[str, Any] = {"shared": False, "external": False, "has_subnets": True, **more}
        self.networks[id] = NetworkInfo(id=id, name=name, project_id=project, **values)

    async def usable_networks(self, caller: Caller) -> list[NetworkInfo]:
        return [n for n in self.networks.values() if n.project_id == caller.project_id and n.has_subnets]

    async def network(self, caller: Caller, network_id: str) -> NetworkInfo:
        found = self.networks.get(network_id)
        if found is None or not (found.project_id == caller.project_id or found.shared or caller.is_admin):
            raise NotFound("network", network_id)
        return found

    async def port(self, caller: Caller, port_id: str) -> PortInfo:
        found = self.ports.get(port_id)
        if found is None or not (found.project_id == caller.project_id or caller.is_admin):
            raise NotFound("port", port_id)
        return found

    async def security_group_ids(self, caller: Caller, project_id: str, names: Sequence[str]) -> list[str]:
        for name in names:
            if name not in ("default", "web"):
                raise NotFound(message=f"Security group {name} not found for project {project_id}.")
        return [f"id-of-{name}" for name in names]

    async def ensure_port(self, new: NewPort) -> PortInfo:
        if new.id not in self.ports:
            network = self.networks[new.network_id]
            address = new.fixed_ip or f"10.0.0.{self.next_address}"
            self.next_address += 1
            groups = new.security_groups or ("id-of-default",)
            self.ports[new.id] = PortInfo(
                id=new.id, name="", network_id=network.id, network_name=network.name, project_id=new.project_id,
                device_id=new.device_id, device_owner=new.device_owner, mac_address=f"fa:16:3e:00:00:{len(self.ports):02x}",
                mtu=1450, fixed_ips=(FixedIp(address, "subnet", "10.0.0.0/24", 4, "10.0.0.1"),),
                security_group_ids=groups, security_group_names=tuple(g.removeprefix("id-of-") for g in groups),
                status="DOWN",
            )  # fmt: skip
        return self.ports[new.id]

    async def bind(self, port_id: str, device_id: str, device_owner: str, host: str, hostname: str) -> PortInfo:
        port = self.ports.get(port_id)
        if port is None:
            raise NotFound("port", port_id)
        if port.device_id not in ("", device_id):
            raise Conflict(f"Port {port_id} is still in use.")
        self._change(port_id, device_id=device_id, device_owner=device_owner)
        return self.ports[port_id]

    async def unbind(self, port_id: str, device_id: str) -> None:
        if port_id in self.ports and self.ports[port_id].device_id == device_id:
            self._change(port_id, device_id="", device_owner="")

    async def delete_port(self, port_id: str) -> None:
        self.ports.pop(port_id, None)

    async def realise(self, network_ids: Sequence[str]) -> None:
        self.realised += network_ids

    async def ports_of(self, device_ids: Sequence[str]) -> dict[str, list[PortInfo]]:
        return {device: [p for p in self.ports.values() if p.device_id == device] for device in device_ids}

    async def set_port_status(self, port_ids: Sequence[str], status: str) -> list[PortInfo]:
        for port_id in port_ids:
            self._change(port_id, status=status)
        return [self.ports[port_id] for port_id in port_ids]

    async def set_security_groups(self, port_ids: Sequence[str], group_ids: Sequence[str]) -> None:
        for port_id in port_ids:
            names = tuple(group.removeprefix("id-of-") for group in group_ids)
            self._change(port_id, security_group_ids=tuple(group_ids), security_group_names=names)

    def _change(self, port_id: str, **changes: Any) -> None:
        self.ports[port_id] = msgspec.structs.replace(self.ports[port_id], **changes)


class FakePlacement:
    """One provider; counts what consumers hold."""

    def __init__(self) -> None:
        self.inventories: Mapping[str, Inventory] = {}
        self.name = ""
        self.claims: dict[str, Mapping[str, int]] = {}

    async def ensure_provider(self, uuid: str, name: str, inventories: Mapping[str, Inventory]) -> None:
        self.name, self.inventories = name, inventories

    async def claim(
        self, consumer_id: str, project_id: str, user_id: str, resources: Mapping[str, int], *, only: str | None = None
    ) -> str:
        if consumer_id not in self.claims:
            for name, amount in resources.items():
                have = self.inventories[name]
                used = sum(claim.get(name, 0) for claim in self.claims.values())
                if amount > have.max_unit or used + amount > (have.total - have.reserved) * have.allocation_ratio:
                    raise NoCandidate("no room")
            self.claims[consumer_id] = dict(resources)
        return self.name

    async def resize(self, consumer_id: str, keeper_id: str, resources: Mapping[str, int]) -> None:
        if keeper_id not in self.claims:
            old = self.claims.pop(consumer_id)
            self.claims[keeper_id] = old
            try:
                await self.claim(consumer_id, "", "", resources)
            except NoCandidate:
                self.claims[consumer_id] = self.claims.pop(keeper_id)
                raise

    async def take_back(self, consumer_id: str, keeper_id: str) -> None:
        if keeper_id in self.claims:
            self.claims[consumer_id] = self.claims.pop(keeper_id)

    async def release(self, consumer_id: str) -> None:
        self.claims.pop(consumer_id, None)


@dataclass(frozen=True)
class FakeMachine:
    spec: ServerSpec
    power: Power


class FakeHypervisor:
    """Machines in memory. `gate`, where set, holds `ensure_server`; `fail` makes it fail."""

    def __init__(self) -> None:
        self.machines: dict[str, FakeMachine] = {}
        self.listener: PowerListener | None = None
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.fail: Callable[[], Exception] | None = None
        self.calls: list[str] = []
        self.vnc = ""
        self.directory: Path | None = None
        self.disks: dict[str, str] = {}
        """Server -> the image that its disk was made of."""

    async def start(self, listener: PowerListener | None = None) -> None:
        self.listener = listener

    async def stop(self) -> None:
        self.listener = None

    async def host_info(self) -> HostInfo:
        return HostInfo("test-host", "simulated", 1000, "simulated", "a test", 64, 65536, 1000)

    async def _enter(self, call: str) -> None:
        self.calls.append(call)
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.fail is not None:
            raise self.fail()

    async def ensure_server(self, spec: ServerSpec) -> ServerState:
        await self._enter("ensure_server")
        self.disks.setdefault(spec.id, spec.root.image_id)
        self.machines[spec.id] = FakeMachine(spec, "running")
        return ServerState(spec.id, "running", 1)

    async def ensure_stopped(self, server_id: str, *, grace: float = 30.0) -> None:
        await self._enter("ensure_stopped")
        self._power(server_id, "shutdown")

    async def reboot(self, spec: ServerSpec, *, hard: bool, grace: float = 30.0) -> None:
        await self._enter("reboot hard" if hard else "reboot soft")
        self.machines[spec.id] = FakeMachine(spec, "running")

    async def pause(self, server_id: str) -> None:
        await self._enter("pause")
        self._power(server_id, "paused")

    async def unpause(self, server_id: str) -> None:
        await self._enter("unpause")
        self._power(server_id, "running")

    def _power(self, server_id: str, power: Power) -> None:
        if server_id not in self.machines:
            raise HypervisorError(f"server {server_id} is not on this host")
        self.machines[server_id] = changed(self.machines[server_id], power=power)

    async def attach_nic(self, server_id: str, nic: Nic) -> None:
        await self._enter("attach_nic")
        self._nics(server_id, nic.port_id, (nic,))

    async def detach_nic(self, server_id: str, port_id: str) -> None:
        await self._enter("detach_nic")
        self._nics(server_id, port_id, ())

    def _nics(self, server_id: str, port_id: str, new: tuple[Nic, ...]) -> None:
        machine = self.machines.get(server_id)
        if machine is not None and machine.power != "shutdown":
            nics = (*(nic for nic in machine.spec.nics if nic.port_id != port_id), *new)
            self.machines[server_id] = changed(machine, spec=msgspec.structs.replace(machine.spec, nics=nics))

    async def snapshot(self, server_id: str) -> Path:
        await self._enter("snapshot")
        if self.directory is None:
            raise HypervisorError("there is no disk")
        file = self.directory / f"{server_id}.snapshot"
        await asyncio.to_thread(file.write_bytes, b"a disk")
        return file

    async def remove_disk(self, server_id: str) -> None:
        await self._enter("remove_disk")
        self.disks.pop(server_id, None)
        if server_id in self.machines:
            self._power(server_id, "shutdown")

    async def grow_disk(self, server_id: str, size_gb: int) -> None:
        await self._enter("grow_disk")

    async def restore_disk(self, server_id: str) -> None:
        await self._enter("restore_disk")

    async def drop_kept_disk(self, server_id: str) -> None:
        await self._enter("drop_kept_disk")

    async def remove_server(self, server_id: str) -> None:
        self.calls.append("remove_server")
        self.machines.pop(server_id, None)

    async def observe(self) -> dict[str, ServerState]:
        return {server: ServerState(server, machine.power, 1) for server, machine in self.machines.items()}

    async def console_log(self, server_id: str, lines: int | None = None) -> str:
        text = [f"line {n}" for n in range(5)]
        return "\n".join(text if lines is None else text[-lines:]) + "\n"

    async def vnc_address(self, server_id: str) -> str:
        return self.vnc
