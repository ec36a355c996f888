"""A delete that supersedes a build, at any moment of it: the real hypervisor is left with nothing of the server."""

import asyncio
import random
import shutil
import uuid
from pathlib import Path

import pytest

from cumulet.services.compute.drivers import RootDisk, ServerSpec
from cumulet.services.compute.drivers.qemu import QemuHypervisor, cgroup, process
from tests.drivers.hypervisor_guest import OBEYS, write_guest

TIMES = 50
MISSING = [tool for tool in ("qemu-system-x86_64", "qemu-img", "genisoimage") if not shutil.which(tool)]
pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed"),
]


def groups(server_id: str) -> list[Path]:
    return [parent / server_id for parent in cgroup.find().parents if (parent / server_id).exists()]


async def test_delete_during_build_leaves_nothing(tmp_path: Path) -> None:
    image = write_guest(tmp_path / "obeys.raw", OBEYS)
    driver = QemuHypervisor(tmp_path / "compute", None, virt_type="tcg", hostname="here")
    await driver.start()
    dice = random.Random(4)
    known = []
    try:
        for _ in range(TIMES):
            drive = {"openstack/latest/meta_data.json": b"{}"} if dice.random() < 0.5 else None
            spec = ServerSpec(
                str(uuid.uuid4()), "tiny", 1, 32, RootDisk(str(image), "raw", "obeys"), config_drive=drive
            )
            known.append(spec.id)
            build = asyncio.create_task(driver.ensure_server(spec))
            await asyncio.wait([build], timeout=dice.uniform(0, 0.4))
            build.cancel()
            await asyncio.gather(build, return_exceptions=True)
            await driver.remove_server(spec.id)
            assert await driver.observe() == {}
            assert process.running(tmp_path / "compute/servers") == {}
            assert groups(spec.id) == []
    finally:
        for server_id in await driver.observe():
            await driver.remove_server(server_id)
        await driver.stop()
    await asyncio.get_running_loop().shutdown_default_executor()  # whatever a thread still did, it has done now
    assert list((tmp_path / "compute/servers").rglob("*")) == []
    assert [group for server_id in known for group in groups(server_id)] == []
