"""Which policy goes for which endpoint (OS-ENDPOINT-POLICY)."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity


class Scene:
    """A service with an endpoint in a town, which is a part of the north."""

    def __init__(self, identity: Identity, service: str, endpoint: str, policies: list[str]) -> None:
        self.identity, self.service, self.endpoint, self.policies = identity, service, endpoint, policies

    async def put(self, policy: int, place: str, method: str = "PUT", token: str = "") -> int:
        path = f"/v3/policies/{self.policies[policy]}/OS-ENDPOINT-POLICY/{place}"
        return (await self.identity.call(method, path, token=token)).status

    async def effective(self) -> Any:
        """The number of the policy that goes for the endpoint; None where none does."""
        reply = await self.identity.call("GET", f"/v3/endpoints/{self.endpoint}/OS-ENDPOINT-POLICY/policy")
        if reply.status == 404:
            return None
        assert reply.status == 200, reply.data
        return self.policies.index(reply.json()["policy"]["id"])

    async def endpoints(self, policy: int) -> set[str]:
        path = f"/v3/policies/{self.policies[policy]}/OS-ENDPOINT-POLICY/endpoints"
        return {endpoint["id"] for endpoint in (await self.identity.call("GET", path)).json()["endpoints"]}


@pytest.fixture
async def scene(identity: Identity) -> Scene:
    await identity.made("regions", id="north")
    await identity.made("regions", id="town", parent_region_id="north")
    service = (await identity.made("services", type="sample"))["id"]
    row = {"service_id": service, "interface": "public", "url": "http://sample.test"}
    endpoint = (await identity.made("endpoints", **row, region_id="town"))["id"]
    policies = [(await identity.made("policies", type="text/plain", blob=str(n)))["id"] for n in range(4)]
    return Scene(identity, service, endpoint, policies)


async def test_the_nearest_policy_goes(scene: Scene) -> None:
    assert await scene.effective() is None
    places = [
        f"services/{scene.service}", f"services/{scene.service}/regions/north", f"services/{scene.service}/regions/town",
        f"endpoints/{scene.endpoint}",
    ]  # fmt: skip
    for number, place in enumerate(places):
        assert await scene.put(number, place, "HEAD") == 404
        assert await scene.put(number, place) == 204 and await scene.put(number, place, "GET") == 204
        assert await scene.effective() == number
        assert await scene.endpoints(number) == {scene.endpoint}
    for number in (3, 2, 1, 0):
        assert await scene.effective() == number
        assert await scene.put(number, places[number], "DELETE") == 204
        assert await scene.put(number, places[number], "DELETE") == 204  # there is none: fine
        assert await scene.put(number, places[number], "GET") == 404
        assert await scene.endpoints(number) == set()
    assert await scene.effective() is None


async def test_a_place_has_one_policy(scene: Scene) -> None:
    place = f"services/{scene.service}"
    assert await scene.put(0, place) == 204 and await scene.put(1, place) == 204
    assert await scene.put(0, place, "GET") == 404 and await scene.effective() == 1
    assert await scene.put(0, place, "DELETE") == 204 and await scene.effective() == 1


async def test_endpoints_of_a_policy(scene: Scene) -> None:
    row = {"service_id": scene.service, "interface": "internal", "url": "http://sample.test"}
    north = (await scene.identity.made("endpoints", **row, region_id="north"))["id"]
    nowhere = (await scene.identity.made("endpoints", **row))["id"]
    await scene.put(0, f"services/{scene.service}/regions/town")
    assert await scene.endpoints(0) == {scene.endpoint}
    await scene.put(0, f"services/{scene.service}/regions/north")
    assert await scene.endpoints(0) == {scene.endpoint, north}
    await scene.put(1, f"services/{scene.service}")
    assert await scene.endpoints(1) == {scene.endpoint, north, nowhere}


async def test_associations_need_both_ends(scene: Scene) -> None:
    for place in (
        "endpoints/none", "services/none", f"services/{scene.service}/regions/none", "services/none/regions/north",
    ):  # fmt: skip
        for method in ("PUT", "GET", "HEAD", "DELETE"):
            assert await scene.put(0, place, method) == 404, (method, place)
    base = "/v3/policies/none/OS-ENDPOINT-POLICY/"
    for method, place in (
        ("PUT", f"endpoints/{scene.endpoint}"),
        ("GET", f"services/{scene.service}"),
        ("GET", "endpoints"),
    ):
        assert (await scene.identity.call(method, base + place)).status == 404
    assert (await scene.identity.call("GET", "/v3/endpoints/none/OS-ENDPOINT-POLICY/policy")).status == 404


async def test_associations_go_with_either_end(scene: Scene) -> None:
    call = scene.identity.call
    await scene.put(0, f"endpoints/{scene.endpoint}")
    await scene.put(1, f"services/{scene.service}")
    await scene.put(2, f"services/{scene.service}/regions/north")
    assert (await call("DELETE", f"/v3/policies/{scene.policies[0]}")).status == 204
    assert await scene.effective() == 2
    other = (await scene.identity.made("services", type="other"))["id"]
    moved = await call(
        "PATCH", f"/v3/endpoints/{scene.endpoint}", {"endpoint": {"service_id": other, "region_id": None}}
    )
    assert moved.status == 200 and await scene.effective() is None
    await scene.put(3, f"services/{other}/regions/north")
    assert (await call("DELETE", "/v3/regions/north")).status == 204  # the town with it
    await scene.identity.made("regions", id="north")
    await call("PATCH", f"/v3/endpoints/{scene.endpoint}", {"endpoint": {"region_id": "north"}})
    assert await scene.effective() is None
    await call("PATCH", f"/v3/endpoints/{scene.endpoint}", {"endpoint": {"service_id": scene.service}})
    assert await scene.effective() == 1
    assert (await call("DELETE", f"/v3/services/{scene.service}")).status == 204
    assert (await call("GET", f"/v3/endpoints/{scene.endpoint}")).status == 404 and await scene.endpoints(1) == set()


async def test_who_may_associate(scene: Scene) -> None:
    identity = scene.identity
    places = [
        f"endpoints/{scene.endpoint}", f"services/{scene.service}", f"services/{scene.service}/regions/town",
    ]  # fmt: skip
    for place in places:
        assert await scene.put(0, place) == 204
    watcher = await identity.person("watcher", "reader", "system")
    ruler = await identity.person("ruler", "admin", "domains/default")
    boss = await identity.person("boss", "manager", f"projects/{identity.accounts.demo_project_id}")
    tokens = {
        "watcher": await identity.token(watcher["id"], by_id=True, scope={"system": {"all": True}}),
        "ruler": await identity.token(ruler["id"], by_id=True, scope={"domain": {"id": "default"}}),
        "boss": await identity.token(boss["id"], by_id=True, scope="demo"),
        "demo": await identity.token("demo", scope="demo"),
    }
    effective = f"/v3/endpoints/{scene.endpoint}/OS-ENDPOINT-POLICY/policy"
    for name, token in tokens.items():
        for place in places:
            assert await scene.put(0, place, "GET", token) == (204 if name == "watcher" else 403), name
            for method in ("PUT", "DELETE"):
                assert await scene.put(0, place, method, token) == 403, name
        assert await scene.put(0, "endpoints", "GET", token) == (200 if name == "watcher" else 403), name
        assert (await identity.call("GET", effective, token=token)).status == (200 if name == "watcher" else 403), name
    assert (await identity.http("GET", effective, token="nobody")).status == 401
