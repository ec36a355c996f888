"""Objects that were written under another policy than their container's."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cumulet.services.object_store.message import Headers, stream
from cumulet.services.object_store.names import Timestamp, partition
from cumulet.services.object_store.node import BackendRequest
from cumulet.services.object_store.storage.catalogue import Catalogue
from tests.services.object_store.stores import Store, object_store

POLICIES = """
[swift-hash]
swift_hash_path_suffix = salt
[storage-policy:0]
name = gold
default = yes
[storage-policy:1]
name = silver
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    rings = tmp_path / "object-store" / "rings"
    rings.mkdir(parents=True)
    (rings / "swift.conf").write_text(POLICIES)
    async with object_store(tmp_path) as store:
        yield store


def _catalogue(store: Store) -> Catalogue:
    catalogue = store.runtime.host.catalogue
    assert catalogue is not None
    return catalogue


async def _other(store: Store, method: str, name: str, at: Timestamp, data: bytes = b"", **headers: str) -> None:
    """Write, or delete, as a proxy does that takes the container for one of the policy silver."""
    runtime = store.runtime
    ring, containers = runtime.rings.objects[1], runtime.rings.container
    part = partition(runtime.salt.digest(store.account, "c", name), ring.power)
    number = partition(runtime.salt.digest(store.account, "c"), containers.power)
    (container,) = containers.devices(number)
    told = Headers(
        {
            "X-Timestamp": at.internal,
            "X-Backend-Storage-Policy-Index": "1",
            "X-Container-Host": f"{container.address}:{container.port}",
            "X-Container-Device": container.name,
            "X-Container-Partition": str(number),
        }
    )
    told.update({key.replace("_", "-"): value for key, value in headers.items()})
    (device,) = ring.devices(part)
    ask = BackendRequest("object", method, device.name, part, store.account, "c", name, told, body=stream(data))
    reply = await runtime.nodes.call(device, ask)
    assert reply.status in (201, 204, 404), reply


async def test_an_object_comes_to_its_containers_policy(store: Store) -> None:
    await store.put("c")
    at = Timestamp.now()
    data = b"x" * 700_000
    await _other(store, "PUT", "o", at, data, Content_Type="text/x", X_Object_Meta_Color="blue")
    assert (await store("GET", "c/o")).status == 404
    await _catalogue(store).reconciler.run()
    assert (_catalogue(store).reconciler.moved, _catalogue(store).reconciler.left) == (1, 0)
    reply = await store("GET", "c/o")
    assert (reply.status, reply.data, reply.headers["Content-Type"]) == (200, data, "text/x")
    assert reply.headers["X-Object-Meta-Color"] == "blue"
    assert reply.headers["X-Timestamp"] == at.normal
    (row,) = (await store("GET", "c?format=json")).json()
    assert (row["name"], row["bytes"]) == ("o", len(data))
    told = (await store("HEAD", "")).headers
    assert told["X-Account-Storage-Policy-gold-Object-Count"] == "1"
    await _catalogue(store).reconciler.run()
    assert _catalogue(store).reconciler.moved == 1
    assert (await store("DELETE", "c/o")).status == 204
    assert (await store("DELETE", "c")).status == 204


async def test_of_two_the_later_one_stays(store: Store) -> None:
    await store.put("c")
    early = Timestamp.now()
    await store.put("c/new", b"new")
    await store.put("c/old", b"old")
    late = Timestamp.now()
    await _other(store, "PUT", "new", early, b"older", Content_Type="t/t")
    await _other(store, "PUT", "old", late, b"newer", Content_Type="t/t")
    await _catalogue(store).reconciler.run()
    assert await store.get("c/new") == b"new"
    assert await store.get("c/old") == b"newer"


async def test_a_delete_counts_under_the_right_policy(store: Store) -> None:
    await store.put("c")
    early = Timestamp.now()
    await store.put("c/gone", b"1")
    await store.put("c/kept", b"2")
    await _other(store, "DELETE", "gone", Timestamp.now())
    await _other(store, "DELETE", "kept", early)
    await _catalogue(store).reconciler.run()
    assert (await store("GET", "c/gone")).status == 404
    assert await store.get("c/kept") == b"2"
    assert (await store.get("c")).decode().split() == ["kept"]
