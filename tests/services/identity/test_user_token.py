"""A user voids all his tokens."""

from tests.services.identity.conftest import Identity


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
