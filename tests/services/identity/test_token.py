"""Tokens: issued, scoped, validated, revoked."""

import base64
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from cumulet.core.errors import Unauthorized
from cumulet.services.identity.claims import BadToken, Claims
from cumulet.services.identity.fernet import Keys
from tests.services.identity.conftest import Identity, identity_in


async def test_password_login_gives_a_scoped_token(identity: Identity) -> None:
    reply = await identity.login("admin", scope="admin")
    assert reply.status == 201
    token = reply.json()["token"]
    assert token["methods"] == ["password"]
    assert token["user"] == {
        "id": identity.accounts.admin_user_id, "name": "admin", "password_expires_at": None,
        "domain": {"id": "default", "name": "Default"},
    }  # fmt: skip
    assert token["project"]["id"] == identity.accounts.admin_project_id
    assert {r["name"] for r in token["roles"]} == {"admin", "manager", "member", "reader"}
    assert token["expires_at"].endswith("Z") and len(token["issued_at"]) == 27
    by_type = {entry["type"]: entry for entry in token["catalog"]}
    assert by_type["object-store"]["endpoints"][0]["url"].endswith(f"AUTH_{identity.accounts.admin_project_id}")
    assert {e["interface"] for e in by_type["identity"]["endpoints"]} == {"public", "admin"}


@pytest.mark.parametrize(
    ("scope", "part"),
    [
        ({"domain": {"id": "default"}}, {"domain": {"id": "default", "name": "Default"}}),
        ({"domain": {"name": "Default"}}, {"domain": {"id": "default", "name": "Default"}}),
        ({"system": {"all": True}}, {"system": {"all": True}}),
    ],
)
async def test_other_scopes(identity: Identity, scope: Any, part: Any) -> None:
    reply = await identity.login("admin", scope=scope)
    token = reply.json()["token"]
    assert part.items() <= token.items()
    assert token["roles"] and "project" not in token
    swift = next(entry for entry in token["catalog"] if entry["type"] == "object-store")
    assert swift["endpoints"] == []  # its URL needs a project


async def test_without_a_scope_the_default_project_counts(identity: Identity) -> None:
    token = (await identity.login("demo")).json()["token"]
    assert token["project"]["name"] == "demo"
    unscoped = (await identity.login("demo", scope="unscoped")).json()["token"]
    assert not {"project", "roles", "catalog"} & unscoped.keys()
    user = await identity.made("users", name="plain", password="secret")
    unscoped = (await identity.login(user["id"], by_id=True)).json()["token"]
    assert not {"project", "roles", "catalog"} & unscoped.keys()


@pytest.mark.parametrize(
    "login",
    [
        {"user": "admin", "password": "wrong"},
        {"user": "nobody-of-that-name", "password": "wrong"},
        {"user": "nobody-of-that-id", "password": "wrong", "by_id": True},
        {"user": "admin", "domain": "no-such-domain"},
        {"user": "demo", "scope": "admin"},
        {"user": "demo", "scope": "no-such-project"},
        {"user": "demo", "scope": {"domain": {"id": "default"}}},
        {"user": "demo", "scope": {"system": {"all": True}}},
        {"user": "demo", "scope": {"project": {"id": "default"}}},
        {"user": "demo", "scope": {"OS-TRUST:trust": {"id": "x"}}},
    ],
)
async def test_refused_logins_tell_nothing_apart(identity: Identity, login: Any) -> None:
    reply = await identity.login(**login)
    assert reply.status == 401
    assert reply.json()["error"] == {
        "code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication.",
    }  # fmt: skip
    assert reply.headers["WWW-Authenticate"].startswith("Keystone uri=")


@pytest.mark.parametrize(
    "auth",
    [
        None,
        {},
        {"identity": {"methods": []}},
        {"identity": {"methods": ["password"]}},
        {"identity": {"methods": ["token"]}},
        {"identity": {"methods": ["password"], "password": {"user": {"password": "x"}}}},
        {"identity": {"methods": ["password"], "password": {"user": {"name": "admin", "password": "x"}}}},
        {"identity": {"methods": ["password"], "password": {"user": {"id": 7, "password": "x"}}}},
    ],
)
async def test_malformed_logins_are_400(identity: Identity, auth: Any) -> None:
    reply = await identity.http("POST", "/v3/auth/tokens", {"auth": auth}, token="nobody")
    assert reply.status == 400, reply.data


@pytest.mark.parametrize("scope", [{}, {"project": {}}, {"project": {"name": "admin"}}, {"domain": {}}, {"system": {}}])
async def test_malformed_scopes_are_400(identity: Identity, scope: Any) -> None:
    assert (await identity.login("admin", scope=scope)).status == 400


