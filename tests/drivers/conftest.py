"""Fixtures of the drivers' tests."""

import ctypes
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cumulet.services.network.drivers.linux import LinuxDataplane, namespace
from tests.drivers.dataplane_guest import ip
from tests.drivers.dataplane_site import Site, traces


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
