"""Users' passwords: how they are set and changed, how long they are good, and what a login with one costs."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cumulet.core import db
from cumulet.services.identity import password
from cumulet.services.identity.imported_hash import verify_imported
from cumulet.services.identity.lockout import NOBODY
from cumulet.services.identity.tables import failed_login, password_history
from cumulet.services.identity.user import User
from tests.harness import Reply
from tests.services.identity.conftest import Identity, identity_in

DAY = 24 * 3600 * 1_000_000


async def change(identity: Identity, user_id: str, old: Any, new: Any) -> Reply:
    body = {"user": {"original_password": old, "password": new}}
    return await identity.http("POST", f"/v3/users/{user_id}/password", body, token="nobody")


async def patch(identity: Identity, user_id: str, **values: Any) -> Any:
    reply = await identity.call("PATCH", f"/v3/users/{user_id}", {"user": values})
    assert reply.status == 200, reply.data
    return reply.json()["user"]


async def set_columns(identity: Identity, user_id: str, **columns: Any) -> None:
    await identity.runtime.write(db.update, User, user_id, **columns)


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Identity]:
    """A cloud with lockout and history on."""
    settings = {"lockout_failure_attempts": 3, "lockout_duration": 60, "unique_last_password_count": 3}
    async with identity_in(tmp_path, **settings) as running:
        yield running


# ---- changing -----------------------------------------------------------------------------------------------------------


async def test_who_knows_his_password_changes_it_and_his_tokens_are_void(identity: Identity) -> None:
    user = await identity.made("users", name="ann", password="first")
    token = await identity.token("ann", "first")
    assert (await change(identity, user["id"], "wrong", "second")).status == 401
    assert (await change(identity, "none", "first", "second")).status == 401
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 200
    assert (await change(identity, user["id"], "first", "second")).status == 204
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    assert (await identity.login("ann", "first")).status == 401
    assert (await identity.login("ann", "second")).status == 201
    assert (await change(identity, user["id"], "second", "second")).status == 204  # no history is kept here


@pytest.mark.parametrize(
    "body",
    [
        {}, {"user": {}}, {"user": {"password": "x"}}, {"user": {"original_password": "x"}},
        {"user": {"original_password": 1, "password": "x"}}, {"user": {"original_password": "x", "password": None}},
        {"user": {"original_password": "x", "password": ""}},
        {"user": {"original_password": "x", "password": "y", "more": 1}},
    ],
)  # fmt: skip
async def test_a_change_that_makes_no_sense(identity: Identity, body: Any) -> None:
    path = f"/v3/users/{identity.accounts.demo_user_id}/password"
    assert (await identity.http("POST", path, body, token="nobody")).status == 400


async def test_his_last_passwords_are_no_new_ones(strict: Identity) -> None:
    user = await strict.made("users", name="ann", password="p0")
    for number in (1, 2, 3):
        assert (await change(strict, user["id"], f"p{number - 1}", f"p{number}")).status == 204
    for number in (1, 2, 3):
        reply = await change(strict, user["id"], "p3", f"p{number}")
        assert reply.status == 400 and "cannot be identical to a previous password" in reply.json()["error"]["message"]
    assert (await change(strict, user["id"], "p3", "p0")).status == 204
    rows = await strict.runtime.kernel.db.read(lambda tx: tx.execute(password_history.select()).all())
    assert len([row for row in rows if row.user_id == user["id"]]) == 2
    await patch(strict, user["id"], password="p3")  # an administrator may set any
    assert (await strict.login("ann", "p3")).status == 201
    assert (await change(strict, user["id"], "p3", "p0")).status == 400  # but what he replaced counts
    assert (await strict.call("DELETE", f"/v3/users/{user['id']}")).status == 204
    rows = await strict.runtime.kernel.db.read(lambda tx: tx.execute(password_history.select()).all())
    assert user["id"] not in {row.user_id for row in rows}


async def test_a_password_must_be_used_for_a_while(tmp_path: Path) -> None:
    async with identity_in(tmp_path, minimum_password_age=2) as identity:
        user = await identity.made("users", name="ann", password="p0")
        assert (await change(identity, user["id"], "p0", "p1")).status == 204  # he did not choose p0
        reply = await change(identity, user["id"], "p1", "p2")
        assert reply.status == 400 and "minimum password age" in reply.json()["error"]["message"]
        await set_columns(identity, user["id"], password_created_at=time.time_ns() // 1000 - 2 * DAY)
        assert (await change(identity, user["id"], "p1", "p2")).status == 204
        await patch(identity, user["id"], password="p3")
        assert (await change(identity, user["id"], "p3", "p4")).status == 204


async def test_passwords_have_the_form_the_operator_wants(tmp_path: Path) -> None:
    async with identity_in(
        tmp_path, password_regex=r"^(?=.*\d).{5,}$", password_regex_description="a digit"
    ) as identity:
        bad = {"user": {"name": "ann", "password": "letters"}}
        reply = await identity.call("POST", "/v3/users", bad)
        says = "The password does not match the requirements: a digit."
        assert reply.status == 400 and reply.json()["error"]["message"] == says
        user = await identity.made("users", name="ann", password="letters1")
        assert (await identity.call("PATCH", f"/v3/users/{user['id']}", bad)).status == 400
        assert (await change(identity, user["id"], "letters1", "letters")).status == 400
        assert (await change(identity, user["id"], "letters1", "letters2")).status == 204


async def test_a_locked_password_is_an_administrators(identity: Identity) -> None:
    user = await identity.made("users", name="ann", password="p0", options={"lock_password": True})
    reply = await change(identity, user["id"], "p0", "p1")
    assert reply.status == 400 and "lock_password" in reply.json()["error"]["message"]
    await patch(identity, user["id"], password="p1")
    assert (await identity.login("ann", "p1")).status == 201
    assert (await patch(identity, user["id"], options={"lock_password": None}))["options"] == {}
    assert (await change(identity, user["id"], "p1", "p2")).status == 204


async def test_a_user_without_a_password_cannot_log_in(identity: Identity) -> None:
    user = await identity.made("users", name="ann", password="secret")
    token = await identity.token("ann")
    await patch(identity, user["id"], password=None)
    assert (await identity.login("ann")).status == 401
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    assert (await change(identity, user["id"], "secret", "other")).status == 401


async def test_of_a_very_long_password_the_beginning_counts(identity: Identity) -> None:
    await identity.made("users", name="ann", password="x" * 5000)
    assert (await identity.login("ann", "x" * 4096)).status == 201
    assert (await identity.login("ann", "x" * 4095)).status == 401


# ---- expiry -------------------------------------------------------------------------------------------------------------


async def test_an_expired_password_is_good_for_changing_it_only(tmp_path: Path) -> None:
    async with identity_in(tmp_path, password_expires_days=10) as identity:
        user = await identity.made("users", name="ann", password="p0")
        assert user["password_expires_at"].endswith(".000000")
        free = await identity.made("users", name="bob", password="p0", options={"ignore_password_expiry": True})
        assert free["password_expires_at"] is None
        reply = await identity.login("ann", "p0")
        assert reply.json()["token"]["user"]["password_expires_at"] == user["password_expires_at"]
        for user_id in (user["id"], free["id"]):
            await set_columns(identity, user_id, password_expires_at="2020-01-01T00:00:00.000000")
        reply = await identity.login("ann", "p0")
        says = f"The password is expired and needs to be changed for user: {user['id']}."
        assert reply.status == 401 and reply.json()["error"]["message"] == says
        reply = await identity.login("ann", "wrong")
        assert "expired" not in reply.json()["error"]["message"]
        assert (await identity.login("bob", "p0")).status == 201
        assert (await change(identity, user["id"], "p0", "p1")).status == 204
        assert (await identity.login("ann", "p1")).status == 201


async def test_a_password_that_was_given_must_be_changed_first(tmp_path: Path) -> None:
    async with identity_in(tmp_path, change_password_upon_first_use=True) as identity:
        user = await identity.made("users", name="ann", password="p0")
        options = {"ignore_change_password_upon_first_use": True}
        await identity.made("users", name="bob", password="p0", options=options)
        assert (await identity.login("ann", "p0")).status == 401
        assert (await identity.login("bob", "p0")).status == 201
        assert (await change(identity, user["id"], "p0", "p1")).status == 204
        assert (await identity.login("ann", "p1")).status == 201
        await patch(identity, user["id"], password="p2")
        assert (await identity.login("ann", "p2")).status == 401


async def test_users_are_found_by_when_their_passwords_expire(identity: Identity) -> None:
    times = {"ann": "2020-01-01T00:00:00.000000", "bob": "2021-06-01T00:00:00.000000", "eve": None}
    for name, at in times.items():
        await set_columns(identity, (await identity.made("users", name=name))["id"], password_expires_at=at)

    async def names(value: str) -> list[str]:
        reply = await identity.call("GET", f"/v3/users?password_expires_at={value}&sort_key=name")
        assert reply.status == 200, reply.data
        return [user["name"] for user in reply.json()["users"]]

    assert await names("lt:2021-01-01T00:00:00Z") == ["ann"]
    assert await names("gte:2020-01-01T00:00:00Z") == ["ann", "bob"]
    assert await names("gt:2020-01-01T00:00:00Z") == ["bob"]
    assert await names("lte:2020-01-01T00:00:00Z") == ["ann"]
    assert await names("2020-01-01T00:00:00Z") == await names("eq:2020-01-01T00:00:00Z") == ["ann"]
    assert await names("neq:2020-01-01T00:00:00Z") == ["bob"]
    assert await names("gt:2020-01-01T00:00:00Z&password_expires_at=lt:2021-01-01T00:00:00Z") == []
    for wrong in ("lt:yesterday", "xx:2020-01-01T00:00:00Z", "lt:"):
        assert (await identity.call("GET", f"/v3/users?password_expires_at={wrong}")).status == 400


# ---- lockout ------------------------------------------------------------------------------------------------------------


async def test_wrong_passwords_lock_a_user_out_for_a_while(strict: Identity) -> None:
    user = await strict.made("users", name="ann", password="right")
    for _ in range(2):
        wrong = await strict.login("ann", "wrong")
    assert (await strict.login("ann", "right")).status == 201  # which forgets them
    for _ in range(3):
        wrong = await strict.login("ann", "wrong")
    locked = await strict.login("ann", "right")
    assert locked.status == 401 and locked.json() == wrong.json()
    assert (await change(strict, user["id"], "right", "other")).status == 401
    earlier = failed_login.update().where(failed_login.c.user_id == user["id"])
    await strict.runtime.write(lambda tx: tx.execute(earlier.values(failed_at=failed_login.c.failed_at - 61_000_000)))
    assert (await strict.login("ann", "wrong")).status == 401  # the first of a new row
    assert (await strict.login("ann", "right")).status == 201


async def test_an_administrator_ends_a_lockout(strict: Identity) -> None:
    user = await strict.made("users", name="ann", password="right")
    for _ in range(3):
        await strict.login("ann", "wrong")
    assert (await strict.login("ann", "right")).status == 401
    await patch(strict, user["id"], enabled=True)
    assert (await strict.login("ann", "right")).status == 201


async def test_some_users_are_not_locked_out(strict: Identity) -> None:
    await strict.made("users", name="ann", password="right", options={"ignore_lockout_failure_attempts": True})
    for _ in range(5):
        await strict.login("ann", "wrong")
    assert (await strict.login("ann", "right")).status == 201


async def test_a_lockout_without_duration_lasts_and_survives_a_restart(tmp_path: Path) -> None:
    settings = {"lockout_failure_attempts": 1, "lockout_duration": 0}
    async with identity_in(tmp_path, **settings) as identity:
        await identity.made("users", name="ann", password="right")
        await identity.login("ann", "wrong")
    async with identity_in(tmp_path, **settings) as identity:
        assert (await identity.login("ann", "right")).status == 401


async def test_of_many_guesses_at_once_no_more_count_than_of_as_many_in_turn(strict: Identity) -> None:
    user = await strict.made("users", name="ann", password="right")
    replies = await asyncio.gather(*(strict.login("ann", f"wrong-{n}") for n in range(20)))
    assert {reply.status for reply in replies} == {401}
    assert (await strict.login("ann", "right")).status == 401
    rows = await strict.runtime.kernel.db.read(lambda tx: tx.execute(failed_login.select()).all())
    assert {row.user_id: row.failures for row in rows} == {user["id"]: 3, NOBODY: 18}


async def test_disabled_users_and_unknown_ones_get_the_same_answer(strict: Identity) -> None:
    user = await strict.made("users", name="ann", password="right", enabled=False)
    await strict.made("users", name="bare")
    replies = [
        await strict.login("ann", "right"), await strict.login("ann", "wrong"), await strict.login("none", "wrong"),
        await strict.login("bare", "wrong"), await strict.login("demo", "wrong"),
        await strict.login(user["id"], "wrong", by_id=True), await strict.login("none", "wrong", domain="none"),
    ]  # fmt: skip
    assert {(reply.status, reply.data) for reply in replies} == {(401, replies[0].data)}


async def test_a_flood_of_wrong_passwords_holds_up_no_other_request(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While every hashing thread is busy, and after as many as may wait are waiting, tokens are validated as ever."""
    free = threading.Event()
    verify = type(identity.runtime.passwords)._verify

    def stuck(self: Any, stored: str | None, given: str) -> bool:
        assert free.wait(60)
        return verify(self, stored, given)

    monkeypatch.setattr(password.Passwords, "_verify", stuck)
    monkeypatch.setattr(password, "WAITING", 20)
    flood = [asyncio.ensure_future(identity.login("ann", f"wrong-{n}")) for n in range(30)]
    refused, waiting = await first_done(flood, 10)
    assert {task.result().status for task in refused} == {503}
    for _ in range(50):
        reply = await identity.call("GET", "/v3/auth/tokens", X_Subject_Token=identity.admin)
        assert reply.status == 200
    assert not any(task.done() for task in waiting)
    free.set()
    assert {reply.status for reply in await asyncio.gather(*waiting)} == {401}


