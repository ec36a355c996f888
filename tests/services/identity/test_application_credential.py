"""Application credentials and access rules: what they give, what they may not, what ends them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from cumulet.core import db
from cumulet.core.context import AccessRule as Allowed
from cumulet.core.errors import Unauthorized
from cumulet.core.types import later
from cumulet.services.identity.application_credential import ApplicationCredential
from cumulet.services.identity.auth.issue import issue
from cumulet.services.identity.auth.method import Proof
from cumulet.services.identity.auth.place import Place
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.tables import application_credential_role, application_credential_rule
from tests.harness import Reply
from tests.services.identity.conftest import Identity, identity_in

RULE = {"service": "compute", "method": "GET", "path": "/v2.1/servers/*/ips"}


class Owner:
    """A user with two roles on a project, and his application credentials."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.project = identity.accounts.demo_project_id

    async def come(self) -> "Owner":
        place = f"projects/{self.project}"
        self.id = (await self.identity.person("owner", "member", place))["id"]
        await self.identity.grant("manager", place, f"users/{self.id}")
        self.token = await self.identity.token("owner", scope="demo")
        self.path = f"/v3/users/{self.id}/application_credentials"
        return self

    async def ask(self, token: str = "", **values: Any) -> Reply:
        body = {"application_credential": {"name": "program", **values}}
        return await self.identity.call("POST", self.path, body, token=token or self.token)

    async def credential(self, token: str = "", **values: Any) -> Any:
        reply = await self.ask(token, **values)
        assert reply.status == 201, reply.data
        return reply.json()["application_credential"]

    async def login(self, scope: Any = None, **payload: Any) -> Reply:
        method = "application_credential"
        auth: dict[str, Any] = {"identity": {"methods": [method], method: payload}}
        if scope is not None:
            auth["scope"] = scope
        return await self.identity.http("POST", "/v3/auth/tokens", {"auth": auth}, token="nobody")

    async def lent(self, credential: Any) -> str:
        reply = await self.login(id=credential["id"], secret=credential["secret"])
        assert reply.status == 201, reply.data
        return reply.headers["X-Subject-Token"]

    async def continued(self, token: str, scope: Any = None) -> Reply:
        """A token by method `token`."""
        auth: dict[str, Any] = {"identity": {"methods": ["token"], "token": {"id": token}}}
        if scope is not None:
            auth["scope"] = scope
        return await self.identity.http("POST", "/v3/auth/tokens", {"auth": auth}, token="nobody")

    async def show(self, token: str, **headers: str) -> Reply:
        return await self.identity.call("GET", "/v3/auth/tokens", **{"X-Subject-Token": token}, **headers)


@pytest.fixture
async def owner(identity: Identity) -> Owner:
    return await Owner(identity).come()


async def test_a_credential_is_shown_with_its_secret_once(identity: Identity, owner: Owner) -> None:
    made = await owner.credential(description="a job", roles=[{"name": "member"}], access_rules=[RULE])
    assert len(made.pop("secret")) == 86
    rule_id = made["access_rules"][0]["id"]
    assert made == {
        "id": made["id"], "name": "program", "description": "a job", "user_id": owner.id, "project_id": owner.project,
        "expires_at": None, "unrestricted": False, "system": None, "roles": made["roles"],
        "access_rules": [{"id": rule_id, **RULE}],
        "links": {"self": f"{identity.http.url}{owner.path}/{made['id']}"},
    }  # fmt: skip
    assert {r["name"] for r in made["roles"]} == {"member", "reader"}  # reader is implied
    assert made["roles"][0].keys() == {"id", "name", "domain_id", "description", "options"}
    shown = await identity.call("GET", f"{owner.path}/{made['id']}", token=owner.token)
    assert shown.json()["application_credential"] == made
    other = await owner.credential(name="other", secret="chosen")
    assert other["secret"] == "chosen" and "access_rules" not in other
    assert {r["name"] for r in other["roles"]} == {"manager", "member", "reader"}
    listed = (await identity.call("GET", owner.path, token=owner.token)).json()["application_credentials"]
    assert {c["id"] for c in listed} == {made["id"], other["id"]}
    named = (await identity.call("GET", f"{owner.path}?name=program", token=owner.token)).json()
    assert named["application_credentials"] == [made]
    assert (await identity.call("PATCH", f"{owner.path}/{made['id']}", {}, token=owner.token)).status == 405
    row = await identity.runtime.kernel.db.read(db.get, ApplicationCredential, other["id"])
    assert row.secret_hash.startswith("$argon2id$")


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"name": ""}, 400),
        ({"name": None}, 400),
        ({"expires_at": "soon"}, 400),
        ({"expires_at": "2001-01-01T00:00:00.000000Z"}, 400),
        ({"roles": [{"name": "admin"}]}, 400),  # which he has not
        ({"roles": [{"id": "none"}]}, 404),
        ({"roles": [{"id": "x", "name": "y"}]}, 400),
        ({"unrestricted": "yes"}, 400),
        ({"surprise": 1}, 400),
        ({"access_rules": [{**RULE, "method": "TRACE"}]}, 400),
        ({"access_rules": [{**RULE, "path": "v2.1"}]}, 400),
        ({"access_rules": [{**RULE, "service": "no such/thing"}]}, 400),
        ({"access_rules": [{"service": "compute"}]}, 400),
        ({"access_rules": [{"id": "none"}]}, 400),
    ],
)
async def test_a_credential_that_makes_no_sense(owner: Owner, values: Any, status: int) -> None:
    reply = await owner.ask(**values)
    assert reply.status == status, reply.data


