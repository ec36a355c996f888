"""The hypervisor drivers: what changes a server while it lives. Network cards, snapshots, new disks."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import uvloop
from msgspec.structs import replace

from cumulet.services.compute.drivers import Hypervisor, HypervisorError, RootDisk, ServerSpec
from cumulet.services.compute.drivers.qemu import QemuHypervisor, card, disk
from cumulet.services.image import inspect
from cumulet.services.network.drivers import DataplaneError
from tests.drivers.hypervisor_guest import DEAF, write_guest
from tests.drivers.hypervisor_site import (
    CARD,
    Make,
    TunTaps,
    clean_up,
    guest_up,
    power,
    qemu_only,
    server,
)


async def test_cards_come_and_go_while_a_server_runs(driver: Hypervisor, make: Make, kind: str, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    if kind == "qemu":
        await guest_up(driver, spec.id)
    for one in (CARD, CARD, replace(CARD, port_id="second", mac="fa:16:3e:00:00:02")):
        await driver.attach_nic(spec.id, one)
    await driver.stop()
    again = make()
    await again.start()
    await again.attach_nic(spec.id, CARD)
    for port in (CARD.port_id, CARD.port_id, "second", "never there"):
        await again.detach_nic(spec.id, port)
    await again.attach_nic(spec.id, CARD)
    assert await power(again, spec.id) == "running"
    await again.stop()


async def test_a_server_that_is_off_gets_its_cards_at_its_start(driver: Hypervisor, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    await driver.ensure_stopped(spec.id, grace=0)
    await driver.attach_nic(spec.id, CARD)
    await driver.detach_nic(spec.id, CARD.port_id)
    assert (await driver.ensure_server(replace(spec, nics=(CARD,)))).power == "running"


async def test_a_snapshot_is_a_whole_image_and_can_be_repeated(driver: Hypervisor, image: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    for step in (None, driver.pause, driver.ensure_stopped):
        if step is not None:
            await step(spec.id)
        file = await driver.snapshot(spec.id)
        assert inspect.check(file, "qcow2", bare=True) == disk.virtual_size(file, "qcow2") > 0
        if shutil.which("qemu-img"):
            subprocess.run(["qemu-img", "check", "-q", str(file)], check=True)  # noqa: ASYNC221
        file.unlink()
    left = await driver.snapshot(spec.id)
    await driver.remove_server(spec.id)
    assert not left.exists()
    with pytest.raises(HypervisorError, match=spec.id):
        await driver.snapshot(spec.id)


async def test_a_removed_disk_leaves_the_server_off(
    driver: Hypervisor, kind: str, image: Path, directory: Path
) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    for _ in range(2):
        await driver.remove_disk(spec.id)
        assert await power(driver, spec.id) == "shutdown"
    other = write_guest(image.with_name("other.raw"), DEAF, size=2 * 1024**2)
    assert (await driver.ensure_server(replace(spec, root=RootDisk(str(other), "raw", "other")))).power == "running"
    if kind == "qemu":
        assert disk.virtual_size(directory / "servers" / spec.id / "disk.qcow2", "qcow2") == 2 * 1024**2


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/net/tun"), reason="needs root and /dev/net/tun")
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@qemu_only
def test_a_tap_is_plugged_in_on_either_loop(
    kind: str, directory: Path, image: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Descriptors go to a running machine on the loop that the program uses, and on Python's own."""

    async def scenario() -> None:
        taps = TunTaps()
        driver = QemuHypervisor(directory, taps, virt_type="tcg")
        await driver.start()
        spec = server(image)
        await driver.ensure_server(spec)
        await guest_up(driver, spec.id)
        for _ in range(2):
            await driver.attach_nic(spec.id, CARD)
        assert len(taps.names) == 1
        assert taps.present() == taps.names  # though our own descriptor is closed
        await _leave_a_descriptor(driver, spec.id)
        for _ in range(2):
            await driver.detach_nic(spec.id, CARD.port_id)
        assert taps.present() == []
        await driver.attach_nic(spec.id, CARD)
        with pytest.raises(DataplaneError):
            await driver.attach_nic(spec.id, replace(CARD, port_id="third"))
        stored = msgspec.json.decode((directory / "servers" / spec.id / "spec.json").read_bytes(), type=ServerSpec)
        assert stored.nics == (CARD,)
        await driver.stop()
        await clean_up(lambda: QemuHypervisor(directory, taps, virt_type="tcg"), kind, directory)
        assert taps.present() == []

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