async def first_done(tasks: list[Any], count: int) -> tuple[set[Any], set[Any]]:
    """(the first tasks that end, at least `count` of them; the others)"""
    done: set[Any] = set()
    pending = set(tasks)
    while len(done) < count:
        ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        assert ended
        done |= ended
    return done, pending


# ---- inactivity ---------------------------------------------------------------------------------------------------------


async def test_who_does_not_log_in_for_long_counts_as_disabled(tmp_path: Path) -> None:
    async with identity_in(tmp_path, disable_user_account_days_inactive=30) as identity:
        user = await identity.made("users", name="ann", password="secret")
        assert (await identity.login("ann")).status == 201
        for column in ("last_active_at", "created_at"):
            await set_columns(identity, user["id"], **{"last_active_at": None, column: "2020-01-01"})
            assert (await identity.login("ann")).status == 401
            shown = (await identity.call("GET", f"/v3/users/{user['id']}")).json()["user"]
            listed = (await identity.call("GET", "/v3/users?name=ann")).json()["users"]
            assert shown["enabled"] is listed[0]["enabled"] is False
            await patch(identity, user["id"], enabled=True)
            assert (await identity.login("ann")).status == 201
        await set_columns(identity, user["id"], last_active_at="2020-01-01")
        await patch(identity, user["id"], options={"ignore_user_inactivity": True})
        assert (await identity.login("ann")).status == 201


