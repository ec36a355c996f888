"""Objects that are deleted at a time."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.config import SettingsError
from cumulet.services.object_store import expirer as module
from cumulet.services.object_store.expirer import Expirer
from cumulet.services.object_store.storage import object_updates
from tests.services.object_store.stores import DEMO, Store, object_store

FAST: dict[str, Any] = {"object_expirer_rate": 10_000.0}


class Clock:
    """The time that the expirer goes by."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    async with object_store(tmp_path, **FAST) as store:
        await store.put("c")
        yield store


async def queued(store: Store) -> list[str]:
    """The entries of the queue."""
    expirer, found = store.runtime.expirer, []
    async for queue in expirer._listed(""):
        found += [row.name async for row in expirer._listed(queue.name)]
    return found


async def listing(store: Store, container: str = "c") -> list[str]:
    return (await store("GET", container)).data.decode().split()


async def test_an_object_is_deleted_at_its_time(store: Store, clock: Clock) -> None:
    await store.put("c/soon", b"x", X_Delete_After="100")
    await store.put("c/later", b"x", X_Delete_After="1000000")
    await store.put("c/for-ever", b"x")
    assert len(await queued(store)) == 2
    await store.runtime.expirer.run()
    assert await listing(store) == ["for-ever", "later", "soon"]
    clock.ahead = 200
    await store.runtime.expirer.run()
    assert await listing(store) == ["for-ever", "later"]
    assert len(await queued(store)) == 1
    assert (await store("HEAD", "c")).headers["X-Container-Object-Count"] == "2"
    assert store.runtime.host.recon.notes["object"]["expired_last_pass"] == 1


async def test_a_time_that_was_changed_counts(store: Store, clock: Clock) -> None:
    await store.put("c/o", b"x", X_Delete_After="100")
    await store.post("c/o", X_Delete_After="100000")
    clock.ahead = 200
    await store.runtime.expirer.run()
    assert await listing(store) == ["o"]
    await store.post("c/o")
    clock.ahead = 200_000
    await store.runtime.expirer.run()
    assert await store.get("c/o") == b"x", "its time was taken back"


async def test_many_in_turns_of_their_containers(store: Store, clock: Clock) -> None:
    await store.put("d")
    for number in range(5):
        await store.put(f"c/{number}", b"", X_Delete_After="10")
        await store.put(f"d/{number}", b"", X_Delete_After="10")
    clock.ahead = 60
    tasks = [task.container async for task in store.runtime.expirer._tasks()]
    assert tasks == ["c", "d"] * 5
    await store.runtime.expirer.run()
    assert await listing(store) == await listing(store, "d") == []
    await store.runtime.expirer.run()
    queues = [row.name async for row in store.runtime.expirer._listed("")]
    assert queues == [], "what is empty of the queue is taken away"


async def test_entries_without_an_object_go_in_the_end(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any) -> None: ...

    monkeypatch.setattr(object_updates.Updates, "keep", lost)  # what is told late may never be told
    await store.put("c/o", b"x", X_Delete_After="10")
    await store("DELETE", "c/o")
    clock.ahead = 60
    await store.runtime.expirer.run()
    assert len(await queued(store)) == 1, "it might still come"
    clock.ahead = store.runtime.expirer.reclaim + 100
    await store.runtime.expirer.run()
    assert await queued(store) == []


async def test_a_delay(tmp_path: Path, clock: Clock) -> None:
    async with object_store(tmp_path, object_expirer_delays=f"{DEMO}=1000, {DEMO}/d=10", **FAST) as store:
        for container in ("c", "d"):
            await store.put(container)
            await store.put(f"{container}/o", b"", X_Delete_After="10")
        clock.ahead = 100
        await store.runtime.expirer.run()
        assert (await listing(store), await listing(store, "d")) == (["o"], [])
        clock.ahead = 2000
        await store.runtime.expirer.run()
        assert await listing(store) == []


async def test_several_hosts_share_the_work(tmp_path: Path, clock: Clock) -> None:
    async with object_store(tmp_path, object_expirer_share="1/2", **FAST) as store:
        await store.put("c")
        for number in range(20):
            await store.put(f"c/{number}", b"", X_Delete_After="10")
        clock.ahead = 60
        await store.runtime.expirer.run()
        left = len(await listing(store))
        assert 0 < left < 20
        store.runtime.expirer.mine = 0
        await store.runtime.expirer.run()
        assert await listing(store) == []


@pytest.mark.parametrize(
    "wrong",
    [{"object_expirer_share": "2/2"}, {"object_expirer_delays": "AUTH_a"}, {"object_expirer_delays": "a/b/c=1"}],
)
async def test_settings_that_mean_nothing(store: Store, tmp_path: Path, wrong: dict[str, str]) -> None:
    import msgspec

    store.runtime.kernel = msgspec.structs.replace(
        store.runtime.kernel, settings=msgspec.structs.replace(store.runtime.kernel.settings, **wrong)
    )
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Expirer(store.runtime)
