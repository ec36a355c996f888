"""What is left of older ways: events of revocation, PKI tokens, version 2.0."""

import pytest

from tests.services.identity.conftest import Identity

EVENTS = "/v3/OS-REVOKE/events"


async def test_events_of_revocation(identity: Identity) -> None:
    accounts = identity.accounts
    demo = await identity.token("demo")
    audit_id = (await identity.call("GET", "/v3/auth/tokens", X_Subject_Token=demo)).json()["token"]["audit_ids"][0]
    assert (await identity.call("DELETE", "/v3/auth/tokens", X_Subject_Token=demo)).status == 204
    user = {"user": {"password": "other-secret"}}
    assert (await identity.call("PATCH", f"/v3/users/{accounts.demo_user_id}", user)).status == 200
    reply = await identity.call("GET", EVENTS)
    first, second = reply.json()["events"]
    assert reply.json()["links"] == {"self": f"{identity.http.url}{EVENTS}", "previous": None, "next": None}
    assert first == {"audit_id": audit_id, "issued_before": first["revoked_at"], "revoked_at": first["revoked_at"]}
    assert second["user_id"] == accounts.demo_user_id
    since = await identity.call("GET", f"{EVENTS}?since={first['revoked_at']}")
    assert since.json()["events"] == [second]
    assert (await identity.call("GET", f"{EVENTS}?since=2100-01-01T00:00:00%2B02:00")).json()["events"] == []
    for wrong in ("yesterday", "0001-01-01T00:00:00%2B23:59", "%00", "9" * 500):
        assert (await identity.call("GET", f"{EVENTS}?since={wrong}")).status in (200, 400), wrong
    assert (await identity.call("GET", f"{EVENTS}?since=yesterday")).status == 400


async def test_who_sees_events(identity: Identity) -> None:
    await identity.person("compute", "service", f"projects/{identity.accounts.admin_project_id}")
    tokens = {
        200: await identity.token("compute", scope="admin"),
        403: await identity.token("demo"),
    }
    assert {status: (await identity.call("GET", EVENTS, token=token)).status for status, token in tokens.items()} == {
        200: 200,
        403: 403,
    }
    domain = await identity.token("admin", scope={"domain": {"id": "default"}})
    assert (await identity.call("GET", EVENTS, token=domain)).status == 403
    assert (await identity.http("GET", EVENTS, token="nobody")).status == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v3/OS-SIMPLE-CERT/ca", 410),
        ("/v3/OS-SIMPLE-CERT/certificates", 410),
        ("/v3/auth/tokens/OS-PKI/revoked", 403),
        ("/v2.0", 404),
        ("/v2.0/tokens", 404),
        ("/v2.0/tenants", 404),
    ],
)
async def test_what_was_retired(identity: Identity, path: str, status: int) -> None:
    for token in ("nobody", identity.admin):
        reply = await identity.http("GET", path, token=token)
        assert reply.status == status and reply.json()["error"]["message"]