async def test_names_are_the_users_own(identity: Identity, owner: Owner) -> None:
    await owner.credential()
    assert (await owner.ask()).status == 409
    demo = f"/v3/users/{identity.accounts.demo_user_id}/application_credentials"
    body = {"application_credential": {"name": "program"}}
    assert (await identity.call("POST", demo, body, token=await identity.token("demo", scope="demo"))).status == 201


async def test_the_limit_is_a_setting(tmp_path: Any) -> None:
    async with identity_in(tmp_path, application_credential_limit=2) as identity:
        owner = await Owner(identity).come()
        replies = await asyncio.gather(*(owner.ask(name=f"program {n}") for n in range(5)))
        assert sorted(reply.status for reply in replies) == [201, 201, 403, 403, 403]


async def test_who_may_see_make_and_delete(identity: Identity, owner: Owner) -> None:
    one = f"{owner.path}/{(await owner.credential(access_rules=[RULE]))['id']}"
    rules = f"/v3/users/{owner.id}/access_rules"
    rule = f"{rules}/{(await identity.call('GET', rules, token=owner.token)).json()['access_rules'][0]['id']}"
    auditor = await identity.made("users", name="auditor", password="secret")
    await identity.grant("reader", "system", f"users/{auditor['id']}")
    tokens = {
        "owner": owner.token,
        "unscoped": await identity.token("owner", scope="unscoped"),
        "demo": await identity.token("demo", scope="demo"),
        "admin": identity.admin,
        "system admin": await identity.token("admin", scope={"system": {"all": True}}),
        "system reader": await identity.token("auditor", scope={"system": {"all": True}}),
        "domain admin": await identity.token("admin", scope={"domain": {"id": "default"}}),
    }
    seen = {
        who: [(await identity.call("GET", path, token=token)).status for path in (owner.path, one, rules, rule)]
        for who, token in tokens.items()
    }
    assert seen == {
        "owner": [200] * 4,
        "unscoped": [200] * 4,
        "demo": [403] * 4,
        "admin": [200, 200, 403, 403],
        "system admin": [200] * 4,
        "system reader": [200] * 4,
        "domain admin": [403] * 4,
    }
    for who, token in tokens.items():
        assert (await owner.ask(token)).status == (409 if who == "owner" else 403)
        assert (await identity.call("GET", f"{owner.path}/none", token=token)).status == (
            403 if who in ("demo", "domain admin") else 404
        )
    demo = tokens["demo"]
    behind = one.replace(owner.id, identity.accounts.demo_user_id)  # his own path does not make it his
    assert (await identity.call("GET", behind, token=demo)).status == 403
    assert (await identity.call("DELETE", behind, token=demo)).status == 403
    behind = rule.replace(owner.id, identity.accounts.demo_user_id)
    assert (await identity.call("GET", behind, token=demo)).status == 404
    for who in ("demo", "system reader", "domain admin"):
        assert (await identity.call("DELETE", one, token=tokens[who])).status == 403
    assert (await identity.call("DELETE", one, token=tokens["admin"])).status == 204
    assert (await identity.call("DELETE", one, token=owner.token)).status == 404
    for who in ("demo", "admin", "system reader", "domain admin"):
        assert (await identity.call("DELETE", rule, token=tokens[who])).status == 403
    assert (await identity.call("DELETE", rule, token=tokens["system admin"])).status == 204


