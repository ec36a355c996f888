"""What is remembered of tokens never outlives a change: validate, change, validate again, for each kind of change; and any
sequence of changes, where each answer is compared with one that is worked out anew."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from cumulet.api.http import encode_json
from cumulet.core.errors import Unauthorized
from cumulet.services.identity.auth.issue import token_body
from cumulet.services.identity.catalog import catalog_for, read_catalog
from cumulet.services.identity.memory import Memory
from tests.services.identity.conftest import Identity


class Scene(Struct):
    """A domain with a project, and two users: one holds his roles himself, the other as a member of a group."""

    identity: Identity
    domain: str
    project: str
    group: str
    role: str
    implied: str
    user: str
    member: str
    service: str
    endpoint: str
    tokens: dict[str, str]

    async def change(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        """One change as admin; one that makes no sense any more, after others, is refused."""
        reply = await self.identity.call(method, f"/v3/{path}", body, **headers)
        assert reply.status < 500, reply.data

    async def told(self, token: str, query: str = "") -> Any:
        """What a validation tells of a token; None where it is refused."""
        reply = await self.identity.call("GET", f"/v3/auth/tokens{query}", X_Subject_Token=token)
        if reply.status == 404:
            return None
        assert reply.status == 200 and reply.headers["X-Subject-Token"] == token, reply.data
        return reply.json()

    async def true(self, token: str) -> Any:
        """What it would tell if nothing were remembered."""
        runtime = self.identity.runtime
        try:
            session = await runtime.examine(token)
        except Unauthorized:
            return None
        body = token_body(session)
        if session.claims.scope:
            rows = await runtime.kernel.db.read(read_catalog)
            project = session.project.id if session.project else None
            body["catalog"] = catalog_for(rows, project, session.user.id)
        return msgspec.json.decode(encode_json({"token": body}))

    async def check(self) -> None:
        """Every answer is the true one, to who validates a token and to who asks who holds it."""
        runtime = self.identity.runtime
        for name, token in self.tokens.items():
            true = await self.true(token)
            assert await self.told(token) == true, name
            try:
                caller = await runtime.authenticate(token)
            except Unauthorized:
                assert true is None, name
            else:
                assert caller == (await runtime.examine(token)).caller(token), name


async def scene_of(identity: Identity) -> Scene:
    made = identity.made
    domain = (await made("domains", name="realm"))["id"]
    project = (await made("projects", name="site", domain_id=domain))["id"]
    group = (await made("groups", name="crew", domain_id=domain))["id"]
    roles = [(await made("roles", name=name))["id"] for name in ("builder", "helper")]
    users = [
        (await made("users", name=name, password="secret", domain_id=domain, default_project_id=None))["id"]
        for name in ("ann", "bob")
    ]
    service = (await made("services", type="dns", name="names"))["id"]
    url = "http://dns.test/$(project_id)s"
    endpoint = (await made("endpoints", service_id=service, interface="public", url=url))["id"]
    scene = Scene(identity, domain, project, group, roles[0], roles[1], users[0], users[1], service, endpoint, {})
    for path in (
        f"projects/{project}/users/{users[0]}/roles/{roles[0]}",
        f"domains/{domain}/users/{users[0]}/roles/{roles[0]}",
        f"projects/{project}/groups/{group}/roles/{roles[0]}",
        f"groups/{group}/users/{users[1]}",
    ):
        assert (await identity.call("PUT", f"/v3/{path}")).status == 204
    site = {"project": {"id": project}}
    for name, user, scope in (
        ("project", users[0], site),
        ("other", users[0], site),
        ("domain", users[0], {"domain": {"id": domain}}),
        ("unscoped", users[0], "unscoped"),
        ("by group", users[1], site),
    ):
        scene.tokens[name] = await identity.token(user, "secret", by_id=True, scope=scope)
    await scene.check()
    return scene


Change = Callable[[Scene], Awaitable[None]]


def call(method: str, path: str, body: Any = None) -> Change:
    """A change by one call; `{name}` in its path stands for an id of the scene."""

    async def change(scene: Scene) -> None:
        values = {name: getattr(scene, name) for name in scene.__struct_fields__}
        await scene.change(method, path.format(**values), body)

    return change


async def revoke(scene: Scene) -> None:
    await scene.change("DELETE", "auth/tokens", X_Subject_Token=scene.tokens["project"])


async def add_endpoint(scene: Scene) -> None:
    body = {"service_id": scene.service, "interface": "internal", "url": "http://dns.inside"}
    await scene.change("POST", "endpoints", {"endpoint": body})


ENDS: dict[str, Change] = {
    "the token revoked": revoke,
    "the only role taken away": call("DELETE", "projects/{project}/users/{user}/roles/{role}"),
    "the role deleted": call("DELETE", "roles/{role}"),
    "the user disabled": call("PATCH", "users/{user}", {"user": {"enabled": False}}),
    "the user deleted": call("DELETE", "users/{user}"),
    "the password changed": call("PATCH", "users/{user}", {"user": {"password": "another"}}),
    "the project disabled": call("PATCH", "projects/{project}", {"project": {"enabled": False}}),
    "the project deleted": call("DELETE", "projects/{project}"),
    "the domain disabled": call("PATCH", "domains/{domain}", {"domain": {"enabled": False}}),
}
"""After these the token `project` is valid no more."""

ENDS_BY_GROUP: dict[str, Change] = {
    "out of the group": call("DELETE", "groups/{group}/users/{member}"),
    "the group's role taken away": call("DELETE", "projects/{project}/groups/{group}/roles/{role}"),
    "the group deleted": call("DELETE", "groups/{group}"),
}
"""After these the token `by group` is."""

TELLS: dict[str, Change] = {
    "the user renamed": call("PATCH", "users/{user}", {"user": {"name": "anna"}}),
    "the project renamed": call("PATCH", "projects/{project}", {"project": {"name": "yard"}}),
    "the domain renamed": call("PATCH", "domains/{domain}", {"domain": {"name": "kingdom"}}),
    "the role renamed": call("PATCH", "roles/{role}", {"role": {"name": "mason"}}),
    "another role given": call("PUT", "projects/{project}/users/{user}/roles/{implied}"),
    "a role inherited": call("PUT", "OS-INHERIT/domains/{domain}/users/{user}/roles/{implied}/inherited_to_projects"),
    "a role implied": call("PUT", "roles/{role}/implies/{implied}"),
    "an endpoint added": add_endpoint,
    "an endpoint moved": call("PATCH", "endpoints/{endpoint}", {"endpoint": {"url": "http://dns.elsewhere"}}),
    "an endpoint disabled": call("PATCH", "endpoints/{endpoint}", {"endpoint": {"enabled": False}}),
    "an endpoint deleted": call("DELETE", "endpoints/{endpoint}"),
    "a service renamed": call("PATCH", "services/{service}", {"service": {"name": "directory"}}),
    "a service disabled": call("PATCH", "services/{service}", {"service": {"enabled": False}}),
    "a service deleted": call("DELETE", "services/{service}"),
}
"""After these it is valid, and another thing is told of it."""

BACK: dict[str, Change] = {
    "the role given again": call("PUT", "projects/{project}/users/{user}/roles/{role}"),
    "the extra role taken away": call("DELETE", "projects/{project}/users/{user}/roles/{implied}"),
    "the role implies no more": call("DELETE", "roles/{role}/implies/{implied}"),
    "into the group": call("PUT", "groups/{group}/users/{member}"),
    "the user enabled": call("PATCH", "users/{user}", {"user": {"enabled": True}}),
    "the project enabled": call("PATCH", "projects/{project}", {"project": {"enabled": True}}),
    "the domain enabled": call("PATCH", "domains/{domain}", {"domain": {"enabled": True}}),
    "an endpoint enabled": call("PATCH", "endpoints/{endpoint}", {"endpoint": {"enabled": True}}),
    "a service enabled": call("PATCH", "services/{service}", {"service": {"enabled": True}}),
}
"""These undo some of the others."""


@pytest.mark.parametrize("name", ENDS)
async def test_what_ends_a_token_ends_it_at_once(identity: Identity, name: str) -> None:
    scene = await scene_of(identity)
    token = scene.tokens["project"]
    assert await scene.told(token) is not None and await scene.told(token, "?nocatalog") is not None
    await ENDS[name](scene)
    assert await scene.told(token) is None
    with pytest.raises(Unauthorized):
        await identity.runtime.authenticate(token)
    assert (await identity.call("GET", "/v3/auth/catalog", token=token)).status == 401
    await scene.check()


@pytest.mark.parametrize("name", ENDS_BY_GROUP)
async def test_what_ends_a_token_that_is_held_through_a_group(identity: Identity, name: str) -> None:
    scene = await scene_of(identity)
    await ENDS_BY_GROUP[name](scene)
    assert await scene.told(scene.tokens["by group"]) is None
    await scene.check()


@pytest.mark.parametrize("name", TELLS)
async def test_what_changes_what_is_told_of_a_token(identity: Identity, name: str) -> None:
    scene = await scene_of(identity)
    before = await scene.told(scene.tokens["project"])
    await TELLS[name](scene)
    after = await scene.told(scene.tokens["project"])
    assert after is not None and after != before
    await scene.check()


async def test_a_remembered_token_ends_with_its_time(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await scene_of(identity)
    token = scene.tokens["project"]
    ends = (await identity.runtime.examine(token)).claims.expires_at
    for ahead, valid in ((-2_000_000, True), (0, False)):
        monkeypatch.setattr("cumulet.services.identity.runtime.microseconds", lambda at=ends + ahead: at)
        if valid:
            assert (await identity.runtime.authenticate(token)).user_name == "ann"
        else:
            with pytest.raises(Unauthorized):
                await identity.runtime.authenticate(token)


@pytest.mark.parametrize("seed", range(4))
async def test_any_sequence_of_changes(identity: Identity, seed: int) -> None:
    """Deletions come last: there is no way back from them."""
    scene = await scene_of(identity)
    chance = random.Random(seed)
    every = {**ENDS, **ENDS_BY_GROUP, **TELLS, **BACK}
    final = [name for name in every if name.endswith("deleted")]
    passing = [name for name in every if name not in final]
    for name in [*chance.choices(passing, k=30), *chance.sample(final, k=len(final))]:
        await every[name](scene)
        await scene.check()
        if await scene.told(scene.tokens["project"]) is None and name in BACK:  # a token of now, where there can be one
            reply = await identity.login(scene.user, "another", by_id=True, scope={"project": {"id": scene.project}})
            if reply.status == 201:
                scene.tokens["project"] = reply.headers["X-Subject-Token"]


async def test_a_change_is_in_force_before_what_was_remembered_is_forgotten(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is looked up in between is looked up with the revocation, or forgotten with the rest."""
    token = await identity.token("demo", scope="demo")
    claims = (await identity.runtime.session(token)).claims
    voided: list[bool] = []
    forget = identity.runtime._forget

    def noted() -> None:
        voided.append(identity.runtime.revocations.voids(claims))
        forget()

    monkeypatch.setattr(identity.runtime, "_forget", noted)
    await identity.runtime.revoke(claims)
    assert voided == [True]