# ---- imported hashes ----------------------------------------------------------------------------------------------------


IMPORTED = {  # made by keystone's own code and by passlib 1.7.4, with few rounds
    "bcrypt": "$2b$04$0lMyhv8boyd71qp8OArjnuBja/bhz3UTpGyprHhjpK..CivFrACH6",
    "bcrypt-sha256": "$bcrypt-sha256$v=2,t=2b,r=4$GJYtN19yVSo/Bv00Pn9XPO$P8cyr8SO/KM9QsFj42Tq5DG48ovClnq",
    "scrypt": "$scrypt$ln=4,r=8,p=1$5lyLsfae07r33jvnXMv5vw$brxwe3FH59lsevbuESrJGITN4j2zCuaKIS0f+nN/gMg",
    "pbkdf2-sha512": (
        "$pbkdf2-sha512$1000$39sbo1SK0ZrTOscY47wXQg"
        "$ks058VWSmeeYyB.qDcnOEELEC7e.45.KIeFde8YS0Xvw9HsNJ/o9lqFw6tNVV9a/DrRvkAHDT2a4z7EU.w9WwA"
    ),
}


@pytest.mark.parametrize("kind", list(IMPORTED))
async def test_an_imported_hash_is_verified_and_made_anew_at_a_login(identity: Identity, kind: str) -> None:
    user = await identity.made("users", name="ann", password="other")
    await set_columns(identity, user["id"], password_hash=IMPORTED[kind])

    async def stored() -> str:
        row: Any = await identity.runtime.kernel.db.read(db.get, User, user["id"])
        return str(row.password_hash)

    assert (await identity.login("ann", "wrong")).status == 401
    assert await stored() == IMPORTED[kind]
    assert (await identity.login("ann", "sécret")).status == 201
    made = await stored()
    assert made.startswith("$argon2id$")
    assert (await identity.login("ann", "sécret")).status == 201
    assert await stored() == made


