"""Grants and the list of all assignments."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity


async def listed(identity: Identity, query: str) -> list[dict[str, Any]]:
    reply = await identity.call("GET", f"/v3/role_assignments?{query}")
    assert reply.status == 200, reply.data
    found: list[dict[str, Any]] = reply.json()["role_assignments"]
    return found


@pytest.mark.parametrize("actor", ["users", "groups"])
@pytest.mark.parametrize("place", ["projects", "domains", "system"])
async def test_a_grant_is_given_checked_listed_and_taken(identity: Identity, place: str, actor: str) -> None:
    holder = await identity.made(actor, name="holder")
    where = {
        "projects": f"projects/{identity.accounts.demo_project_id}", "domains": "domains/default", "system": "system",
    }[place]  # fmt: skip
    who = f"{actor}/{holder['id']}"
    assert (await identity.grant("reader", where, who, "HEAD")).status == 404
    for _ in range(2):
        assert (await identity.grant("reader", where, who)).status == 204
    assert (await identity.grant("reader", where, who, "HEAD")).status == 204
    assert (await identity.grant("reader", where, who, "GET")).status == 204
    roles = (await identity.call("GET", f"/v3/{where}/{who}/roles")).json()["roles"]
    assert [r["name"] for r in roles] == ["reader"] and roles[0]["links"]["self"].endswith(roles[0]["id"])
    found = await listed(identity, f"{actor[:-1]}.id={holder['id']}")
    assert len(found) == 1 and found[0][actor[:-1]] == {"id": holder["id"]}
    assert (await identity.grant("reader", where, who, "DELETE")).status == 204
    gone = await identity.grant("reader", where, who, "DELETE")
    assert gone.status == 404 and "Could not find role assignment" in gone.json()["error"]["message"]


async def test_a_grant_names_what_exists(identity: Identity) -> None:
    project, user = identity.accounts.demo_project_id, identity.accounts.demo_user_id
    role = await identity.role("reader")
    for path, kind in (
        (f"projects/none/users/{user}/roles/{role}", "project"),
        (f"projects/{project}/users/none/roles/{role}", "user"),
        (f"projects/{project}/groups/none/roles/{role}", "group"),
        (f"projects/{project}/users/{user}/roles/none", "role"),
        (f"domains/{project}/users/{user}/roles/{role}", "domain"),
        (f"projects/default/users/{user}/roles/{role}", "project"),
    ):
        reply = await identity.call("PUT", f"/v3/{path}")
        assert reply.status == 404 and f"Could not find {kind}: " in reply.json()["error"]["message"]


async def test_inherited_roles_reach_the_projects_below(identity: Identity) -> None:
    user = await identity.made("users", name="ann", password="secret")
    top = await identity.made("projects", name="top")
    await identity.made("projects", name="below", parent_id=top["id"])
    role = await identity.role("reader")
    for place, reached in ((f"projects/{top['id']}", False), ("domains/default", True)):
        path = f"/v3/OS-INHERIT/{place}/users/{user['id']}/roles/{role}/inherited_to_projects"
        assert (await identity.call("PUT", path)).status == 204
        assert (await identity.call("HEAD", path)).status == 204
        assert (await identity.login("ann", scope="below")).status == 201
        assert (await identity.login("ann", scope="top")).status == (201 if reached else 401)
        effective = await listed(identity, f"user.id={user['id']}&effective")
        names = {a["scope"]["project"]["id"] for a in effective}
        assert (top["id"] in names) is reached and len(names) == (5 if reached else 1)
        stored = await listed(identity, f"user.id={user['id']}")
        assert stored[0]["scope"]["OS-INHERIT:inherited_to"] == "projects"
        own = (await identity.call("GET", f"/v3/users/{user['id']}/projects")).json()["projects"]
        assert {p["id"] for p in own} == names
        assert (await identity.call("DELETE", path)).status == 204
        assert (await identity.login("ann", scope="below")).status == 401


async def test_effective_assignments_follow_groups_and_implied_roles(identity: Identity) -> None:
    user, group = await identity.made("users", name="ann"), await identity.made("groups", name="crew")
    await identity.call("PUT", f"/v3/groups/{group['id']}/users/{user['id']}")
    place = f"projects/{identity.accounts.demo_project_id}"
    await identity.grant("member", place, f"groups/{group['id']}")
    assert await listed(identity, f"user.id={user['id']}") == []
    found = await listed(identity, f"user.id={user['id']}&effective=true&include_names=1")
    assert {a["role"]["name"] for a in found} == {"member", "reader"}
    assert found[0]["user"] == {"id": user["id"], "name": "ann", "domain": {"id": "default", "name": "Default"}}
    assert found[0]["scope"]["project"]["name"] == "demo"
    assert found[0]["links"]["membership"].endswith(f"/v3/groups/{group['id']}/users/{user['id']}")
    reader = await identity.role("reader")
    assert len(await listed(identity, f"user.id={user['id']}&effective&role.id={reader}")) == 1
    assert (await identity.call("GET", f"/v3/role_assignments?effective&group.id={group['id']}")).status == 400


async def test_filters_by_place(identity: Identity) -> None:
    accounts = identity.accounts
    by_project = await listed(identity, f"scope.project.id={accounts.demo_project_id}")
    assert [a["user"]["id"] for a in by_project] == [accounts.demo_user_id]
    by_domain = await listed(identity, "scope.domain.id=default&include_names")
    assert by_domain[0]["scope"] == {"domain": {"id": "default", "name": "Default"}}
    by_system = await listed(identity, "scope.system=all")
    assert [a["scope"] for a in by_system] == [{"system": {"all": True}}]
    below = await identity.made("projects", name="below", parent_id=accounts.demo_project_id)
    user = await identity.person("ann", "reader", f"projects/{below['id']}")
    tree = await listed(identity, f"scope.project.id={accounts.demo_project_id}&include_subtree=true")
    assert {a["user"]["id"] for a in tree} == {accounts.demo_user_id, user["id"]}


async def test_what_goes_takes_its_assignments_with_it(identity: Identity) -> None:
    before = await listed(identity, "")
    project = await identity.made("projects", name="work")
    role = await identity.made("roles", name="odd")
    for n, gone in enumerate(("user", "project", "role")):
        if gone != "role":
            user = await identity.person(f"ann{n}", "member", f"projects/{project['id']}")
            item = user if gone == "user" else project
        else:
            await identity.person(f"ann{n}", "odd", f"projects/{identity.accounts.demo_project_id}")
            item = role
        assert (await identity.call("DELETE", f"/v3/{gone}s/{item['id']}")).status == 204
        assert await listed(identity, "") == before
