"""Notifications: one for each change and each login, after the commit, to whoever listens; and the file they are kept in."""

import asyncio
import base64
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.audit import AuditLog
from cumulet.core import notify
from tests.services.identity.conftest import Identity, identity_in


class Ear:
    """Hears notifications, and waits for those that are expected."""

    def __init__(self, identity: Identity) -> None:
        self.heard: list[dict[str, Any]] = []
        self._more = asyncio.Event()
        identity.runtime.kernel.bus.subscribe(notify.TOPIC, self.hear)

    async def hear(self, event: str, message: Any) -> None:
        assert event == message["event_type"]
        self.heard.append(message)
        self._more.set()

    async def next(self, count: int = 1) -> list[dict[str, Any]]:
        """The next so many, in order; none came besides."""
        async with asyncio.timeout(60):
            while len(self.heard) < count:
                self._more.clear()
                await self._more.wait()
        found, self.heard = self.heard, []
        assert len(found) == count, [m["event_type"] for m in found]
        return found


@pytest.fixture
async def ear(identity: Identity) -> Ear:
    return Ear(identity)


async def test_a_change_is_told_as_upstream_tells_it(identity: Identity, ear: Ear) -> None:
    reply = await identity.call(
        "POST", "/v3/users", {"user": {"name": "ann"}}, User_Agent="probe", X_OpenStack_Request_ID="req-global"
    )
    user = reply.json()["user"]["id"]
    (message,) = await ear.next()
    assert message["event_type"] == "identity.user.created"
    assert message["publisher_id"] == f"identity.{identity.runtime.kernel.settings.hostname}"
    assert message["priority"] == "INFO" and message["message_id"] and message["timestamp"]
    assert message["_context_user_id"] == identity.accounts.admin_user_id
    event = message["payload"]
    assert event["typeURI"] == "http://schemas.dmtf.org/cloud/audit/1.0/event"
    assert (event["eventType"], event["action"], event["outcome"]) == ("activity", "created.user", "success")
    assert event["target"] == {"typeURI": "data/security/account/user", "id": user}
    assert event["resource_info"] == user
    services = (await identity.call("GET", "/v3/services?type=identity")).json()["services"]
    assert event["observer"] == {"typeURI": "service/security", "id": services[0]["id"]}
    by = event["initiator"]
    assert by["id"] == by["user_id"] == identity.accounts.admin_user_id and by["username"] == "admin"
    assert by["project_id"] == identity.accounts.admin_project_id
    assert by["host"] == {"address": "127.0.0.1", "agent": "probe"}
    assert by["request_id"] == reply.headers["X-Openstack-Request-Id"]
    assert by["global_request_id"] == "req-global"
    packed = notify.envelope(message)
    assert packed["oslo.version"] == "2.0" and notify.unpacked(packed) == message
    assert identity.admin not in packed["oslo.message"], "no token goes out"
    with pytest.raises(ValueError, match="version 2"):
        notify.unpacked({"oslo.version": "1.0"})


async def test_each_kind_of_thing_is_told_of(identity: Identity, ear: Ear) -> None:
    for path, key, values in (
        ("domains", "domain", {"enabled": False}),
        ("projects", "project", {}),
        ("users", "user", {}),
        ("groups", "group", {}),
        ("roles", "role", {}),
        ("services", "service", {"type": "x"}),
        ("credentials", "credential", {"type": "cert", "blob": "x", "user_id": identity.accounts.demo_user_id}),
    ):
        made = await identity.made(path, **({"name": "new", **values} if path != "credentials" else values))
        one = f"/v3/{path}/{made['id']}"
        assert (await identity.call("PATCH", one, {key: {"description": "x"}})).status == 200
        assert (await identity.call("DELETE", one)).status == 204
        told = [m["event_type"] for m in await ear.next(3)]
        assert told == [f"identity.{key}.{op}" for op in ("created", "updated", "deleted")]


