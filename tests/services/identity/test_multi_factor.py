"""Multi-factor rules, receipts, and one-time passcodes; with keystoneauth1 where it has a plugin."""

import asyncio
import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import session
from keystoneauth1.exceptions.auth import MissingAuthMethods
from keystoneauth1.identity import v3

from cumulet.services.identity.auth import by_totp
from cumulet.services.identity.auth.receipt import unmet
from tests.harness import Reply
from tests.services.identity.conftest import Identity, identity_in

KEY = b"12345678901234567890"  # of the examples in RFC 6238
SECRET = base64.b32encode(KEY).decode()
RULES = [["password", "totp"]]
DEMO: Any = {"project_name": "demo", "project_domain_id": "default"}


@pytest.mark.parametrize(
    ("seconds", "passcode"),
    [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")],
)
def test_passcodes_are_those_of_the_rfc(seconds: int, passcode: str) -> None:
    assert by_totp.passcode_at(SECRET, seconds // 30) == passcode
    assert by_totp.passcode_at(SECRET.lower().rstrip("="), seconds // 30) == passcode


def test_a_secret_that_is_no_base32_has_no_passcode() -> None:
    assert by_totp.passcode_at("0189!", 1) is None
    assert not by_totp.is_passcode("0189!", 1, "")


@pytest.mark.parametrize(
    ("rules", "used", "wanted"),
    [
        ([], {"password"}, None),
        ([["password"]], {"password"}, None),
        (RULES, {"password"}, RULES),
        (RULES, {"token"}, []),
        (RULES, {"password", "totp", "token"}, None),
        ([["password", "totp"], ["password", "token"]], {"password"}, [["password", "totp"], ["password", "token"]]),
        ([["password", "eye"]], {"password"}, None),  # nobody can show an eye here
        ([["eye"]], {"password"}, None),
        ([["eye"], ["totp", "token"]], {"totp"}, [["totp", "token"]]),
    ],
)
def test_rules(rules: Any, used: set[str], wanted: Any) -> None:
    assert unmet(rules, used) == wanted


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(by_totp, "time", clock)
    return clock


def passcode(clock: Clock, back: int = 0, secret: str = SECRET) -> str:
    return str(by_totp.passcode_at(secret, int(clock.now) // 30 - back))


async def ann(identity: Identity, **options: Any) -> Any:
    """A user with a secret for passcodes and a role in the demo project."""
    user = await identity.person("ann", "member", f"projects/{identity.accounts.demo_project_id}")
    await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"options": options}})
    await identity.made("credentials", type="totp", blob=SECRET, user_id=user["id"])
    return user


async def login(identity: Identity, receipt: str = "", **proofs: str) -> Reply:
    """Log in as ann with `password=...` and `totp=...`, in this order."""
    user = {"name": "ann", "domain": {"id": "default"}}
    names = {"password": "password", "totp": "passcode"}
    body: dict[str, Any] = {m: {"user": {**user, names[m]: text}} for m, text in proofs.items()}
    auth = {
        "auth": {
            "identity": {"methods": list(proofs), **body},
            "scope": {"project": {"id": identity.accounts.demo_project_id}},
        }
    }
    headers = {"Openstack_Auth_Receipt": receipt} if receipt else {}
    return await identity.http("POST", "/v3/auth/tokens", auth, token="nobody", **headers)


async def test_a_passcode_is_good_once(identity: Identity, clock: Clock) -> None:
    await ann(identity)
    assert (await login(identity, totp=passcode(clock, 2))).status == 401
    assert (await login(identity, totp=passcode(clock, -1))).status == 401
    assert (await login(identity, totp=passcode(clock, 1))).status == 201
    reply = await login(identity, totp=passcode(clock))
    assert reply.status == 201 and reply.json()["token"]["methods"] == ["totp"]
    assert (await login(identity, totp=passcode(clock))).status == 401
    assert (await login(identity, totp=passcode(clock, 1))).status == 401
    clock.now += 30
    replies = await asyncio.gather(*(login(identity, totp=passcode(clock)) for _ in range(5)))
    assert sorted(reply.status for reply in replies) == [201, 401, 401, 401, 401]


async def test_each_secret_of_a_user_is_good(identity: Identity, clock: Clock) -> None:
    user = await ann(identity)
    other = base64.b32encode(b"another secret of his").decode()
    await identity.made("credentials", type="totp", blob=other, user_id=user["id"])
    await identity.made("credentials", type="totp", blob="no base 32: 018", user_id=user["id"])
    assert (await login(identity, totp=passcode(clock))).status == 201
    assert (await login(identity, totp=passcode(clock, secret=other))).status == 201
    assert (await login(identity, totp=passcode(clock, secret=other))).status == 401


async def test_passcodes_that_make_no_sense(identity: Identity) -> None:
    user = await ann(identity)
    for bad in ("", "12345", "x", "\u0661\u0662\u0663\u0664\u0665\u0666"):
        assert (await login(identity, totp=bad)).status == 401
    for payload in (
        {"user": {"id": user["id"]}},
        {"user": {"passcode": "1"}},
        {"user": {"id": user["id"], "passcode": 1}},
        {},
    ):
        auth = {"auth": {"identity": {"methods": ["totp"], "totp": payload}}}
        assert (await identity.http("POST", "/v3/auth/tokens", auth, token="nobody")).status == 400
    auth = {"auth": {"identity": {"methods": ["totp"], "totp": {"user": {"id": "none", "passcode": "123456"}}}}}
    assert (await identity.http("POST", "/v3/auth/tokens", auth, token="nobody")).status == 401


async def test_wrong_passcodes_lock_out_and_disabled_users_stay_out(tmp_path: Path, clock: Clock) -> None:
    async with identity_in(tmp_path, lockout_failure_attempts=2) as identity:
        user = await ann(identity)
        for _ in range(2):
            assert (await login(identity, totp="000000x")).status == 401
        assert (await login(identity, totp=passcode(clock))).status == 401
        assert (await login(identity, password="secret")).status == 401
        await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"enabled": False}})
        clock.now += 30
        assert (await login(identity, totp=passcode(clock))).status == 401
        await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"enabled": True}})
        clock.now += 30
        assert (await login(identity, totp=passcode(clock))).status == 201


