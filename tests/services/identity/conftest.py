"""A cloud of identity alone: bootstrapped, served on a free port, with real tokens."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from cumulet.services.identity.declaration import SERVICE
from cumulet.services.identity.interface import Accounts, Bootstrap, CatalogEntry
from cumulet.services.identity.runtime import IdentityRuntime
from tests.harness import Client, Reply, kernel, serve

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORDS = {"admin": "admin-secret", "demo": "demo-secret"}


def wanted(network_url: str = "http://network.test", identity_url: str = "http://identity.test/v3") -> Bootstrap:
    entries = [CatalogEntry("network", "neutron", "public", network_url)]
    entries += [CatalogEntry("identity", "keystone", i, identity_url) for i in ("public", "admin")]
    entries.append(CatalogEntry("object-store", "swift", "public", "http://objects.test/v1/AUTH_$(project_id)s"))
    return Bootstrap("RegionOne", PASSWORDS["admin"], PASSWORDS["demo"], entries)


class Identity:
    """What tests ask of the running service."""

    def __init__(self, runtime: IdentityRuntime, client: Client, accounts: Accounts) -> None:
        self.runtime = runtime
        self.http = client
        self.accounts = accounts
        self.admin = ""

    async def call(self, method: str, path: str, body: Any = None, *, token: str = "", **headers: str) -> Reply:
        """One call, as admin unless another token is given."""
        return await self.http(method, path, body, token=token or self.admin, **headers)

    async def made(self, path: str, **values: Any) -> Any:
        """What a POST as admin makes; `path` is the collection below /v3."""
        key = "policy" if path == "policies" else path.removesuffix("s")
        reply = await self.call("POST", f"/v3/{path}", {key: values})
        assert reply.status == 201, reply.data
        return reply.json()[key]

    async def login(
        self, user: str, password: str = "", *, domain: str = "default", scope: Any = None, by_id: bool = False
    ) -> Reply:
        """POST /v3/auth/tokens. `scope` is a project's name in the same domain, a whole scope, or None."""
        who: dict[str, Any] = {"password": password or PASSWORDS.get(user, "secret")}
        who |= {"id": user} if by_id else {"name": user, "domain": {"id": domain}}
        if isinstance(scope, str) and scope != "unscoped":
            scope = {"project": {"name": scope, "domain": {"id": domain}}}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": who}}}
        if scope is not None:
            auth["scope"] = scope
        return await self.http("POST", "/v3/auth/tokens", {"auth": auth}, token="nobody")

    async def token(self, user: str, password: str = "", **more: Any) -> str:
        reply = await self.login(user, password, **more)
        assert reply.status == 201, reply.data
        return reply.headers["X-Subject-Token"]

    async def role(self, name: str) -> str:
        reply = await self.call("GET", f"/v3/roles?name={name}")
        role_id: str = reply.json()["roles"][0]["id"]
        return role_id

    async def grant(self, role: str, place: str, actor: str, method: str = "PUT", end: str = "") -> Reply:
        """Give (or DELETE, or HEAD) a role: `grant("member", "projects/ID", "users/ID")`."""
        return await self.call(method, f"/v3/{place}/{actor}/roles/{await self.role(role)}{end}")

    async def person(self, name: str, role: str, place: str, domain: str = "default") -> Mapping[str, Any]:
        """A new user (password `secret`) who holds a role somewhere."""
        user = await self.made("users", name=name, password="secret", domain_id=domain)
        assert (await self.grant(role, place, f"users/{user['id']}")).status == 204
        return dict(user)


@asynccontextmanager
async def identity_in(directory: Path, **settings: Any) -> AsyncIterator[Identity]:
    async with kernel(directory, **settings) as parts:
        runtime = IdentityRuntime(parts, hasher=CHEAP)
        accounts = await runtime.ensure_bootstrap(wanted())
        await runtime.start()
        async with serve(SERVICE, runtime, authenticate=runtime.authenticate) as client:
            identity = Identity(runtime, client, accounts)
            identity.admin = await identity.token("admin", scope="admin")
            yield identity
        await runtime.stop()


@pytest.fixture
async def identity(tmp_path: Path) -> AsyncIterator[Identity]:
    async with identity_in(tmp_path) as running:
        yield running