async def test_a_login_by_id_or_by_name(identity: Identity, owner: Owner) -> None:
    made = await owner.credential(roles=[{"name": "member"}])
    secret = made["secret"]
    right: list[dict[str, Any]] = [
        {"id": made["id"]},
        {"id": made["id"], "user": {"id": identity.accounts.admin_user_id}},  # of no effect
        {"name": "program", "user": {"id": owner.id}},
        {"name": "program", "user": {"name": "owner", "domain": {"id": "default"}}},
        {"name": "program", "user": {"name": "owner", "domain": {"name": "Default"}}},
    ]
    for payload in right:
        reply = await owner.login(secret=secret, **payload)
        assert reply.status == 201, reply.data
        token = reply.json()["token"]
        assert token["user"]["id"] == owner.id and token["project"]["id"] == owner.project
        assert token["methods"] == ["application_credential"]
        assert {r["name"] for r in token["roles"]} == {"member", "reader"}
        assert token["application_credential"] == {"id": made["id"], "name": "program", "restricted": True}
    wrong: list[dict[str, Any]] = [
        {"id": made["id"], "secret": "wrong"},
        {"id": "none", "secret": secret},
        {"name": "none", "user": {"id": owner.id}, "secret": secret},
        {"name": "program", "user": {"id": identity.accounts.admin_user_id}, "secret": secret},
        {"name": "program", "user": {"name": "owner", "domain": {"id": "none"}}, "secret": secret},
    ]
    for payload in wrong:
        assert (await owner.login(**payload)).status == 401
    malformed: list[dict[str, Any]] = [
        {"id": made["id"]},
        {"secret": secret},
        {"name": "program", "secret": secret},
        {"name": "program", "user": {"name": "owner"}, "secret": secret},
        {"name": "program", "user": {}, "secret": secret},
    ]
    for payload in malformed:
        assert (await owner.login(**payload)).status == 400
    for scope in ({"project": {"id": owner.project}}, "unscoped", {"system": {"all": True}}):
        reply = await owner.login(scope, id=made["id"], secret=secret)
        assert reply.status == 401 and "cannot request a scope" in reply.json()["error"]["message"]


async def test_a_token_stays_what_it_is_when_continued(identity: Identity, owner: Owner) -> None:
    elsewhere = await identity.made("projects", name="elsewhere")
    await identity.grant("member", f"projects/{elsewhere['id']}", f"users/{owner.id}")
    await identity.call("PATCH", f"/v3/users/{owner.id}", {"user": {"default_project_id": elsewhere["id"]}})
    made = await owner.credential(access_rules=[RULE])
    token = await owner.lent(made)
    reply = await owner.continued(token)
    assert reply.status == 201
    body = reply.json()["token"]
    assert body["project"]["id"] == owner.project and body["application_credential"]["id"] == made["id"]
    assert set(body["methods"]) == {"token", "application_credential"}
    caller = await identity.runtime.authenticate(reply.headers["X-Subject-Token"])
    assert caller.restricted and caller.access_rules == (Allowed(**RULE),)
    for scope in ({"project": {"id": elsewhere["id"]}}, {"project": {"id": owner.project}}, "unscoped"):
        assert (await owner.continued(token, scope)).status == 403
    both = {
        "identity": {
            "methods": ["application_credential", "password"],
            "application_credential": {"id": made["id"], "secret": made["secret"]},
            "password": {"user": {"id": owner.id, "password": "secret"}},
        },
        "scope": {"project": {"id": elsewhere["id"]}},
    }
    assert (await identity.http("POST", "/v3/auth/tokens", {"auth": both}, token="nobody")).status == 401
    del both["scope"]
    reply = await identity.http("POST", "/v3/auth/tokens", {"auth": both}, token="nobody")
    assert reply.json()["token"]["application_credential"]["id"] == made["id"]


