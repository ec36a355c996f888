"""Unified limits: registered ones and those of projects and domains, the two models, and what services are told."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.identity.limit_model import MODELS, TreeTooDeep, check_depth
from tests.harness import Reply
from tests.services.identity.conftest import Identity, identity_in


class Limits:
    """A service `sample`, and short ways to limit it."""

    def __init__(self, identity: Identity, service_id: str) -> None:
        self.identity, self.service = identity, service_id

    async def register(self, name: str, amount: int, **more: Any) -> Reply:
        row = {"service_id": self.service, "resource_name": name, "default_limit": amount, **more}
        return await self.identity.call("POST", "/v3/registered_limits", {"registered_limits": [row]})

    async def registered(self, name: str, amount: int, **more: Any) -> Any:
        reply = await self.register(name, amount, **more)
        assert reply.status == 201, reply.data
        return reply.json()["registered_limits"][0]

    def row(self, name: str, amount: int, **more: Any) -> dict[str, Any]:
        return {"service_id": self.service, "resource_name": name, "resource_limit": amount, **more}

    async def set(self, *rows: Mapping[str, Any], token: str = "") -> Reply:
        return await self.identity.call("POST", "/v3/limits", {"limits": rows}, token=token)

    async def limit(self, name: str, amount: int, **more: Any) -> Any:
        reply = await self.set(self.row(name, amount, **more))
        assert reply.status == 201, reply.data
        return reply.json()["limits"][0]

    async def change(self, limit: Mapping[str, Any], **changes: Any) -> Reply:
        return await self.identity.call("PATCH", f"/v3/limits/{limit['id']}", {"limit": changes})


async def prepared(identity: Identity) -> Limits:
    return Limits(identity, (await identity.made("services", type="sample", name="sample"))["id"])


@pytest.fixture
async def limits(identity: Identity) -> Limits:
    return await prepared(identity)


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Limits]:
    async with identity_in(tmp_path, limit_model="strict_two_level") as identity:
        yield await prepared(identity)


async def listed(limits: Limits, query: str = "", token: str = "") -> list[str]:
    reply = await limits.identity.call("GET", f"/v3/limits{query}", token=token)
    assert reply.status == 200, reply.data
    return [limit["id"] for limit in reply.json()["limits"]]


# ---- registered limits --------------------------------------------------------------------------------------------------


async def test_registered_limits_are_made_changed_and_removed(limits: Limits) -> None:
    call, base = limits.identity.call, "/v3/registered_limits"
    rows = [
        {"service_id": limits.service, "resource_name": "apples", "default_limit": 10, "description": "red"},
        {"service_id": limits.service, "resource_name": "apples", "default_limit": 5, "region_id": "RegionOne"},
    ]
    made = await call("POST", base, {"registered_limits": rows})
    assert made.status == 201 and "links" not in made.json()
    everywhere, here = made.json()["registered_limits"]
    assert everywhere["region_id"] is None and here["region_id"] == "RegionOne" and here["description"] is None
    assert everywhere["links"]["self"].endswith(f"{base}/{everywhere['id']}")
    found = await call("GET", f"{base}?service_id={limits.service}&region_id=RegionOne&resource_name=apples")
    assert [r["id"] for r in found.json()["registered_limits"]] == [here["id"]]
    path = f"{base}/{everywhere['id']}"
    changed = await call("PATCH", path, {"registered_limit": {"default_limit": -1, "resource_name": "pears"}})
    assert changed.status == 200 and (await call("GET", path)).json() == changed.json()
    assert changed.json()["registered_limit"]["default_limit"] == -1
    twin = await call("PATCH", path, {"registered_limit": {"resource_name": "apples", "region_id": "RegionOne"}})
    assert twin.status == 409
    back = await call("PATCH", f"{base}/{here['id']}", {"registered_limit": {"region_id": None}})
    assert back.json()["registered_limit"]["region_id"] is None
    assert (await call("DELETE", path)).status == 204 and (await call("GET", path)).status == 404


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"service_id": "none"}, 400), ({"region_id": "none"}, 400), ({"region_id": ""}, 400), ({"resource_name": ""}, 400),
        ({"resource_name": 123}, 400), ({"default_limit": "ten"}, 400), ({"default_limit": -2}, 400),
        ({"default_limit": 2**31}, 400), ({"description": 1}, 400), ({"colour": "red"}, 400),
    ],
)  # fmt: skip
async def test_registered_limits_that_make_no_sense(limits: Limits, wrong: dict[str, Any], status: int) -> None:
    assert (await limits.register("apples", 10, **{"region_id": None, **wrong})).status == status
    made = await limits.registered("apples", 10)
    path = f"/v3/registered_limits/{made['id']}"
    assert (await limits.identity.call("PATCH", path, {"registered_limit": wrong})).status == status
    assert (await limits.identity.call("GET", path)).json()["registered_limit"] == made


async def test_registered_limits_come_all_or_none(limits: Limits) -> None:
    call, base = limits.identity.call, "/v3/registered_limits"
    row = {"service_id": limits.service, "resource_name": "apples", "default_limit": 10}
    for body, status in (
        ({}, 400), ({"registered_limits": []}, 400), ({"registered_limits": 1}, 400), ({"registered_limits": [row, row]}, 409),
        ({"registered_limits": [row, {**row, "service_id": "none", "resource_name": "pears"}]}, 400),
    ):  # fmt: skip
        assert (await call("POST", base, body)).status == status
    assert (await call("GET", base)).json()["registered_limits"] == []
    assert (await limits.register("apples", 10)).status == 201
    assert (await limits.register("apples", 11)).status == 409


async def test_what_is_in_use_stays(limits: Limits) -> None:
    identity = limits.identity
    made = await limits.registered("apples", 10, region_id="RegionOne")
    await identity.made("regions", id="below", parent_region_id="RegionOne")
    await limits.registered("pears", 10, region_id="below")
    assert (await identity.call("DELETE", "/v3/regions/below")).status == 204  # a limit may name a region that is gone
    limit = await limits.limit("apples", 5, region_id="RegionOne", project_id=identity.accounts.demo_project_id)
    path = f"/v3/registered_limits/{made['id']}"
    for reply in (
        await identity.call("PATCH", path, {"registered_limit": {"default_limit": 1}}),
        await identity.call("DELETE", path),
    ):
        assert reply.status == 403 and "project limits associated" in reply.json()["error"]["message"]
    assert (await identity.call("DELETE", f"/v3/limits/{limit['id']}")).status == 204
    assert (await identity.call("DELETE", f"/v3/services/{limits.service}")).status == 204  # "pears" names it still
    assert (await identity.call("DELETE", path)).status == 204


# ---- limits of projects and domains -------------------------------------------------------------------------------------


async def test_limits_are_made_changed_and_removed(limits: Limits) -> None:
    identity = limits.identity
    demo = identity.accounts.demo_project_id
    await limits.registered("apples", 10)
    await limits.registered("pears", 10, region_id="RegionOne")
    mine = await limits.limit("apples", 5, project_id=demo, description="few")
    assert (mine["project_id"], mine["domain_id"], mine["region_id"]) == (demo, None, None)
    ours = await limits.limit("pears", 7, domain_id="default", region_id="RegionOne")
    assert (ours["project_id"], ours["domain_id"], ours["region_id"]) == (None, "default", "RegionOne")
    path = f"/v3/limits/{mine['id']}"
    changed = await limits.change(mine, resource_limit=0, description=None)
    assert changed.json()["limit"] == {**mine, "resource_limit": 0, "description": None}
    assert (await identity.call("GET", path)).json() == changed.json()
    for query, wanted in (
        (f"?project_id={demo}", [mine]), ("?domain_id=default", [ours]), ("?resource_name=pears", [ours]),
        ("?region_id=RegionOne", [ours]), (f"?service_id={limits.service}&resource_name=apples", [mine]),
        ("?service_id=none", []), ("?resource_name__startswith=pe", [ours]),
    ):  # fmt: skip
        assert await listed(limits, query) == [limit["id"] for limit in wanted]
    assert (await identity.call("DELETE", path)).status == 204
    assert (await identity.call("GET", path)).status == 404


async def test_a_domain_named_as_a_project_is_a_domain(limits: Limits) -> None:
    await limits.registered("apples", 10)
    limit = await limits.limit("apples", 5, project_id="default")
    assert (limit["project_id"], limit["domain_id"]) == (None, "default")


async def test_limits_that_make_no_sense(limits: Limits) -> None:
    demo = limits.identity.accounts.demo_project_id
    await limits.registered("apples", 10)
    good = limits.row("apples", 5, project_id=demo)
    nobody = {k: v for k, v in good.items() if k != "project_id"}
    for row, status in (
        (nobody, 400), ({**good, "domain_id": "default"}, 400), ({**good, "domain_id": None}, 400),
        ({**nobody, "project_id": None}, 400), ({**good, "project_id": "none"}, 400), ({**nobody, "domain_id": demo}, 400),
        ({**good, "service_id": "none"}, 400), ({**good, "region_id": "none"}, 400), ({**good, "resource_limit": -5}, 400),
        ({**good, "resource_limit": True}, 400), ({**good, "more": 1}, 400), ({**good, "resource_name": "pears"}, 403),
        ({**good, "region_id": "RegionOne"}, 403),
    ):  # fmt: skip
        reply = await limits.set(row)
        assert reply.status == status, (row, reply.data)
    assert (await limits.set(good, good)).status == 409
    assert await listed(limits) == []
    limit = await limits.limit("apples", 5, project_id=demo)
    assert (await limits.set(good)).status == 409
    for wrong in ({"resource_limit": "many"}, {"resource_name": "pears"}, {"project_id": demo}, {"description": 3}):
        assert (await limits.change(limit, **wrong)).status == 400


async def test_limits_go_with_their_project_and_domain(limits: Limits) -> None:
    identity = limits.identity
    registered = await limits.registered("apples", 10)
    domain = await identity.made("domains", name="away")
    project = await identity.made("projects", name="away", domain_id=domain["id"])
    other = await identity.made("projects", name="gone")
    for owner in ({"project_id": project["id"]}, {"domain_id": domain["id"]}, {"project_id": other["id"]}):
        await limits.limit("apples", 5, **owner)
    await identity.call("DELETE", f"/v3/projects/{other['id']}")
    assert len(await listed(limits)) == 2
    await identity.call("PATCH", f"/v3/domains/{domain['id']}", {"domain": {"enabled": False}})
    assert (await identity.call("DELETE", f"/v3/domains/{domain['id']}")).status == 204
    assert await listed(limits) == []
    assert (await identity.call("DELETE", f"/v3/registered_limits/{registered['id']}")).status == 204


async def test_who_sees_and_sets_limits(limits: Limits) -> None:
    identity = limits.identity
    registered = await limits.registered("apples", 10)
    away = await identity.made("domains", name="away")
    mine, theirs = [await identity.made("projects", name=n, domain_id=away["id"]) for n in ("mine", "theirs")]
    own = await limits.limit("apples", 1, project_id=mine["id"])
    other = await limits.limit("apples", 2, project_id=theirs["id"])
    home = await limits.limit("apples", 3, domain_id=away["id"])
    far = await limits.limit("apples", 4, project_id=identity.accounts.demo_project_id)
    await identity.person("reader", "reader", f"projects/{mine['id']}", away["id"])
    await identity.person("ruler", "reader", f"domains/{away['id']}", away["id"])
    await identity.person("manager", "manager", f"projects/{mine['id']}", away["id"])
    watcher = await identity.person("watcher", "reader", "system")
    in_domain = {"domain": {"id": away["id"]}}
    tokens = {
        "reader": await identity.token("reader", domain=away["id"], scope="mine"),
        "manager": await identity.token("manager", domain=away["id"], scope="mine"),
        "ruler": await identity.token("ruler", domain=away["id"], scope=in_domain),
        "watcher": await identity.token(watcher["id"], by_id=True, scope={"system": {"all": True}}),
        "nowhere": await identity.token("reader", domain=away["id"], scope="unscoped"),
        "admin": identity.admin,
    }
    seen = {
        "reader": {own["id"]}, "manager": {own["id"]}, "ruler": {own["id"], other["id"], home["id"]}, "nowhere": set(),
        "watcher": {own["id"], other["id"], home["id"], far["id"]}, "admin": {own["id"], other["id"], home["id"], far["id"]},
    }  # fmt: skip
    for name, token in tokens.items():
        assert set(await listed(limits, token=token)) == seen[name], name
        for limit in (own, other, home, far):
            reply = await identity.call("GET", f"/v3/limits/{limit['id']}", token=token)
            assert reply.status == (200 if limit["id"] in seen[name] else 403), (name, limit)
        missing = await identity.call("GET", "/v3/limits/none", token=token)
        assert missing.status == (404 if name in ("admin", "watcher") else 403)
        assert (await identity.call("GET", "/v3/limits/model", token=token)).status == 200
        assert (await identity.call("GET", f"/v3/registered_limits/{registered['id']}", token=token)).status == 200
        assert (await identity.call("GET", "/v3/registered_limits", token=token)).status == 200
        if name == "admin":
            continue
        for method, path, body in (
            ("POST", "/v3/limits", {"limits": [limits.row("apples", 9, domain_id="default")]}),
            ("PATCH", f"/v3/limits/{own['id']}", {"limit": {"resource_limit": 99}}),
            ("DELETE", f"/v3/limits/{own['id']}", None),
            ("POST", "/v3/registered_limits", {"registered_limits": []}),
            ("PATCH", f"/v3/registered_limits/{registered['id']}", {"registered_limit": {"default_limit": 1}}),
            ("DELETE", f"/v3/registered_limits/{registered['id']}", None),
        ):
            assert (await identity.call(method, path, body, token=token)).status == 403, (name, method, path)
    for path in ("limits", "limits/model", f"limits/{own['id']}", "registered_limits"):
        assert (await identity.http("GET", f"/v3/{path}", token="nobody")).status == 401


# ---- models -------------------------------------------------------------------------------------------------------------


async def test_the_model_in_force_is_told(limits: Limits) -> None:
    reply = await limits.identity.call("GET", "/v3/limits/model")
    assert reply.json()["model"]["name"] == "flat" and set(reply.json()["model"]) == {"name", "description"}
    assert (await limits.identity.call("HEAD", "/v3/limits/model")).status == 200


async def tree(strict: Limits) -> tuple[str, str, str]:
    domain = await strict.identity.made("domains", name="tree")
    projects = [await strict.identity.made("projects", name=n, domain_id=domain["id"]) for n in ("left", "right")]
    return domain["id"], projects[0]["id"], projects[1]["id"]


async def test_no_project_has_more_than_its_domain(strict: Limits) -> None:
    assert (await strict.identity.call("GET", "/v3/limits/model")).json()["model"]["name"] == "strict_two_level"
    await strict.registered("apples", 10)
    top, left, right = await tree(strict)
    assert (
        await strict.set(strict.row("apples", 11, project_id=left))
    ).status == 403  # the default holds for the domain
    small = await strict.limit("apples", 9, project_id=left)
    assert (await strict.set(strict.row("apples", 8, domain_id=top))).status == 403
    limit = await strict.limit("apples", 20, domain_id=top)
    assert (await strict.set(strict.row("apples", 21, project_id=right))).status == 403
    assert (await strict.set(strict.row("apples", -1, project_id=right))).status == 403
    await strict.limit("apples", 18, project_id=right)  # a sum above the domain's is no matter
    assert (await strict.change(small, resource_limit=21)).status == 403
    assert (await strict.change(small, resource_limit=20)).status == 200
    refused = await strict.change(limit, resource_limit=19)
    assert refused.status == 403 and "hierarchy model" in refused.json()["error"]["message"]
    assert (await strict.change(limit, resource_limit=-1)).status == 200
    assert (await strict.change(small, resource_limit=5000)).status == 200


async def test_a_tree_can_be_limited_at_once(strict: Limits) -> None:
    await strict.registered("apples", 10)
    top, left, right = await tree(strict)
    rows = [strict.row("apples", 12, domain_id=top), strict.row("apples", 11, project_id=left)]
    assert (await strict.set(*rows, strict.row("apples", 13, project_id=right))).status == 403
    assert await listed(strict) == []
    assert (await strict.set(*rows, strict.row("apples", 12, project_id=right))).status == 201


async def test_two_levels_are_all_that_a_strict_cloud_takes(strict: Limits) -> None:
    _, left, _ = await tree(strict)
    deep = {"project": {"name": "deep", "parent_id": left}}
    reply = await strict.identity.call("POST", "/v3/projects", deep)
    assert reply.status == 403 and "hierarchy depth" in reply.json()["error"]["message"]


async def test_a_deeper_cloud_does_not_start_as_a_strict_one(limits: Limits) -> None:
    identity = limits.identity
    db = identity.runtime.kernel.db
    await db.read(check_depth, MODELS["strict_two_level"])
    project = await identity.made("projects", name="deep", parent_id=identity.accounts.demo_project_id)
    with pytest.raises(TreeTooDeep, match=project["id"]):
        await db.read(check_depth, MODELS["strict_two_level"])
    await db.read(check_depth, MODELS["flat"])


# ---- what services are told ---------------------------------------------------------------------------------------------


async def test_services_are_told_what_a_project_may_have(limits: Limits) -> None:
    identity = limits.identity
    demo, told = identity.accounts.demo_project_id, identity.runtime.limits
    await identity.made("regions", id="elsewhere")
    await limits.registered("apples", 10)
    await limits.registered("apples", 6, region_id="RegionOne")
    await limits.registered("pears", 3)
    await limits.registered("plums", 1, region_id="elsewhere")
    assert await told("sample", demo) == {"apples": 6, "pears": 3}
    await limits.limit("pears", -1, project_id=demo)
    await limits.limit("pears", 99, domain_id="default")
    assert await told("sample", demo) == {"apples": 6, "pears": -1}
    assert await told("sample", identity.accounts.admin_project_id) == {"apples": 6, "pears": 3}
    assert await told("nothing", demo) == {}
