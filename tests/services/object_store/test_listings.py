"""Listings and counts as clients see them, over HTTP."""

import asyncio

import pytest

from tests.services.object_store.stores import Store

NAMES = ["a", "a/b", "a/c/d", "b", "photos/animals/cat", "photos/animals/dog", "photos/me", "z\u00e9", "\u65e5\u672c"]


@pytest.fixture
async def names(store: Store) -> Store:
    await store.put("c")
    await asyncio.gather(*(store.put(f"c/{name}", b"data") for name in NAMES))
    return store


async def _listed(store: Store, query: str) -> list[str]:
    return [row.get("name", row.get("subdir")) for row in (await store("GET", f"c?format=json&{query}")).json()]


async def test_an_object_is_listed_when_its_put_is_answered(store: Store) -> None:
    await store.put("c")
    for number in range(5):
        await store.put(f"c/{number}", b"12345")
        assert (await store.get("c")).decode().split() == [str(n) for n in range(number + 1)]
        account = (await store("HEAD", "")).headers
        assert account["X-Account-Object-Count"] == str(number + 1)
        assert account["X-Account-Bytes-Used"] == str(5 * (number + 1))
    assert (await store("DELETE", "c/3")).status == 204
    assert "3" not in (await store.get("c")).decode().split()
    assert (await store("HEAD", "c")).headers["X-Container-Bytes-Used"] == "20"


async def test_parts_of_a_listing(names: Store) -> None:
    whole = sorted(NAMES)
    assert await _listed(names, "") == whole
    assert await _listed(names, "reverse=true") == whole[::-1]
    assert await _listed(names, "prefix=photos/") == ["photos/animals/cat", "photos/animals/dog", "photos/me"]
    assert await _listed(names, "prefix=photos/&delimiter=/") == ["photos/animals/", "photos/me"]
    assert await _listed(names, "delimiter=/") == ["a", "a/", "b", "photos/", "z\u00e9", "\u65e5\u672c"]
    assert await _listed(names, "marker=b&end_marker=photos/b") == ["photos/animals/cat", "photos/animals/dog"]
    assert await _listed(names, "limit=2&marker=a") == ["a/b", "a/c/d"]
    assert await _listed(names, "path=photos") == ["photos/me"]
    assert await _listed(names, "prefix=\u65e5") == ["\u65e5\u672c"]
    assert await _listed(names, "delimiter=mals/&prefix=p") == ["photos/animals/", "photos/me"]


async def test_more_than_may_be_asked_for(names: Store) -> None:
    assert (await names("GET", "c?limit=10001")).status == 412
    assert (await names("GET", "?limit=10001")).status == 412
    assert len(await _listed(names, "limit=none")) == len(NAMES)


async def test_listings_of_an_account(store: Store) -> None:
    for name in ("one", "one-two", "two"):
        await store.put(name)
    await store.put("two/o", b"123")
    rows = (await store("GET", "?format=json")).json()
    assert [(row["name"], row["count"], row["bytes"]) for row in rows] == [
        ("one", 0, 0),
        ("one-two", 0, 0),
        ("two", 1, 3),
    ]
    assert (await store.get("?delimiter=-")).decode().split() == ["one", "one-", "two"]
    assert (await store.get("?reverse=on&limit=1")).decode() == "two\n"


@pytest.mark.parametrize(("token", "status"), [("member", 200), ("admin", 200), ("other", 403), ("nobody", 401)])
async def test_who_may_list(names: Store, token: str, status: int) -> None:
    assert (await names("GET", "c", token=token)).status == status
    assert (await names("GET", "", token=token)).status == status
