"""What the hypervisor's tests share: servers to start, and looking at them."""

import asyncio
import fcntl
import os
import shutil
import struct
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from cumulet.services.compute.drivers import Hypervisor, Nic, Power, RootDisk, ServerSpec
from cumulet.services.compute.drivers.qemu import QemuHypervisor, cgroup, process
from cumulet.services.network.drivers import DataplaneError

NO_QEMU = [
    f"{tool} is not installed" for tool in ("qemu-system-x86_64", "qemu-img", "genisoimage") if not shutil.which(tool)
]
QEMU = [pytest.mark.qemu, pytest.mark.skipif(bool(NO_QEMU), reason="; ".join(NO_QEMU) or "QEMU is here")]
qemu_only = pytest.mark.parametrize("kind", [pytest.param("qemu", marks=QEMU)])

PATIENCE = 60.0
"""Seconds for what must come: far more than it takes, but the machine may be busy with other things."""

Make = Callable[[], Hypervisor]
"""Makes a new driver object over the same directory, as a restarted program does."""
CARD = Nic("aaaaaaaa-0000-4000-8000-000000000001", "net", "fa:16:3e:00:00:01", 1450)


def server(image: Path, **changes: object) -> ServerSpec:
    spec = ServerSpec(str(uuid.uuid4()), "tiny", 1, 32, RootDisk(str(image), "raw", image.stem))
    return replace(spec, **changes)


async def clean_up(make: Make, kind: str, directory: Path) -> None:
    last = make()
    await last.start()
    ids = set(await last.observe())
    await asyncio.gather(*(last.remove_server(server_id) for server_id in ids))
    assert await last.observe() == {}
    await last.stop()
    if kind == "qemu":
        assert process.running(directory / "servers") == {}
        assert list((directory / "servers").iterdir()) == []
        assert [group for parent in cgroup.find().parents for group in parent.glob("*-*") if group.name in ids] == []


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition; fail after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        await asyncio.sleep(0.02)


async def guest_up(driver: Hypervisor, server_id: str, times: int = 1) -> None:
    async def said() -> bool:
        return (await driver.console_log(server_id)).count("guest up") >= times

    await until(said, "the guest speaks on its serial port")


async def power(driver: Hypervisor, server_id: str) -> Power | None:
    state = (await driver.observe()).get(server_id)
    return state.power if state else None


async def press(driver: Hypervisor, server_id: str) -> None:
    """Press the power button behind the driver's back: to it, the guest powers off by itself."""
    assert isinstance(driver, QemuHypervisor)
    await driver._machines[server_id].execute("system_powerdown")


class TunTaps:
    """Taps without a network, in the namespace of the test run; the third cannot be opened."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def open_tap(self, network_id: str, port_id: str, mac: str) -> int:
        if len(self.names) == 2:
            raise DataplaneError(f"no tap for port {port_id}")
        self.names.append(f"tt{uuid.uuid4().hex[:10]}")
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", self.names[-1].encode(), 0x5002))  # TUNSETIFF
        return descriptor

    def present(self) -> list[str]:
        return [name for name in self.names if Path("/sys/class/net", name).exists()]