async def test_part_of_a_login_gives_a_receipt_to_go_on_with(identity: Identity, clock: Clock) -> None:
    user = await ann(identity, multi_factor_auth_rules=RULES)
    reply = await login(identity, password="secret")
    body, receipt = reply.json(), reply.headers["Openstack-Auth-Receipt"]
    assert reply.status == 401 and "X-Subject-Token" not in reply.headers
    assert body["required_auth_methods"] == RULES
    who = {"id": user["id"], "name": "ann", "domain": {"id": "default", "name": "Default"}}
    assert body["receipt"]["user"] == who and body["receipt"]["methods"] == ["password"]
    assert body["receipt"]["expires_at"] > body["receipt"]["issued_at"] and set(body["receipt"]) == {
        "user", "methods", "expires_at", "issued_at",
    }  # fmt: skip
    assert (await identity.call("GET", "/v3/auth/projects", token=receipt)).status == 401  # it is no token
    assert (await login(identity, receipt, totp="0")).status == 401
    assert (await login(identity, "rubbish", totp=passcode(clock))).status == 401
    clock.now += 30
    reply = await login(identity, receipt, totp=passcode(clock))
    assert reply.status == 201 and sorted(reply.json()["token"]["methods"]) == ["password", "totp"]
    token = reply.headers["X-Subject-Token"]
    again = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}}
    assert (await identity.http("POST", "/v3/auth/tokens", again, token="nobody")).status == 201
    clock.now += 30
    assert (await login(identity, password="secret", totp=passcode(clock))).status == 201  # both at once
    assert (await login(identity, receipt, password="secret")).status == 401  # the same once more is not enough