@pytest.mark.parametrize("unrestricted", [False, True])
async def test_what_a_token_by_a_credential_may(identity: Identity, owner: Owner, unrestricted: bool) -> None:
    made = await owner.credential(unrestricted=unrestricted, roles=[{"name": "member"}])
    token = await owner.lent(made)
    caller = await identity.runtime.authenticate(token)
    assert (caller.delegation, caller.delegation_id) == ("application_credential", made["id"])
    assert caller.restricted is not unrestricted and caller.access_rules is None
    assert (await identity.call("GET", owner.path, token=token)).status == 200
    reply = await owner.ask(token, name="second")
    assert reply.status == (201 if unrestricted else 403), reply.data
    if unrestricted:
        second = reply.json()["application_credential"]
        assert {r["name"] for r in second["roles"]} == {"member", "reader"}
        assert (await owner.ask(token, name="third", roles=[{"name": "manager"}])).status == 400
    else:
        assert "managing additional application credentials" in reply.json()["error"]["message"]
    trust = {
        "trustor_user_id": owner.id, "trustee_user_id": identity.accounts.demo_user_id, "project_id": owner.project,
        "impersonation": False, "roles": [{"name": "member"}],
    }  # fmt: skip
    reply = await identity.call("POST", "/v3/OS-TRUST/trusts", {"trust": trust}, token=owner.token)
    one = f"/v3/OS-TRUST/trusts/{reply.json()['trust']['id']}"
    mine = f"/v3/OS-TRUST/trusts?trustor_user_id={owner.id}"
    for method, path in (
        ("GET", mine),
        ("GET", one),
        ("GET", f"{one}/roles"),
        ("GET", f"{one}/roles/x"),
        ("DELETE", one),
    ):
        reply = await identity.call(method, path, token=token)
        assert reply.status == 403 and "managing trusts" in reply.json()["error"]["message"]
    assert (await identity.call("POST", "/v3/OS-TRUST/trusts", {"trust": trust}, token=token)).status == 403
    member = {"trustor_user_id": identity.accounts.demo_user_id, "trustee_user_id": owner.id, "impersonation": True}
    body = {"trust": {**trust, **member}}
    demo = await identity.token("demo", scope="demo")
    lent = (await identity.call("POST", "/v3/OS-TRUST/trusts", body, token=demo)).json()["trust"]
    scope = {"OS-TRUST:trust": {"id": lent["id"]}}
    assert (await owner.login(scope, id=made["id"], secret=made["secret"])).status == 401
    assert (await owner.continued(token, scope)).status == 403
    deleted = await identity.call("DELETE", f"{owner.path}/{made['id']}", token=token)
    assert deleted.status == (204 if unrestricted else 403)
    assert (await owner.show(token)).status == (404 if unrestricted else 200)


async def test_an_end_is_kept_and_ends_the_tokens(identity: Identity, owner: Owner) -> None:
    soon = later(60)
    made = await owner.credential(expires_at=f"{soon}Z")
    assert made["expires_at"] == soon
    reply = await owner.login(id=made["id"], secret=made["secret"])
    assert reply.json()["token"]["expires_at"] == f"{soon}Z"
    await identity.runtime.write(db.update, ApplicationCredential, made["id"], expires_at="2020-01-01T00:00:00.000000")
    assert (await owner.login(id=made["id"], secret=made["secret"])).status == 401
    proof = Proof(
        user_id=owner.id,
        methods=("ec2credential",),
        issued_at=microseconds(),
        via="application_credential",
        via_id=made["id"],
        scope=("project", owner.project),
    )
    ctx: Any = SimpleNamespace(service=identity.runtime)
    with pytest.raises(Unauthorized):  # however it is proved that one speaks by it
        await issue(ctx, proof, Place("project", owner.project))


@pytest.mark.parametrize("what", ["deleted", "user", "disabled", "project", "role", "grants"])
async def test_what_ends_a_credential_voids_its_tokens_at_once(identity: Identity, owner: Owner, what: str) -> None:
    role = await identity.made("roles", name="special")
    project = await identity.made("projects", name="apart")
    place = f"projects/{project['id']}"
    await identity.grant("special", place, f"users/{owner.id}")
    await identity.grant("member", place, f"users/{owner.id}")
    scoped = await identity.token("owner", scope="apart")
    made = await owner.credential(scoped, roles=[{"id": role["id"]}], access_rules=[RULE])
    token = await owner.lent(made)
    assert (await identity.runtime.authenticate(token)).roles == {"special"}
    disabled = {"user": {"enabled": False}}
    method, path, body = {
        "deleted": ("DELETE", f"{owner.path}/{made['id']}", None),
        "user": ("DELETE", f"/v3/users/{owner.id}", None),
        "disabled": ("PATCH", f"/v3/users/{owner.id}", disabled),
        "project": ("DELETE", f"/v3/projects/{project['id']}", None),
        "role": ("DELETE", f"/v3/roles/{role['id']}", None),
        "grants": ("DELETE", f"/v3/{place}/users/{owner.id}/roles/{role['id']}", None),
    }[what]
    assert (await identity.call(method, path, body)).status < 300
    assert (await owner.show(token)).status == 404
    assert (await identity.call("GET", "/v3/auth/catalog", token=token)).status == 401
    assert (await owner.login(id=made["id"], secret=made["secret"])).status == 401
    assert (await identity.call("GET", f"{owner.path}/{made['id']}")).status == 404
    left = await identity.runtime.kernel.db.read(
        lambda tx: [tx.execute(select(t)).all() for t in (application_credential_role, application_credential_rule)]
    )
    assert left == [[], []]
    if what in ("user", "disabled"):
        system = await identity.token("admin", scope={"system": {"all": True}})
        await identity.call("PATCH", f"/v3/users/{owner.id}", {"user": {"enabled": True}})
        rules = await identity.call("GET", f"/v3/users/{owner.id}/access_rules", token=system)
        assert rules.json()["access_rules"] == []