async def test_failed_logins_are_drawn_out_to_those_with_imported_hashes(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await identity.made("users", name="ann", password="other")
    await set_columns(identity, user["id"], password_hash=IMPORTED["bcrypt"])
    drawn_out: list[float] = []

    async def note(seconds: float) -> None:
        drawn_out.append(seconds)

    still = SimpleNamespace(sleep=note, get_running_loop=asyncio.get_running_loop)
    monkeypatch.setattr(password, "asyncio", still)
    monkeypatch.setattr(password, "verify_imported", slow)
    await identity.login("none", "wrong")
    assert drawn_out == [0.0]
    began = time.perf_counter()
    await identity.login("ann", "wrong")
    longest = 1.1 * (time.perf_counter() - began)
    for name in ("none", "demo"):
        drawn_out.clear()
        began = time.perf_counter()
        await identity.login(name, "wrong")
        took = time.perf_counter() - began
        assert len(drawn_out) == 1 and max(0.0, 1.1 * HIDDEN - took) <= drawn_out[0] < longest
    drawn_out.clear()
    assert (await identity.login("demo")).status == 201
    assert drawn_out == []


HIDDEN = 0.3
"""Seconds that there are to hide."""


def slow(stored: str, given: bytes) -> bool:
    time.sleep(HIDDEN)
    return False


@pytest.mark.parametrize(
    "damaged",
    [
        "", "$2b$", "$2b$12$short", "$scrypt$ln=40,r=8,p=1$AAAA$AAAA", "$scrypt$ln=x$a$b", "$scrypt$", "$pbkdf2-sha512$x$y$z",
        "$pbkdf2-sha512$1000$!!$AAAA", "$bcrypt-sha256$v=2$a$b", "$pbkdf2-sha512$0$AAAA$AAAA", "plain",
    ],
)  # fmt: skip
def test_a_damaged_hash_is_of_no_password(damaged: str) -> None:
    assert verify_imported(damaged, b"secret") is False
