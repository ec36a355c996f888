"""The `simulated` hypervisor driver: servers are records, for use of the API alone (no root, no virtual machines).

All state is one append-only journal of lines `{"id": ..., "power": ...}`, replayed and rewritten at `start`. A change is
one short write, so thousands of servers can be made in a second; a line that a crash cut off is ignored.
"""

import asyncio
import io
import socket
import struct
from pathlib import Path

import msgspec
from msgspec import Struct

from . import HostInfo, HypervisorError, Nic, Power, PowerListener, ServerSpec, ServerState

VCPUS, MEMORY_MB, DISK_GB = 1024, 4 * 1024**2, 1024**2
REASON = "The simulated hypervisor was chosen: servers are records only, nothing runs."


class Entry(Struct, frozen=True, omit_defaults=True):
    """One line of the journal; without `power` the server was removed."""

    id: str
    name: str = ""
    power: Power | None = None


class SimulatedHypervisor:
    def __init__(self, directory: Path, hostname: str | None = None) -> None:
        self._file = directory / "simulated-servers.journal"
        self._hostname = hostname or socket.gethostname()
        self._servers: dict[str, Entry] = {}
        self._journal: io.BufferedWriter | None = None
        self._encode = msgspec.json.Encoder().encode

    async def start(self, listener: PowerListener | None = None) -> None:
        """Read the journal and write it anew without its history. The listener is never called: nothing runs."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._servers = self._replay()
        new = self._file.with_suffix(".new")
        new.write_bytes(b"".join(self._encode(entry) + b"\n" for entry in self._servers.values()))
        new.rename(self._file)
        self._journal = self._file.open("ab")

    def _replay(self) -> dict[str, Entry]:
        servers: dict[str, Entry] = {}
        try:
            lines = self._file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return servers
        for line in lines[:-1]:  # what follows the last line feed is empty or cut off
            entry = msgspec.json.decode(line, type=Entry)
            if entry.power is None:
                servers.pop(entry.id, None)
            else:
                servers[entry.id] = entry
        return servers

    def _record(self, entry: Entry) -> None:
        if self._journal is None:
            raise HypervisorError("the hypervisor driver was not started")
        if self._servers.get(entry.id) == entry:
            return
        if entry.power is None:
            self._servers.pop(entry.id, None)
        else:
            self._servers[entry.id] = entry
        self._journal.write(self._encode(entry) + b"\n")
        self._journal.flush()

    async def stop(self) -> None:
        """Let go of all servers without disturbing them."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    async def host_info(self) -> HostInfo:
        return HostInfo(
            hostname=self._hostname,
            hypervisor_type="simulated",
            hypervisor_version=1,
            virt_type="simulated",
            reason=REASON,
            vcpus=VCPUS,
            memory_mb=MEMORY_MB,
            disk_gb=DISK_GB,
            cpu_model="simulated",
        )

    async def ensure_server(self, spec: ServerSpec) -> ServerState:
        """Create the record if it is missing; it says that the server runs."""
        self._record(Entry(spec.id, spec.name, "running"))
        return ServerState(spec.id, "running")

    async def ensure_stopped(self, server_id: str, *, grace: float = 30.0) -> None:
        """The simulated guest is off at once. Done already, or unknown: no effect."""
        if server_id in self._servers:
            self._set(server_id, "shutdown")

    async def reboot(self, spec: ServerSpec, *, hard: bool, grace: float = 30.0) -> None:
        await self.ensure_server(spec)

    async def pause(self, server_id: str) -> None:
        self._running(server_id)
        self._set(server_id, "paused")

    async def unpause(self, server_id: str) -> None:
        self._running(server_id)
        self._set(server_id, "running")

    async def attach_nic(self, server_id: str, nic: Nic) -> None:
        """No effect: a record has no cards."""

    async def detach_nic(self, server_id: str, port_id: str) -> None:
        """No effect: a record has no cards."""

    async def snapshot(self, server_id: str) -> Path:
        """An empty disk: there is no other."""
        self._known(server_id)
        file = self._snapshot(server_id)
        await asyncio.to_thread(_write_empty_qcow2, file)
        return file

    async def remove_disk(self, server_id: str) -> None:
        """Unknown server: no effect."""
        await self.ensure_stopped(server_id)

    async def grow_disk(self, server_id: str, size_gb: int) -> None:
        """No effect: a record has no disk."""

    async def restore_disk(self, server_id: str) -> None:
        """No effect: a record has no disk."""

    async def drop_kept_disk(self, server_id: str) -> None:
        """No effect: a record has no disk."""

    async def remove_server(self, server_id: str) -> None:
        """Unknown server: no effect."""
        if server_id in self._servers:
            self._snapshot(server_id).unlink(missing_ok=True)
            self._record(Entry(server_id))

    async def observe(self) -> dict[str, ServerState]:
        """Every server this host holds anything of, running or not."""
        return {entry.id: ServerState(entry.id, entry.power) for entry in self._servers.values() if entry.power}

    async def console_log(self, server_id: str, lines: int | None = None) -> str:
        """A text that says what this is."""
        entry = self._known(server_id)
        said = (
            f"This server ({entry.name}, {entry.id}) is a record of the simulated hypervisor.\n",
            "No guest runs in it, and nothing was booted.\n",
            "What a guest writes to its first serial port would stand here.\n",
            "End of the simulated console.\n",
        )
        return "".join(said if lines is None else said[-lines:] if lines > 0 else ())

    async def vnc_address(self, server_id: str) -> str:
        """Always a HypervisorError: there is no screen."""
        self._known(server_id)
        raise HypervisorError(f"server {server_id} is simulated: it has no screen")

    def _snapshot(self, server_id: str) -> Path:
        return self._file.with_name(f"{server_id}.snapshot.qcow2")

    def _set(self, server_id: str, power: Power) -> None:
        self._record(Entry(server_id, self._known(server_id).name, power))

    def _known(self, server_id: str) -> Entry:
        entry = self._servers.get(server_id)
        if entry is None:
            raise HypervisorError(f"this host holds no server {server_id}")
        return entry

    def _running(self, server_id: str) -> None:
        if self._known(server_id).power not in ("running", "paused"):
            raise HypervisorError(f"server {server_id} does not run on this host")


def _write_empty_qcow2(file: Path) -> None:
    """A disk of 1 MiB without data. Clusters of 64 KiB: header, table of reference counts, their one block, L1 table."""
    cluster = 1 << 16
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0
    )  # fmt: skip
    with file.open("wb") as disk:
        disk.write(header)
        disk.seek(cluster)
        disk.write(struct.pack(">Q", 2 * cluster))
        disk.seek(2 * cluster)
        disk.write(struct.pack(">4H", 1, 1, 1, 1))
        disk.truncate(4 * cluster)
