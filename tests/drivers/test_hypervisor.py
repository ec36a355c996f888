"""The hypervisor drivers: one contract for both, and for `qemu` real machines, restarts and SIGKILL."""

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from cumulet.services.compute.drivers import Hypervisor, HypervisorError, Nic, Power, RootDisk, ServerSpec
from cumulet.services.compute.drivers.qemu import QemuHypervisor, cgroup, config_drive, console, disk, process
from cumulet.services.compute.drivers.simulated import SimulatedHypervisor
from cumulet.services.network.drivers import DataplaneError
from tests.drivers.hypervisor_guest import DEAF, OBEYS, write_guest
from tests.drivers.hypervisor_site import (
    CARD,
    PATIENCE,
    Make,
    TunTaps,
    clean_up,
    guest_up,
    power,
    press,
    qemu_only,
    server,
)

# -- the contract, both drivers --------------------------------------------------------------------------------------


async def test_host_says_what_it_is_and_why(driver: Hypervisor, kind: str) -> None:
    host = await driver.host_info()
    assert host.hostname == "here"
    assert host.virt_type == {"qemu": "qemu", "simulated": "simulated"}[kind]
    assert host.reason.endswith(".") and host.hypervisor_version > 0
    assert min(host.vcpus, host.memory_mb, host.disk_gb) > 0


async def test_ensure_runs_a_server_and_changes_nothing_when_repeated(driver: Hypervisor, image: Path) -> None:
    spec = server(image)
    first = await driver.ensure_server(spec)
    assert first.power == "running"
    assert await driver.ensure_server(spec) == first
    assert await driver.observe() == {spec.id: first}