async def test_roles_through_a_group_count_while_they_last(identity: Identity, owner: Owner) -> None:
    project = await identity.made("projects", name="apart")
    group = await identity.made("groups", name="crew")
    await identity.call("PUT", f"/v3/groups/{group['id']}/users/{owner.id}")
    await identity.grant("member", f"projects/{project['id']}", f"groups/{group['id']}")
    await identity.grant("reader", f"projects/{project['id']}", f"groups/{group['id']}")
    made = await owner.credential(await identity.token("owner", scope="apart"))
    token = await owner.lent(made)
    await identity.grant("member", f"projects/{project['id']}", f"groups/{group['id']}", "DELETE")
    shown = (await owner.show(token)).json()["token"]
    assert [r["name"] for r in shown["roles"]] == ["reader"]  # of those it gives, what he still has
    await identity.grant("reader", f"projects/{project['id']}", f"groups/{group['id']}", "DELETE")
    assert (await owner.show(token)).status == 404
    assert (await identity.call("GET", f"{owner.path}/{made['id']}")).status == 404


# ---- access rules -------------------------------------------------------------------------------------------------------


async def test_rules_are_each_there_once_and_stay_while_in_use(identity: Identity, owner: Owner) -> None:
    other = {"service": "image", "method": "POST", "path": "/v2/images/**"}
    first = await owner.credential(name="first", access_rules=[RULE, RULE])
    (rule,) = first["access_rules"]
    second = await owner.credential(name="second", access_rules=[{"id": rule["id"]}, other])
    third = await owner.credential(name="third", access_rules=[RULE])
    assert {r["id"] for r in third["access_rules"]} == {rule["id"]} < {r["id"] for r in second["access_rules"]}
    path = f"/v3/users/{owner.id}/access_rules"
    listed = (await identity.call("GET", path, token=owner.token)).json()["access_rules"]
    assert len(listed) == 2
    images = (await identity.call("GET", f"{path}?service=image", token=owner.token)).json()["access_rules"]
    assert [{k: r[k] for k in other} for r in images] == [other]
    one = f"{path}/{rule['id']}"
    shown = (await identity.call("GET", one, token=owner.token)).json()["access_rule"]
    assert shown == {"id": rule["id"], **RULE, "links": {"self": f"{identity.http.url}{one}"}}
    for credential in (first, second, third):
        refused = await identity.call("DELETE", one, token=owner.token)
        assert refused.status == 403 and "in use" in refused.json()["error"]["message"]
        assert (await identity.call("DELETE", f"{owner.path}/{credential['id']}", token=owner.token)).status == 204
    assert (await identity.call("GET", one, token=owner.token)).status == 200
    assert (await identity.call("DELETE", one, token=owner.token)).status == 204
    assert (await identity.call("DELETE", one, token=owner.token)).status == 404
    assert (await identity.call("GET", one, token=owner.token)).status == 404


async def test_rules_of_others_cannot_be_used(identity: Identity, owner: Owner) -> None:
    (rule,) = (await owner.credential(access_rules=[RULE]))["access_rules"]
    demo = f"/v3/users/{identity.accounts.demo_user_id}/application_credentials"
    body = {"application_credential": {"name": "program", "access_rules": [{"id": rule["id"]}]}}
    assert (await identity.call("POST", demo, body, token=await identity.token("demo", scope="demo"))).status == 400


async def test_a_token_with_rules_is_valid_to_who_knows_them(identity: Identity, owner: Owner) -> None:
    made = await owner.credential(access_rules=[RULE])
    token = await owner.lent(made)
    header = "OpenStack-Identity-Access-Rules"
    reply = await owner.show(token, **{header: "1.0"})
    assert reply.status == 200
    assert reply.json()["token"]["application_credential"] == {
        "id": made["id"], "name": "program", "restricted": True, "access_rules": made["access_rules"],
    }  # fmt: skip
    for headers in ({}, {header: ""}, {header: "0.9"}, {header: "x"}):
        assert (await owner.show(token, **headers)).status == 404
    assert (await owner.show(await owner.lent(await owner.credential(name="free", access_rules=[])))).status == 200
    assert (await identity.runtime.authenticate(token)).access_rules == (Allowed(**RULE),)
    revoked = await identity.call("DELETE", "/v3/auth/tokens", **{"X-Subject-Token": token})
    assert revoked.status == 204
    assert (await owner.show(token, **{header: "1.0"})).status == 404
