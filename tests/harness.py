"""Run one service alone on a free port, with callers told by fixed tokens: for a service's tests that need no other one."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from cumulet.api.app import App
from cumulet.api.caller import Authenticate
from cumulet.api.policy import Policy
from cumulet.api.server import Server, bind
from cumulet.api.service import Service
from cumulet.config import Settings
from cumulet.core.bus.local import LocalBus
from cumulet.core.context import Caller
from cumulet.core.db import Database
from cumulet.core.errors import Unauthorized
from cumulet.core.kernel import Kernel
from cumulet.core.operations import Operations
from cumulet.core.tasks import Tasks
from tests.openapi_document import Check, checking

ROLES = ("admin", "manager", "member", "reader")


def caller(name: str, project: str, role: str) -> Caller:
    """A caller who holds `role` and the roles it implies."""
    return Caller(
        user_id=f"user-{name}", user_name=name, project_id=project, project_name=project, user_domain_id="default",
        project_domain_id="default", roles=frozenset(ROLES[ROLES.index(role) :]),
    )  # fmt: skip


CALLERS: Mapping[str, Caller] = {
    "admin": caller("admin", "project-admin", "admin"),
    "manager": caller("manager", "project-demo", "manager"),
    "member": caller("member", "project-demo", "member"),
    "reader": caller("reader", "project-demo", "reader"),
    "other": caller("other", "project-other", "member"),
}
"""Callers by token; `nobody` is a request without one."""


async def authenticate(token: str, *, allow_expired: bool = False) -> Caller:
    try:
        return CALLERS[token]
    except KeyError:
        raise Unauthorized() from None


class Reply(msgspec.Struct):
    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.data)


class Client:
    """Speaks to one served port."""

    def __init__(self, url: str, session: aiohttp.ClientSession, check: Check | None = None) -> None:
        self.url = url
        self.check = check
        self._session = session

    async def __call__(
        self, method: str, path: str, body: Any = None, *, token: str = "member", data: Any = None, **headers: str
    ) -> Reply:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if token != "nobody":
            names["X-Auth-Token"] = token
        if body is not None:
            data = msgspec.json.encode(body)
            names.setdefault("Content-Type", "application/json")
        async with self._session.request(method, self.url + path, data=data, headers=names) as reply:
            found = Reply(reply.status, reply.headers, await reply.read())
        if self.check is not None:
            self.check(method, path, found.status, found.data)
        return found


@asynccontextmanager
async def kernel(directory: Path, **settings: Any) -> AsyncIterator[Kernel]:
    """A started kernel on an empty database in `directory`. Operations are left to the test to start."""
    made = Settings(data=directory, **settings)
    db = Database(made.database_url)
    parts = Kernel(made, db, Operations(db, "test-host"), LocalBus(), Tasks())
    await db.start()
    await parts.bus.start()
    try:
        yield parts
    finally:
        await parts.operations.stop()
        await parts.tasks.stop()
        await parts.bus.stop()
        await db.stop()


@asynccontextmanager
async def serve(
    service: Service, runtime: Any, others: Sequence[Service] = (), authenticate: Authenticate = authenticate
) -> AsyncIterator[Client]:
    """A client of `service`, which is served on a free port. Replies are held against the document of its API, where there
    is one (`tests/openapi_document.py`)."""
    rules = {name: text for one in (service, *others) for name, text in one.rules.items()}
    server, sock = Server(), bind("127.0.0.1", 0)
    await server.listen(App(service, runtime, authenticate, Policy(rules)), sock)
    async with aiohttp.ClientSession() as session:
        yield Client(f"http://127.0.0.1:{sock.getsockname()[1]}", session, checking(service.type))
    await server.stop()