async def test_stop_keeps_the_server_and_can_be_repeated(driver: Hypervisor, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    await driver.ensure_stopped(spec.id, grace=0)
    await driver.ensure_stopped(spec.id, grace=0)
    assert await power(driver, spec.id) == "shutdown"
    assert (await driver.ensure_server(spec)).power == "running"


async def test_pause_and_unpause(driver: Hypervisor, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    for _ in range(2):
        await driver.pause(spec.id)
        assert await power(driver, spec.id) == "paused"
    await driver.unpause(spec.id)
    assert await power(driver, spec.id) == "running"
    await driver.pause(spec.id)
    assert (await driver.ensure_server(spec)).power == "running"


@pytest.mark.parametrize("hard", [False, True])
async def test_reboot_runs_it_again_even_if_it_was_off(driver: Hypervisor, image: Path, hard: bool) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    await driver.reboot(spec, hard=hard, grace=0)
    assert await power(driver, spec.id) == "running"
    await driver.ensure_stopped(spec.id, grace=0)
    await driver.reboot(spec, hard=hard, grace=0)
    assert await power(driver, spec.id) == "running"


async def test_remove_leaves_nothing_and_can_be_repeated(driver: Hypervisor, image: Path) -> None:
    spec, other = server(image), server(image)
    await asyncio.gather(driver.ensure_server(spec), driver.ensure_server(other))
    await driver.remove_server(spec.id)
    await driver.remove_server(spec.id)
    assert set(await driver.observe()) == {other.id}
    with pytest.raises(HypervisorError, match=spec.id):
        await driver.console_log(spec.id)


async def test_unknown_servers(driver: Hypervisor) -> None:
    unknown = str(uuid.uuid4())
    await driver.attach_nic(unknown, CARD)
    await driver.detach_nic(unknown, CARD.port_id)
    await driver.ensure_stopped(unknown)
    await driver.remove_server(unknown)
    await driver.remove_disk(unknown)
    for call in (driver.pause, driver.unpause, driver.vnc_address, driver.console_log):
        with pytest.raises(HypervisorError, match=unknown):
            await call(unknown)
    assert await driver.observe() == {}


async def test_a_stopped_server_cannot_be_paused(driver: Hypervisor, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    await driver.ensure_stopped(spec.id, grace=0)
    with pytest.raises(HypervisorError, match="does not run"):
        await driver.pause(spec.id)


async def test_a_new_driver_finds_every_server_as_it_was(driver: Hypervisor, make: Make, image: Path) -> None:
    running, paused, stopped, removed = (server(image) for _ in range(4))
    await asyncio.gather(*(driver.ensure_server(spec) for spec in (running, paused, stopped, removed)))
    await driver.pause(paused.id)
    await driver.ensure_stopped(stopped.id, grace=0)
    await driver.remove_server(removed.id)
    before = await driver.observe()
    await driver.stop()
    again = make()
    await again.start()
    assert await again.observe() == before
    await again.unpause(paused.id)
    assert (await again.ensure_server(running)) == before[running.id]
    await again.stop()


async def test_console_log_by_lines(driver: Hypervisor, kind: str, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    if kind == "qemu":
        await guest_up(driver, spec.id)
        assert (await driver.console_log(spec.id, 1)).strip() == "guest up"
    else:
        assert "simulated" in await driver.console_log(spec.id, 1)
    assert await driver.console_log(spec.id, 0) == ""


# -- qemu: real machines ---------------------------------------------------------------------------------------------


@qemu_only
async def test_soft_stop_lets_the_guest_end_itself(driver: Hypervisor, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    await guest_up(driver, spec.id)
    async with asyncio.timeout(PATIENCE):
        await driver.ensure_stopped(spec.id, grace=2 * PATIENCE)
    assert await power(driver, spec.id) == "shutdown"


@qemu_only
async def test_soft_reboot_of_a_deaf_guest_goes_on_hard(driver: Hypervisor, tmp_path: Path) -> None:
    spec = server(write_guest(tmp_path / "deaf.raw", DEAF))
    first = await driver.ensure_server(spec)
    await guest_up(driver, spec.id)
    await driver.reboot(spec, hard=False, grace=0.3)
    await guest_up(driver, spec.id, times=2)
    assert (await driver.observe())[spec.id].pid != first.pid


@qemu_only
async def test_the_listener_hears_of_what_nobody_asked_for(
    make: Make, kind: str, directory: Path, tmp_path: Path, image: Path
) -> None:
    heard: asyncio.Queue[tuple[str, Power]] = asyncio.Queue()

    async def listener(server_id: str, state: Power) -> None:
        await heard.put((server_id, state))

    driver = make()
    await driver.start(listener)
    leaves = server(image)
    killed, asked = (server(write_guest(tmp_path / "deaf.raw", DEAF)) for _ in range(2))
    await driver.ensure_server(asked)
    await driver.ensure_stopped(asked.id, grace=0)
    await driver.ensure_server(leaves)
    await guest_up(driver, leaves.id)
    await press(driver, leaves.id)
    assert await asyncio.wait_for(heard.get(), PATIENCE) == (leaves.id, "shutdown")
    pid = (await driver.ensure_server(killed)).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert await asyncio.wait_for(heard.get(), PATIENCE) == (killed.id, "crashed")
    assert {state.id: state.power for state in (await driver.observe()).values()} == {
        asked.id: "shutdown",
        leaves.id: "shutdown",
        killed.id: "crashed",
    }
    assert (await driver.ensure_server(killed)).power == "running"
    assert heard.empty()
    await driver.stop()
    await clean_up(make, kind, directory)


@qemu_only
async def test_an_adopted_machine_is_heard_of_too(driver: Hypervisor, make: Make, image: Path) -> None:
    heard: asyncio.Queue[Power] = asyncio.Queue()
    spec = server(image)
    await driver.ensure_server(spec)
    await guest_up(driver, spec.id)
    await driver.pause(spec.id)
    await driver.stop()
    again = make()

    async def listener(server_id: str, state: Power) -> None:
        await heard.put(state)

    await again.start(listener)
    await again.unpause(spec.id)
    await press(again, spec.id)
    assert await asyncio.wait_for(heard.get(), PATIENCE) == "shutdown"
    await again.stop()


@qemu_only
async def test_the_screen_is_served_as_rfb(driver: Hypervisor, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    reader, writer = await asyncio.open_unix_connection(await driver.vnc_address(spec.id))
    assert await asyncio.wait_for(reader.readexactly(12), PATIENCE) == b"RFB 003.008\n"
    writer.close()
    await writer.wait_closed()


@qemu_only
async def test_a_deep_data_directory_still_gives_sockets(kind: str, tmp_path: Path, image: Path) -> None:
    deep = tmp_path / ("d" * 100) / "compute"
    driver = QemuHypervisor(deep, None, virt_type="tcg")
    await driver.start()
    spec = server(image)
    await driver.ensure_server(spec)
    address = await driver.vnc_address(spec.id)
    assert len(address) < 108
    _, writer = await asyncio.open_unix_connection(address)
    writer.close()
    await writer.wait_closed()
    await driver.stop()
    await clean_up(lambda: QemuHypervisor(deep, None, virt_type="tcg"), kind, deep)
    assert not Path(address).parents[2].exists()


@qemu_only
async def test_disk_and_config_drive(driver: Hypervisor, directory: Path, image: Path) -> None:
    spec = server(image, config_drive={"openstack/latest/meta_data.json": b"{}", "openstack/latest/user_data": b"#!"})
    spec = replace(spec, root=replace(spec.root, size_gb=2), nics=(Nic("port", "net", "fa:16:3e:00:00:01", 1450),))
    await driver.ensure_server(spec)
    folder = directory / "servers" / spec.id
    assert disk.virtual_size(folder / "disk.qcow2", "qcow2") == 2 * disk.GIB
    made = (folder / "disk.qcow2").stat().st_ino
    assert b"config-2" in (folder / "config.iso").read_bytes()[0x8000:0x8800]
    await driver.reboot(spec, hard=True)
    assert (folder / "disk.qcow2").stat().st_ino == made
    assert folder.stat().st_mode & 0o077 == 0


@qemu_only
async def test_errors_name_the_cause_and_leave_no_machine(driver: Hypervisor, directory: Path, image: Path) -> None:
    big = write_guest(image.with_name("big.raw"), OBEYS, size=2 * disk.GIB)
    with pytest.raises(HypervisorError, match="needs a disk of 2 GB, the flavor gives 1 GB"):
        await driver.ensure_server(server(big, root=RootDisk(str(big), "raw", "big", 1)))
    with pytest.raises(HypervisorError, match="gone"):
        await driver.ensure_server(server(image, root=RootDisk("/nowhere/image", "raw", "gone")))
    with pytest.raises(HypervisorError, match=r"QEMU did not start: .*memory"):
        await driver.ensure_server(server(image, memory_mb=2**40))
    with pytest.raises(HypervisorError, match=r"'\.\./out'"):
        await driver.ensure_server(server(image, config_drive={"../out": b""}))
    assert process.running(directory / "servers") == {}


@qemu_only
async def test_calls_for_one_server_wait_for_each_other(driver: Hypervisor, directory: Path, image: Path) -> None:
    spec = server(image)
    states = await asyncio.gather(*(driver.ensure_server(spec) for _ in range(5)))
    assert len({state.pid for state in states}) == 1
    assert len(process.running(directory / "servers")) == 1
    await asyncio.gather(driver.reboot(spec, hard=True), driver.remove_server(spec.id), driver.ensure_server(spec))
    assert len(process.running(directory / "servers")) == 1


@qemu_only
async def test_a_cancelled_start_is_taken_up_by_the_next(driver: Hypervisor, directory: Path, image: Path) -> None:
    spec = server(image)
    for delay in (0.0, 0.02, 0.05, 0.08, 0.12):
        start = asyncio.create_task(driver.ensure_server(spec))
        await asyncio.sleep(delay)
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
    state = await driver.ensure_server(spec)
    assert process.running(directory / "servers") == {spec.id: state.pid}
    await driver.pause(spec.id)


@qemu_only
async def test_unused_bases_go_at_the_next_start(driver: Hypervisor, make: Make, directory: Path, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    (directory / "base" / "unused.qcow2").touch()
    again = make()
    await driver.stop()
    await again.start()
    assert [file.name for file in (directory / "base").iterdir()] == ["obeys.raw"]
    await again.stop()


@qemu_only
async def test_a_recycled_process_id_is_never_taken_for_a_server(
    directory: Path, make: Make, driver: Hypervisor
) -> None:
    folder = directory / "servers" / str(uuid.uuid4())
    folder.mkdir()
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    (folder / "qemu.pid").write_text(str(bystander.pid))
    await driver.stop()
    again = make()
    await again.start()
    assert await power(again, folder.name) == "shutdown"
    await again.remove_server(folder.name)
    await again.stop()
    assert bystander.returncode is None
    bystander.kill()
    await bystander.wait()


def test_a_long_console_log_is_cut_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / console.NAME
    log.write_bytes(b"old\n" * console.TRIM_BYTES + b"the end\n")
    assert len(console.read_console(tmp_path, None)) == console.KEEP_BYTES
    console.trim_console([tmp_path])
    assert log.stat().st_size == console.KEEP_BYTES
    assert console.read_console(tmp_path, 2) == "old\nthe end\n"


@pytest.mark.skipif(not shutil.which("genisoimage"), reason="genisoimage is not installed")
def test_a_config_drive_is_replaced_whole(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        config_drive.write(tmp_path / "config.iso", {"openstack/latest/user_data": content})
    assert b"second" in (tmp_path / "config.iso").read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["config.iso"]


def test_cgroup_version_2(tmp_path: Path) -> None:
    """Against a folder laid out like version 2, since hosts with version 1 cannot have both."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    groups = cgroup.find(tmp_path)
    assert groups.version == 2 and groups.parents == (tmp_path / "cumulet",)
    (tmp_path / "cumulet" / "id").mkdir()
    (tmp_path / "cumulet" / "id" / "cpu.weight").touch()
    groups.join("id", 42, vcpus=3)
    assert (tmp_path / "cumulet" / "id" / "cpu.weight").read_text() == "300"
    assert (tmp_path / "cumulet" / "id" / "cgroup.procs").read_text() == "42"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/net/tun"), reason="needs root and /dev/net/tun")
@qemu_only
async def test_taps_belong_to_the_machine_alone(kind: str, directory: Path, image: Path) -> None:
    taps = TunTaps()
    driver = QemuHypervisor(directory, taps, virt_type="tcg")
    await driver.start()
    nics = tuple(Nic(f"port-{number}", "net", f"fa:16:3e:00:00:0{number}", 1400) for number in range(3))
    with pytest.raises(DataplaneError):
        await driver.ensure_server(server(image, nics=nics))
    assert taps.present() == []
    taps.names.clear()
    spec = server(image, nics=nics[:2])
    await driver.ensure_server(spec)
    assert len(taps.present()) == 2  # though our own descriptors are closed
    await driver.remove_server(spec.id)
    assert taps.present() == []
    await driver.stop()
    await clean_up(lambda: QemuHypervisor(directory, taps, virt_type="tcg"), kind, directory)


# -- SIGKILL ---------------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, sys
from pathlib import Path
from cumulet.services.compute.drivers import RootDisk, ServerSpec
from cumulet.services.compute.drivers.qemu import QemuHypervisor
from cumulet.services.compute.drivers.simulated import SimulatedHypervisor

async def churn(driver, server_id, image):
    spec = ServerSpec(server_id, "tiny", 1, 32, RootDisk(image, "raw", "deaf"))
    while True:
        await driver.ensure_server(spec)
        print("step", flush=True)
        await driver.reboot(spec, hard=True)
        await driver.remove_server(server_id)

async def main(kind, directory, image, *ids):
    if kind == "qemu":
        driver = QemuHypervisor(Path(directory), None, virt_type="tcg")
    else:
        driver = SimulatedHypervisor(Path(directory))
    await driver.start()
    await asyncio.gather(*(churn(driver, server_id, image) for server_id in ids))

asyncio.run(main(*sys.argv[1:]))
"""


ABOUT_TO_BE_A_MACHINE = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
fcntl.flock(handle, fcntl.LOCK_SH)
print("begun", flush=True)
sys.stdin.readline()
os.execv("/bin/sh", ["qemu-system-x86_64", "-c", "read more", "-pidfile", sys.argv[2]])
"""


def test_a_machine_that_was_begun_when_the_program_was_killed_is_waited_for(tmp_path: Path) -> None:
    """Between fork and exec a machine cannot be told from its parent: a program that starts then would make it twice."""
    servers = tmp_path / "servers"
    arguments = [str(tmp_path / "starting"), str(servers / "one" / "qemu.pid")]
    child = subprocess.Popen(
        [sys.executable, "-c", ABOUT_TO_BE_A_MACHINE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None and child.stdout is not None
    with child, ThreadPoolExecutor(1) as pool:
        try:
            assert child.stdout.readline() == b"begun\n"
            found = pool.submit(process.running, servers)
            with pytest.raises(TimeoutError):
                found.result(0.3)
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert found.result(PATIENCE) == {"one": child.pid}
        finally:
            child.kill()


@pytest.mark.slow
async def test_sigkill_at_any_moment_loses_no_machine(make: Make, kind: str, directory: Path, tmp_path: Path) -> None:
    image = write_guest(tmp_path / "deaf.raw", DEAF)
    chance = random.Random(7)
    ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(3)]
    try:
        for _ in range(8):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CHILD, kind, str(directory), str(image), *ids, stdout=asyncio.subprocess.PIPE
            )
            assert child.stdout is not None
            assert await asyncio.wait_for(child.stdout.readline(), PATIENCE) == b"step\n"
            await asyncio.sleep(chance.uniform(0, 0.5))
            child.kill()
            child._transport.close()  # type: ignore[attr-defined]
            await child.wait()
            driver = make()
            await driver.start()
            try:
                seen = await driver.observe()
                assert set(seen) <= set(ids)
                if kind == "qemu":
                    running = {server_id: state.pid for server_id, state in seen.items() if state.power == "running"}
                    assert process.running(directory / "servers") == running
                for server_id in ids:
                    spec = ServerSpec(server_id, "tiny", 1, 32, RootDisk(str(image), "raw", "deaf"))
                    assert (await driver.ensure_server(spec)).power == "running"
            finally:
                await driver.stop()
    finally:
        await clean_up(make, kind, directory)


def test_the_simulated_journal_survives_a_line_cut_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        driver = SimulatedHypervisor(tmp_path)
        await driver.start()
        for number in range(3):
            await driver.ensure_server(ServerSpec(str(number), "s", 1, 1, RootDisk("", "raw", "i")))
        await driver.stop()
        with (tmp_path / "simulated-servers.journal").open("ab") as journal:
            journal.write(b'{"id":"2","pow')
        again = SimulatedHypervisor(tmp_path)
        await again.start()
        assert {state.power for state in (await again.observe()).values()} == {"running"}
        assert len(await again.observe()) == 3
        await again.stop()

    asyncio.run(scenario())


def test_socket_paths_fit_with_room(tmp_path: Path) -> None:
    """The kernel's limit, which the short name is for, is what it was taken to be."""
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(OSError, match="too long"):
        listener.bind("/" + "x" * 108)