async def test_what_is_remembered_is_bounded() -> None:
    async def answer(number: int) -> int:
        return number

    memory: Memory[int, int] = Memory(5)
    assert [await memory.keep(n, answer(n)) for n in range(12)] == list(range(12))
    assert [memory.get(n) for n in range(12)] == [None] * 7 + [7, 8, 9, 10, 11]
    await memory.keep(7, answer(70))  # asked anew, it is the newest, and nothing has to give way to it
    assert [memory.get(n) for n in range(7, 12)] == [70, 8, 9, 10, 11]
    memory.forget()
    assert all(memory.get(n) is None for n in range(12))


async def test_what_was_asked_before_a_change_is_not_remembered_after_it() -> None:
    memory: Memory[str, str] = Memory(5)

    async def answer() -> str:
        memory.forget()  # the change comes while the answer is looked for
        return "as it was"

    assert await memory.keep("a", answer()) == "as it was"
    assert memory.get("a") is None


async def test_a_login_tells_what_a_validation_tells(identity: Identity) -> None:
    for scope in ("demo", "unscoped", None):
        reply = await identity.login("demo", scope=scope)
        told = await identity.call("GET", "/v3/auth/tokens", X_Subject_Token=reply.headers["X-Subject-Token"])
        assert told.json() == reply.json()
        short = await identity.call(
            "GET", "/v3/auth/tokens?nocatalog", X_Subject_Token=reply.headers["X-Subject-Token"]
        )
        token = reply.json()["token"]
        assert short.json()["token"] == {name: value for name, value in token.items() if name != "catalog"}
