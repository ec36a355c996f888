"""Placement over HTTP and through its interface: providers, inventories, allocations, candidates, and claims that compete."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.core.types import new_id
from cumulet.services.placement.declaration import SERVICE
from cumulet.services.placement.interface import Inventory, NoCandidate
from cumulet.services.placement.runtime import PlacementRuntime
from tests.harness import Client, Reply, kernel, serve

LATEST = "placement 1.39"


@pytest.fixture
async def placement(tmp_path: Path) -> AsyncIterator[PlacementRuntime]:
    async with kernel(tmp_path) as parts:
        yield PlacementRuntime(parts)


@pytest.fixture
async def client(placement: PlacementRuntime) -> AsyncIterator[Client]:
    async with serve(SERVICE, placement) as client:
        yield client


async def ask(
    client: Client, method: str, path: str, body: Any = None, *, version: str = LATEST, token: str = "admin"
) -> Reply:
    return await client(method, path, body, token=token, OpenStack_API_Version=version)


async def provider(client: Client, name: str = "host", **inventories: int) -> str:
    made = (await ask(client, "POST", "/resource_providers", {"name": name})).json()
    body = {
        "resource_provider_generation": made["generation"],
        "inventories": {key: {"total": total} for key, total in inventories.items()},
    }
    reply = await ask(client, "PUT", f"/resource_providers/{made['uuid']}/inventories", body)
    assert reply.status == 200, reply.data
    return str(made["uuid"])


def wanted(uuid: str, generation: int | None = None, **resources: int) -> dict[str, Any]:
    return {
        "allocations": {uuid: {"resources": resources}} if resources else {}, "project_id": "p", "user_id": "u",
        "consumer_generation": generation, "consumer_type": "INSTANCE",
    }  # fmt: skip


async def generation(client: Client, uuid: str) -> int:
    return int((await ask(client, "GET", f"/resource_providers/{uuid}")).json()["generation"])


async def test_versions(client: Client) -> None:
    reply = await client("GET", "/", token="nobody")
    assert reply.status == 200
    (version,) = reply.json()["versions"]
    assert (version["min_version"], version["max_version"]) == ("1.0", "1.39")
    assert reply.headers["OpenStack-API-Version"] == "placement 1.0"
    assert (await ask(client, "GET", "/resource_providers", version="placement 1.40")).status == 406
    assert (await ask(client, "GET", "/traits", version="placement 1.5")).status == 404


@pytest.mark.parametrize(
    ("token", "status"), [("admin", 200), ("manager", 403), ("member", 403), ("reader", 403), ("nobody", 401)]
)
async def test_who_may(client: Client, token: str, status: int) -> None:
    for path in ("/resource_providers", "/traits", "/resource_classes", "/allocation_candidates?resources=VCPU:1"):
        assert (await ask(client, "GET", path, token=token)).status == status, path
    refused = await ask(client, "POST", "/resource_providers", {"name": "x"}, token=token)
    assert refused.status == status
    if status == 403:
        assert refused.json()["errors"][0]["status"] == 403


async def test_providers(client: Client) -> None:
    parent = (await ask(client, "POST", "/resource_providers", {"name": "a"})).json()
    bare = new_id().replace("-", "")
    child = await ask(
        client, "POST", "/resource_providers", {"name": "b", "uuid": bare, "parent_provider_uuid": parent["uuid"]}
    )
    assert child.json()["root_provider_uuid"] == parent["uuid"] and len(child.json()["uuid"]) == 36
    again = await ask(client, "POST", "/resource_providers", {"name": "a"})
    assert again.status == 409 and again.json()["errors"][0]["code"] == "placement.duplicate_name"
    assert (await ask(client, "DELETE", f"/resource_providers/{parent['uuid']}")).status == 409
    tree = (await ask(client, "GET", f"/resource_providers?in_tree={parent['uuid']}")).json()["resource_providers"]
    assert [p["name"] for p in tree] == ["a", "b"]
    old = await ask(client, "POST", "/resource_providers", {"name": "c"}, version="placement 1.0")
    assert old.status == 201 and old.data == b"" and "/resource_providers/" in old.headers["Location"]
    assert (await ask(client, "GET", f"/resource_providers/{new_id()}")).status == 404
    assert (await ask(client, "GET", "/resource_providers?wings=1")).status == 400


async def test_inventories(client: Client) -> None:
    uuid = await provider(client, VCPU=4)
    path = f"/resource_providers/{uuid}/inventories"
    assert (await ask(client, "POST", path, {"resource_class": "DISK_GB", "total": 10})).status == 201
    assert (await ask(client, "POST", path, {"resource_class": "DISK_GB", "total": 10})).status == 409
    stale = {"resource_provider_generation": 0, "inventories": {}}
    reply = await ask(client, "PUT", path, stale)
    assert reply.status == 409 and reply.json()["errors"][0]["code"] == "placement.concurrent_update"
    for body in (
        {"total": 0}, {"total": 2**40}, {"total": 5, "reserved": 6}, {"total": 5, "allocation_ratio": 1e300},
        {"total": 5, "x": 1},
    ):  # fmt: skip
        now = {"resource_provider_generation": await generation(client, uuid)}
        assert (await ask(client, "PUT", path, {**now, "inventories": {"VCPU": body}})).status == 400, body
        assert (await ask(client, "PUT", f"{path}/VCPU", {**now, **body})).status == 400, body
    assert (await ask(client, "PUT", path, {"resource_provider_generation": 2**70, "inventories": {}})).status == 400
    now = {"resource_provider_generation": await generation(client, uuid)}
    assert (await ask(client, "PUT", path, {**now, "inventories": {"WINGS": {"total": 1}}})).status == 400
    assert (await ask(client, "PUT", f"{path}/VCPU", {**now, "total": 8, "reserved": 8})).status == 200
    assert set((await ask(client, "GET", path)).json()["inventories"]) == {"VCPU", "DISK_GB"}
    assert (await ask(client, "DELETE", f"{path}/VCPU")).status == 204
    assert (await ask(client, "GET", f"{path}/VCPU")).status == 404
    assert (await ask(client, "DELETE", path)).status == 204


async def test_names(client: Client) -> None:
    for path in ("/resource_classes/CUSTOM_GOLD", "/traits/CUSTOM_FAST"):
        assert [(await ask(client, "PUT", path)).status for _ in range(2)] == [201, 204]
        assert (await ask(client, "GET", path)).status in (200, 204)
        assert (await ask(client, "DELETE", path)).status == 204
        assert (await ask(client, "DELETE", path)).status == 404
    assert (await ask(client, "PUT", "/traits/FAST")).status == 400
    assert (await ask(client, "DELETE", "/resource_classes/VCPU")).status == 400
    assert "VCPU" in [c["name"] for c in (await ask(client, "GET", "/resource_classes")).json()["resource_classes"]]


async def test_allocations(client: Client) -> None:
    uuid, consumer = await provider(client, VCPU=4, MEMORY_MB=1024), new_id()
    path, before = f"/allocations/{consumer}", await generation(client, uuid)
    assert (await ask(client, "PUT", path, wanted(uuid, VCPU=3, MEMORY_MB=10))).status == 204
    assert await generation(client, uuid) > before
    shown = (await ask(client, "GET", path)).json()
    assert shown["allocations"][uuid]["resources"] == {"VCPU": 3, "MEMORY_MB": 10}
    assert (shown["consumer_generation"], shown["consumer_type"], shown["project_id"]) == (1, "INSTANCE", "p")
    stale = await ask(client, "PUT", path, wanted(uuid, VCPU=1))
    assert stale.status == 409 and stale.json()["errors"][0]["code"] == "placement.concurrent_update"
    assert (await ask(client, "PUT", path, wanted(uuid, 1, VCPU=4))).status == 204
    assert (await ask(client, "PUT", f"/allocations/{new_id()}", wanted(uuid, VCPU=1))).status == 409
    assert (await ask(client, "PUT", f"/allocations/{new_id()}", wanted(new_id(), VCPU=1))).status == 400
    assert (await ask(client, "PUT", "/allocations/x", wanted(uuid, VCPU=1))).status == 400
    assert (await ask(client, "GET", f"/resource_providers/{uuid}/usages")).json()["usages"] == {
        "VCPU": 4,
        "MEMORY_MB": 0,
    }
    assert (await ask(client, "GET", "/usages?project_id=p", version="placement 1.9")).json()["usages"] == {"VCPU": 4}
    assert set((await ask(client, "GET", f"/resource_providers/{uuid}/allocations")).json()["allocations"]) == {
        consumer
    }
    assert (await ask(client, "DELETE", f"/resource_providers/{uuid}")).status == 409
    assert (await ask(client, "DELETE", f"/resource_providers/{uuid}/inventories")).status == 409
    held = await generation(client, uuid)
    assert (await ask(client, "DELETE", path)).status == 204
    assert await generation(client, uuid) > held
    assert (await ask(client, "DELETE", path)).status == 404
    assert (await ask(client, "GET", path)).json() == {"allocations": {}}


async def test_one_takes_what_another_leaves_in_the_same_call(client: Client) -> None:
    a, b = await provider(client, "a", VCPU=1), await provider(client, "b", VCPU=1)
    one, two = new_id(), new_id()
    assert (await ask(client, "PUT", f"/allocations/{one}", wanted(a, VCPU=1))).status == 204
    assert (await ask(client, "PUT", f"/allocations/{two}", wanted(b, VCPU=1))).status == 204
    swap = {one: wanted(b, 1, VCPU=1), two: wanted(a, 1, VCPU=1)}
    assert (await ask(client, "POST", "/allocations", swap)).status == 204
    too_much = {one: wanted(a, 2, VCPU=1), two: wanted(a, 2, VCPU=1)}
    assert (await ask(client, "POST", "/allocations", too_much)).status == 409
    shown = (await ask(client, "GET", f"/allocations/{one}")).json()
    assert list(shown["allocations"]) == [b] and shown["consumer_generation"] == 2, "all or none"


async def test_candidates(client: Client) -> None:
    small, large = await provider(client, "small", VCPU=2), await provider(client, "large", VCPU=8, DISK_GB=5)
    reply = (await ask(client, "GET", "/allocation_candidates?resources=VCPU:2")).json()
    assert set(reply["provider_summaries"]) == {small, large}
    assert {"allocations": {small: {"resources": {"VCPU": 2}}}, "mappings": {"": [small]}} in reply[
        "allocation_requests"
    ]
    reply = (await ask(client, "GET", "/allocation_candidates?resources=VCPU:3,DISK_GB:5")).json()
    assert set(reply["provider_summaries"]) == {large}
    assert reply["provider_summaries"][large]["resources"]["VCPU"] == {"capacity": 8, "used": 0}
    assert (
        len((await ask(client, "GET", "/allocation_candidates?resources=VCPU:1&limit=1")).json()["allocation_requests"])
        == 1
    )
    tree = (await ask(client, "GET", f"/allocation_candidates?resources=VCPU:1&in_tree={small}")).json()
    assert set(tree["provider_summaries"]) == {small}
    for query in (
        "",
        "resources=VCPU",
        "resources=VCPU:0",
        "resources=VCPU:²",
        "resources=WINGS:1",
        "resources=VCPU:1&limit=²",
    ):
        assert (await ask(client, "GET", f"/allocation_candidates?{query}")).status == 400, query


async def test_claims(placement: PlacementRuntime) -> None:
    for _ in range(2):
        await placement.ensure_provider("0" * 8, "host", {"VCPU": Inventory(total=4, allocation_ratio=2.0)})
    await placement.ensure_provider("1" * 8, "other", {"VCPU": Inventory(total=1, reserved=1)})
    consumer = new_id()
    assert await placement.claim(consumer, "p", "u", {"VCPU": 8, "DISK_GB": 0}) == "host"
    assert await placement.claim(consumer, "p", "u", {"VCPU": 8}) == "host", "asked again, it keeps what it has"
    with pytest.raises(NoCandidate):
        await placement.claim(new_id(), "p", "u", {"VCPU": 1})
    await placement.release(consumer)
    await placement.release(consumer)
    with pytest.raises(NoCandidate):
        await placement.claim(new_id(), "p", "u", {"VCPU": 1}, only="other")
    assert await placement.claim(new_id(), "p", "u", {"VCPU": 1}, only="host") == "host"


async def test_another_size_is_held_beside_the_old_one(placement: PlacementRuntime) -> None:
    await placement.ensure_provider("0" * 8, "host", {"VCPU": Inventory(total=6), "DISK_GB": Inventory(total=5)})
    server, keeper = new_id(), new_id()
    await placement.claim(server, "p", "u", {"VCPU": 2, "DISK_GB": 1})
    with pytest.raises(NoCandidate):
        await placement.resize(server, keeper, {"VCPU": 5, "DISK_GB": 1})
    assert await _free(placement) == 4, "what was refused has changed nothing"
    for _ in range(2):
        await placement.resize(server, keeper, {"VCPU": 3, "DISK_GB": 0})
        assert await _free(placement) == 1
    for _ in range(2):
        await placement.take_back(server, keeper)
        assert await _free(placement) == 4
    await placement.resize(server, keeper, {"VCPU": 3})
    await placement.release(keeper)
    await placement.take_back(server, keeper)
    assert await _free(placement) == 3


async def _free(placement: PlacementRuntime) -> int:
    """How many processors can still be claimed."""
    for amount in range(6, 0, -1):
        consumer = new_id()
        try:
            await placement.claim(consumer, "p", "u", {"VCPU": amount})
        except NoCandidate:
            continue
        await placement.release(consumer)
        return amount
    return 0


async def test_limits_of_size(placement: PlacementRuntime) -> None:
    limits = Inventory(total=100, min_unit=4, max_unit=20, step_size=4)
    await placement.ensure_provider("0" * 8, "host", {"VCPU": limits})
    for amount in (2, 5, 24):
        with pytest.raises(NoCandidate):
            await placement.claim(new_id(), "p", "u", {"VCPU": amount})
    assert await placement.claim(new_id(), "p", "u", {"VCPU": 20}) == "host"


async def test_claims_that_compete_never_take_too_much(client: Client, placement: PlacementRuntime) -> None:
    names = [f"host{n}" for n in range(3)]
    for n, name in enumerate(names):
        await placement.ensure_provider(
            f"{n}" * 8, name, {"VCPU": Inventory(total=5), "MEMORY_MB": Inventory(total=1000)}
        )

    async def claim() -> str | None:
        try:
            return await placement.claim(new_id(), "p", "u", {"VCPU": 1, "MEMORY_MB": 10})
        except NoCandidate:
            return None

    async def put(n: int) -> str | None:
        body = wanted(f"{n % 3}" * 8, VCPU=1, MEMORY_MB=10)
        return names[n % 3] if (await ask(client, "PUT", f"/allocations/{new_id()}", body)).status == 204 else None

    found = await asyncio.gather(*(claim() for _ in range(20)), *(put(n) for n in range(20)))
    assert sorted(name for name in found if name) == sorted(names * 5)
    for n in range(3):
        usages = (await ask(client, "GET", f"/resource_providers/{f'{n}' * 8}/usages")).json()["usages"]
        assert usages == {"VCPU": 5, "MEMORY_MB": 50}