async def test_token_method_rescopes_and_keeps_the_end(identity: Identity) -> None:
    first = await identity.login("admin", scope="unscoped")
    body = {
        "auth": {
            "identity": {"methods": ["token"], "token": {"id": first.headers["X-Subject-Token"]}},
            "scope": {"project": {"id": identity.accounts.admin_project_id}},
        }
    }
    second = await identity.http("POST", "/v3/auth/tokens", body, token="nobody")
    assert second.status == 201
    before, after = first.json()["token"], second.json()["token"]
    assert after["methods"] == ["token", "password"]
    assert after["expires_at"] == before["expires_at"]
    assert after["audit_ids"][1:] == before["audit_ids"]
    assert after["project"]["name"] == "admin"


async def test_validate_shows_what_issuing_showed(identity: Identity) -> None:
    reply = await identity.login("demo", scope="demo")
    subject = reply.headers["X-Subject-Token"]
    shown = await identity.call("GET", "/v3/auth/tokens", X_Subject_Token=subject)
    assert shown.status == 200 and shown.json() == reply.json()
    assert shown.headers["X-Subject-Token"] == subject
    head = await identity.call("HEAD", "/v3/auth/tokens", X_Subject_Token=subject)
    assert head.status == 200 and head.data == b""
    brief = await identity.call("GET", "/v3/auth/tokens?nocatalog", X_Subject_Token=subject)
    assert "catalog" not in brief.json()["token"]


async def test_who_may_validate_and_revoke(identity: Identity) -> None:
    demo = await identity.token("demo")
    other = await identity.person("other", "member", f"projects/{identity.accounts.demo_project_id}")
    stranger = await identity.token("other", scope="demo")
    helper = await identity.person("helper", "service", f"projects/{identity.accounts.demo_project_id}")
    service = await identity.token("helper", scope="demo")
    assert (await identity.call("GET", "/v3/auth/tokens", token=demo, X_Subject_Token=demo)).status == 200
    assert (await identity.call("GET", "/v3/auth/tokens", token=stranger, X_Subject_Token=demo)).status == 403
    assert (await identity.call("GET", "/v3/auth/tokens", token=service, X_Subject_Token=demo)).status == 200
    assert (await identity.call("DELETE", "/v3/auth/tokens", token=service, X_Subject_Token=demo)).status == 403
    assert (await identity.call("GET", "/v3/auth/tokens", X_Subject_Token="rubbish")).status == 404
    assert (await identity.call("GET", "/v3/auth/tokens")).status == 404
    assert other["id"] != helper["id"]


async def test_a_revoked_token_is_void_at_once_and_after_a_restart(tmp_path: Path) -> None:
    async with identity_in(tmp_path) as identity:
        demo, twin = await identity.token("demo"), await identity.token("demo")
        assert (await identity.runtime.authenticate(demo)).user_name == "demo"
        assert (await identity.call("DELETE", "/v3/auth/tokens", token=demo, X_Subject_Token=demo)).status == 204
        assert (await identity.call("GET", "/v3/auth/projects", token=demo)).status == 401
        assert (await identity.call("GET", "/v3/auth/tokens", X_Subject_Token=demo)).status == 404
        assert (await identity.call("GET", "/v3/auth/projects", token=twin)).status == 200
    async with identity_in(tmp_path) as identity:
        assert (await identity.call("GET", "/v3/auth/projects", token=demo)).status == 401
        assert (await identity.call("GET", "/v3/auth/projects", token=twin)).status == 200


async def test_a_role_that_is_taken_away_is_gone_with_the_next_request(identity: Identity) -> None:
    place = f"projects/{identity.accounts.demo_project_id}"
    user = await identity.person("fleeting", "member", place)
    await identity.grant("admin", place, f"users/{user['id']}")
    token = await identity.token("fleeting", scope="demo")
    assert (await identity.call("GET", "/v3/users", token=token)).status == 200
    await identity.grant("admin", place, f"users/{user['id']}", "DELETE")
    assert (await identity.call("GET", "/v3/users", token=token)).status == 403
    await identity.grant("member", place, f"users/{user['id']}", "DELETE")
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401


@pytest.mark.parametrize("what", ["user", "project", "domain"])
async def test_disabling_voids_tokens_for_good(identity: Identity, what: str) -> None:
    domain = await identity.made("domains", name="realm")
    project = await identity.made("projects", name="work", domain_id=domain["id"])
    user = await identity.person("worker", "member", f"projects/{project['id']}", domain["id"])
    token = await identity.token("worker", domain=domain["id"], scope="work")
    made = {"user": user, "project": project, "domain": domain}[what]
    path = f"/v3/{what}s/{made['id']}"
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 200
    assert (await identity.call("PATCH", path, {what: {"enabled": False}})).status == 200
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    assert (await identity.login("worker", domain=domain["id"], scope="work")).status == 401
    assert (await identity.call("PATCH", path, {what: {"enabled": True}})).status == 200
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    assert (await identity.login("worker", domain=domain["id"], scope="work")).status == 201


