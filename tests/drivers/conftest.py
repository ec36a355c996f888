"""Fixtures of the drivers' tests."""

import ctypes
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cumulet.services.compute.drivers import Hypervisor
from cumulet.services.compute.drivers.qemu import QemuHypervisor
from cumulet.services.compute.drivers.simulated import SimulatedHypervisor
from cumulet.services.network.drivers.linux import LinuxDataplane, namespace
from tests.drivers.dataplane_guest import ip
from tests.drivers.dataplane_site import Site, traces
from tests.drivers.hypervisor_guest import OBEYS, write_guest
from tests.drivers.hypervisor_site import QEMU, Make, clean_up


@pytest.fixture(scope="module")
def own_namespace() -> Iterator[None]:
    """Put the test run into a network namespace of its own, which stands for the host, and back."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as before:
        assert libc.unshare(namespace.CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        ip("link", "set", "lo", "up")
        yield
        assert libc.setns(before.fileno(), namespace.CLONE_NEWNET) == 0


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def linux(own_namespace: None, tmp_path: Path, prefix: str) -> AsyncIterator[LinuxDataplane]:
    """A driver, which must in the end leave the host as it found it."""
    before = traces(prefix, tmp_path)
    driver = LinuxDataplane(tmp_path / "dataplane", prefix, f"x{prefix}")
    await driver.start()
    yield driver
    await driver.remove_all()
    await driver.stop()
    assert traces(prefix, tmp_path) == before


@pytest.fixture
def site(linux: LinuxDataplane, prefix: str) -> Iterator[Site]:
    """The driver with guests to plug into it."""
    made = Site(linux, prefix)
    yield made
    made.close()


# -- the hypervisor's ------------------------------------------------------------------------------------------------


@pytest.fixture(params=[pytest.param("qemu", marks=QEMU), "simulated"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "compute"


@pytest.fixture
def make(kind: str, directory: Path) -> Make:
    """Makes a new driver object over the same directory, as a restarted program does."""
    if kind == "qemu":
        return lambda: QemuHypervisor(directory, None, virt_type="tcg", hostname="here")
    return lambda: SimulatedHypervisor(directory, hostname="here")


@pytest.fixture
async def driver(make: Make, kind: str, directory: Path) -> AsyncIterator[Hypervisor]:
    """A started driver. In the end every server is removed, and must have left nothing."""
    driver = make()
    await driver.start()
    yield driver
    await driver.stop()
    await clean_up(make, kind, directory)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_guest(tmp_path / "obeys.raw", OBEYS)
