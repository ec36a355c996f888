"""The `qemu` hypervisor driver: real virtual machines, one detached QEMU process each, spoken to over QMP.

    directory/base/<image id>.<format>   images that disks are children of
    directory/servers/<server id>/       disk.qcow2, config.iso, console.log, qemu.log, qemu.pid, spec.json, sockets;
                                         snapshot.qcow2 while an image is made of it

Machines outlive the program. At `start` they are found again by their arguments (`process.running`) and adopted, so a
crash at any instant leaves no machine unknown; a folder without a machine is a server that is shut down.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from cumulet.core.tasks import in_thread

from .. import HostInfo, HypervisorError, Nic, PowerListener, ServerSpec, ServerState, Taps
from ..kvm import Probe
from . import card, cgroup, config_drive, disk, host, process, snapshot, virtualization
from .command import command_line
from .console import read_console, trim_console
from .machine import Machine

log = logging.getLogger(__name__)
SOCKET_PATH_MAX = 107 - len("/servers/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx/serial.sock")


class QemuHypervisor:
    """`directory` holds everything; `taps` opens ports of networks (None: user-mode networking, no tenant networks);
    `virt_type` is auto, kvm or tcg."""

    def __init__(
        self, directory: Path, taps: Taps | None, virt_type: str = "auto", hostname: str | None = None
    ) -> None:
        self._directory = directory.resolve()
        self._servers = self._directory / "servers"
        self._bases = self._directory / "base"
        self._short = self._directory
        self._taps = taps
        self._virt_type = virt_type
        self._hostname = hostname or socket.gethostname()
        self._listener: PowerListener | None = None
        self._machines: dict[str, Machine] = {}
        self._crashed: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._lock_users: Counter[str] = Counter()
        self._told: set[asyncio.Task[None]] = set()
        self._specs_kept = threading.Lock()
        """Held while a base is found unused and removed; a spec that appears later finds the base gone and makes it again."""
        self._program = ""
        self._version = 0
        self._groups = cgroup.Groups((), 0)
        self._probe: asyncio.Task[Probe] | None = None

    async def start(self, listener: PowerListener | None = None) -> None:
        """Make ready and reconnect to every server that still runs from before."""
        self._listener = listener
        self._probe = asyncio.create_task(
            virtualization.choose(self._virt_type, self._directory / "kvm.json"), name="kvm-probe"
        )
        await asyncio.to_thread(self._make_ready)
        found = await asyncio.to_thread(self._find_running)
        await asyncio.gather(*(self._adopt(server_id, pid) for server_id, pid in found.items()))
        log.info("hypervisor ready: %d running servers found", len(self._machines))

    def _make_ready(self) -> None:
        self._program = host.find_program()
        self._version = host.qemu_version(self._program)
        for folder in (self._directory, self._servers, self._bases):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if len(os.fsencode(self._directory)) > SOCKET_PATH_MAX:
            self._short = _short_name(self._directory)
        disk.remove_unused_bases(self._bases, {spec.root.image_id for spec in self._stored_specs()})
        self._groups = cgroup.find()
        if not self._groups.parents:
            log.warning("servers get no control groups: %s", self._groups.reason)

    def _find_running(self) -> dict[str, int]:
        """The machines that run from before; those that ended while nobody looked leave no control group."""
        found = process.running(self._servers)
        for name in os.listdir(self._servers):
            if name not in found:
                self._groups.remove(name)
        return found

    def _stored_specs(self) -> list[ServerSpec]:
        found = (_stored_spec(self._servers / name) for name in os.listdir(self._servers))
        return [spec for spec in found if spec is not None]

    async def stop(self) -> None:
        """Let go of all servers without disturbing them."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await asyncio.gather(*(machine.release() for machine in self._machines.values()))
        self._machines.clear()
        await asyncio.gather(*self._told, return_exceptions=True)
        if self._short != self._directory:
            self._short.unlink(missing_ok=True)

    async def host_info(self) -> HostInfo:
        probe = await self._chosen()
        return await asyncio.to_thread(host.describe, self._hostname, self._directory, self._version, probe)

    async def ensure_server(self, spec: ServerSpec) -> ServerState:
        """Create the disk and the machine if they are missing and run it; returns once it runs."""
        async with self._locked(spec.id):
            machine = self._machines.get(spec.id)
            if machine is None:
                machine = await self._run(spec)
            if not machine.connected:
                await machine.connect()
            if machine.power == "paused":
                await machine.execute("cont")
                machine.power = "running"
            return machine.state

    async def ensure_stopped(self, server_id: str, *, grace: float = 30.0) -> None:
        """Press the power button, wait `grace` seconds, then pull the plug. The disk stays. Done already: no effect."""
        async with self._locked(server_id):
            await self._stop_machine(server_id, grace)

    async def reboot(self, spec: ServerSpec, *, hard: bool, grace: float = 30.0) -> None:
        """Restart the guest: soft asks it (and goes on hard after `grace` seconds), hard starts the machine anew.

        Both end the process and start another: a reset inside QEMU is slower under TCG and keeps an outdated spec.
        """
        async with self._locked(spec.id):
            await self._stop_machine(spec.id, 0 if hard else grace)
            await self._run(spec)

    async def pause(self, server_id: str) -> None:
        async with self._locked(server_id):
            machine = self._running_machine(server_id)
            await machine.execute("stop")
            machine.power = "paused"

    async def unpause(self, server_id: str) -> None:
        async with self._locked(server_id):
            machine = self._running_machine(server_id)
            await machine.execute("cont")
            machine.power = "running"

    async def attach_nic(self, server_id: str, nic: Nic) -> None:
        """Plug the card into the running machine. A server that does not run gets it at its next start, by its spec."""
        async with self._locked(server_id):
            machine = self._machines.get(server_id)
            if machine is not None:
                await card.plug(machine, nic, self._taps)
                await in_thread(self._record_nics, server_id, nic.port_id, nic)

    async def detach_nic(self, server_id: str, port_id: str) -> None:
        """Take the card from the running machine; returns once the guest has let go of it, HypervisorError if it does not.
        Not there, or a server that does not run: no effect."""
        async with self._locked(server_id):
            machine = self._machines.get(server_id)
            if machine is not None:
                try:
                    await card.unplug(machine, port_id)
                except HypervisorError:
                    if not machine.ended.is_set():  # else the card went with the machine
                        raise
                await in_thread(self._record_nics, server_id, port_id, None)

    async def snapshot(self, server_id: str) -> Path:
        """The root disk as it is at one moment, as a qcow2 file without a parent, which the caller removes when done with
        it. Asked again it is made anew; it goes with the server. HypervisorError for a server that has no disk."""
        async with self._locked(server_id):
            return await snapshot.take(self._folder(server_id), self._machines.get(server_id))

    async def remove_disk(self, server_id: str) -> None:
        """Pull the plug and remove the root disk: the next start makes a new one of its image. Gone already: no effect."""
        async with self._locked(server_id):
            await self._stop_machine(server_id, 0)
            await in_thread(self._remove_disk, server_id)

    def _remove_disk(self, server_id: str) -> None:
        (self._servers / server_id / "disk.qcow2").unlink(missing_ok=True)
        self._remove_unused_base(server_id, _stored_spec(self._servers / server_id))

    async def grow_disk(self, server_id: str, size_gb: int) -> None:
        """Have the root disk of a server that is off be at least so large; as it was it is kept aside, once."""
        async with self._locked(server_id):
            self._check_off(server_id)
            await in_thread(disk.grow, self._disk(server_id), size_gb)

    async def restore_disk(self, server_id: str) -> None:
        """Put what `grow_disk` kept aside back, for a server that is off. Nothing kept: no effect."""
        async with self._locked(server_id):
            self._check_off(server_id)
            await in_thread(disk.restore, self._disk(server_id))

    async def drop_kept_disk(self, server_id: str) -> None:
        """Remove what `grow_disk` kept aside. Nothing kept: no effect."""
        async with self._locked(server_id):
            await in_thread(disk.kept(self._disk(server_id)).unlink, missing_ok=True)

    async def remove_server(self, server_id: str) -> None:
        """Leave nothing behind: process, control group, sockets, disks. Unknown server: no effect."""
        async with self._locked(server_id):
            machine = self._machines.get(server_id)
            if machine is not None:
                await machine.kill()
            self._crashed.discard(server_id)
            await in_thread(self._remove_files, server_id)

    def _remove_files(self, server_id: str) -> None:
        self._groups.remove(server_id)
        folder = self._servers / server_id
        spec = _stored_spec(folder)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        self._remove_unused_base(server_id, spec)

    def _remove_unused_base(self, server_id: str, spec: ServerSpec | None) -> None:
        """Remove the base of a disk that is no more, unless another server has a disk over it."""
        if spec is None:
            return
        with self._specs_kept:
            others = (other for other in self._stored_specs() if other.id != server_id)
            if all(other.root.image_id != spec.root.image_id for other in others):
                disk.remove_base(self._bases, spec.root)

    async def observe(self) -> dict[str, ServerState]:
        """Every server this host holds anything of, running or not."""
        names = await asyncio.to_thread(os.listdir, self._servers)
        states = {name: ServerState(name, "crashed" if name in self._crashed else "shutdown") for name in names}
        states |= {server_id: machine.state for server_id, machine in self._machines.items()}
        await asyncio.to_thread(trim_console, [self._servers / name for name in names])
        return states

    async def console_log(self, server_id: str, lines: int | None = None) -> str:
        """What the guest wrote to its first serial port; the last `lines` lines, or all (up to 1 MiB)."""
        return await asyncio.to_thread(read_console, self._folder(server_id), lines)

    async def vnc_address(self, server_id: str) -> str:
        """The path of the unix socket on which the guest's screen is served as RFB (RFC 6143), without password."""
        self._running_machine(server_id)
        return str(self._short_folder(server_id) / "vnc.sock")

    async def _chosen(self) -> Probe:
        if self._probe is None:
            raise HypervisorError("the hypervisor driver was not started")
        return await asyncio.shield(self._probe)

    async def _adopt(self, server_id: str, pid: int) -> None:
        """Take hold of a machine that runs from before. One that cannot be spoken to still counts as running."""
        folder = self._servers / server_id
        machine = Machine.of_found(server_id, pid, folder, self._short_folder(server_id) / "qmp.sock", self._ended)
        if machine is None:
            return
        self._machines[server_id] = machine
        await in_thread(self._rejoin, server_id, pid)
        try:
            await machine.connect()
        except HypervisorError as error:
            log.error("a running server was found but cannot be managed: %s", error)

    def _rejoin(self, server_id: str, pid: int) -> None:
        """The machine may have been started just before a crash, and not have come into its control group."""
        spec = _stored_spec(self._servers / server_id)
        if spec is not None:
            self._groups.join(server_id, pid, spec.vcpus)

    async def _run(self, spec: ServerSpec) -> Machine:
        """Start the machine of `spec`; there is none. Its files come first, so it can be found whatever happens."""
        probe = await self._chosen()
        folder, short = self._servers / spec.id, self._short_folder(spec.id)
        await in_thread(self._make_files, spec, folder)
        async with self._open_taps(spec) as taps:
            with process.listening_socket(short / "qmp.sock") as qmp:
                arguments = command_line(spec, folder, short, virt_type=probe.virt_type, qmp=qmp.fileno(), taps=taps)
                descriptors = [qmp.fileno(), *(taps or ())]
                machine = self._spawn(spec, folder, short, arguments, descriptors)
        try:
            await in_thread(self._groups.join, spec.id, machine.pid, spec.vcpus)
            await machine.connect()
            machine.asked = False
        except HypervisorError as error:
            await machine.kill()
            said = process.last_line(folder / "qemu.log")
            raise HypervisorError(f"QEMU did not start: {said} ({error})") from error
        return machine

    def _spawn(
        self, spec: ServerSpec, folder: Path, short: Path, arguments: list[str], descriptors: list[int]
    ) -> Machine:
        """Start the process and hold it, without an await between: a cancelled caller leaves no machine unheld."""
        pid = process.spawn(self._program, arguments, folder / "qemu.log", descriptors, self._servers)
        machine = Machine.of_child(spec.id, pid, short / "qmp.sock", self._ended)
        self._machines[spec.id] = machine
        self._crashed.discard(spec.id)
        machine.asked = True  # until it was reached, its end is the caller's error and no power change
        return machine

    def _make_files(self, spec: ServerSpec, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        with self._specs_kept:
            _write_spec(folder, spec)
        disk.ensure_disk(folder / "disk.qcow2", self._bases, spec.root)
        if spec.config_drive is not None:
            config_drive.write(folder / "config.iso", spec.config_drive)
        (folder / "qemu.log").unlink(missing_ok=True)

    def _record_nics(self, server_id: str, port_id: str, nic: Nic | None) -> None:
        """Keep what is stored of the machine true to its cards."""
        folder = self._servers / server_id
        spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=ServerSpec)
        others = tuple(one for one in spec.nics if one.port_id != port_id)
        _write_spec(folder, msgspec.structs.replace(spec, nics=others if nic is None else (*others, nic)))

    @contextlib.asynccontextmanager
    async def _open_taps(self, spec: ServerSpec) -> AsyncIterator[list[int] | None]:
        """Descriptors of the taps of all NICs; ours are closed at the end, QEMU's keep the devices."""
        if self._taps is None:
            yield None
            return
        opened: list[int] = []
        try:
            for nic in spec.nics:
                opened.append(await self._taps.open_tap(nic.network_id, nic.port_id, nic.mac))
            yield opened
        finally:
            for descriptor in opened:
                os.close(descriptor)

    async def _stop_machine(self, server_id: str, grace: float) -> None:
        machine = self._machines.get(server_id)
        if machine is not None:
            await machine.shut_down(grace)

    def _ended(self, machine: Machine) -> None:
        """A machine's process has ended; tell the listener if nobody here had asked for it."""
        if self._machines.get(machine.id) is machine:
            del self._machines[machine.id]
        if machine.power == "crashed":
            self._crashed.add(machine.id)
            said = process.last_line(self._servers / machine.id / "qemu.log")
            log.error("QEMU of server %s ended unexpectedly: %s", machine.id, said)
        self._groups.remove(machine.id)
        if not machine.asked and self._listener is not None:
            self._tell(self._listener, machine)

    def _tell(self, listener: PowerListener, machine: Machine) -> None:
        async def tell() -> None:
            try:
                await machine.kill()  # closes what is left of the connection
                await listener(machine.id, machine.power)
            except Exception:
                log.exception("the power change of server %s could not be told", machine.id)

        task = asyncio.create_task(tell(), name=f"power-change-{machine.id}")
        self._told.add(task)
        task.add_done_callback(self._told.discard)

    @contextlib.asynccontextmanager
    async def _locked(self, server_id: str) -> AsyncIterator[None]:
        """One call at a time for each server."""
        lock = self._locks.setdefault(server_id, asyncio.Lock())
        self._lock_users[server_id] += 1
        try:
            async with lock:
                yield
        finally:
            self._lock_users[server_id] -= 1
            if self._lock_users[server_id] == 0:
                del self._lock_users[server_id], self._locks[server_id]

    def _running_machine(self, server_id: str) -> Machine:
        machine = self._machines.get(server_id)
        if machine is None:
            raise HypervisorError(f"server {server_id} does not run on this host")
        return machine

    def _check_off(self, server_id: str) -> None:
        if server_id in self._machines:
            raise HypervisorError(f"server {server_id} runs: its disk cannot be exchanged")

    def _disk(self, server_id: str) -> Path:
        return self._servers / server_id / "disk.qcow2"

    def _folder(self, server_id: str) -> Path:
        folder = self._servers / server_id
        if not folder.is_dir():
            raise HypervisorError(f"this host holds no server {server_id}")
        return folder

    def _short_folder(self, server_id: str) -> Path:
        return self._short / "servers" / server_id


def _write_spec(folder: Path, spec: ServerSpec) -> None:
    new = folder / "spec.new"
    new.touch(mode=0o600)
    new.write_bytes(msgspec.json.encode(spec))
    new.rename(folder / "spec.json")


def _stored_spec(folder: Path) -> ServerSpec | None:
    """What a server was last made of; None if it was never made so far."""
    try:
        return msgspec.json.decode((folder / "spec.json").read_bytes(), type=ServerSpec)
    except FileNotFoundError:
        return None


def _short_name(directory: Path) -> Path:
    """A link to `directory` whose path leaves room for the names of unix sockets (108 bytes with all)."""
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    link = Path("/run" if os.access("/run", os.W_OK) else tempfile.gettempdir(), f"cumulet-{digest}")
    with contextlib.suppress(FileExistsError):
        link.symlink_to(directory)
    if link.resolve() != directory:
        raise HypervisorError(f"{link} is in the way; it should be a link to {directory}")
    return link