async def test_a_new_password_voids_the_old_tokens(identity: Identity) -> None:
    user_id, old = identity.accounts.demo_user_id, await identity.token("demo")
    change = {"user": {"original_password": "demo-secret", "password": "another"}}
    path = f"/v3/users/{user_id}/password"
    wrong = {"user": {"original_password": "no", "password": "another"}}
    assert (await identity.http("POST", path, wrong, token="nobody")).status == 401
    assert (await identity.http("POST", "/v3/users/none/password", change, token="nobody")).status == 401
    assert (await identity.http("POST", path, change, token="nobody")).status == 204
    assert (await identity.call("GET", "/v3/auth/projects", token=old)).status == 401
    assert (await identity.login("demo")).status == 401
    new = await identity.token("demo", "another")
    assert (await identity.call("GET", "/v3/auth/projects", token=new)).status == 200


@pytest.mark.parametrize(
    "token", ["", "x", "gAAAAA", "ü", "\udcff", "g" * 4000, base64.urlsafe_b64encode(b"x" * 99).decode()]
)
async def test_rubbish_is_no_token(identity: Identity, token: str) -> None:
    with pytest.raises(Unauthorized):
        await identity.runtime.authenticate(token)


async def test_a_token_ends_with_its_lifetime(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await identity.token("demo")
    assert (await identity.runtime.authenticate(token)).user_name == "demo"
    real = time.time
    monkeypatch.setattr(
        "cumulet.services.identity.runtime.microseconds",
        lambda: int((real() + identity.runtime.lifetime + 1) * 1_000_000),
    )
    with pytest.raises(Unauthorized):
        await identity.runtime.authenticate(token)


async def test_known_tokens_are_answered_from_memory(identity: Identity) -> None:
    token = await identity.token("demo", scope="demo")
    await identity.runtime.authenticate(token)
    statements: list[str] = []
    event.listen(identity.runtime.kernel.db.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    started = time.thread_time()  # of this thread's own work: others may have the processor meanwhile
    for _ in range(1000):
        caller = await identity.runtime.authenticate(token)
    assert (time.thread_time() - started) / 1000 < 0.0001
    assert statements == [] and caller.roles == {"member", "reader"}


async def test_own_projects_domains_system_and_catalog(identity: Identity) -> None:
    demo, admin = await identity.token("demo"), identity.admin
    projects = await identity.call("GET", "/v3/auth/projects", token=demo)
    assert [p["name"] for p in projects.json()["projects"]] == ["demo"]
    assert (await identity.call("GET", "/v3/auth/domains", token=demo)).json()["domains"] == []
    assert [d["id"] for d in (await identity.call("GET", "/v3/auth/domains", token=admin)).json()["domains"]] == [
        "default"
    ]
    assert (await identity.call("GET", "/v3/auth/system", token=admin)).json()["system"] == [{"all": True}]
    assert (await identity.call("GET", "/v3/auth/system", token=demo)).json()["system"] == []
    catalog = await identity.call("GET", "/v3/auth/catalog", token=demo)
    assert {e["type"] for e in catalog.json()["catalog"]} == {"identity", "network", "object-store"}
    unscoped = await identity.token("demo", scope="unscoped")
    assert (await identity.call("GET", "/v3/auth/catalog", token=unscoped)).status == 403


# ---- keys ---------------------------------------------------------------------------------------------------------------

CLAIMS = Claims("0" * 31 + "a", ("password",), 1, 2, ("audit",), "domain", "default")


def test_keys_rotate_and_old_tokens_stay_valid(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys", lifetime=100)
    keys.load()
    first = keys.seal(CLAIMS)
    assert "=" not in first and keys.open(first) == CLAIMS
    assert not keys.rotate_if_due()
    keys.rotate()
    assert keys.open(first) == CLAIMS
    other = Keys(tmp_path / "keys", lifetime=100)  # another start of the program
    other.load()
    assert other.open(first) == CLAIMS and other.open(keys.seal(CLAIMS)) == CLAIMS
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "keys").iterdir()} == {0o600}


def test_keys_go_when_no_token_can_need_them(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys", lifetime=100)
    keys.load()
    first = keys.seal(CLAIMS)
    keys.rotate()
    old = time.time() - 2 * 24 * 3600
    for file in (tmp_path / "keys").iterdir():
        os.utime(file, (old, old))
    assert keys.rotate_if_due()
    assert sorted(f.name for f in (tmp_path / "keys").iterdir()) == ["2", "3"]
    with pytest.raises(BadToken):
        keys.open(first)


def test_a_key_that_was_half_written_is_cleared_away(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys", lifetime=100)
    keys.load()
    (tmp_path / "keys" / ".2.4711").write_bytes(b"half a k")
    sealed = keys.seal(CLAIMS)
    keys.load()
    assert [f.name for f in (tmp_path / "keys").iterdir()] == ["1"] and keys.open(sealed) == CLAIMS


def test_a_token_of_another_cloud_is_refused(tmp_path: Path) -> None:
    ours, theirs = Keys(tmp_path / "ours", 100), Keys(tmp_path / "theirs", 100)
    ours.load()
    theirs.load()
    with pytest.raises(BadToken):
        ours.open(theirs.seal(CLAIMS))