async def test_what_goes_with_a_domain_is_told_of(identity: Identity, ear: Ear) -> None:
    domain = await identity.made("domains", name="new")
    await identity.made("users", name="ann", domain_id=domain["id"])
    await identity.made("projects", name="work", domain_id=domain["id"])
    await identity.call("PATCH", f"/v3/domains/{domain['id']}", {"domain": {"enabled": False}})
    await ear.next(4)
    await identity.call("DELETE", f"/v3/domains/{domain['id']}")
    told = {m["event_type"] for m in await ear.next(3)}
    assert told == {f"identity.{kind}.deleted" for kind in ("domain", "project", "user")}


async def test_roles_and_members(identity: Identity, ear: Ear) -> None:
    group = (await identity.made("groups", name="crew"))["id"]
    user, project = identity.accounts.demo_user_id, identity.accounts.demo_project_id
    await ear.next(1)
    for method, operation in (("PUT", "created"), ("DELETE", "deleted")):
        assert (await identity.grant("manager", f"projects/{project}", f"groups/{group}", method)).status == 204
        (message,) = await ear.next()
        assert message["event_type"] == f"identity.role_assignment.{operation}"
        event = message["payload"]
        assert event["action"] == f"{operation}.role_assignment"
        assert (event["group"], event["project"]) == (group, project)
        assert event["role"] == await identity.role("manager") and event["inherited_to_projects"] is False
    for method, operation in (("PUT", "added"), ("DELETE", "removed")):
        assert (await identity.call(method, f"/v3/groups/{group}/users/{user}")).status == 204
        (message,) = await ear.next()
        assert message["event_type"] == "identity.group.updated"
        assert (message["payload"]["actor_id"], message["payload"]["actor_operation"]) == (user, operation)


async def test_logins_are_told_of_with_their_outcome(identity: Identity, ear: Ear) -> None:
    await identity.token("demo")
    (message,) = await ear.next()
    assert message["event_type"] == "identity.authenticate"
    event = message["payload"]
    assert (event["action"], event["outcome"]) == ("authenticate", "success") and "reason" not in event
    assert event["initiator"]["user_id"] == identity.accounts.demo_user_id
    assert (await identity.login("demo", "wrong")).status == 401
    (message,) = await ear.next()
    event = message["payload"]
    assert event["outcome"] == "failure" and event["reason"]["reasonCode"] == "401"
    assert event["initiator"]["username"] == "demo" and event["initiator"]["host"]["address"] == "127.0.0.1"
    assert "wrong" not in msgspec.json.encode(message).decode()
    wrong = {"auth": {"identity": {"methods": ["password", "none"], "none": 3, "password": {"user": 7}}}}
    assert (await identity.http("POST", "/v3/auth/tokens", wrong, token="nobody")).status == 401
    (message,) = await ear.next()
    assert message["payload"]["initiator"]["id"] == "unknown"


async def test_a_change_of_a_password_is_told_of(identity: Identity, ear: Ear) -> None:
    user = identity.accounts.demo_user_id
    body = {"user": {"original_password": "demo-secret", "password": "another"}}
    assert (await identity.call("POST", f"/v3/users/{user}/password", body)).status == 204
    (message,) = await ear.next()
    assert (message["event_type"], message["payload"]["target"]["id"]) == ("identity.user.updated", user)
    assert "another" not in str(message) and "demo-secret" not in str(message)


async def test_what_fails_is_not_told(identity: Identity, ear: Ear) -> None:
    user = {"user": {"name": "demo"}}
    assert (await identity.call("POST", "/v3/users", user)).status == 409
    assert (await identity.call("DELETE", "/v3/users/nobody")).status == 404
    await identity.made("roles", name="last")
    (message,) = await ear.next()
    assert message["event_type"] == "identity.role.created"


