"""SIGKILL at random moments while all features of object storage are used at once: what was acknowledged is there, byte for
byte, what was not can be done again; listings, counts and files agree, and nothing stays on its way."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import ProcessCloud
from tests.crash.load import turns
from tests.crash.object_disk import settled
from tests.crash.object_users import Site, User, all_at_once, kill_while_they_work
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
    cloud = ProcessCloud(tmp_path / "data", "--hypervisor", "simulated", "--network", "simulated", environment=settings)
    cloud.start()
    yield cloud
    cloud.destroy()


def test_kill_while_all_features_are_used(cloud: ProcessCloud) -> None:
    seed = int(os.environ.get("CRASH_SEED", "0")) or random.randrange(1000)
    dice = random.Random(seed)
    site = Site(cloud)
    site.log_in()
    users: list[User] = [kind(site, str(seed)) for kind in USERS]
    all_at_once(users, lambda user: user.prepare())

    def lazy() -> list[str]:
        return [type(user).__name__ for user in users if user.done < ROUNDS]

    try:
        for _ in turns(ROUNDS, lambda: not lazy()):
            kill_while_they_work(site, users, dice.uniform(0.5, 2))
            cloud.start()
            site.log_in()
            for user in users:
                user.renew()
            settled(cloud.data)
            all_at_once(users, lambda user: user.look_at_all())
            settled(cloud.data)
    except AssertionError as error:
        raise AssertionError(f"CRASH_SEED={seed}: {error}") from error
    assert not lazy(), f"too little was done to prove anything: {lazy()}"
