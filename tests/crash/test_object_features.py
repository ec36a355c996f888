"""SIGKILL at random moments while all features of object storage are used at once: what was acknowledged is there, byte for
byte, what was not can be done again; listings, counts and files agree, and nothing stays on its way."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import ProcessCloud
from tests.crash.killing import kill_while, seeded, simulated_cloud, turns
from tests.crash.object_disk import settled
from tests.crash.object_users import Site, User, all_at_once
from tests.crash.object_users_large import Bulk, Copies, Dynamic, Static
from tests.crash.object_users_more import Accounts, Boxes, Expiring, Quotas
from tests.crash.object_users_s3 import Kept, Parts, Rules
from tests.crash.object_users_versions import History, Stack, Versioned

ROUNDS = 4
USERS = (
    Versioned,
    Stack,
    History,
    Static,
    Dynamic,
    Bulk,
    Copies,
    Boxes,
    Quotas,
    Expiring,
    Accounts,
    Parts,
    Rules,
    Kept,
)
OFTEN = {
    "CUMULET_OBJECT_UPDATE_INTERVAL": "0.3",
    "CUMULET_OBJECT_EXPIRER_INTERVAL": "0.3",
    "CUMULET_OBJECT_EXPIRER_RATE": "1000",
    "CUMULET_OBJECT_REAPER_INTERVAL": "0.5",
    "CUMULET_S3_LIFECYCLE_INTERVAL": "1",
    "CUMULET_OBJECT_RESELLER_ADMIN_ROLES": "admin",
}


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def cloud(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ProcessCloud]:
    settings = {**OFTEN, "CUMULET_OBJECT_ENCRYPTION": str(request.param).lower()}
    with simulated_cloud(tmp_path, environment=settings) as cloud:
        yield cloud


def test_kill_while_all_features_are_used(cloud: ProcessCloud) -> None:
    with seeded() as seed:
        kill_while_all_are_at_work(cloud, seed)


def kill_while_all_are_at_work(cloud: ProcessCloud, seed: int) -> None:
    dice = random.Random(seed)
    site = Site(cloud)
    site.log_in()
    users: list[User] = [kind(site, str(seed)) for kind in USERS]
    all_at_once(users, lambda user: user.prepare())

    def lazy() -> list[str]:
        return [type(user).__name__ for user in users if user.done < ROUNDS]

    over = threading.Event()
    for _ in turns(ROUNDS, lambda: not lazy()):
        kill_while(cloud, [user.work for user in users], over, dice.uniform(0.5, 2))
        for user in users:
            user.leave()
        cloud.start()
        site.log_in()
        for user in users:
            user.renew()
        settled(cloud.data)
        all_at_once(users, lambda user: user.look_at_all())
        settled(cloud.data)
    assert not lazy(), f"too little was done to prove anything: {lazy()}"