async def _leave_a_descriptor(driver: QemuHypervisor, server_id: str) -> None:
    """What a crash leaves that came between giving QEMU a descriptor and using it."""
    machine = driver._machines[server_id]
    descriptor = os.open(os.devnull, os.O_RDONLY)
    await machine.send_descriptor(f"net-{CARD.port_id}", descriptor)
    os.close(descriptor)


@qemu_only
async def test_a_guest_that_keeps_its_card_is_an_error(
    driver: Hypervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "UNPLUG_SECONDS", 0.5)
    monkeypatch.setattr(card, "ASK_SECONDS", 0.2)
    spec = server(write_guest(tmp_path / "deaf.raw", DEAF))
    await driver.ensure_server(spec)
    await guest_up(driver, spec.id)
    await driver.attach_nic(spec.id, CARD)
    with pytest.raises(HypervisorError, match="did not let go"):
        await driver.detach_nic(spec.id, CARD.port_id)
    assert await power(driver, spec.id) == "running"


@qemu_only
async def test_a_snapshot_of_a_running_server_is_its_disk(driver: Hypervisor, directory: Path, image: Path) -> None:
    with image.open("r+b") as data:
        data.seek(4096)
        data.write(b"content" * 1000)
    spec = server(image)
    await driver.ensure_server(spec)
    left = directory / "left.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", left, "1M"], check=True)  # noqa: ASYNC221
    assert isinstance(driver, QemuHypervisor)
    machine = driver._machines[spec.id]
    node = {"node-name": "snapshot", "driver": "qcow2", "file": {"driver": "file", "filename": str(left)}}
    await machine.execute("blockdev-add", dict(node))  # a crash came in between
    job = {
        "job-id": "snapshot",
        "device": "root",
        "target": "snapshot",
        "sync": "full",
        "speed": 1,
        "auto-dismiss": False,
    }
    await machine.execute("blockdev-backup", dict(job))
    file = await driver.snapshot(spec.id)
    raw = file.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", file, raw], check=True)  # noqa: ASYNC221
    assert await asyncio.to_thread(raw.read_bytes) == await asyncio.to_thread(image.read_bytes)
    again = server(file, root=RootDisk(str(file), "qcow2", "snapshot"))
    await driver.ensure_server(again)
    await guest_up(driver, again.id)


async def test_a_disk_grows_and_can_be_had_back(driver: Hypervisor, kind: str, image: Path, directory: Path) -> None:
    spec = server(image)
    await driver.ensure_server(spec)
    await driver.ensure_stopped(spec.id, grace=0)
    folder = directory / "servers" / spec.id

    def size() -> int:
        return disk.virtual_size(folder / "disk.qcow2", "qcow2") if kind == "qemu" else 0

    before = size()
    for gigabytes in (1, 1, 2):
        await driver.grow_disk(spec.id, gigabytes)
    assert kind != "qemu" or size() == 2 * disk.GIB
    assert (await driver.ensure_server(replace(spec, memory_mb=48))).power == "running"
    await driver.ensure_stopped(spec.id, grace=0)
    for _ in range(2):
        await driver.restore_disk(spec.id)
        assert size() == before
    await driver.grow_disk(spec.id, 1)
    for _ in range(2):
        await driver.drop_kept_disk(spec.id)
        await driver.restore_disk(spec.id)
    assert kind != "qemu" or size() == disk.GIB
    assert (await driver.ensure_server(spec)).power == "running"
    if kind == "qemu":
        with pytest.raises(HypervisorError, match="runs"):
            await driver.grow_disk(spec.id, 4)
