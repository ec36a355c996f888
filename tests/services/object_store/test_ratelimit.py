"""Rate limits."""

import time
from pathlib import Path
from typing import Any

import pytest

from cumulet.config import SettingsError
from cumulet.services.object_store.layers import ratelimit
from cumulet.services.object_store.layers.ratelimit import Clocks, limits, rate
from cumulet.services.object_store.layers.read_only import ReadOnly
from tests.services.object_store.stores import DEMO, Store, object_store

NO_WAIT: dict[str, Any] = {"object_ratelimit_longest_wait": 0.001, "object_ratelimit_buffer": 0.0}


def test_the_clock_lets_a_rate_through() -> None:
    clocks, now = Clocks(buffer=0.0, longest=60.0), 1000.0
    assert [clocks.wait("a", 10.0, now) for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert clocks.wait("b", 10.0, now) == 0.0, "each has its own"
    assert clocks.wait("a", 10.0, now + 10) == 0.0, "the past is forgotten"


def test_the_clock_lets_idle_ones_catch_up() -> None:
    clocks, now = Clocks(buffer=5.0, longest=60.0), 1000.0
    clocks.wait("a", 1.0, now)
    waits = [clocks.wait("a", 1.0, now + 4) for _ in range(6)]
    assert waits == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0, 2.0])


def test_the_clock_refuses_in_the_end_and_does_not_count_that() -> None:
    clocks, now = Clocks(buffer=0.0, longest=2.5), 1000.0
    waits = [clocks.wait("a", 1.0, now) for _ in range(6)]
    assert waits == [0.0, 1.0, 2.0, None, None, None]
    assert clocks.wait("a", 1.0, now + 1) == pytest.approx(2.0)


def test_limits_by_size() -> None:
    found = limits("x", "200=10, 100=50")
    assert [rate(found, size) for size in (0, 99, 100, 150, 200, 9999)] == [None, None, 50.0, 30.0, 10.0, 10.0]
    assert rate([], 100) is None
    for wrong in ("x", "1=2=3", "100=0", "100=1,100=2", "-1=1"):
        with pytest.raises(SettingsError):
            limits("x", wrong)


async def test_containers_of_an_account(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_account_ratelimit=0.01, **NO_WAIT) as store:
        assert (await store("PUT", "a")).status == 201
        reply = await store("PUT", "b")
        assert (reply.status, reply.data) == (498, b"Slow down")
        assert (await store("GET", "a")).status in (200, 204)
        assert (await store("PUT", "a/o", b"")).status == 201
        assert (await store("PUT", "/v1/AUTH_project-other/a", token="other")).status == 201


async def test_whoever_is_too_fast_waits(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_account_ratelimit=10.0, object_ratelimit_buffer=0.0) as store:
        began = time.monotonic()
        for name in "abcd":
            assert (await store("PUT", name)).status == 201
        assert time.monotonic() - began >= 0.29


async def test_objects_and_listings_of_a_container(tmp_path: Path) -> None:
    settings = {"object_container_ratelimits": "2=0.01", "object_listing_ratelimits": "2=0.01"}
    async with object_store(tmp_path, **settings, **NO_WAIT) as store:
        await store.put("c")
        for name in "ab":
            assert (await store("PUT", f"c/{name}", b"")).status == 201
            assert (await store("GET", "c")).status == 200
        _forget(store)
        assert [(await store("PUT", "c/x", b"")).status for _ in range(2)] == [201, 498]
        assert (await store("DELETE", "c/x")).status == 498
        assert [(await store("GET", "c")).status for _ in range(2)] == [200, 498]
        assert (await store("GET", "c/a")).status == 200
        assert (await store("GET", "/info")).json()["ratelimit"]["container_ratelimits"] == [[2, 0.01]]


def _forget(store: Store) -> None:
    """What is known of the container is some seconds old; here it is asked anew."""
    store.runtime.front.infos._known.clear()


@pytest.mark.parametrize(("said", "status"), [("BLACKLIST", 497), ("WHITELIST", 201), ("0.01", 498)])
async def test_accounts_with_limits_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int
) -> None:
    monkeypatch.setattr(ratelimit, "PENALTY", 0.0)
    settings = {"object_account_ratelimit": 0.01, "object_account_ratelimits": f"{DEMO}={said}"}
    async with object_store(tmp_path, **settings, **NO_WAIT) as store:
        await store("PUT", "a")
        assert (await store("PUT", "b")).status == status


async def test_no_limits_by_default(store: Store) -> None:
    layers: list[Any] = [store.runtime.proxy.__self__]  # type: ignore[attr-defined]
    while hasattr(layers[-1], "app"):
        layers.append(layers[-1].app.__self__)
    assert any(isinstance(layer, ReadOnly) for layer in layers)  # which comes next
    assert not any(isinstance(layer, ratelimit.RateLimit) for layer in layers)
    assert (await store("GET", "/info")).json()["ratelimit"]["account_ratelimit"] == 0.0


async def test_settings_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="object_account_ratelimits"):
        async with object_store(tmp_path, object_account_ratelimits="AUTH_a=SOMETIMES"):
            pass
