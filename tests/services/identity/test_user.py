"""Users as objects: options, names, default projects."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity

RULES = [["password", "totp"], ["token"]]


async def test_options_are_set_added_to_and_unset(identity: Identity) -> None:
    user = await identity.made("users", name="ann", options={"lock_password": True})
    path = f"/v3/users/{user['id']}"
    assert user["options"] == {"lock_password": True}
    for given, wanted in (
        ({"multi_factor_auth_rules": RULES}, {"lock_password": True, "multi_factor_auth_rules": RULES}),
        ({"lock_password": False}, {"lock_password": False, "multi_factor_auth_rules": RULES}),
        ({"lock_password": None, "ignore_password_expiry": None}, {"multi_factor_auth_rules": RULES}),
        ({}, {"multi_factor_auth_rules": RULES}),
    ):
        reply = await identity.call("PATCH", path, {"user": {"options": given}})
        assert reply.status == 200 and reply.json()["user"]["options"] == wanted
    reply = await identity.call("PATCH", path, {"user": {"description": "x"}})
    assert reply.json()["user"]["options"] == {"multi_factor_auth_rules": RULES}
    assert (await identity.made("users", name="bob", options={"lock_password": None}))["options"] == {}


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": True}, {"lock_password": "yes"}, {"lock_password": 1}, [], "x",
        {"multi_factor_auth_rules": "password"}, {"multi_factor_auth_rules": ["password"]},
        {"multi_factor_auth_rules": [[]]}, {"multi_factor_auth_rules": [[1]]},
        {"multi_factor_auth_rules": [["a", "a"]]}, {"multi_factor_auth_rules": [["a"], ["a"]]},
        {"multi_factor_auth_enabled": []},
    ],
)  # fmt: skip
async def test_options_that_are_none(identity: Identity, options: Any) -> None:
    assert (await identity.call("POST", "/v3/users", {"user": {"name": "ann", "options": options}})).status == 400
    path = f"/v3/users/{identity.accounts.demo_user_id}"
    assert (await identity.call("PATCH", path, {"user": {"options": options}})).status == 400


async def test_names_lose_the_blanks_around_them(identity: Identity) -> None:
    user = await identity.made("users", name="  ann ")
    assert user["name"] == "ann"
    assert (await identity.call("POST", "/v3/users", {"user": {"name": "ann "}})).status == 409
    reply = await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"name": " eve"}})
    assert reply.json()["user"]["name"] == "eve"


async def test_a_domain_is_no_default_project(identity: Identity) -> None:
    body = {"user": {"name": "ann", "default_project_id": "default"}}
    reply = await identity.call("POST", "/v3/users", body)
    says = "User's default project ID cannot be a domain ID: default"
    assert reply.status == 400 and reply.json()["error"]["message"] == says
    user = await identity.made("users", name="ann", default_project_id="none")  # which may not exist
    assert (await identity.call("PATCH", f"/v3/users/{user['id']}", body)).status == 400


async def test_the_password_is_in_no_reply(identity: Identity) -> None:
    user = await identity.made("users", name="ann", password="secret", email="a@b")
    listed = (await identity.call("GET", "/v3/users?name=ann")).json()["users"][0]
    changed = (await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"password": "other"}})).json()["user"]
    for shown in (user, listed, changed):
        assert set(shown) == {
            "id", "name", "domain_id", "enabled", "default_project_id", "password_expires_at", "options", "email", "links",
        }  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [{"description": 7}, {"enabled": None}, {"enabled": "yes"}, {"name": None}, {"password": 7}, {"options": None},
     {"default_project_id": 7}, {"domain_id": 7}],
)  # fmt: skip
async def test_values_of_the_wrong_kind(identity: Identity, values: Any) -> None:
    assert (await identity.call("POST", "/v3/users", {"user": {"name": "ann", **values}})).status == 400
    path = f"/v3/users/{identity.accounts.demo_user_id}"
    assert (await identity.call("PATCH", path, {"user": values})).status == 400
    assert (await identity.call("GET", path)).json()["user"]["name"] == "demo"
