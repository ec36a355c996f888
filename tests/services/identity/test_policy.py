"""Who may do what: admin, manager, member and reader of a project, of the domain, of the system, another domain, nobody."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.services.identity.conftest import Identity

WHO = ("admin", "system_reader", "domain_manager", "domain_reader", "other_manager", "member", "reader")


@pytest.fixture
async def realm(identity: Identity) -> Mapping[str, Any]:
    """A domain with a project, a user, a group, and a token for each kind of caller."""
    domain = await identity.made("domains", name="realm")
    other = await identity.made("domains", name="elsewhere")
    project = await identity.made("projects", name="work", domain_id=domain["id"])
    group = await identity.made("groups", name="crew", domain_id=domain["id"])
    user = await identity.made("users", name="ann", domain_id=domain["id"], password="secret")
    place, system = f"projects/{project['id']}", {"system": {"all": True}}
    tokens = {"admin": identity.admin}
    for name, role, where, home, scope in (
        ("system_reader", "reader", "system", "default", system),
        ("domain_manager", "manager", f"domains/{domain['id']}", domain["id"], {"domain": {"id": domain["id"]}}),
        ("domain_reader", "reader", f"domains/{domain['id']}", domain["id"], {"domain": {"id": domain["id"]}}),
        ("other_manager", "manager", f"domains/{other['id']}", other["id"], {"domain": {"id": other["id"]}}),
        ("member", "member", place, domain["id"], "work"),
        ("reader", "reader", place, domain["id"], "work"),
    ):
        await identity.person(name, role, where, home)
        tokens[name] = await identity.token(name, domain=home, scope=scope)
    role = await identity.role("reader")
    return {
        "domain": domain["id"],
        "project": project["id"],
        "group": group["id"],
        "user": user["id"],
        "role": role,
        "t": tokens,
    }


READERS = {"admin", "system_reader", "domain_manager", "domain_reader"}
MANAGERS = {"admin", "domain_manager"}
SYSTEM = {"admin", "system_reader"}
ALL = set(WHO)

CASES: list[tuple[str, str, Any, set[str]]] = [
    ("GET", "/v3/users", None, READERS | {"other_manager"}),
    ("GET", "/v3/users/{user}", None, READERS),
    ("POST", "/v3/users", {"user": {"name": "new", "domain_id": "{domain}"}}, MANAGERS),
    ("PATCH", "/v3/users/{user}", {"user": {"email": "x"}}, MANAGERS),
    ("GET", "/v3/users/{user}/projects", None, READERS),
    ("GET", "/v3/users/{user}/groups", None, READERS),
    ("GET", "/v3/projects", None, READERS | {"other_manager"}),
    ("GET", "/v3/projects/{project}", None, READERS | {"member", "reader"}),
    ("POST", "/v3/projects", {"project": {"name": "new", "domain_id": "{domain}"}}, MANAGERS),
    ("PATCH", "/v3/projects/{project}", {"project": {"description": "x"}}, MANAGERS),
    ("POST", "/v3/projects", {"project": {"name": "new", "is_domain": True}}, {"admin"}),
    ("GET", "/v3/groups/{group}", None, READERS),
    ("PUT", "/v3/groups/{group}/users/{user}", None, MANAGERS),
    ("GET", "/v3/groups/{group}/users", None, READERS),
    ("GET", "/v3/domains", None, READERS | {"other_manager"}),
    ("GET", "/v3/domains/{domain}", None, READERS | {"member", "reader"}),
    ("POST", "/v3/domains", {"domain": {"name": "new"}}, {"admin"}),
    ("PATCH", "/v3/domains/{domain}", {"domain": {"description": "x"}}, {"admin"}),
    ("GET", "/v3/roles", None, SYSTEM | {"domain_manager", "other_manager"}),
    ("POST", "/v3/roles", {"role": {"name": "new"}}, {"admin"}),
    ("PUT", "/v3/projects/{project}/users/{user}/roles/{role}", None, MANAGERS),
    ("GET", "/v3/projects/{project}/users/{user}/roles", None, READERS),
    ("PUT", "/v3/domains/{domain}/users/{user}/roles/{role}", None, MANAGERS),
    ("PUT", "/v3/system/users/{user}/roles/{role}", None, {"admin"}),
    ("GET", "/v3/system/users/{user}/roles", None, SYSTEM),
    ("GET", "/v3/role_assignments", None, READERS | {"other_manager"}),
    ("GET", "/v3/services", None, SYSTEM),
    ("POST", "/v3/services", {"service": {"type": "new"}}, {"admin"}),
    ("GET", "/v3/endpoints", None, SYSTEM),
    ("GET", "/v3/regions", None, ALL),
    ("PUT", "/v3/regions/new", {"region": {}}, {"admin"}),
    ("GET", "/v3/policies", None, SYSTEM),
    ("GET", "/v3/credentials", None, ALL),
    ("GET", "/v3/auth/catalog", None, ALL),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"), CASES, ids=[f"{c[0]} {c[1]} {c[2] or ''}" for c in CASES]
)
async def test_who_may(
    identity: Identity, realm: Mapping[str, Any], method: str, path: str, body: Any, allowed: set[str]
) -> None:
    url = path.format_map(realm)
    for who in WHO:
        sent = filled(body, realm, who)
        reply = await identity.call(method, url, sent, token=realm["t"][who])
        assert (reply.status < 300) is (who in allowed), f"{who}: {reply.status} {reply.data!r}"
        assert reply.status < 300 or reply.status == 403, f"{who}: {reply.status}"
        if method == "PUT" and "regions" in url and reply.status < 300:
            await identity.call("DELETE", url)
    assert (await identity.http(method, url, filled(body, realm, "x"), token="nobody")).status == 401


def filled(body: Any, realm: Mapping[str, Any], who: str) -> Any:
    """The body with its places filled, and a name of its own for each caller."""
    if isinstance(body, dict):
        return {k: filled(v, realm, who) for k, v in body.items()}
    if body == "new":
        return f"new-{who}"
    return body.format_map(realm) if isinstance(body, str) else body


async def test_a_domain_sees_only_itself(identity: Identity, realm: Mapping[str, Any]) -> None:
    token = realm["t"]["domain_reader"]
    for kind in ("users", "projects", "groups"):
        found = (await identity.call("GET", f"/v3/{kind}", token=token)).json()[kind]
        assert found and {item["domain_id"] for item in found} == {realm["domain"]}
    domains = (await identity.call("GET", "/v3/domains", token=token)).json()["domains"]
    assert [d["id"] for d in domains] == [realm["domain"]]
    seen = (await identity.call("GET", "/v3/role_assignments", token=token)).json()["role_assignments"]
    places = [next(iter(a["scope"].values()))["id"] for a in seen]
    assert set(places) == {realm["domain"], realm["project"]}


async def test_a_domain_manager_cannot_make_admins(identity: Identity, realm: Mapping[str, Any]) -> None:
    path = f"/v3/projects/{realm['project']}/users/{realm['user']}/roles/{await identity.role('admin')}"
    assert (await identity.call("PUT", path, token=realm["t"]["domain_manager"])).status == 403
    demo = f"/v3/projects/{identity.accounts.demo_project_id}/users/{realm['user']}/roles/{realm['role']}"
    assert (await identity.call("PUT", demo, token=realm["t"]["domain_manager"])).status == 403


async def test_users_see_themselves_and_refusals_name_the_rule(identity: Identity) -> None:
    demo = await identity.token("demo")
    mine = f"/v3/users/{identity.accounts.demo_user_id}"
    assert (await identity.call("GET", mine, token=demo)).status == 200
    assert (await identity.call("GET", f"{mine}/groups", token=demo)).status == 200
    reply = await identity.call("GET", f"/v3/users/{identity.accounts.admin_user_id}", token=demo)
    assert reply.status == 403
    assert (
        reply.json()["error"]["message"] == "You are not authorized to perform the requested action: identity:get_user."
    )
    assert (await identity.call("GET", "/v3/users/no-such-user", token=demo)).status == 403
    assert (await identity.call("GET", "/v3/users/no-such-user")).status == 404


async def test_credentials_are_their_owners(identity: Identity) -> None:
    demo, user_id = await identity.token("demo"), identity.accounts.demo_user_id
    project = identity.accounts.demo_project_id
    blob = '{"access":"a","secret":"b"}'
    body = {"credential": {"type": "ec2", "blob": blob, "project_id": project, "user_id": user_id}}
    made = (await identity.call("POST", "/v3/credentials", body, token=demo)).json()["credential"]
    assert made["user_id"] == user_id and made["blob"] == body["credential"]["blob"]
    assert (await identity.call("POST", "/v3/credentials", body, token=demo)).status == 409
    for_admin = {"credential": {**body["credential"], "user_id": identity.accounts.admin_user_id}}
    assert (await identity.call("POST", "/v3/credentials", for_admin, token=demo)).status == 403
    theirs = await identity.made("credentials", type="cert", blob="x", user_id=identity.accounts.admin_user_id)
    path = f"/v3/credentials/{theirs['id']}"
    assert (await identity.call("GET", path, token=demo)).status == 403
    assert [c["id"] for c in (await identity.call("GET", "/v3/credentials", token=demo)).json()["credentials"]] == [
        made["id"]
    ]
    assert len((await identity.call("GET", "/v3/credentials")).json()["credentials"]) == 2
    give_away = {"credential": {"user_id": identity.accounts.admin_user_id}}
    assert (await identity.call("PATCH", f"/v3/credentials/{made['id']}", give_away, token=demo)).status == 403
    other = {"credential": {"blob": '{"access":"a","secret":"c"}'}}
    changed = await identity.call("PATCH", f"/v3/credentials/{made['id']}", other, token=demo)
    assert changed.json()["credential"]["blob"] == other["credential"]["blob"]
    data = identity.runtime.kernel.settings.data
    stored = b"".join(f.read_bytes() for f in data.glob("cumulet.sqlite*"))
    assert b'{"access":"a","secret":"b"}' not in stored
    assert (await identity.call("DELETE", f"/v3/credentials/{made['id']}", token=demo)).status == 204


async def test_an_admin_of_a_domain_does_nothing_to_the_cloud(identity: Identity, realm: Mapping[str, Any]) -> None:
    await identity.person("root", "admin", f"domains/{realm['domain']}", realm["domain"])
    token = await identity.token("root", domain=realm["domain"], scope={"domain": {"id": realm["domain"]}})
    local = await identity.made("roles", name="local", domain_id=realm["domain"])
    system = f"/v3/system/users/{realm['user']}/roles"
    for method, path, body in (
        ("POST", "/v3/domains", {"domain": {"name": "new"}}),
        ("PATCH", f"/v3/domains/{realm['domain']}", {"domain": {"description": "x"}}),
        ("DELETE", f"/v3/domains/{realm['domain']}", None),
        ("GET", "/v3/services", None),
        ("GET", "/v3/policies", None),
        ("POST", "/v3/regions", {"region": {}}),
        ("POST", "/v3/roles", {"role": {"name": "new"}}),
        ("POST", "/v3/roles", {"role": {"name": "new", "domain_id": realm["domain"]}}),
        ("GET", f"/v3/roles?domain_id={realm['domain']}", None),
        ("GET", f"/v3/roles/{local['id']}", None),
        ("GET", f"/v3/roles/{realm['role']}/implies", None),
        ("GET", "/v3/role_inferences", None),
        ("GET", system, None),
        ("PUT", f"{system}/{realm['role']}", None),
    ):
        assert (await identity.call(method, path, body, token=token)).status == 403, path
    for path in ("regions", "roles", f"roles/{realm['role']}", "users", "role_assignments", f"users/{realm['user']}"):
        assert (await identity.call("GET", f"/v3/{path}", token=token)).status == 200, path
    made = await identity.call("POST", "/v3/projects", {"project": {"name": "mine"}}, token=token)
    assert made.status == 201 and made.json()["project"]["domain_id"] == realm["domain"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "domains/none", 403), ("PATCH", "domains/none", 404), ("DELETE", "domains/none", 404),
        ("GET", "groups/none", 403), ("PATCH", "groups/none", 403), ("DELETE", "groups/none", 404),
        ("GET", "roles/none", 404), ("PATCH", "roles/none", 404), ("DELETE", "roles/none", 404),
        ("GET", "roles/none/implies", 404), ("GET", "users/none", 403), ("PATCH", "users/none", 403),
        ("DELETE", "users/none", 403), ("GET", "projects/none", 403), ("PATCH", "projects/none", 403),
        ("GET", "services/none", 403), ("GET", "credentials/none", 403), ("GET", "users/none/projects", 403),
        ("GET", "users/none/groups", 403), ("GET", "groups/none/users", 403), ("PUT", "groups/none/users/none", 403),
    ],
)  # fmt: skip
async def test_who_learns_that_nothing_is_there(identity: Identity, method: str, path: str, status: int) -> None:
    key = path.split("/")[0].removesuffix("s")
    body = {key: {"description": "x"}} if method == "PATCH" else None
    demo = await identity.token("demo")
    assert (await identity.call(method, f"/v3/{path}", body, token=demo)).status == status
    assert (await identity.call(method, f"/v3/{path}", body)).status == 404


async def test_a_domain_manager_sees_the_roles_that_he_gives(identity: Identity, realm: Mapping[str, Any]) -> None:
    odd = await identity.made("roles", name="odd")
    local = await identity.made("roles", name="manager", domain_id=realm["domain"])
    token = realm["t"]["domain_manager"]
    assert (await identity.call("GET", f"/v3/roles/{realm['role']}", token=token)).status == 200
    for hidden in (odd, local):
        assert (await identity.call("GET", f"/v3/roles/{hidden['id']}", token=token)).status == 403
    listed = (await identity.call("GET", "/v3/roles", token=token)).json()["roles"]
    assert local["id"] not in [role["id"] for role in listed]
    nameless = {"user": {"name": "someone"}}
    assert (await identity.call("POST", "/v3/users", nameless, token=token)).status == 403


async def test_a_check_of_a_grant_needs_a_role_of_ones_own_domain(identity: Identity, realm: Mapping[str, Any]) -> None:
    elsewhere = await identity.made("domains", name="far")
    roles = {
        "own": (await identity.made("roles", name="local", domain_id=realm["domain"]))["id"],
        "other": (await identity.made("roles", name="local", domain_id=elsewhere["id"]))["id"],
        "global": realm["role"],
    }
    place = f"/v3/domains/{realm['domain']}/users/{realm['user']}/roles"
    for role in roles.values():
        assert (await identity.call("PUT", f"{place}/{role}")).status == 204
    for kind, status in (("own", 204), ("other", 403), ("global", 204)):
        found = await identity.call("HEAD", f"{place}/{roles[kind]}", token=realm["t"]["domain_reader"])
        assert found.status == status, kind


async def test_members_of_a_group_are_shown_within_the_domain(identity: Identity, realm: Mapping[str, Any]) -> None:
    guest = await identity.made("users", name="guest")
    for user in (realm["user"], guest["id"]):
        assert (await identity.call("PUT", f"/v3/groups/{realm['group']}/users/{user}")).status == 204
    path = f"/v3/groups/{realm['group']}/users"
    seen = (await identity.call("GET", path, token=realm["t"]["domain_reader"])).json()["users"]
    assert [user["id"] for user in seen] == [realm["user"]]
    assert len((await identity.call("GET", path)).json()["users"]) == 2
    assert [u["name"] for u in (await identity.call("GET", f"{path}?name__startswith=gu")).json()["users"]] == ["guest"]
    abroad = await identity.made("groups", name="abroad")
    await identity.call("PUT", f"/v3/groups/{abroad['id']}/users/{realm['user']}")
    path = f"/v3/users/{realm['user']}/groups"
    seen = (await identity.call("GET", path, token=realm["t"]["domain_reader"])).json()["groups"]
    assert [group["id"] for group in seen] == [realm["group"]]
