"""Containers that are synchronised: within a cluster, and from one to another."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.services.object_store.sync_realms import signature
from tests.services.object_store.stores import DEMO, Store, object_store

REALMS = """
[here]
key = realm's secret
key2 = the one before
cluster_one = {one}/v1/
cluster_two = {two}/v1/
[nowhere]
cluster_x = http://192.0.2.1/v1
"""


def share_realms(*stores: Store) -> None:
    text = REALMS.format(one=stores[0].url, two=stores[-1].url)
    for store in stores:
        store.runtime.realms.path.write_text(text)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Store]:
    (tmp_path / "one").mkdir()
    async with object_store(tmp_path / "one", object_sync_current="//here/one") as store:
        yield store


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Store]:
    (tmp_path / "two").mkdir()
    async with object_store(tmp_path / "two", object_encryption=True) as store:
        yield store


async def names(store: Store, container: str) -> list[str]:
    return (await store("GET", container)).data.decode().split()


async def test_two_clusters(one: Store, two: Store) -> None:
    share_realms(one, two)
    key = {"X-Container-Sync-Key": "ours"}
    await two.put("copy", headers=key)
    await one.put("c")
    await one.put("c/before", b"1")
    await one.post("c", headers=key | {"X-Container-Sync-To": f"//here/two/{DEMO}/copy"})
    await one.put("c/o b/ü", b"data" * 100_000, headers={"X-Object-Meta-Color": "red", "Content-Type": "text/x"})
    await one.runtime.syncer.run()
    assert await names(two, "copy") == ["before", "o", "b/ü"]
    there, here = await two("GET", "copy/o b/ü"), await one("GET", "c/o b/ü")
    assert there.data == b"data" * 100_000
    for header in ("X-Timestamp", "Etag", "X-Object-Meta-Color", "Content-Type"):
        assert there.headers[header] == here.headers[header], header
    await one("DELETE", "c/before")
    await one.post("c/o b/ü", headers={"X-Object-Meta-Color": "blue"})
    await one.runtime.syncer.run()
    assert await names(two, "copy") == ["o", "b/ü"]
    assert (await two("HEAD", "copy/o b/ü")).headers["X-Object-Meta-Color"] == "blue"


async def test_both_ways(one: Store, two: Store) -> None:
    share_realms(one, two)
    for store, other in ((one, "two"), (two, "one")):
        target = {"X-Container-Sync-To": f"//here/{other}/{DEMO}/c", "X-Container-Sync-Key": "ours"}
        await store.put("c", headers=target)
    await one.put("c/from-one", b"1")
    await two.put("c/from-two", b"2")
    for _ in range(3):
        await one.runtime.syncer.run()
        await two.runtime.syncer.run()
    assert await names(one, "c") == await names(two, "c") == ["from-one", "from-two"]
    assert await one.get("c/from-two") == b"2"


async def test_what_fails_is_done_later(one: Store, two: Store) -> None:
    share_realms(one, two)
    await one.put("c", headers={"X-Container-Sync-To": f"//here/two/{DEMO}/copy", "X-Container-Sync-Key": "ours"})
    await one.put("c/o", b"x")
    await one.runtime.syncer.run()
    await two.put("copy", headers={"X-Container-Sync-Key": "another"})
    await one.put("c/p", b"x")
    await one.runtime.syncer.run()
    assert await names(two, "copy") == []
    await two.post("copy", headers={"X-Container-Sync-Key": "ours"})
    await one.runtime.syncer.run()
    assert await names(two, "copy") == ["o", "p"]


async def test_within_a_cluster_by_the_containers_key_alone(one: Store) -> None:
    key = {"X-Container-Sync-Key": "ours"}
    await one.put("copy", headers=key)
    await one.put("c", headers=key | {"X-Container-Sync-To": f"{one.url}/v1/{DEMO}/copy"})
    await one.put("c/o", b"x")
    await one.runtime.syncer.run()
    assert await one.get("copy/o") == b"x"
    await one("DELETE", "c/o")
    await one.runtime.syncer.run()
    assert await names(one, "copy") == []


async def test_a_container_that_is_not_synchronised_any_more(one: Store) -> None:
    key = {"X-Container-Sync-Key": "ours"}
    await one.put("copy", headers=key)
    await one.put("c", headers=key | {"X-Container-Sync-To": f"{one.url}/v1/{DEMO}/copy"})
    await one.post("c", headers={"X-Container-Sync-To": ""})
    await one.put("c/o", b"x")
    await one.runtime.syncer.run()
    assert await names(one, "copy") == []
    await one.post("c", headers={"X-Container-Sync-To": f"{one.url}/v1/{DEMO}/copy"})
    await one.runtime.syncer.run()
    assert await names(one, "copy") == ["o"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("//elsewhere/one/AUTH_a/c", b"No realm key"),
        ("//nowhere/x/AUTH_a/c", b"No realm key"),
        ("//here/three/AUTH_a/c", b"No cluster endpoint"),
        ("//here/one/AUTH_a", b"Invalid X-Container-Sync-To format"),
        ("ftp://127.0.0.1/v1/a/c", b"Invalid scheme"),
        ("http://127.0.0.1", b"Path required"),
        ("http://127.0.0.1/v1/a/c?x", b"Params"),
        ("http://192.0.2.1/v1/a/c", b"Invalid host"),
    ],
)
async def test_targets_that_are_refused(one: Store, target: str, words: bytes) -> None:
    share_realms(one)
    for method in ("PUT", "POST"):
        reply = await one(method, "c", X_Container_Sync_To=target)
        assert reply.status == 400
        assert reply.data.startswith(words)


@pytest.mark.parametrize("realm_key", ["realm's secret", "the one before", "wrong"])
@pytest.mark.parametrize("container_key", ["ours", "wrong"])
async def test_signatures(one: Store, realm_key: str, container_key: str) -> None:
    share_realms(one)
    await one.put("c", X_Container_Sync_Key="ours")
    path, at = f"/v1/{DEMO}/c/o%20b", "1000000000.00000"
    signed = signature("PUT", path, at, "nonce", realm_key, container_key)
    headers = {"X-Container-Sync-Auth": f"here nonce {signed}", "X-Timestamp": at}
    reply = await one("PUT", path, b"x", token="nobody", headers=headers)
    good = realm_key != "wrong" and container_key == "ours"
    assert reply.status == (201 if good else 401)
    if good:
        assert (await one("HEAD", path)).headers["X-Timestamp"] == at
    else:
        assert reply.headers["WWW-Authenticate"].startswith("SwiftContainerSync realm=")
        assert (await one("PUT", path, b"x", headers=headers)).status == 401, "a token does not mend it"
    assert (await one("PUT", path, b"x", token="nobody", headers={"X-Container-Sync-Auth": "no"})).status == 401


async def test_a_time_that_a_client_tells_does_not_count(one: Store) -> None:
    await one.put("c", X_Container_Sync_Key="ours")
    for headers in ({}, {"X-Container-Sync-Key": "wrong"}):
        await one.put("c/o", b"x", headers={"X-Timestamp": "1000000000.00000", **headers})
        assert (await one("HEAD", "c/o")).headers["X-Timestamp"] != "1000000000.00000"
    reply = await one(
        "PUT", "c/p", b"x", token="nobody", headers={"X-Container-Sync-Key": "wrong", "X-Timestamp": "1.0"}
    )
    assert reply.status == 401


async def test_what_is_told(one: Store, tmp_path: Path) -> None:
    share_realms(one)
    told = (await one("GET", "/info")).json()["container_sync"]["realms"]
    assert told["HERE"] == {"clusters": {"ONE": {"current": True}, "TWO": {}}}
    (tmp_path / "strict").mkdir()
    settings: dict[str, Any] = {"object_sync_full_urls": False}
    async with object_store(tmp_path / "strict", **settings) as store:
        reply = await store("PUT", "c", X_Container_Sync_To=f"{store.url}/v1/{DEMO}/d")
        assert (reply.status, reply.data[:26]) == (400, b"Full URLs are not allowed ")


async def test_manifests_and_links_stay_what_they_are(one: Store, two: Store) -> None:
    share_realms(one, two)
    key = {"X-Container-Sync-Key": "ours"}
    for container in ("c", "parts"):
        await two.put(container, headers=key)
        await one.put(container, headers=key | {"X-Container-Sync-To": f"//here/two/{DEMO}/{container}"})
    for number in "12":
        await one.put(f"parts/{number}", number.encode() * 10)
    manifest = [{"path": f"/parts/{number}"} for number in "12"]
    await one.put("c/large?multipart-manifest=put", msgspec.json.encode(manifest))
    await one.put("c/link", b"", X_Symlink_Target="c/large")
    await one.runtime.syncer.run()
    for name in ("large", "link"):
        assert await two.get(f"c/{name}") == b"1" * 10 + b"2" * 10, name
    assert len((await two("GET", "c/large?multipart-manifest=get")).json()) == 2
    assert (await two("HEAD", "c/link?symlink=get")).headers["X-Symlink-Target"] == "c/large"
