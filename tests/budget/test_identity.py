"""What calls of identity may cost: SQL statements, and Python calls of our own; and that neither grows where it need not."""

import pytest

from tests.budget.spent import spending
from tests.harness import Reply
from tests.services.identity.conftest import Identity, identity

__all__ = ["identity"]


@pytest.fixture(autouse=True)
async def quiet(identity: Identity) -> None:
    """What is done once a minute is no part of what a call costs."""
    await identity.runtime.kernel.tasks.stop()


async def validated(identity: Identity, token: str) -> Reply:
    reply = await identity.call("GET", "/v3/auth/tokens", X_Subject_Token=token)
    assert reply.status == 200
    return reply


async def test_validating_a_token_that_is_known(identity: Identity) -> None:
    token = await identity.token("demo", scope="demo")
    await validated(identity, token)
    async with spending(identity.runtime.kernel.db) as spent:
        await validated(identity, token)
    assert spent.statements == []
    assert spent.calls.total() <= 60, str(spent)


async def test_validating_a_token_after_a_change(identity: Identity) -> None:
    """Two statements for each token, the caller's and the one he asks about, and one for the catalogue."""
    token = await identity.token("demo", scope="demo")
    await identity.runtime.write(lambda _tx: None)
    async with spending(identity.runtime.kernel.db) as spent:
        await validated(identity, token)
    assert len(spent.statements) <= 5, str(spent)
    assert spent.calls.total() <= 150, str(spent)


async def test_who_holds_a_token(identity: Identity) -> None:
    """What every call of every service asks first."""
    token = await identity.token("demo", scope="demo")
    await identity.runtime.authenticate(token)
    async with spending(identity.runtime.kernel.db) as spent:
        await identity.runtime.authenticate(token)
    assert spent.statements == []
    assert spent.calls.total() <= 5, str(spent)


@pytest.mark.parametrize("by_id", [False, True])
async def test_issuing_a_token(identity: Identity, by_id: bool) -> None:
    """The user, what he must show, the project, user and project as the token has them, the roles: one statement each. The
    catalogue is known."""
    user = identity.accounts.demo_user_id if by_id else "demo"
    await identity.login(user, "demo-secret", scope="demo", by_id=by_id)
    async with spending(identity.runtime.kernel.db) as spent:
        reply = await identity.login(user, "demo-secret", scope="demo", by_id=by_id)
    assert reply.status == 201 and reply.json()["token"]["catalog"]
    assert len(spent.statements) <= 5, str(spent)
    assert spent.calls.total() <= 150, str(spent)


async def test_what_a_token_means_takes_as_many_statements_however_deep_the_project_lies(identity: Identity) -> None:
    parent, taken = identity.accounts.demo_project_id, []
    user, role = identity.accounts.demo_user_id, await identity.role("manager")
    path = f"/v3/OS-INHERIT/domains/default/users/{user}/roles/{role}/inherited_to_projects"
    assert (await identity.call("PUT", path)).status == 204
    for name in ("upper", "middle", "lower"):
        parent = (await identity.made("projects", name=name, parent_id=parent))["id"]
        token = await identity.token("demo", scope={"project": {"id": parent}})
        async with spending(identity.runtime.kernel.db) as spent:
            session = await identity.runtime.examine(token)
        assert {role.name for role in session.roles} == {"manager", "member", "reader"}
        taken.append(len(spent.statements))
    assert set(taken) == {2}


async def test_listing_users_takes_one_statement_however_many_there_are(identity: Identity) -> None:
    calls, number = [], 0
    for more in (2, 20):
        for _ in range(more):
            await identity.made("users", name=f"user-{number}", domain_id="default")
            number += 1
        await identity.call("GET", "/v3/users")
        async with spending(identity.runtime.kernel.db) as spent:
            reply = await identity.call("GET", "/v3/users")
        assert len(reply.json()["users"]) == number + 2
        assert len(spent.statements) == 1, str(spent)
        calls.append(spent.calls.total())
    assert calls[0] <= 100
    assert calls[1] - calls[0] <= 20 * 5, "calls for each user"


@pytest.mark.parametrize("query", ["", "?include_names", "?effective", "?effective&include_names"])
async def test_listing_role_assignments_takes_as_many_statements_however_many_there_are(
    identity: Identity, query: str
) -> None:
    roles = [await identity.role(name) for name in ("reader", "member", "manager")]
    taken, number, listed = [], 0, []
    for more in (1, 10):
        for _ in range(more):
            number += 1
            user = (await identity.made("users", name=f"user-{number}", domain_id="default"))["id"]
            project = (await identity.made("projects", name=f"project-{number}", domain_id="default"))["id"]
            for role in roles:
                assert (await identity.call("PUT", f"/v3/projects/{project}/users/{user}/roles/{role}")).status == 204
        await identity.call("GET", f"/v3/role_assignments{query}")
        async with spending(identity.runtime.kernel.db) as spent:
            reply = await identity.call("GET", f"/v3/role_assignments{query}")
        listed.append(len(reply.json()["role_assignments"]))
        taken.append(len(spent.statements))
    assert listed[1] >= listed[0] + 30
    assert taken[0] == taken[1] <= 15, taken
