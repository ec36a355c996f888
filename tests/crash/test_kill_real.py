"""SIGKILL at random moments under load, with real machines and networks; afterwards everything is accounted for."""

import os
import random
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import ProcessCloud, inside, network_namespace
from tests.crash import host
from tests.crash.load import Load, delete_all, kill_again_and_again, set_up, settled
from tests.drivers.hypervisor_guest import OBEYS, write_guest

ROUNDS = 7
SERVERS = 5
SEED = int(os.environ.get("CUMULET_CRASH_SEED", "2"))
"""What the clients do and when the kills come; set another one to try other moments."""
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "genisoimage", "dnsmasq", "nft", "ip", "conntrack", "ss", "nsenter")

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(600)]


def why_not() -> str:
    """Why the real thing cannot run here, or nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"needs {', '.join(missing)}" if missing else ""


@pytest.fixture
def real(tmp_path: Path) -> Iterator[ProcessCloud]:
    if reason := why_not():
        pytest.skip(reason)
    options = ("--hypervisor", "qemu", "--network", "linux", "--virt-type", "tcg")
    with network_namespace(f"cucrash-{uuid.uuid4().hex[:6]}") as name, inside(name):
        cloud = ProcessCloud(tmp_path / "data", *options, namespace=name)
        try:
            cloud.start()
            yield cloud
        finally:
            cloud.destroy()


@pytest.fixture
def guest(tmp_path: Path) -> bytes:
    """An image that boots in no time, does nothing, and obeys the power button."""
    return write_guest(tmp_path / "guest.raw", OBEYS).read_bytes()


def test_sigkill_loses_nothing_and_leaves_nothing(real: ProcessCloud, guest: bytes) -> None:
    site = set_up(real, guest, servers=SERVERS, sides=3)
    load = Load(real, site, clients=3, seed=SEED)
    kill_again_and_again(real, load, rounds=ROUNDS, dice=random.Random(SEED))
    servers = load.check()
    assert len(load.servers.promised) > SERVERS
    host.check_host(real, servers)
    delete_all(real, site)
    host.check_host(real, [])
    start, known = host.prefix(real), host.ever(real)
    real.stop()
    real.run(sys.executable, "-m", "cumulet", "reset", "--yes", "--data", str(real.data))
    host.check_gone(real, start, known)


def test_reset_after_sigkill_leaves_nothing(real: ProcessCloud, guest: bytes) -> None:
    site = set_up(real, guest, servers=SERVERS, sides=3)
    load = Load(real, site, clients=3, seed=SEED)
    kill_again_and_again(real, load, rounds=1, dice=random.Random(SEED))
    settled(real)
    start, known = host.prefix(real), host.ever(real)
    real.kill()
    real.run(sys.executable, "-m", "cumulet", "reset", "--yes", "--data", str(real.data))
    host.check_gone(real, start, known)
