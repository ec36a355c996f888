"""Versions in a container that the user names: X-Versions-Location and X-History-Location of a container.

What is overwritten is carried there first, as <length of the name in three hexadecimal digits><name>/<timestamp>. A DELETE
brings the last version back (X-Versions-Location), or leaves a mark of its own there (X-History-Location).
Reference: https://docs.openstack.org/swift/latest/middleware.html (Object Versioning, legacy)
"""

from collections.abc import AsyncIterator, Awaitable
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from cumulet.api.http import Query
from cumulet.services.object_store import conditional
from cumulet.services.object_store.layers.within import carry, fetch, may_write
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    close,
    drain,
    refuse,
)
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.proxy.info import container_info
from cumulet.services.object_store.proxy.limits import OWN_TYPE
from cumulet.services.object_store.values import container_name

DELETE_MARKER = "application/x-deleted;swift_versions_deleted=1"
"""The content type of what says that an object was deleted then."""
VERSIONS, HISTORY = "X-Versions-Location", "X-History-Location"
REMOVE = ("X-Remove-Versions-Location", "X-Remove-History-Location")
LOCATION, MODE = "X-Container-Sysmeta-Versions-Location", "X-Container-Sysmeta-Versions-Mode"

Row = dict[str, Any]


class LegacyVersions:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app
        service.told["versioned_writes"] = {"allowed_flags": [VERSIONS.lower(), HISTORY.lower()]}

    def __call__(self, request: Request) -> Awaitable[Response]:
        if not request.object:
            return self._container(request) if request.container else self.app(request)
        return self._change(request) if request.method in ("PUT", "DELETE") else self.app(request)

    async def _change(self, request: Request) -> Response:
        info = await container_info(self.app, request)
        archive = unquote(info.sysmeta.get("versions-location", "")).split("/")[0]
        if not archive:
            return await self.app(request)
        if request.method == "PUT":
            await self._archive(request, archive)
            return await self.app(request)
        if info.sysmeta.get("versions-mode") == "history":
            return await self._mark(request, archive)
        return await self._restore(request, archive)

    async def _container(self, request: Request) -> Response:
        if request.method in ("PUT", "POST"):
            _translate(request)
        response = await self.app(request)
        if location := response.headers.get(LOCATION):
            name = HISTORY if response.headers.get(MODE) == "history" else VERSIONS
            response.headers[name] = location
        return response

    async def _archive(self, request: Request, archive: str) -> None:
        """Carry away what is there now."""
        await may_write(self.app, request)
        found = await fetch(self.app, request, "versions", request.container, request.object)
        if found.status == 404:
            await close(found)
            return
        await _expect(found)
        told = found.headers.get("X-Timestamp")
        if told is None:
            told = str(conditional.parse_date(found.headers.get("Last-Modified")) or 0)
        stored = await carry(
            self.app, request, "versions", archive, _name(request.object, Timestamp.parse(told)), found
        )
        await _expect(stored)
        request.query = Query("")

    async def _mark(self, request: Request, archive: str) -> Response:
        """DELETE that is noted beside the versions."""
        await self._archive(request, archive)
        headers = Headers({"Content-Type": DELETE_MARKER, OWN_TYPE: "true", "Content-Length": "0"})
        sub = request.sub(
            "PUT",
            source="versions",
            trusted=True,
            container=archive,
            object=_name(request.object, Timestamp.now()),
            headers=headers,
        )
        marked = await ask(self.app, sub)
        await _expect(marked)
        await close(marked)
        return await self.app(request)

    async def _restore(self, request: Request, archive: str) -> Response:
        """DELETE after which the last version is there again."""
        allowed = False
        versions = self._versions(request, archive)
        async for row in versions:
            if not allowed:
                await may_write(self.app, request)
                allowed = True
            name: str = row["name"]
            if row["content_type"] == DELETE_MARKER:
                if await self._is_there(request):
                    break  # back to where it is deleted: the mark stays
                await self._restore_before(request, archive, versions)
            elif not await self._bring_back(request, archive, name):
                continue
            return await self.app(self._delete_of(request, archive, name))
        return await self.app(request)

    async def _restore_before(self, request: Request, archive: str, versions: AsyncIterator[Row]) -> None:
        """Bring back what was there before a mark, and delete that version."""
        async for row in versions:
            if row["content_type"] == DELETE_MARKER:
                return
            if await self._bring_back(request, archive, row["name"]):
                deleted = await ask(self.app, self._delete_of(request, archive, row["name"]))
                await close(deleted)
                if deleted.status != 404:
                    await _expect(deleted)
                return

    async def _is_there(self, request: Request) -> bool:
        headers = Headers({"X-Newest": "true"})
        head = await ask(self.app, request.sub("HEAD", source="versions", trusted=True, headers=headers))
        if head.status == 404:
            return False
        await _expect(head)
        return True

    async def _bring_back(self, request: Request, archive: str, name: str) -> bool:
        """Whether a version could be put back; it may be gone already."""
        found = await fetch(self.app, request, "versions", archive, name)
        if found.status == 404:
            await close(found)
            return False
        await _expect(found)
        stored = await carry(self.app, request, "versions", request.container, request.object, found)
        await _expect(stored)
        return True

    def _delete_of(self, request: Request, archive: str, name: str) -> Request:
        return request.sub("DELETE", source="versions", trusted=True, container=archive, object=name)

    async def _versions(self, request: Request, archive: str) -> AsyncIterator[Row]:
        """The rows of an object's versions, the last one first."""
        prefix, marker = quote(_name(request.object)), ""
        while True:
            query = Query(f"format=json&prefix={prefix}&marker={marker}&reverse=on")
            sub = request.sub("GET", source="versions", trusted=True, container=archive, object="", query=query)
            response = await ask(self.app, sub)
            if not response.ok:
                await close(response)
                if response.status == 404:
                    return
                raise Refusal(refuse(412 if response.status < 500 else 500))
            body = await drain(response)
            rows: list[Row] = msgspec.json.decode(body) if body else []
            for row in rows:
                yield row
            if not rows:
                return
            marker = quote(rows[-1]["name"])


def _translate(request: Request) -> None:
    """What a client says of versions, in the words that are kept."""
    headers = request.headers
    versions, history = headers.get(VERSIONS), headers.get(HISTORY)
    if versions and history:
        raise Refusal(refuse(400, f"Only one of {VERSIONS} or {HISTORY} may be specified"))
    remove = any(headers.popall(name, [""])[-1] for name in REMOVE)
    value = versions or history
    if value:
        container_name(value)
        headers[LOCATION] = value
        headers[MODE] = "stack" if versions else "history"
    elif remove or versions is not None or history is not None:
        headers[LOCATION] = headers[MODE] = ""
    else:
        return
    headers.popall(HISTORY, None)
    headers[VERSIONS] = ""


def _name(object: str, at: Timestamp | None = None) -> str:
    """The name of an object's version of a time; without one what all its versions begin with."""
    return f"{len(object.encode()):03x}{object}/{at.internal if at is not None else ''}"


async def _expect(response: Response) -> None:
    """That a step succeeded; the client gets 412 where he can do something about it."""
    if response.ok:
        return
    await close(response)
    raise Refusal(refuse(412 if response.status < 500 else 503))
