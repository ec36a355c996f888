"""Endpoint groups and the endpoints of projects (OS-EP-FILTER), and the catalogues that come of them."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity

BASE = "/v3/OS-EP-FILTER"


class Scene:
    """A service with a public and an internal endpoint, beside what every cloud has."""

    def __init__(self, identity: Identity, service: str, public: str, internal: str) -> None:
        self.identity, self.service, self.public, self.internal = identity, service, public, internal
        self.demo = identity.accounts.demo_project_id

    async def put(self, path: str, method: str = "PUT", token: str = "") -> int:
        return (await self.identity.call(method, f"{BASE}/{path}", token=token)).status

    async def ids(self, path: str, token: str = "") -> set[str]:
        reply = await self.identity.call("GET", f"{BASE}/{path}", token=token)
        assert reply.status == 200, reply.data
        (items,) = (value for key, value in reply.json().items() if key != "links")
        return {item["id"] for item in items}

    async def group(self, **filters: Any) -> str:
        body = {"endpoint_group": {"name": "group", "filters": filters}}
        reply = await self.identity.call("POST", f"{BASE}/endpoint_groups", body)
        assert reply.status == 201, reply.data
        group: str = reply.json()["endpoint_group"]["id"]
        return group

    async def catalog(self) -> list[Any]:
        token: list[Any] = (await self.identity.login("demo", scope="demo")).json()["token"]["catalog"]
        return token

    async def seen(self) -> set[str]:
        return {endpoint["id"] for entry in await self.catalog() for endpoint in entry["endpoints"]}


@pytest.fixture
async def scene(identity: Identity) -> Scene:
    service = (await identity.made("services", type="sample", name="sample"))["id"]
    made = [
        await identity.made(
            "endpoints", service_id=service, interface=i, url="http://sample.test", region_id="RegionOne"
        )
        for i in ("public", "internal")
    ]
    return Scene(identity, service, *(endpoint["id"] for endpoint in made))


async def test_groups_are_made_changed_and_removed(scene: Scene) -> None:
    call = scene.identity.call
    body = {
        "name": "near",
        "description": "all that is near",
        "filters": {"region_id": "RegionOne", "interface": "public"},
    }
    made = await call("POST", f"{BASE}/endpoint_groups", {"endpoint_group": body})
    assert made.status == 201
    group = made.json()["endpoint_group"]
    path = f"{BASE}/endpoint_groups/{group['id']}"
    assert group["links"]["self"].endswith(path) and {k: group[k] for k in body} == body
    changed = await call(
        "PATCH", path, {"endpoint_group": {"filters": {"service_id": scene.service}, "description": None}}
    )
    assert changed.status == 200 and changed.json()["endpoint_group"]["filters"] == {"service_id": scene.service}
    assert (await call("GET", path)).json() == changed.json()
    assert (
        await scene.ids("endpoint_groups?name=near") == {group["id"]}
        and await scene.ids("endpoint_groups?name=x") == set()
    )
    assert await scene.ids(f"endpoint_groups/{group['id']}/endpoints") == {scene.public, scene.internal}
    assert (await call("HEAD", path)).status == 200
    assert (await call("DELETE", path)).status == 204 and (await call("GET", path)).status == 404


async def test_groups_that_make_no_sense(scene: Scene) -> None:
    good = {"name": "near", "filters": {"interface": "public"}}
    group = await scene.group(interface="public")
    wrongs: list[dict[str, Any]] = [
        {"filters": {}}, {"filters": {"interface": "secret"}}, {"filters": {"colour": "red"}}, {"filters": {"enabled": True}},
        {"filters": None}, {"filters": "public"}, {"name": ""}, {"name": 1}, {"description": 1}, {"colour": "red"},
    ]  # fmt: skip
    for wrong in wrongs:
        made = await scene.identity.call("POST", f"{BASE}/endpoint_groups", {"endpoint_group": {**good, **wrong}})
        assert made.status == 400, wrong
        changed = await scene.identity.call("PATCH", f"{BASE}/endpoint_groups/{group}", {"endpoint_group": wrong})
        assert changed.status == (200 if wrong == {"filters": {}} else 400), wrong
    everything = {entry["id"] for entry in (await scene.identity.call("GET", "/v3/endpoints")).json()["endpoints"]}
    assert await scene.ids(f"endpoint_groups/{group}/endpoints") == everything
    for missing in good:
        body = {"endpoint_group": {k: v for k, v in good.items() if k != missing}}
        assert (await scene.identity.call("POST", f"{BASE}/endpoint_groups", body)).status == 400


async def test_endpoints_of_a_project_are_its_catalogue(scene: Scene) -> None:
    whole = await scene.seen()
    assert {scene.public, scene.internal} < whole
    link = f"projects/{scene.demo}/endpoints/{scene.public}"
    assert await scene.put(link, "HEAD") == 404
    assert await scene.put(link) == 204 and await scene.put(link) == 409 and await scene.put(link, "GET") == 204
    catalog = await scene.catalog()
    assert [entry["type"] for entry in catalog] == ["sample"] and await scene.seen() == {scene.public}
    assert await scene.ids(f"projects/{scene.demo}/endpoints") == {scene.public}
    assert await scene.ids(f"endpoints/{scene.public}/projects") == {scene.demo}
    admin = await scene.identity.call("GET", "/v3/auth/catalog")
    assert len(admin.json()["catalog"]) == 4  # of another project: all
    path = f"/v3/endpoints/{scene.public}"
    await scene.identity.call("PATCH", path, {"endpoint": {"enabled": False}})
    assert await scene.catalog() == []  # one that is off is still all that the project has
    assert await scene.put(link, "DELETE") == 204 and await scene.put(link, "DELETE") == 404
    assert await scene.seen() == whole - {scene.public}


async def test_groups_of_a_project_are_its_catalogue(scene: Scene) -> None:
    whole = await scene.seen()
    group = await scene.group(service_id=scene.service, interface="internal")
    nothing = await scene.group(service_id="none")
    link = f"endpoint_groups/{group}/projects/{scene.demo}"
    assert await scene.put(link, "GET") == 404
    assert await scene.put(f"endpoint_groups/{nothing}/projects/{scene.demo}") == 204
    assert await scene.seen() == whole  # what matches nothing takes nothing away
    assert await scene.put(link) == 204 and await scene.put(link) == 409
    shown = (await scene.identity.call("GET", f"{BASE}/{link}")).json()["project_endpoint_group"]
    assert (
        shown["endpoint_group_id"] == group
        and shown["project_id"] == scene.demo
        and shown["links"]["self"].endswith(link)
    )
    assert await scene.seen() == {scene.internal}
    assert await scene.ids(f"projects/{scene.demo}/endpoint_groups") == {group, nothing}
    assert await scene.ids(f"endpoint_groups/{group}/projects") == {scene.demo}
    assert await scene.put(f"projects/{scene.demo}/endpoints/{scene.public}") == 204
    assert await scene.seen() == {scene.public, scene.internal} == await scene.ids(f"projects/{scene.demo}/endpoints")
    later = await scene.identity.made(
        "endpoints", service_id=scene.service, interface="internal", url="http://later.test"
    )
    assert later["id"] in await scene.seen()  # groups are looked at anew
    assert await scene.put(link, "DELETE") == 204 and await scene.put(link, "DELETE") == 404
    assert await scene.seen() == {scene.public}


async def test_associations_need_both_ends(scene: Scene) -> None:
    group = await scene.group(interface="public")
    for path in (
        f"projects/none/endpoints/{scene.public}", f"projects/{scene.demo}/endpoints/none",
        f"endpoint_groups/none/projects/{scene.demo}", f"endpoint_groups/{group}/projects/none",
    ):  # fmt: skip
        for method in ("PUT", "GET", "HEAD", "DELETE"):
            assert await scene.put(path, method) == 404, (method, path)
    for path in (
        "projects/none/endpoints", "projects/none/endpoint_groups", "endpoints/none/projects",
        "endpoint_groups/none/projects", "endpoint_groups/none/endpoints",
    ):  # fmt: skip
        assert await scene.put(path, "GET") == 404, path


async def test_associations_go_with_either_end(scene: Scene) -> None:
    identity = scene.identity
    whole = await scene.seen()
    project = (await identity.made("projects", name="gone"))["id"]
    group = await scene.group(interface="internal")
    for path in (
        f"projects/{scene.demo}/endpoints/{scene.public}", f"projects/{project}/endpoints/{scene.public}",
        f"endpoint_groups/{group}/projects/{scene.demo}", f"endpoint_groups/{group}/projects/{project}",
    ):  # fmt: skip
        assert await scene.put(path) == 204
    await identity.call("DELETE", f"/v3/projects/{project}")
    assert await scene.ids(f"endpoints/{scene.public}/projects") == {scene.demo}
    assert await scene.ids(f"endpoint_groups/{group}/projects") == {scene.demo}
    assert (await identity.call("DELETE", f"{BASE}/endpoint_groups/{group}")).status == 204
    assert await scene.seen() == {scene.public}
    await identity.call("DELETE", f"/v3/services/{scene.service}")  # and its endpoints with it
    assert await scene.ids(f"projects/{scene.demo}/endpoints") == set()
    assert await scene.seen() == whole - {scene.public, scene.internal}


async def test_who_may_filter(scene: Scene) -> None:
    identity = scene.identity
    group = await scene.group(interface="public")
    link = f"projects/{scene.demo}/endpoints/{scene.public}"
    both = f"endpoint_groups/{group}/projects/{scene.demo}"
    assert await scene.put(link) == 204 and await scene.put(both) == 204
    watcher = await identity.person("watcher", "reader", "system")
    ruler = await identity.person("ruler", "manager", "domains/default")
    boss = await identity.person("boss", "manager", f"projects/{scene.demo}")
    tokens = {
        "watcher": await identity.token(watcher["id"], by_id=True, scope={"system": {"all": True}}),
        "ruler": await identity.token(ruler["id"], by_id=True, scope={"domain": {"id": "default"}}),
        "boss": await identity.token(boss["id"], by_id=True, scope="demo"),
        "demo": await identity.token("demo", scope="demo"),
    }
    reads = [
        "endpoint_groups", f"endpoint_groups/{group}", f"endpoint_groups/{group}/endpoints",
        f"endpoint_groups/{group}/projects", both, link, f"projects/{scene.demo}/endpoints",
        f"projects/{scene.demo}/endpoint_groups",
        f"endpoints/{scene.public}/projects",
    ]  # fmt: skip
    for name, token in tokens.items():
        for path in reads:
            wanted = (204 if path == link else 200) if name == "watcher" else 403
            assert await scene.put(path, "GET", token) == wanted, (name, path)
        for method, path in (
            ("PUT", link), ("DELETE", link), ("PUT", both), ("DELETE", both), ("DELETE", f"endpoint_groups/{group}"),
        ):  # fmt: skip
            assert await scene.put(path, method, token) == 403, (name, method, path)
        body = {"endpoint_group": {"name": "mine", "filters": {"interface": "public"}}}
        assert (await identity.call("POST", f"{BASE}/endpoint_groups", body, token=token)).status == 403
        patched = await identity.call("PATCH", f"{BASE}/endpoint_groups/{group}", body, token=token)
        assert patched.status == 403
    assert (await identity.http("GET", f"{BASE}/endpoint_groups", token="nobody")).status == 401
