"""Trees of projects and what a domain may be: who is above, who is below, what is refused."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity


async def changed(identity: Identity, project_id: str, **values: Any) -> int:
    return (await identity.call("PATCH", f"/v3/projects/{project_id}", {"project": values})).status


async def test_a_branch_is_disabled_from_below_and_enabled_from_above(identity: Identity) -> None:
    top = await identity.made("projects", name="top")
    middle = await identity.made("projects", name="middle", parent_id=top["id"])
    low = await identity.made("projects", name="low", parent_id=middle["id"])
    assert await changed(identity, top["id"], enabled=False) == 403
    for project in (low, middle, top):
        assert await changed(identity, project["id"], enabled=False) == 200
    below = {"project": {"name": "new", "parent_id": low["id"]}}
    assert (await identity.call("POST", "/v3/projects", below)).status == 400
    assert await changed(identity, low["id"], enabled=True) == 403
    assert await changed(identity, low["id"], description="still disabled") == 200
    for project in (top, middle, low):
        assert await changed(identity, project["id"], enabled=True) == 200


async def test_a_disabled_domain_takes_no_projects(identity: Identity) -> None:
    realm = await identity.made("domains", name="realm")
    project = await identity.made("projects", name="work", domain_id=realm["id"])
    assert (await identity.call("PATCH", f"/v3/domains/{realm['id']}", {"domain": {"enabled": False}})).status == 200
    body = {"project": {"name": "new", "domain_id": realm["id"]}}
    assert (await identity.call("POST", "/v3/projects", body)).status == 400
    assert await changed(identity, project["id"], enabled=False) == 200
    assert await changed(identity, project["id"], enabled=True) == 403


async def test_what_a_project_is_cannot_be_changed(identity: Identity) -> None:
    project, other = await identity.made("projects", name="work"), await identity.made("domains", name="other")
    for values, status in (
        ({"is_domain": True}, 400), ({"is_domain": False}, 200), ({"domain_id": other["id"]}, 400), ({"id": "x"}, 400),
        ({"id": project["id"]}, 200), ({"domain_id": "default"}, 200), ({"parent_id": "default"}, 200),
        ({"parent_id": other["id"]}, 403), ({"parent_id": None}, 403), ({"tags": ["a", "a"]}, 400),
    ):  # fmt: skip
        assert await changed(identity, project["id"], **values) == status, values
    shown = (await identity.call("GET", f"/v3/projects/{project['id']}")).json()["project"]
    assert shown == project
    assert (await identity.call("GET", f"/v3/projects/{other['id']}")).json()["project"]["is_domain"] is True
    assert await changed(identity, other["id"], domain_id=None, description="x") == 200


async def test_the_parent_is_in_the_same_domain(identity: Identity) -> None:
    realm = await identity.made("domains", name="realm")
    top = await identity.made("projects", name="top", domain_id=realm["id"])
    below = await identity.made("projects", name="below", parent_id=top["id"])
    assert below["domain_id"] == realm["id"]
    for values in (
        {"parent_id": top["id"], "domain_id": "default"},
        {"parent_id": realm["id"], "domain_id": "default"},
        {"parent_id": top["id"], "is_domain": True},
        {"domain_id": "none"},
    ):
        assert (await identity.call("POST", "/v3/projects", {"project": {"name": "x", **values}})).status == 400, values


async def test_a_domain_goes_with_all_that_is_in_it(identity: Identity) -> None:
    realm = await identity.made("domains", name="realm")
    within = {"domain_id": realm["id"]}
    top = await identity.made("projects", name="top", **within)
    low = await identity.made("projects", name="low", parent_id=top["id"])
    role, group = (
        await identity.made("roles", name="local", **within),
        await identity.made("groups", name="crew", **within),
    )
    user = await identity.person("ann", "member", f"projects/{low['id']}", realm["id"])
    token = await identity.token("ann", domain=realm["id"], scope={"project": {"id": low["id"]}})
    credential = await identity.made("credentials", type="cert", blob="x", user_id=user["id"])
    before = (await identity.call("GET", "/v3/role_assignments")).json()["role_assignments"]
    for path in (f"/v3/domains/{realm['id']}", f"/v3/projects/{realm['id']}"):
        assert (await identity.call("DELETE", path)).status == 403
    assert await changed(identity, realm["id"], enabled=False) == 200
    assert (await identity.call("DELETE", f"/v3/projects/{realm['id']}")).status == 204
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    for path in (
        f"domains/{realm['id']}", f"projects/{top['id']}", f"projects/{low['id']}", f"roles/{role['id']}",
        f"groups/{group['id']}", f"users/{user['id']}", f"credentials/{credential['id']}",
    ):  # fmt: skip
        assert (await identity.call("GET", f"/v3/{path}")).status == 404
    after = (await identity.call("GET", "/v3/role_assignments")).json()["role_assignments"]
    assert len(after) == len(before) - 1


async def test_a_domain_may_have_an_id_of_ones_own(identity: Identity) -> None:
    chosen = "0123456789abcdef0123456789abcdef"
    realm = await identity.made("domains", name="realm", explicit_domain_id=chosen)
    assert realm["id"] == chosen and "explicit_domain_id" not in realm
    again = {"domain": {"name": "other", "explicit_domain_id": chosen}}
    assert (await identity.call("POST", "/v3/domains", again)).status == 409
    for bad in ("short", chosen.upper(), f"{chosen[:-1]}-", "01234567-89ab-cdef-0123-456789abcdef"):
        body = {"domain": {"name": "other", "explicit_domain_id": bad}}
        assert (await identity.call("POST", "/v3/domains", body)).status == 400
    assert (await identity.call("PATCH", f"/v3/domains/{chosen}", {"domain": {}})).status == 400


@pytest.mark.parametrize("kind", ["project", "domain", "user", "group"])
async def test_names_are_kept_without_the_blanks_around_them(identity: Identity, kind: str) -> None:
    item = await identity.made(f"{kind}s", name="  a name ")
    assert item["name"] == "a name"
    assert (await identity.call("POST", f"/v3/{kind}s", {kind: {"name": "a name  "}})).status == 409
    path = f"/v3/{kind}s/{item['id']}"
    reply = await identity.call("PATCH", path, {kind: {"name": " un/safe?name "}})
    assert reply.status == 200 and reply.json()[kind]["name"] == "un/safe?name"


async def test_projects_are_found_by_their_tags(identity: Identity) -> None:
    for name, tags in (("ab", ["a", "b"]), ("a", ["a"]), ("c", ["c"]), ("upper", ["A"])):
        await identity.made("projects", name=name, tags=tags)
    everything = {"ab", "a", "c", "upper", "admin", "demo", "service"}
    for query, found in (
        ("tags=a,b", {"ab"}), ("tags=a", {"ab", "a"}), ("tags-any=b,c", {"ab", "c"}), ("not-tags=a,b", everything - {"ab"}),
        ("not-tags-any=a,c", {"upper", "admin", "demo", "service"}), ("tags=a&not-tags=b", {"a"}), ("tags=a&name=ab", {"ab"}),
        ("tags=", set()), ("tags=%25", set()),
    ):  # fmt: skip
        reply = await identity.call("GET", f"/v3/projects?{query}")
        assert {p["name"] for p in reply.json()["projects"]} == found, query


async def test_tags_have_bounds(identity: Identity) -> None:
    project = await identity.made("projects", name="work", tags=[f"t{n}" for n in range(80)])
    path = f"/v3/projects/{project['id']}/tags"
    assert (await identity.call("PUT", f"{path}/one-more")).status == 400
    assert (await identity.call("PUT", path, {"tags": [f"t{n}" for n in range(81)]})).status == 400
    assert (await identity.call("PUT", path, {"tags": ["a", "a"]})).status == 400
    assert (await identity.call("PUT", path, {"tags": ["x" * 256]})).status == 400
    assert (await identity.call("PUT", path, {"tags": ["a"]})).status == 200
    made = await identity.call("PUT", f"{path}/b")
    assert made.status == 201 and made.headers["Location"] == f"{identity.http.url}{path}/b"
    assert (await identity.call("PUT", f"{path}/b")).status == 400
    assert (await identity.call("PUT", f"{path}/a,b")).status == 400
    assert (await identity.call("PUT", f"{path}/{'x' * 256}")).status == 400
    assert (await identity.call("DELETE", f"{path}/none")).status == 404
    assert (await identity.call("GET", "/v3/projects/none/tags")).status == 404
