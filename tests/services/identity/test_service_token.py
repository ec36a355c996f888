"""Tokens that have ended, in requests that a service hands on, and GET /v3/auth/tokens?allow_expired."""

import pytest
from msgspec.structs import replace

from cumulet.core.errors import Unauthorized
from tests.services.identity.conftest import Identity

HOUR = 3600 * 1_000_000
MINUTE = HOUR // 60


async def ended(identity: Identity, hours: int) -> str:
    """A token of demo's that ended so many hours ago (less a minute, which the test may take)."""
    keys = identity.runtime.keys
    claims = keys.open(await identity.token("demo", scope="demo"))
    return keys.seal(replace(claims, expires_at=claims.issued_at - hours * HOUR + MINUTE))


async def of_service(identity: Identity) -> str:
    project = await identity.made("projects", name="services", domain_id="default")
    await identity.person("nova", "service", f"projects/{project['id']}")
    return await identity.token("nova", scope="services")


async def test_a_service_may_use_an_ended_token_for_a_while(identity: Identity) -> None:
    nova, demo = await of_service(identity), await ended(identity, 48)
    path = f"/v3/users/{identity.accounts.demo_user_id}"
    assert (await identity.call("GET", path, token=demo)).status == 401
    assert (await identity.call("GET", path, token=demo, X_Service_Token=nova)).status == 200
    assert (await identity.call("GET", path, token=demo)).status == 401, "it is not remembered as valid"
    with pytest.raises(Unauthorized):
        await identity.runtime.authenticate(demo)
    assert (await identity.call("GET", path, token=demo, X_Service_Token=identity.admin)).status == 401
    older = await ended(identity, 49)
    assert (await identity.call("GET", path, token=older, X_Service_Token=nova)).status == 401


async def test_whoever_validates_may_ask_for_ended_ones(identity: Identity) -> None:
    nova, demo = await of_service(identity), await ended(identity, 48)
    for query, status in (
        ("", 404),
        ("?allow_expired=0", 404),
        ("?allow_expired=1", 200),
        ("?allow_expired=True", 200),
    ):
        reply = await identity.call("GET", f"/v3/auth/tokens{query}", token=nova, X_Subject_Token=demo)
        assert reply.status == status, query
    assert reply.json()["token"]["user"]["name"] == "demo"
    older = await ended(identity, 49)
    path = "/v3/auth/tokens?allow_expired=1"
    assert (await identity.call("GET", path, token=nova, X_Subject_Token=older)).status == 404


async def test_a_revoked_token_is_not_made_good(identity: Identity) -> None:
    nova, demo = await of_service(identity), await ended(identity, 1)
    await identity.runtime.revoke(identity.runtime.keys.open(demo))
    reply = await identity.call("GET", "/v3/auth/tokens?allow_expired=1", token=nova, X_Subject_Token=demo)
    assert reply.status == 404


async def test_keys_and_revocations_are_kept_as_long_as_tokens_may_be_used(identity: Identity) -> None:
    runtime = identity.runtime
    assert runtime.keys.lifetime == runtime.lifetime + runtime.window == 4 * 3600 + 48 * 3600


async def test_access_rules_bind_at_identity_too(identity: Identity) -> None:
    demo, user = await identity.token("demo", scope="demo"), identity.accounts.demo_user_id
    rules = [
        {"service": "identity", "method": "GET", "path": "/v3/users/{id}"},
        {"service": "compute", "method": "GET", "path": "/v3/auth/projects"},
    ]
    body = {"application_credential": {"name": "few", "secret": "s3cret", "access_rules": rules}}
    made = await identity.call("POST", f"/v3/users/{user}/application_credentials", body, token=demo)
    shown = {"id": made.json()["application_credential"]["id"], "secret": "s3cret"}
    auth = {"identity": {"methods": ["application_credential"], "application_credential": shown}}
    login = await identity.http("POST", "/v3/auth/tokens", {"auth": auth}, token="nobody")
    token = login.headers["X-Subject-Token"]
    own = {"X_Subject_Token": token, "OpenStack_Identity_Access_Rules": "1"}
    assert (await identity.call("GET", f"/v3/users/{user}", token=token)).status == 200
    assert (await identity.call("GET", f"/v3/users/{user}/groups", token=token)).status == 403
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 403
    assert (await identity.call("GET", "/v3/auth/tokens", token=token, **own)).status == 200
    assert (await identity.call("DELETE", "/v3/auth/tokens", token=token, **own)).status == 403
