"""Tokens: issued, scoped, validated, revoked."""

from tests.services.identity.conftest import Identity


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