async def test_nothing_is_made_where_nobody_listens(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(notify, "message", lambda _publisher, event, *_, **__: made.append(event))
    await identity.made("roles", name="quiet")
    await identity.token("demo")
    assert made == []
    ear = Ear(identity)
    monkeypatch.undo()
    await identity.made("roles", name="loud")
    await ear.next()


async def test_the_basic_format(tmp_path: Path) -> None:
    async with identity_in(tmp_path, notification_format="basic") as identity:
        ear = Ear(identity)
        role = await identity.made("roles", name="new")
        (message,) = await ear.next()
        assert message["event_type"] == "identity.role.created"
        assert set(message["payload"]) == {"resource_info", "request_id"}
        assert message["payload"]["resource_info"] == role["id"]
        await identity.token("demo")
        (message,) = await ear.next()
        assert message["payload"]["outcome"] == "success", "logins are events of CADF in any case"


async def test_the_audit_log(identity: Identity, tmp_path: Path) -> None:
    file, moved = tmp_path / "audit.log", tmp_path / "audit.log.1"
    log, ear = AuditLog(file, identity.runtime.kernel.bus), Ear(identity)
    await identity.made("roles", name="one")
    await ear.next()
    while not file.read_text():
        await asyncio.sleep(0.01)
    os.rename(file, moved)
    await identity.made("roles", name="two")
    await identity.token("demo")
    await ear.next(2)
    await asyncio.to_thread(log.stop)
    (first,) = moved.read_text().splitlines()
    assert msgspec.json.decode(first)["event_type"] == "identity.role.created"
    lines = [msgspec.json.decode(line) for line in file.read_text().splitlines()]
    assert [line["event_type"] for line in lines] == ["identity.role.created", "identity.authenticate"]
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(moved.stat().st_mode) == 0o600


async def test_logins_by_other_ways_are_told_of(identity: Identity, ear: Ear) -> None:
    """Client credentials of OAuth 2: what is refused with the RFC's own words, and what is given."""
    demo, user = await identity.token("demo", scope="demo"), identity.accounts.demo_user_id
    body = {"application_credential": {"name": "few"}}
    path = f"/v3/users/{user}/application_credentials"
    made = (await identity.call("POST", path, body, token=demo)).json()["application_credential"]
    await ear.next(2)
    for secret, outcome in (("wrong", "failure"), (made["secret"], "success")):
        basic = base64.b64encode(f"{made['id']}:{secret}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "Content_Type": "application/x-www-form-urlencoded"}
        data = b"grant_type=client_credentials"
        await identity.http("POST", "/v3/OS-OAUTH2/token", token="nobody", data=data, **headers)
        (message,) = await ear.next()
        assert (message["event_type"], message["payload"]["outcome"]) == ("identity.authenticate", outcome)
    assert message["payload"]["initiator"]["user_id"] == user


async def test_delegations_are_told_of(identity: Identity, ear: Ear) -> None:
    demo, user = await identity.token("demo", scope="demo"), identity.accounts.demo_user_id
    body = {"application_credential": {"name": "few"}}
    made = await identity.call("POST", f"/v3/users/{user}/application_credentials", body, token=demo)
    one = f"/v3/users/{user}/application_credentials/{made.json()['application_credential']['id']}"
    assert (await identity.call("DELETE", one, token=demo)).status == 204
    told = [m["event_type"] for m in await ear.next(3)]
    assert told == [
        "identity.authenticate",
        *(f"identity.application_credential.{op}" for op in ("created", "deleted")),
    ]
    trust = {
        "trustor_user_id": user,
        "trustee_user_id": identity.accounts.admin_user_id,
        "impersonation": True,
        "project_id": identity.accounts.demo_project_id,
        "roles": [{"name": "member"}],
    }
    made = await identity.call("POST", "/v3/OS-TRUST/trusts", {"trust": trust}, token=demo)
    id = made.json()["trust"]["id"]
    assert (await identity.call("DELETE", f"/v3/OS-TRUST/trusts/{id}", token=demo)).status == 204
    told = [m["event_type"] for m in await ear.next(2)]
    assert told == ["identity.OS-TRUST:trust.created", "identity.OS-TRUST:trust.deleted"]
