"""Object storage alone on a free port, with callers told by fixed tokens (`tests/harness.py`): `member` and the others of the
project demo, `other` of another one, `admin`, who here is the administrator of all accounts, and `nobody`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from cumulet.api.server import Server, bind
from cumulet.services.object_store.runtime import ObjectStoreRuntime
from tests.harness import CALLERS, Reply, authenticate, kernel

DEMO, OTHER = "AUTH_project-demo", "AUTH_project-other"
TOKENS = (*CALLERS, "nobody")


class Identity:
    authenticate = staticmethod(authenticate)


class Store:
    """Object storage, and a client of it."""

    def __init__(self, runtime: ObjectStoreRuntime, url: str, session: aiohttp.ClientSession) -> None:
        self.runtime = runtime
        self.url = url
        self._session = session
        self.account = DEMO

    async def __call__(
        self, method: str, path: str, data: Any = None, *, token: str = "member", headers: Any = None, **more: Any
    ) -> Reply:
        """`path` is within the account of demo, or begins with / and is sent as it is."""
        url = path if path.startswith("/") else f"/v1/{self.account}" + (path and "/" + quote(path, safe="/?=&%"))
        sent = CIMultiDict(headers or {})
        sent.extend((name.replace("_", "-"), str(value)) for name, value in more.items())
        if token != "nobody":
            sent["X-Auth-Token"] = token
        if data is None and method in ("PUT", "POST"):
            data = b""
        request = self._session.request(
            method,
            URL(self.url + url, encoded=True),
            data=data,
            headers=sent,
            allow_redirects=False,
            skip_auto_headers=["Content-Type"],
        )
        async with request as reply:
            return Reply(reply.status, reply.headers, await reply.read())

    async def put(self, path: str, data: Any = b"", **more: Any) -> None:
        """Make a container, or an object, which must succeed."""
        reply = await self("PUT", path, data, **more)
        assert reply.status in (201, 202), (reply.status, reply.data)

    async def post(self, path: str, **more: Any) -> None:
        reply = await self("POST", path, **more)
        assert reply.status in (202, 204), (reply.status, reply.data)

    async def get(self, path: str, **more: Any) -> bytes:
        reply = await self("GET", path, **more)
        assert reply.status == 200, (reply.status, reply.data)
        return reply.data


@asynccontextmanager
async def object_store(directory: Path, **settings: Any) -> AsyncIterator[Store]:
    settings.setdefault("object_reseller_admin_roles", "admin")
    async with kernel(directory, **settings) as parts:
        runtime = ObjectStoreRuntime(parts, Identity())  # type: ignore[arg-type]
        await runtime.start()
        server, sock = Server(), bind("127.0.0.1", 0)
        await server.listen(runtime.answer, sock)
        try:
            async with aiohttp.ClientSession() as session:
                yield Store(runtime, f"http://127.0.0.1:{sock.getsockname()[1]}", session)
        finally:
            await server.stop()
            await runtime.stop()
