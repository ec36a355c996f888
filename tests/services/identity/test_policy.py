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
