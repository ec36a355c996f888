"""Trusts: what one user lends another, what the tokens by it are, and what ends them."""

import asyncio
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import select

from cumulet.core import db
from cumulet.core.types import later
from cumulet.services.identity.tables import trust_role
from cumulet.services.identity.trust import Trust
from tests.harness import Reply
from tests.services.identity.conftest import Identity, identity_in

BY = "OS-TRUST:trust"


class Friends:
    """A trustor with two roles on a project, a trustee and a third without any."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.project = identity.accounts.demo_project_id

    async def meet(self) -> "Friends":
        place = f"projects/{self.project}"
        self.trustor = (await self.identity.person("trustor", "member", place))["id"]
        await self.identity.grant("manager", place, f"users/{self.trustor}")
        self.trustee = (await self.identity.made("users", name="trustee", password="secret"))["id"]
        self.third = (await self.identity.made("users", name="third", password="secret"))["id"]
        self.token = await self.identity.token("trustor", scope="demo")
        self.member = await self.identity.role("member")
        return self

    async def ask(self, token: str = "", **values: Any) -> Reply:
        """POST of a trust of member on the project, or as `values` say."""
        trust = {
            "trustor_user_id": self.trustor, "trustee_user_id": self.trustee, "project_id": self.project,
            "impersonation": True, "roles": [{"id": self.member}], **values,
        }  # fmt: skip
        return await self.identity.call("POST", "/v3/OS-TRUST/trusts", {"trust": trust}, token=token or self.token)

    async def trust(self, token: str = "", **values: Any) -> Any:
        reply = await self.ask(token, **values)
        assert reply.status == 201, reply.data
        return reply.json()["trust"]

    async def login(self, trust: Any, user: str = "trustee") -> Reply:
        return await self.identity.login(user, scope={BY: {"id": trust["id"]}})

    async def lent(self, trust: Any, user: str = "trustee") -> str:
        reply = await self.login(trust, user)
        assert reply.status == 201, reply.data
        return reply.headers["X-Subject-Token"]

    async def valid(self, token: str) -> bool:
        reply = await self.identity.call("GET", "/v3/auth/tokens", **{"X-Subject-Token": token})
        used = await self.identity.call("GET", "/v3/auth/catalog", token=token)
        assert (reply.status, used.status) in ((200, 200), (404, 401))
        return reply.status == 200


@pytest.fixture
async def friends(identity: Identity) -> Friends:
    return await Friends(identity).meet()


async def test_a_trust_is_shown_with_its_roles(identity: Identity, friends: Friends) -> None:
    trust = await friends.trust(roles=[{"name": "member"}], remark="free")
    url = f"{identity.http.url}/v3/OS-TRUST/trusts/{trust['id']}"
    assert trust == {
        "id": trust["id"], "trustor_user_id": friends.trustor, "trustee_user_id": friends.trustee,
        "project_id": friends.project, "impersonation": True, "expires_at": None, "remaining_uses": None,
        "redelegation_count": 0, "redelegated_trust_id": None, "deleted_at": None, "remark": "free",
        "links": {"self": url}, "roles": trust["roles"],
        "roles_links": {"self": f"{url}/roles", "next": None, "previous": None},
    }  # fmt: skip
    assert [(r["id"], r["name"]) for r in trust["roles"]] == [(friends.member, "member")]
    path = f"/v3/OS-TRUST/trusts/{trust['id']}"
    assert (await identity.call("GET", path, token=friends.token)).json()["trust"] == trust
    listed = (await identity.call("GET", f"/v3/OS-TRUST/trusts?trustor_user_id={friends.trustor}")).json()["trusts"]
    assert [t["id"] for t in listed] == [trust["id"]] and "roles" not in listed[0]
    assert (await identity.call("GET", f"/v3/OS-TRUST/trusts?trustee_user_id={friends.third}")).json()["trusts"] == []
    assert (await identity.call("GET", f"{path}/roles")).json()["roles"] == trust["roles"]
    assert (await identity.call("GET", f"{path}/roles/{friends.member}")).json()["role"]["name"] == "member"
    assert (await identity.call("HEAD", f"{path}/roles/{friends.member}")).status == 200
    assert (await identity.call("HEAD", f"{path}/roles/{await identity.role('manager')}")).status == 404
    assert (await identity.call("PATCH", path, {"trust": {}})).status == 405


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"expires_at": "bad.123Z"}, 400),
        ({"expires_at": "2001-01-01T00:00:00.000000Z"}, 400),
        ({"remaining_uses": 0}, 400),
        ({"remaining_uses": -1}, 400),
        ({"remaining_uses": "a"}, 400),
        ({"remaining_uses": 2, "allow_redelegation": True}, 400),
        ({"impersonation": None}, 400),
        ({"trustee_user_id": None}, 400),
        ({"roles": [{"fake": "x"}]}, 400),
        ({"roles": [{}]}, 400),
        ({"roles": []}, 403),
        ({"redelegation_count": 4, "allow_redelegation": True}, 403),
        ({"roles": [{"id": "none"}]}, 404),
        ({"roles": [{"name": "none"}]}, 404),
        ({"roles": [{"name": "admin"}]}, 404),  # which he does not hold
        ({"project_id": "none"}, 404),
        ({"trustee_user_id": "none"}, 404),
        ({"project_id": None}, 404),  # roles of nothing
    ],
)
async def test_a_trust_that_makes_no_sense(friends: Friends, values: Any, status: int) -> None:
    reply = await friends.ask(**values)
    assert reply.status == status, reply.data
    assert reply.json()["error"]["message"]


async def test_a_name_of_several_roles_does_not_choose(identity: Identity, friends: Friends) -> None:
    await identity.made("roles", name="member", domain_id="default")
    assert (await friends.ask(roles=[{"name": "member"}])).status == 400


async def test_only_the_trustor_makes_a_trust(identity: Identity, friends: Friends) -> None:
    trust = await friends.trust()
    assert (await friends.ask(identity.admin)).status == 403
    assert (await friends.ask(await identity.token("trustee"))).status == 403
    system = await identity.token("admin", scope={"system": {"all": True}})
    own = {"trustor_user_id": identity.accounts.admin_user_id}
    assert (await friends.ask(system, **own)).status == 403
    assert (await friends.ask(trust["id"])).status == 401


async def test_who_may_see_and_delete(identity: Identity, friends: Friends) -> None:
    trust = await friends.trust()
    one, every = f"/v3/OS-TRUST/trusts/{trust['id']}", "/v3/OS-TRUST/trusts"
    mine, lent = f"{every}?trustor_user_id={friends.trustor}", f"{every}?trustee_user_id={friends.trustee}"
    reader = await identity.made("users", name="auditor", password="secret")
    assert (await identity.grant("reader", "system", f"users/{reader['id']}")).status == 204
    tokens = {
        "trustor": friends.token,
        "trustee": await identity.token("trustee"),
        "third": await identity.token("third"),
        "admin": identity.admin,
        "system reader": await identity.token("auditor", scope={"system": {"all": True}}),
        "domain admin": await identity.token("admin", scope={"domain": {"id": "default"}}),
    }
    paths = (one, f"{one}/roles", f"{one}/roles/{friends.member}", mine, lent, every)
    seen = {
        who: [(await identity.call("GET", path, token=token)).status for path in paths] for who, token in tokens.items()
    }
    assert seen == {
        "trustor": [200, 200, 200, 200, 403, 403],
        "trustee": [200, 200, 200, 403, 200, 403],
        "third": [403, 403, 403, 403, 403, 403],
        "admin": [200] * 6,
        "system reader": [200] * 6,
        "domain admin": [403] * 6,
    }
    assert (await identity.call("GET", f"{every}/none", token=tokens["third"])).status == 404
    for who in ("trustee", "third", "system reader", "domain admin"):
        assert (await identity.call("DELETE", one, token=tokens[who])).status == 403
    assert (await identity.call("DELETE", one, token=friends.token)).status == 204
    assert (await identity.call("GET", one)).status == 404
    assert (await identity.call("DELETE", one)).status == 404
    trust = await friends.trust()
    assert (await identity.call("DELETE", f"{every}/{trust['id']}")).status == 204


@pytest.mark.parametrize("impersonation", [True, False])
async def test_a_token_by_a_trust(identity: Identity, friends: Friends, impersonation: bool) -> None:
    trust = await friends.trust(impersonation=impersonation)
    reply = await friends.login(trust)
    assert reply.status == 201
    token = reply.json()["token"]
    assert token["user"]["name"] == ("trustor" if impersonation else "trustee")
    assert token[BY] == {
        "id": trust["id"], "impersonation": impersonation, "trustor_user": {"id": friends.trustor},
        "trustee_user": {"id": friends.trustee},
    }  # fmt: skip
    assert token["project"]["id"] == friends.project and token["methods"] == ["password"]
    assert [r["name"] for r in token["roles"]] == ["member", "reader"]  # reader is implied
    caller = await identity.runtime.authenticate(reply.headers["X-Subject-Token"])
    assert (caller.delegation, caller.delegation_id) == ("trust", trust["id"])
    assert caller.user_id == (friends.trustor if impersonation else friends.trustee)
    projects = await identity.call("GET", "/v3/auth/projects", token=reply.headers["X-Subject-Token"])
    assert [p["id"] for p in projects.json()["projects"]] == ([friends.project] if impersonation else [])
    assert (await friends.login(trust, "third")).status == 403
    assert (await friends.login(trust, "trustor")).status == 403
    assert (await identity.login("trustee", scope={BY: {}})).status == 400
    both = {BY: {"id": trust["id"]}, "project": {"id": friends.project}}
    assert (await identity.login("trustee", scope=both)).status == 400
    nowhere = await friends.trust(project_id=None, roles=[])
    assert (await friends.login(nowhere)).status == 403


async def test_a_token_of_the_trustees_own_will_do(identity: Identity, friends: Friends) -> None:
    trust = await friends.trust()
    own = await identity.token("trustee", scope="unscoped")
    auth = {"identity": {"methods": ["token"], "token": {"id": own}}, "scope": {BY: {"id": trust["id"]}}}
    reply = await identity.http("POST", "/v3/auth/tokens", {"auth": auth}, token="nobody")
    assert reply.status == 201 and reply.json()["token"]["user"]["id"] == friends.trustor
    assert await friends.valid(reply.headers["X-Subject-Token"])


async def test_no_other_delegation_is_passed_on(identity: Identity, friends: Friends) -> None:
    """A token by a kind of delegation that is neither (an access token of OAuth) may make nothing."""
    known = await identity.runtime.known(friends.token)
    known.caller = structs.replace(known.caller, delegation="access_token")
    assert (await friends.ask()).status == 403
    path = f"/v3/users/{friends.trustor}/application_credentials"
    assert (await identity.call("GET", path, token=friends.token)).status == 403


async def test_what_a_token_by_a_trust_may_not(identity: Identity, friends: Friends) -> None:
    token = await friends.lent(await friends.trust())
    rescope: dict[str, Any] = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}}
    for scope in (None, {"project": {"id": friends.project}}, "unscoped"):
        if scope is not None:
            rescope["auth"]["scope"] = scope
        assert (await identity.http("POST", "/v3/auth/tokens", rescope, token="nobody")).status == 403
    user = f"/v3/users/{friends.trustor}"
    body = {"application_credential": {"name": "x"}}
    assert (await identity.call("POST", f"{user}/application_credentials", body, token=token)).status == 403
    for path in ("application_credentials", "application_credentials/x", "access_rules", "access_rules/x"):
        assert (await identity.call("GET", f"{user}/{path}", token=token)).status == 403
    for path in ("application_credentials/x", "access_rules/x"):
        assert (await identity.call("DELETE", f"{user}/{path}", token=token)).status == 403
    assert (await friends.ask(token)).status == 403  # the trust may not be passed on


async def test_what_ends_a_trust_voids_its_tokens_at_once(identity: Identity, friends: Friends) -> None:
    async def ends(method: str, path: str, body: Any = None, *, impersonation: bool = True) -> int:
        """Make a trust and a token by it, make the call, and see that the token is void; how a login ends now."""
        trust = await friends.trust(impersonation=impersonation, expires_at=f"{later(3600)}Z")
        token = await friends.lent(trust)
        assert await friends.valid(token)
        reply = await identity.call(method, path.format(trust=trust["id"]), body)
        assert reply.status < 300, reply.data
        assert not await friends.valid(token)
        return (await friends.login(trust)).status

    member = f"/v3/projects/{friends.project}/users/{friends.trustor}/roles/{friends.member}"

    async def again() -> None:
        friends.token = await identity.token("trustor", scope="demo")

    assert await ends("DELETE", "/v3/OS-TRUST/trusts/{trust}") == 401
    await again()
    trustor, trustee = f"/v3/users/{friends.trustor}", f"/v3/users/{friends.trustee}"
    for impersonation in (True, False):
        assert await ends("PATCH", trustor, {"user": {"enabled": False}}, impersonation=impersonation) == 403
        await identity.call("PATCH", trustor, {"user": {"enabled": True}})
        await again()
        assert await ends("PATCH", trustee, {"user": {"enabled": False}}, impersonation=impersonation) == 401
        await identity.call("PATCH", trustee, {"user": {"enabled": True}})
        await again()
        for user in (trustor, trustee):
            assert await ends("PATCH", user, {"user": {"password": "secret"}}, impersonation=impersonation) == 201
            await again()
    manager = await identity.role("manager")
    await identity.call("DELETE", member.replace(friends.member, manager))  # which implied it
    await again()
    assert await ends("DELETE", member) == 403
    await identity.call("PUT", member)
    await again()
    project = f"/v3/projects/{friends.project}"
    assert await ends("PATCH", project, {"project": {"enabled": False}}) == 401
    await identity.call("PATCH", project, {"project": {"enabled": True}})
    await again()
    assert await ends("DELETE", trustee) == 401


@pytest.mark.parametrize("what", ["trustor", "trustee", "project", "role"])
async def test_a_trust_goes_with_what_it_names(identity: Identity, friends: Friends, what: str) -> None:
    role = await identity.made("roles", name="special")
    project = await identity.made("projects", name="apart")
    await identity.grant("special", f"projects/{project['id']}", f"users/{friends.trustor}")
    trust = await friends.trust(project_id=project["id"], roles=[{"id": role["id"]}])
    token = await friends.lent(trust)
    named = {
        "trustor": f"users/{friends.trustor}", "trustee": f"users/{friends.trustee}",
        "project": f"projects/{project['id']}", "role": f"roles/{role['id']}",
    }  # fmt: skip
    assert (await identity.call("DELETE", f"/v3/{named[what]}")).status == 204
    assert (await identity.call("GET", f"/v3/OS-TRUST/trusts/{trust['id']}")).status == 404
    assert (await identity.call("GET", "/v3/OS-TRUST/trusts")).json()["trusts"] == []
    assert not await friends.valid(token)
    left = await identity.runtime.kernel.db.read(lambda tx: tx.execute(select(trust_role)).all())
    assert left == []


async def test_an_end_is_kept_and_ends_the_tokens(identity: Identity, friends: Friends) -> None:
    soon = later(60)
    trust = await friends.trust(expires_at=f"{soon}Z")
    assert trust["expires_at"] == f"{soon}Z"
    assert (await friends.ask(expires_at=f"{soon}Z")).status == 409  # the same once more
    reply = await friends.login(trust)
    assert reply.json()["token"]["expires_at"] == f"{soon}Z"
    await identity.runtime.write(db.update, Trust, trust["id"], expires_at="2020-01-01T00:00:00.000000")
    assert (await friends.login(trust)).status == 401
    assert (await identity.call("GET", f"/v3/OS-TRUST/trusts/{trust['id']}")).status == 404


async def test_uses_are_counted_however_many_ask_at_once(identity: Identity, friends: Friends) -> None:
    trust = await friends.trust(remaining_uses=3)
    path = f"/v3/OS-TRUST/trusts/{trust['id']}"
    assert (await friends.login(trust, "third")).status == 403  # costs nothing
    assert (await identity.call("GET", path)).json()["trust"]["remaining_uses"] == 3
    replies = await asyncio.gather(*(friends.login(trust) for _ in range(12)))
    won = [reply for reply in replies if reply.status == 201]
    assert len(won) == 3 and {reply.status for reply in replies} <= {201, 401, 403}
    assert all([await friends.valid(reply.headers["X-Subject-Token"]) for reply in won])
    assert (await friends.login(trust)).status == 401
    assert (await identity.call("GET", path)).status == 404


# ---- passing on ---------------------------------------------------------------------------------------------------------


async def test_a_trust_is_passed_on_as_far_as_it_says(identity: Identity, friends: Friends) -> None:
    first = await friends.trust(allow_redelegation=True, redelegation_count=2, expires_at=f"{later(3600)}Z")
    assert first["redelegation_count"] == 2 and "allow_redelegation" not in first
    second = await friends.trust(
        await friends.lent(first), trustee_user_id=friends.third, allow_redelegation=True, roles=[{"name": "member"}]
    )
    assert second["redelegated_trust_id"] == first["id"] and second["redelegation_count"] == 1
    assert second["expires_at"] == first["expires_at"]
    token = await friends.lent(second, "third")
    third = await friends.trust(token, allow_redelegation=True, expires_at=f"{later(60)}Z")
    assert third["redelegation_count"] == 0
    assert (await friends.ask(await friends.lent(third))).status == 403
    shown = (await identity.call("GET", "/v3/auth/tokens", **{"X-Subject-Token": token})).json()["token"]
    assert shown["user"]["id"] == friends.trustor

    await identity.call("PATCH", f"/v3/users/{friends.trustee}", {"user": {"enabled": False}})
    assert not await friends.valid(token)
    assert (await friends.login(second, "third")).status == 403
    await identity.call("PATCH", f"/v3/users/{friends.trustee}", {"user": {"enabled": True}})
    token = await friends.lent(second, "third")
    assert (await identity.call("DELETE", f"/v3/OS-TRUST/trusts/{first['id']}")).status == 204
    assert not await friends.valid(token)
    for trust in (second, third):
        assert (await identity.call("GET", f"/v3/OS-TRUST/trusts/{trust['id']}")).status == 404


async def test_no_more_is_passed_on_than_was_given(identity: Identity, friends: Friends) -> None:
    elsewhere = await identity.made("projects", name="elsewhere")
    await identity.grant("member", f"projects/{elsewhere['id']}", f"users/{friends.trustor}")
    parent = await friends.trust(allow_redelegation=True, expires_at=f"{later(60)}Z")
    assert parent["redelegation_count"] == 3
    token = await friends.lent(parent)
    refused: list[tuple[dict[str, Any], int]] = [
        ({"roles": [{"name": "manager"}]}, 403),
        ({"expires_at": f"{later(600)}Z"}, 403),
        ({"redelegation_count": 1, "allow_redelegation": True}, 403),
        ({"remaining_uses": 2}, 403),
        ({"remaining_uses": 2, "allow_redelegation": True}, 400),
        ({"project_id": elsewhere["id"]}, 403),
    ]
    for values, status in refused:
        reply = await friends.ask(token, trustee_user_id=friends.third, **values)
        assert reply.status == status, (values, reply.data)
    plain = await friends.trust(allow_redelegation=True, impersonation=False)
    token = await friends.lent(plain)
    own = {"trustor_user_id": friends.trustee, "trustee_user_id": friends.third}
    assert (await friends.ask(token, **own)).status == 404  # of the trustee's own he has no role
    await identity.grant("member", f"projects/{friends.project}", f"users/{friends.trustee}")
    assert (await friends.ask(token, **own)).status == 403  # as another than who he is
    chained = await friends.trust(token, impersonation=False, **own)
    assert (await friends.login(chained, "third")).status == 201
    await identity.grant("member", f"projects/{friends.project}", f"users/{friends.trustee}", "DELETE")
    assert (await friends.login(chained, "third")).status == 403


async def test_the_depth_is_a_setting(tmp_path: Any) -> None:
    async with identity_in(tmp_path, max_redelegation_count=0) as identity:
        friends = await Friends(identity).meet()
        assert (await friends.ask(allow_redelegation=True, redelegation_count=1)).status == 403
        trust = await friends.trust(allow_redelegation=True)
        assert (await friends.ask(await friends.lent(trust), trustee_user_id=friends.third)).status == 403
