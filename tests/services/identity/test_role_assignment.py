"""Grants and the list of all assignments."""

from typing import Any

import pytest
from sqlalchemy import event

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


async def told(identity: Identity, query: str, *keys: str) -> set[tuple[str, ...]]:
    """The links of the assignments, below /v3."""
    base = f"{identity.http.url}/v3/"
    return {tuple(a["links"].get(key, "").removeprefix(base) for key in keys) for a in await listed(identity, query)}


async def test_an_effective_assignment_tells_where_it_comes_from(identity: Identity) -> None:
    top = await identity.made("projects", name="top")
    low = await identity.made("projects", name="low", parent_id=top["id"])
    lowest = await identity.made("projects", name="lowest", parent_id=low["id"])
    user, group = await identity.made("users", name="ann"), await identity.made("groups", name="crew")
    await identity.call("PUT", f"/v3/groups/{group['id']}/users/{user['id']}")
    member, reader = await identity.role("member"), await identity.role("reader")
    holder, end = f"groups/{group['id']}", "/inherited_to_projects"
    await identity.grant("member", f"OS-INHERIT/projects/{top['id']}", holder, end=end)
    await identity.grant("reader", f"projects/{low['id']}", f"users/{user['id']}")
    grant = f"OS-INHERIT/projects/{top['id']}/{holder}/roles/{member}/inherited_to_projects"
    membership = f"groups/{group['id']}/users/{user['id']}"
    implied = f"prior_role/{reader}/implies/{member}"
    inherited = {(grant, membership, ""), (grant, membership, implied)}
    own = (f"projects/{low['id']}/users/{user['id']}/roles/{reader}", "", "")
    keys = ("assignment", "membership", "prior_role")
    mine = f"effective&user.id={user['id']}"
    assert await told(identity, mine, *keys) == {*inherited, own}
    assert await told(identity, f"{mine}&scope.project.id={lowest['id']}", *keys) == inherited
    assert await told(identity, f"{mine}&scope.project.id={top['id']}", *keys) == set()
    assert await told(identity, f"{mine}&scope.OS-INHERIT:inherited_to=projects", *keys) == inherited
    assert await told(identity, f"{mine}&role.id={member}", *keys) == {(grant, membership, "")}
    found = await listed(identity, f"{mine}&scope.project.id={top['id']}&include_subtree")
    assert [a["scope"]["project"]["id"] for a in found].count(low["id"]) == 3 and len(found) == 5
    assert [a for a in found if a["role"] == {"id": member}] == [
        a for a in found if a["scope"].get("OS-INHERIT:inherited_to") == "projects" and "prior_role" not in a["links"]
    ]
    stored = await listed(identity, f"scope.project.id={top['id']}&include_subtree")
    assert {a["scope"]["project"]["id"] for a in stored} == {top["id"], low["id"]}
    inherited_only = await listed(identity, "scope.OS-INHERIT:inherited_to=projects")
    assert [a["group"]["id"] for a in inherited_only] == [group["id"]]


@pytest.mark.parametrize(
    "query",
    [
        "scope.domain.id=a&scope.project.id=b",
        "scope.domain.id=a&scope.system=all",
        "scope.project.id=a&scope.system=all",
        "user.id=a&group.id=b",
        "effective&group.id=a",
        "effective&scope.domain.id=a&scope.OS-INHERIT:inherited_to=projects",
        "include_subtree",
    ],
)
async def test_filters_that_exclude_one_another(identity: Identity, query: str) -> None:
    assert (await identity.call("GET", f"/v3/role_assignments?{query}")).status == 400


async def test_a_flag_that_is_0_is_not_there(identity: Identity) -> None:
    group = await identity.made("groups", name="crew")
    assert await listed(identity, f"effective=0&include_subtree=0&include_names=0&group.id={group['id']}") == []
    assert await listed(identity, "user.id=none") == []
    assert (await identity.call("GET", "/v3/role_assignments?include_subtree&scope.project.id=none")).status == 404


async def test_names_tell_the_domain_of_a_role_of_a_domain(identity: Identity) -> None:
    realm = await identity.made("domains", name="realm")
    project = await identity.made("projects", name="work", domain_id=realm["id"])
    local = await identity.made("roles", name="local", domain_id=realm["id"])
    group = await identity.made("groups", name="crew")
    path = f"groups/{group['id']}/roles/{local['id']}"
    assert (await identity.call("PUT", f"/v3/projects/{project['id']}/{path}")).status == 204
    assert (await identity.call("PUT", f"/v3/system/{path}")).status == 400
    (found,) = await listed(identity, f"group.id={group['id']}&include_names")
    in_realm = {"domain": {"id": realm["id"], "name": "realm"}}
    assert found["role"] == {"id": local["id"], "name": "local", **in_realm}
    assert found["scope"]["project"] == {"id": project["id"], "name": "work", **in_realm}
    assert found["group"]["domain"]["name"] == "Default"


async def test_a_list_takes_as_many_statements_whatever_its_length(identity: Identity) -> None:
    user, place = await identity.made("users", name="ann"), f"projects/{identity.accounts.demo_project_id}"
    group = await identity.made("groups", name="crew")
    await identity.call("PUT", f"/v3/groups/{group['id']}/users/{user['id']}")
    above = identity.accounts.demo_project_id

    sent: list[str] = []
    event.listen(identity.runtime.kernel.db.engine, "before_cursor_execute", lambda *a: sent.append(a[2]))

    async def statements(query: str) -> int:
        await listed(identity, query)  # after which the caller's token is known
        sent.clear()
        await listed(identity, query)
        return sum(text.startswith(("SELECT", "WITH")) for text in sent)

    queries = ("effective&include_names", f"scope.project.id={above}&include_subtree&effective", "include_names")
    await identity.grant("admin", f"OS-INHERIT/{place}", f"groups/{group['id']}", end="/inherited_to_projects")
    few = [await statements(query) for query in queries]
    for n in range(4):
        above = (await identity.made("projects", name=f"p{n}", parent_id=above))["id"]
        await identity.person(f"user{n}", "admin", f"projects/{above}")
        await identity.person(f"reader{n}", "reader", "domains/default")
    assert [await statements(query) for query in queries] == few
    assert max(few) <= 12
