"""Logins by OpenID Connect: which tokens are believed, what a federated user holds, and when it ends."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cumulet.core.errors import Unavailable
from cumulet.services.identity.federation.asserted import Turns
from tests.services.identity.federation.conftest import IDP, OIDC_RULES, Acme, put


async def test_a_login_makes_a_user_and_an_unscoped_token(acme: Acme) -> None:
    reply = await acme.login(acme.issuer.token("ann"))
    assert reply.status == 201, reply.data
    token = reply.json()["token"]
    assert token["methods"] == ["openid"] and "project" not in token and "roles" not in token
    user = token["user"]
    assert user["name"] == "ann" and user["domain"] == {"id": acme.domain, "name": "acme"}
    assert "password_expires_at" not in user
    assert user["OS-FEDERATION"] == {
        "groups": [{"id": acme.crew}], "identity_provider": {"id": "acme"}, "protocol": {"id": "openid"},
    }  # fmt: skip
    again = (await acme.login(acme.issuer.token("ann"))).json()["token"]["user"]
    assert again["id"] == user["id"]
    shown = (await acme.identity.call("GET", f"/v3/users/{user['id']}")).json()["user"]
    assert shown["email"] == "ann@acme.test"
    assert (await acme.identity.http("GET", f"{IDP}/protocols/openid/auth", token="nobody")).status == 401


async def test_a_federated_token_is_rescoped_and_stays_federated(acme: Acme) -> None:
    unscoped = await acme.token()
    reply = await acme.scoped(unscoped)
    assert reply.status == 201, reply.data
    token = reply.json()["token"]
    assert token["methods"] == ["token", "openid"]
    assert {r["name"] for r in token["roles"]} == {"member", "reader"}
    assert token["user"]["OS-FEDERATION"]["groups"] == [{"id": acme.crew}]
    shown = await acme.identity.call("GET", "/v3/auth/tokens", X_Subject_Token=reply.headers["X-Subject-Token"])
    assert shown.json()["token"]["user"]["OS-FEDERATION"] == token["user"]["OS-FEDERATION"]
    first = await acme.identity.call("GET", "/v3/auth/tokens", X_Subject_Token=unscoped)
    assert first.json()["token"]["expires_at"] == token["expires_at"]
    for path in ("/v3/auth/projects", "/v3/OS-FEDERATION/projects"):
        found = await acme.identity.http("GET", path, token=unscoped)
        assert [p["name"] for p in found.json()["projects"]] == ["work"]
    assert (await acme.identity.http("GET", "/v3/OS-FEDERATION/domains", token=unscoped)).json()["domains"] == []
    await acme.identity.grant("reader", f"domains/{acme.domain}", f"groups/{acme.crew}")
    for path in ("/v3/auth/domains", "/v3/OS-FEDERATION/domains"):
        found = await acme.identity.http("GET", path, token=unscoped)
        assert [d["name"] for d in found.json()["domains"]] == ["acme"]
    assert (await acme.scoped(unscoped, {"domain": {"id": acme.domain}})).status == 201
    assert (await acme.identity.http("GET", "/v3/auth/system", token=unscoped)).json()["system"] == []
    assert (await acme.scoped(unscoped, {"system": {"all": True}})).status == 401


@pytest.mark.parametrize("method", ["mapped", "openid", "saml2"])
async def test_the_methods_take_a_federated_token_too(acme: Acme, method: str) -> None:
    scope = {"project": {"id": acme.project}}

    async def by(payload: Any, **headers: str) -> Any:
        auth = {"identity": {"methods": [method], method: payload}, "scope": scope}
        return await acme.identity.http("POST", "/v3/auth/tokens", {"auth": auth}, token="nobody", **headers)

    assert (await by({"id": await acme.token()})).status == 201
    assert (await by({"id": acme.identity.admin})).status == 401
    assert (await by({})).status == 400
    assert (await by({"identity_provider": "acme"})).status == 400
    assert (await by({"identity_provider": "acme", "protocol": "openid"})).status == 401
    bearer = f"Bearer {acme.issuer.token('ann')}"
    assert (await by({"identity_provider": "acme", "protocol": "openid"}, Authorization=bearer)).status == 201


async def test_his_own_roles_count_beside_those_of_his_groups(acme: Acme) -> None:
    unscoped = await acme.token()
    user = (await acme.identity.call("GET", "/v3/auth/tokens", X_Subject_Token=unscoped)).json()["token"]["user"]["id"]
    await acme.identity.grant("manager", f"projects/{acme.project}", f"users/{user}")
    roles = (await acme.scoped(unscoped)).json()["token"]["roles"]
    assert {r["name"] for r in roles} == {"manager", "member", "reader"}


BAD: list[dict[str, Any]] = [
    {"exp": int(time.time()) - 3600}, {"exp": None}, {"iss": "http://elsewhere.test"}, {"iss": None}, {"aud": "other"},
    {"aud": None}, {"aud": []}, {"nbf": int(time.time()) + 3600}, {"sub": None}, {"iat": int(time.time()) + 3600},
    {"key": rsa.generate_private_key(public_exponent=65537, key_size=2048)}, {"alg": "none", "key": ""}, {"alg": "RS512"},
    {"alg": "HS256", "key": "k" * 64}, {"kid": "second"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", BAD, ids=lambda w: ",".join(w))
async def test_a_token_that_is_not_good_is_refused(acme: Acme, wrong: dict[str, Any]) -> None:
    token = acme.issuer.token("ann", **wrong)
    reply = await acme.login(token)
    assert reply.status == 401, reply.data
    assert reply.headers["WWW-Authenticate"] == "Bearer" and "X-Subject-Token" not in reply.headers
    assert token not in reply.data.decode()


async def test_the_public_key_as_a_shared_secret_is_refused(acme: Acme) -> None:
    """The confusion of algorithms that many libraries once fell for."""
    import base64
    import hashlib
    import hmac
    import json

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = acme.issuer.keys["first"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [{"alg": "HS256", "typ": "JWT", "kid": "first"}, acme.issuer.say("ann")]
    signed = ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts)
    mac = base64.urlsafe_b64encode(hmac.new(pem, signed.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    assert (await acme.login(f"{signed}.{mac}")).status == 401


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a.b.c", "Bearer \u00e4", "bearer " + "x" * 20000]
)
async def test_what_is_no_bearer_token_is_refused(acme: Acme, header: str) -> None:
    assert (await acme.login(Authorization=header)).status == 401


async def test_a_token_cannot_say_where_its_key_is(acme: Acme) -> None:
    mine = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    headers = {
        "kid": "first",
        "jku": f"{acme.issuer.url}/other-keys",
        "jwk": jwk,
        "x5u": f"{acme.issuer.url}/other-keys",
    }
    token = jwt.encode(acme.issuer.say("ann"), mine, algorithm="RS256", headers=headers)
    assert (await acme.login(token)).status == 401
    assert acme.issuer.asked == ["discovery", "keys"]


async def test_keys_are_kept_and_new_ones_found(acme: Acme) -> None:
    for _ in range(3):
        assert (await acme.login(acme.issuer.token("ann"))).status == 201
    assert acme.issuer.asked == ["discovery", "keys"]
    new = acme.issuer.add_key("second")
    token = acme.issuer.token("ann", kid="second", key=new, alg="ES256")
    assert (await acme.login(token)).status == 401  # just looked
    reader: Any = acme.identity.runtime.sources.reader("acme", "openid")
    reader._read_at -= 60
    assert (await acme.login(token)).status == 201
    assert acme.issuer.asked == ["discovery", "keys", "keys"]


@pytest.mark.parametrize("broken", ["issuer", "jwks_uri", "redirect", "keys", "endless"])
async def test_an_issuer_that_answers_wrongly_is_unavailable(acme: Acme, broken: str) -> None:
    acme.issuer.broken = broken
    assert (await acme.login(acme.issuer.token("ann"))).status == 503


async def test_a_silent_issuer_is_left_alone_for_a_while(acme: Acme) -> None:
    reader: Any = acme.identity.runtime.sources.reader("acme", "opaque")
    url = f"{acme.issuer.url}/introspect"
    reader._discovered = {"introspection_endpoint": "http://127.0.0.1:9/"}
    assert (await acme.login("ann", "opaque")).status == 503
    reader._discovered = {"introspection_endpoint": url}
    assert (await acme.login("ann", "opaque")).status == 503
    assert acme.issuer.asked == []
    reader._failed_at -= 60
    assert (await acme.login("ann", "opaque")).status == 201


async def test_a_flood_is_refused_before_it_fills_memory() -> None:
    turns, going = Turns(1, 2), asyncio.Event()

    async def work() -> None:
        async with turns.one():
            await going.wait()

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await work()
    going.set()
    await asyncio.gather(*tasks)
    await work()


async def test_opaque_tokens_are_asked_about(acme: Acme) -> None:
    assert (await acme.login("ann", "opaque")).status == 201
    assert (await acme.login("nonsense", "opaque")).status == 401
    for wrong in ({"iss": "http://elsewhere.test"}, {"aud": "other"}, {"aud": None}, {"exp": 1}, {"active": "yes"}):
        acme.issuer.claims["ann-more"] = wrong
        assert (await acme.login("ann", "opaque")).status == 401, wrong
    acme.issuer.claims["ann-more"] = {"aud": None, "client_id": "cumulet"}
    assert (await acme.login("ann", "opaque")).status == 201


# ---- what is kept here --------------------------------------------------------------------------------------------------


async def test_another_providers_assertion_is_refused(acme: Acme) -> None:
    await acme.changed(remote_ids=["https://idp.acme.test/saml"])
    assert (await acme.login(acme.issuer.token("ann"))).status == 403
    await acme.changed(remote_ids=[])
    assert (await acme.login(acme.issuer.token("ann"))).status == 201


async def test_nothing_is_believed_without_a_source_a_protocol_or_a_provider(acme: Acme) -> None:
    assert (await acme.login(acme.issuer.token("ann"), "unheard")).status == 401
    assert (await acme.login(acme.issuer.token("ann"), "none")).status == 404
    path = "/v3/OS-FEDERATION/identity_providers/none/protocols/openid/auth"
    assert (await acme.identity.http("POST", path, token="nobody")).status == 404
    await acme.identity.call("DELETE", "/v3/OS-FEDERATION/mappings/oidc")
    assert (await acme.login(acme.issuer.token("ann"))).status == 404


async def test_a_disabled_provider_voids_its_tokens(acme: Acme) -> None:
    unscoped = await acme.token()
    scoped = (await acme.scoped(unscoped)).headers["X-Subject-Token"]
    assert (await acme.identity.http("GET", "/v3/auth/projects", token=scoped)).status == 200
    await acme.changed(enabled=False)
    for token in (unscoped, scoped):
        assert (await acme.identity.http("GET", "/v3/auth/projects", token=token)).status == 401
    assert (await acme.login(acme.issuer.token("ann"))).status == 403
    await acme.changed(enabled=True)
    assert (await acme.identity.http("GET", "/v3/auth/projects", token=unscoped)).status == 401
    assert (await acme.login(acme.issuer.token("ann"))).status == 201


@pytest.mark.parametrize("what", ["identity_providers/acme", "identity_providers/acme/protocols/openid"])
async def test_what_a_provider_brought_here_goes_with_it(acme: Acme, what: str) -> None:
    token = await acme.token()
    user = (await acme.identity.call("GET", "/v3/auth/tokens", X_Subject_Token=token)).json()["token"]["user"]["id"]
    assert (await acme.identity.call("DELETE", f"/v3/OS-FEDERATION/{what}")).status == 204
    assert (await acme.identity.http("GET", "/v3/auth/projects", token=token)).status == 401
    assert (await acme.identity.call("GET", f"/v3/users/{user}")).status == 404


async def test_a_domain_takes_its_providers_along(acme: Acme) -> None:
    await acme.identity.call("PATCH", f"/v3/domains/{acme.domain}", {"domain": {"enabled": False}})
    assert (await acme.login(acme.issuer.token("ann"))).status == 401
    assert (await acme.identity.call("DELETE", f"/v3/domains/{acme.domain}")).status == 204
    assert (await acme.identity.call("GET", IDP)).status == 404


async def test_a_user_who_is_disabled_stays_out(acme: Acme) -> None:
    token = await acme.token()
    user = (await acme.identity.call("GET", "/v3/auth/tokens", X_Subject_Token=token)).json()["token"]["user"]["id"]
    await acme.identity.call("PATCH", f"/v3/users/{user}", {"user": {"enabled": False}})
    assert (await acme.login(acme.issuer.token("ann"))).status == 401


async def test_other_groups_void_what_was_held(acme: Acme) -> None:
    token = await acme.token()
    same = await acme.token()
    assert (await acme.scoped(token)).status == 201
    acme.issuer.claims["ann"]["groups"] = ["staff"]
    reply = await acme.login(acme.issuer.token("ann"))
    assert reply.status == 201
    for old in (token, same):
        assert (await acme.scoped(old)).status == 404
    assert (await acme.scoped(reply.headers["X-Subject-Token"])).status == 401  # in no group, so no role
    assert (await acme.identity.http("GET", "/v3/auth/projects", token=reply.headers["X-Subject-Token"])).status == 200


async def test_memberships_last_as_long_as_the_provider_says(acme: Acme) -> None:
    """Without a time they hold for the token alone; with one for what else the user does in the meantime."""

    async def as_himself(user: str) -> int:
        login = await acme.identity.login(user, "own-secret", by_id=True, scope={"project": {"id": acme.project}})
        return login.status

    token = await acme.token()
    user = (await acme.identity.call("GET", "/v3/auth/tokens", X_Subject_Token=token)).json()["token"]["user"]["id"]
    await acme.identity.call("PATCH", f"/v3/users/{user}", {"user": {"password": "own-secret"}})
    assert await as_himself(user) == 401
    await acme.changed(authorization_ttl=5)
    assert await as_himself(user) == 201  # the login above is not yet five minutes ago
    assert (await acme.identity.call("GET", f"/v3/users/{user}/projects")).json()["projects"][0]["id"] == acme.project
    (group,) = (await acme.identity.call("GET", f"/v3/users/{user}/groups")).json()["groups"]
    assert group["id"] == acme.crew
    end = datetime.fromisoformat(group["membership_expires_at"])
    assert timedelta(minutes=4) < end - datetime.now(UTC) <= timedelta(minutes=5)
    await acme.changed(authorization_ttl=0)
    assert await as_himself(user) == 401
    assert (await acme.identity.call("GET", f"/v3/users/{user}/groups")).json()["groups"] == []
    await acme.changed(authorization_ttl=5)
    await acme.token()
    assert await as_himself(user) == 201


# ---- users, projects ----------------------------------------------------------------------------------------------------


async def test_a_name_that_is_taken_never_makes_him_that_user(acme: Acme) -> None:
    mapping = [{"local": [{"user": {"id": "{0}", "name": "{1}", "domain": {"id": "default"}}}],
                "remote": [{"type": "HTTP_OIDC_SUB"}, {"type": "HTTP_OIDC_NICK"}]}]  # fmt: skip
    await acme.mapping(mapping, version="2.0")
    users = [
        (await acme.login(acme.issuer.token(who, nick="admin"))).json()["token"]["user"]
        for who in ("ann", "bob", "ann")
    ]
    assert users[0]["id"] == users[2]["id"] != users[1]["id"]
    assert acme.identity.accounts.admin_user_id not in {u["id"] for u in users}
    assert [u["name"] for u in users] == ["admin (ann)", "admin (bob)", "admin (ann)"]
    changed = (await acme.login(acme.issuer.token("ann", nick="annie"))).json()["token"]["user"]
    assert changed["id"] == users[0]["id"] and changed["name"] == "annie"


async def test_local_users_are_those_who_are_here_already(acme: Acme) -> None:
    def local(**user: Any) -> Any:
        return [{"local": [{"user": {**user, "type": "local"}}], "remote": [{"type": "HTTP_OIDC_SUB"}]}]

    domain = {"domain": {"name": "Default"}}
    await acme.mapping(local(name="{0}", **domain))
    assert (await acme.login(acme.issuer.token("ann"))).status == 401
    reply = await acme.login(acme.issuer.token("demo"))
    user = reply.json()["token"]["user"]
    assert user["id"] == acme.identity.accounts.demo_user_id and "OS-FEDERATION" not in user
    await acme.mapping(local(id=acme.identity.accounts.demo_user_id))
    assert (await acme.login(acme.issuer.token("x"))).json()["token"]["user"]["name"] == "demo"
    await acme.mapping(local(name="{0}"))
    assert (await acme.login(acme.issuer.token("demo"))).status == 401
    await acme.mapping(local(name="{0}", **domain))
    body = {"user": {"enabled": False}}
    await acme.identity.call("PATCH", f"/v3/users/{acme.identity.accounts.demo_user_id}", body)
    assert (await acme.login(acme.issuer.token("demo"))).status == 401


async def test_an_assertion_is_not_enough_where_more_is_asked_for(acme: Acme) -> None:
    """The rules of several factors hold for logins by a provider too."""
    path = f"/v3/users/{acme.identity.accounts.demo_user_id}"
    await acme.mapping([{"local": [{"user": {"name": "{0}", "domain": {"name": "Default"}, "type": "local"}}],
                         "remote": [{"type": "HTTP_OIDC_SUB"}]}])  # fmt: skip
    for rules, status in (([["password", "totp"]], 401), ([["openid", "totp"]], 401), ([["openid"]], 201)):
        options = {"multi_factor_auth_enabled": True, "multi_factor_auth_rules": rules}
        assert (await acme.identity.call("PATCH", path, {"user": {"options": options}})).status == 200
        reply = await acme.login(acme.issuer.token("demo"))
        assert reply.status == status, reply.data
        assert ("X-Subject-Token" in reply.headers) == (status == 201)


def with_projects(*projects: Any) -> Any:
    return [{"local": [{"user": {"name": "{0}"}, "projects": list(projects)}], "remote": [{"type": "HTTP_OIDC_SUB"}]}]


def role(*names: str) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


async def test_projects_are_made_with_roles(acme: Acme) -> None:
    await acme.mapping(
        with_projects({"name": "of {0}", "roles": role("member")}, {"name": "work", "roles": role("reader")})
    )
    unscoped = await acme.token("eve")
    found = (await acme.identity.http("GET", "/v3/auth/projects", token=unscoped)).json()["projects"]
    assert {p["name"]: p["domain_id"] for p in found} == {"of eve": acme.domain, "work": acme.domain}
    assert {p["id"] for p in found if p["name"] == "work"} == {acme.project}
    assert {r["name"] for r in (await acme.scoped(unscoped)).json()["token"]["roles"]} == {"reader"}
    await acme.mapping(with_projects({"name": "work", "roles": role("member")}))
    assert await acme.token("eve")
    assert len((await acme.identity.http("GET", "/v3/auth/projects", token=unscoped)).json()["projects"]) == 2


async def test_projects_have_domains_from_version_2_and_go_from_version_3(acme: Acme) -> None:
    there = {"name": "there", "roles": role("member"), "domain": {"name": "Default"}}
    await acme.mapping(with_projects(there, {"name": "here", "roles": role("reader")}), version="2.0")
    unscoped = await acme.token("eve")
    found = (await acme.identity.http("GET", "/v3/auth/projects", token=unscoped)).json()["projects"]
    assert {p["name"]: p["domain_id"] for p in found} == {"there": "default", "here": acme.domain}
    await acme.mapping(with_projects(there), version="3.0")
    assert await acme.token("eve")
    found = (await acme.identity.http("GET", "/v3/auth/projects", token=unscoped)).json()["projects"]
    assert [p["name"] for p in found] == ["there"]


async def test_a_role_or_domain_that_is_missing_makes_nothing(acme: Acme) -> None:
    await acme.identity.made("roles", name="acme-only", domain_id=acme.domain)
    await acme.identity.made("roles", name="default-only", domain_id="default")
    for name, status in (("acme-only", 201), ("default-only", 403), ("nothing", 404)):
        await acme.mapping(with_projects({"name": f"p-{name}", "roles": role(name)}))
        assert (await acme.login(acme.issuer.token(f"user-{name}"))).status == status, name
    await acme.mapping(with_projects({"name": "q", "roles": [], "domain": {"name": "nowhere"}}), version="2.0")
    assert (await acme.login(acme.issuer.token("eve"))).status == 404
    names = {p["name"] for p in (await acme.identity.call("GET", "/v3/projects")).json()["projects"]}
    assert "p-nothing" not in names and "p-default-only" not in names and "p-acme-only" in names
    assert (await acme.identity.call("GET", "/v3/users?name=eve")).json()["users"] == []


async def test_a_mapping_that_makes_nobody_of_it_is_no_login(acme: Acme) -> None:
    assert (await acme.login(acme.issuer.token("ann", email=None))).status == 401
    await acme.mapping(
        [{"local": [{"user": {"name": "{0}"}}, {"group": {"id": "gone"}}], "remote": [{"type": "HTTP_OIDC_SUB"}]}]
    )
    assert (await acme.login(acme.issuer.token("ann"))).status == 401
    await acme.mapping([{"local": [{"group": {"id": acme.crew}}], "remote": [{"type": "HTTP_OIDC_SUB"}]}])
    assert (await acme.login(acme.issuer.token("ann"))).status == 401
    await acme.mapping([{"local": [{"user": {"name": "{1}"}}], "remote": [{"type": "HTTP_OIDC_SUB"}]}])
    assert (await acme.login(acme.issuer.token("ann"))).status == 401
    await acme.mapping(OIDC_RULES)
    assert (await acme.login(acme.issuer.token("x" * 256, email="e", groups=["g"]))).status == 401
    assert (await acme.login(acme.issuer.token("x" * 255, email="e", groups=["g"]))).status == 201
    assert (await acme.login(acme.issuer.token("   ", email="e", groups=["g"]))).status == 401


async def test_the_catalogue_of_service_providers_is_in_tokens(acme: Acme) -> None:
    body: Any = {"auth_url": "https://sp.test/auth", "sp_url": "https://sp.test/ecp", "enabled": True}
    await put(acme.identity, "service_providers/sp", "service_provider", **body)
    token = (await acme.login(acme.issuer.token("ann"))).json()["token"]
    assert token["service_providers"] == [{"auth_url": body["auth_url"], "id": "sp", "sp_url": body["sp_url"]}]
    await put(acme.identity, "service_providers/sp", "service_provider", 200, "PATCH", enabled=False)
    assert "service_providers" not in (await acme.login(acme.issuer.token("ann"))).json()["token"]


# ---- users that are known from elsewhere ----------------------------------------------------------------------------------


def known(unique_id: str, protocol_id: str = "openid", idp_id: str = "acme") -> list[dict[str, Any]]:
    return [{"idp_id": idp_id, "protocols": [{"protocol_id": protocol_id, "unique_id": unique_id}]}]


async def test_an_admin_says_who_is_known_from_where(acme: Acme) -> None:
    user = await acme.identity.made("users", name="here", domain_id="default", federated=known("ann"))
    assert user["federated"] == known("ann")
    reply = await acme.login(acme.issuer.token("ann"))
    assert reply.json()["token"]["user"]["id"] == user["id"] and reply.json()["token"]["user"]["name"] == "here"
    path = f"/v3/users/{user['id']}"
    assert (await acme.identity.call("GET", path)).json()["user"]["federated"] == known("ann")
    changed = await acme.identity.call("PATCH", path, {"user": {"federated": known("bob", "saml2")}})
    assert changed.json()["user"]["federated"] == known("bob", "saml2")
    assert (await acme.identity.call("PATCH", path, {"user": {"federated": []}})).json()["user"]["federated"]
    assert (await acme.login(acme.issuer.token("ann"))).json()["token"]["user"]["id"] != user["id"]
    for query, found in (("idp_id=acme", 2), ("protocol_id=saml2", 1), ("unique_id=bob", 1), ("unique_id=x", 0)):
        listed = (await acme.identity.call("GET", f"/v3/users?{query}")).json()["users"]
        assert len(listed) == found and all("federated" not in u for u in listed), query
    demo = await acme.identity.call("GET", f"/v3/users/{acme.identity.accounts.demo_user_id}")
    assert "federated" not in demo.json()["user"]


async def test_users_that_an_admin_made_stay_when_the_provider_goes(acme: Acme) -> None:
    user = await acme.identity.made("users", name="here", domain_id="default", federated=known("ann"))
    token = await acme.token()
    assert (await acme.identity.call("DELETE", IDP)).status == 204
    shown = await acme.identity.call("GET", f"/v3/users/{user['id']}")
    assert shown.status == 200 and "federated" not in shown.json()["user"]
    assert (await acme.identity.http("GET", "/v3/auth/projects", token=token)).status == 401


@pytest.mark.parametrize(
    ("federated", "status"),
    [
        (known("x", idp_id="none"), 400),
        (known("x", "none"), 400),
        (known(""), 400),
        (known("x" * 256), 400),
        ([{"idp_id": "acme", "protocols": []}], 400),
        ([{"idp_id": "acme"}], 400),
        ("acme", 400),
        ([*known("x"), *known("x")], 409),
        (known("taken"), 409),
    ],
)
async def test_where_nobody_can_be_known_from(acme: Acme, federated: Any, status: int) -> None:
    await acme.identity.made("users", name="first", domain_id="default", federated=known("taken"))
    user = {"name": "here", "domain_id": "default", "federated": federated}
    assert (await acme.identity.call("POST", "/v3/users", {"user": user})).status == status
    assert (await acme.identity.call("GET", "/v3/users?name=here")).json()["users"] == []
