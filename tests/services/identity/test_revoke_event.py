"""What was revoked, and the calls about tokens that upstream dropped."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.services.identity.conftest import Identity


async def test_events_tell_what_was_revoked(identity: Identity) -> None:
    before = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    user = await identity.person("ann", "member", f"projects/{identity.accounts.demo_project_id}")
    assert (await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"enabled": False}})).status == 200
    demo = await identity.token("demo")
    assert (await identity.call("DELETE", "/v3/auth/tokens", X_Subject_Token=demo)).status == 204
    reply = (await identity.call("GET", f"/v3/OS-REVOKE/events?since={before}")).json()
    assert [next(iter(event)) for event in reply["events"]] == ["user_id", "audit_id"]
    assert reply["events"][0]["user_id"] == user["id"] and reply["events"][0]["issued_before"] > before
    assert reply["links"]["next"] is None
    later = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (await identity.call("GET", f"/v3/OS-REVOKE/events?since={later}")).json()["events"] == []
    assert (await identity.call("GET", "/v3/OS-REVOKE/events?since=yesterday")).status == 400


async def test_events_are_for_services_and_admins(identity: Identity) -> None:
    assert (await identity.call("GET", "/v3/OS-REVOKE/events", token=await identity.token("demo"))).status == 403
    place = f"projects/{identity.accounts.demo_project_id}"
    await identity.person("nova", "service", place)
    assert (
        await identity.call("GET", "/v3/OS-REVOKE/events", token=await identity.token("nova", scope="demo"))
    ).status == 200
    await identity.grant("admin", "domains/default", f"users/{identity.accounts.demo_user_id}")
    of_domain = await identity.token("demo", scope={"domain": {"id": "default"}})
    assert (await identity.call("GET", "/v3/OS-REVOKE/events", token=of_domain)).status == 403


async def test_users_void_all_their_tokens(identity: Identity) -> None:
    demo, other = await identity.token("demo"), await identity.token("demo", scope="demo")
    assert (
        await identity.call("DELETE", f"/v3/users/{identity.accounts.admin_user_id}/tokens", token=demo)
    ).status == 403
    assert (
        await identity.call("DELETE", f"/v3/users/{identity.accounts.demo_user_id}/tokens", token=demo)
    ).status == 204
    for token in (demo, other):
        assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    again = await identity.token("demo")
    assert (await identity.call("GET", "/v3/auth/projects", token=again)).status == 200
    assert (await identity.call("DELETE", f"/v3/users/{identity.accounts.demo_user_id}/tokens")).status == 204
    assert (await identity.call("GET", "/v3/auth/projects", token=again)).status == 401
    assert (await identity.call("DELETE", "/v3/users/none/tokens")).status == 404
    assert (await identity.call("DELETE", "/v3/users/none/tokens", token=await identity.token("demo"))).status == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v3/auth/tokens/OS-PKI/revoked", 403), ("/v3/OS-SIMPLE-CERT/ca", 410), ("/v3/OS-SIMPLE-CERT/certificates", 410)],
)
async def test_what_went_with_pki_tokens_says_so(identity: Identity, path: str, status: int) -> None:
    for method in ("GET", "HEAD"):
        assert (await identity.call(method, path, token="nobody")).status == status
