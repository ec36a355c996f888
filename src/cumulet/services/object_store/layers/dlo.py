"""Dynamic large objects: an object with X-Object-Manifest: container/prefix reads as all objects of that prefix, one after
the other, in the order of their names.

GET and HEAD read the listing as it is then; `?multipart-manifest=get` reads the manifest itself. Who reads must be allowed to
list the container and to read the segments.
Reference: https://docs.openstack.org/swift/latest/overview_large_objects.html
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from hashlib import md5
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from cumulet.api.http import Query
from cumulet.services.object_store import conditional
from cumulet.services.object_store.layers.segments import Broken, Segment, started, stream
from cumulet.services.object_store.message import Handler, Refusal, Request, Response, ask, close, drain, refuse
from cumulet.services.object_store.values import appended, unquoted

PAGE = 10_000
"""Objects of a listing: a shorter one is the last."""
UNKNOWN = 1 << 62
"""A length longer than any object."""

Row = dict[str, Any]


class DynamicLargeObjects:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app

    def __call__(self, request: Request) -> Awaitable[Response]:
        if request.object:
            if request.method in ("GET", "HEAD") and request.query.get("multipart-manifest") != "get":
                return self._read(request)
            if request.method == "PUT" and "X-Object-Manifest" in request.headers:
                _check(request.headers["X-Object-Manifest"])
        return self.app(request)

    async def _read(self, request: Request) -> Response:
        if "Range" in request.headers:
            appended(request.headers, "X-Backend-Ignore-Range-If-Metadata-Present", "X-Object-Manifest")
        response = await self.app(request)
        told = response.headers.get("X-Object-Manifest")
        if not told:
            return response
        await close(response)
        container, _, prefix = unquote(told).partition("/")
        page = await self._page(request, container, prefix)
        if isinstance(page, Response):
            return page
        return await self._answer(request, response, container, prefix, page)

    async def _page(self, request: Request, container: str, prefix: str, marker: str = "") -> list[Row] | Response:
        """A page of the listing; or the reply that says why not."""
        query = f"format=json&prefix={quote(prefix)}" + (f"&marker={quote(marker)}" if marker else "")
        sub = request.sub("GET", source="dlo", container=container, object="", query=Query(query))
        response = await ask(self.app, sub)
        if not response.ok:
            if request.method == "HEAD":
                response.body = b""
            return response
        body = await drain(response)
        rows: list[Row] = msgspec.json.decode(body) if body else []
        return rows

    async def _answer(
        self, request: Request, manifest: Response, container: str, prefix: str, page: list[Row]
    ) -> Response:
        whole = manifest.headers
        whole.pop("Content-Length", None)
        whole.pop("Content-Range", None)
        complete = len(page) < PAGE
        known = sum(row["bytes"] for row in page)
        if complete:
            etag = md5("".join(unquoted(row["hash"]) for row in page).encode(), usedforsecurity=False).hexdigest()
            whole["ETag"] = f'"{etag}"'
        asked = request.headers
        if not _has_one_range_within(asked.get("Range"), known, complete):
            asked = asked.copy()
            asked.pop("Range", None)

        def part(first: int, end: int) -> Response:
            length = end - first if complete or "Range" in asked else None
            segments = self._segments(request, container, prefix, page, first, end)
            return Response(200, stream(self.app, request, segments, "dlo", length))

        if not complete and "Range" not in asked:
            failed = conditional.condition(
                asked, [whole.get("ETag", "")], conditional.parse_date(whole.get("Last-Modified"))
            )
            if failed:
                return conditional.without_body(failed, whole)
            body = b"" if request.method == "HEAD" else part(0, UNKNOWN).body
            return await started(Response(200, body, whole))
        return await started(conditional.answer(request.method, asked, whole, known, part))

    async def _segments(
        self, request: Request, container: str, prefix: str, page: Sequence[Row], first: int, end: int
    ) -> AsyncIterator[Segment]:
        """The segments with bytes `first` to `end`; further pages of the listing are read when they are needed."""
        at = 0
        while True:
            for row in page:
                size = row["bytes"]
                if at + size > first and at < end:
                    last = end - at - 1 if end < at + size else None
                    yield Segment(container, row["name"], max(0, first - at), last)
                at += size
            if len(page) < PAGE or at >= end:
                return
            more = await self._page(request, container, prefix, page[-1]["name"])
            if isinstance(more, Response):
                await close(more)
                raise Broken(f"{request.path}: the listing of its segments cannot be read on: {more.status}")
            page = more


def _has_one_range_within(header: str | None, known: int, complete: bool) -> bool:
    """Whether a Range is honoured: a single one, of which it can be told from the first page where it lies."""
    if not header or "," in header:
        return False
    endless = conditional.spans(header, UNKNOWN)
    return endless is not None and (complete or (bool(endless) and endless[0][1] <= known))


def _check(value: str) -> None:
    container, slash, prefix = value.partition("/")
    if not (container and slash and prefix) or "?" in value or "&" in value or prefix.startswith("/"):
        raise Refusal(refuse(400, "X-Object-Manifest must be in the format container/prefix"))