async def test_a_token_is_no_receipt_and_a_receipt_is_his_own(identity: Identity, clock: Clock) -> None:
    await ann(identity, multi_factor_auth_rules=RULES)
    token = await identity.token("demo", scope="demo")
    assert (await login(identity, token, totp=passcode(clock))).status == 401
    bob = await identity.made("users", name="bob", password="secret", options={"multi_factor_auth_rules": RULES})
    reply = await identity.login(bob["id"], by_id=True)
    clock.now += 30
    assert (await login(identity, reply.headers["Openstack-Auth-Receipt"], totp=passcode(clock))).status == 401


@pytest.mark.parametrize("changes", [{"password": "other"}, {"enabled": False}])
async def test_a_receipt_ends_when_the_users_tokens_do(identity: Identity, clock: Clock, changes: Any) -> None:
    user = await ann(identity, multi_factor_auth_rules=RULES)
    receipt = (await login(identity, password="secret")).headers["Openstack-Auth-Receipt"]
    await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": changes})
    await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"enabled": True}})
    assert (await login(identity, receipt, totp=passcode(clock))).status == 401


async def test_a_receipt_ends_by_itself(identity: Identity, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    await ann(identity, multi_factor_auth_rules=RULES)
    receipt = (await login(identity, password="secret")).headers["Openstack-Auth-Receipt"]
    from cumulet.services.identity.auth import receipt as module

    later = time.time_ns() // 1000 + 301 * 1_000_000
    monkeypatch.setattr(module, "microseconds", lambda: later)
    assert (await login(identity, receipt, totp=passcode(clock))).status == 401


async def test_rules_can_be_switched_off(identity: Identity) -> None:
    await ann(identity, multi_factor_auth_rules=RULES, multi_factor_auth_enabled=False)
    assert (await login(identity, password="secret")).status == 201


# ---- keystoneauth1 ------------------------------------------------------------------------------------------------------


async def off_loop(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(fn, *args, **kwargs)


@pytest.fixture
def url(identity: Identity) -> str:
    return f"{identity.http.url}/v3"


async def test_keystoneauth_logs_in_with_totp(identity: Identity, url: str, clock: Clock) -> None:
    user = await ann(identity)
    plugin = v3.TOTP(auth_url=url, user_id=user["id"], passcode=passcode(clock), **DEMO)
    token = await off_loop(session.Session(auth=plugin).get_token)
    assert (await identity.runtime.authenticate(token)).user_id == user["id"]


async def test_keystoneauth_logs_in_with_several_methods(identity: Identity, url: str, clock: Clock) -> None:
    user = await ann(identity, multi_factor_auth_rules=RULES)
    plugin = v3.MultiFactor(
        auth_url=url, auth_methods=["v3password", "v3totp"], user_id=user["id"], password="secret",
        passcode=passcode(clock), **DEMO,
    )  # fmt: skip
    token = await off_loop(session.Session(auth=plugin).get_token)
    assert (await identity.runtime.authenticate(token)).project_id == identity.accounts.demo_project_id


async def test_keystoneauth_goes_on_with_a_receipt(identity: Identity, url: str, clock: Clock) -> None:
    user = await ann(identity, multi_factor_auth_rules=RULES)
    plugin = v3.Password(auth_url=url, user_id=user["id"], password="secret", **DEMO)
    with pytest.raises(MissingAuthMethods) as missing:
        await off_loop(session.Session(auth=plugin).get_token)
    assert missing.value.required_auth_methods == RULES and missing.value.methods == ["password"]
    method = v3.TOTPMethod(user_id=user["id"], passcode=passcode(clock))
    rest = v3.Auth(url, [method], **DEMO)
    rest.add_method(v3.ReceiptMethod(receipt=missing.value.receipt or ""))
    token = await off_loop(session.Session(auth=rest).get_token)
    assert (await identity.runtime.authenticate(token)).user_id == user["id"]
