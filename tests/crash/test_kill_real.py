"""SIGKILL at random moments under load, with real machines and networks; afterwards everything is accounted for."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import ProcessCloud
from tests.crash import host
from tests.crash.host import real_cloud
from tests.crash.load import Load, delete_all, kill_again_and_again, set_up, settled
from tests.drivers.hypervisor_guest import OBEYS, boot_sector

ROUNDS = 7
SERVERS = 5
SEED = int(os.environ.get("CRASH_SEED", "2"))
"""What the clients do and when the kills come; set another one to try other moments."""

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def real(tmp_path: Path) -> Iterator[ProcessCloud]:
    with real_cloud(tmp_path) as cloud:
        yield cloud


def test_sigkill_loses_nothing_and_leaves_nothing(real: ProcessCloud) -> None:
    site = set_up(real, boot_sector(OBEYS), servers=SERVERS, sides=3)
    load = Load(real, site, clients=3, seed=SEED)

    def enough() -> bool:
        return len(load.servers.promised) > SERVERS

    kill_again_and_again(real, load, rounds=ROUNDS, dice=random.Random(SEED), enough=enough)
    servers = load.check()
    assert enough(), "too little was done to prove anything"
    host.check_host(real, servers)
    delete_all(real, site)
    host.check_host(real, [])
    start, known = host.prefix(real), host.ever(real)
    real.stop()
    real.run(sys.executable, "-m", "cumulet", "reset", "--yes", "--data", str(real.data))
    host.check_gone(real, start, known)


def test_reset_after_sigkill_leaves_nothing(real: ProcessCloud) -> None:
    site = set_up(real, boot_sector(OBEYS), servers=SERVERS, sides=3)
    load = Load(real, site, clients=3, seed=SEED)
    kill_again_and_again(real, load, rounds=1, dice=random.Random(SEED))
    settled(real)
    start, known = host.prefix(real), host.ever(real)
    real.kill()
    real.run(sys.executable, "-m", "cumulet", "reset", "--yes", "--data", str(real.data))
    host.check_gone(real, start, known)
