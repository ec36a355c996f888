"""GET and HEAD of a static large object: its data, a part of it (`?part-number=3`), or its manifest (`?multipart-manifest=get`,
with `format=raw` in the words in which clients send it).

The reply says the length and the ETag of the whole, both kept with the manifest when it was stored. Nodes hold conditions
against that ETag (X-Backend-Etag-Is-At) and send a manifest whole whatever the Range. A segment that is not any more what it
was is 409, or ends the connection where the reply has begun.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from hashlib import md5

from cumulet.api.http import Query
from cumulet.services.object_store import conditional
from cumulet.services.object_store.layers import slo_manifest
from cumulet.services.object_store.layers.segments import Broken, Data, Segment, started, stream
from cumulet.services.object_store.layers.slo_manifest import Part
from cumulet.services.object_store.layers.slo_put import SLO_ETAG, SLO_SIZE
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
from cumulet.services.object_store.values import appended, is_true, queried, unquoted

MAX_DEPTH = 10
"""Large objects within large objects."""
KEPT = 20
"""Manifests within a manifest that are kept while it is read."""


@dataclass(slots=True)
class Reading:
    """One large object being read, and the manifests of those in it that were read last."""

    app: Handler
    request: Request
    kept: dict[tuple[str, str], list[Part]] = field(default_factory=dict)

    def data(self, parts: Sequence[Part], first: int, end: int) -> AsyncIterator[Data]:
        """Bytes from `first` up to but without `end`."""
        return stream(self.app, self.request, self._segments(parts, first, end, 1), "slo", end - first)

    async def _segments(self, parts: Sequence[Part], first: int, end: int, depth: int) -> AsyncIterator[Segment]:
        at = 0
        for part in parts:
            if at >= end:
                return
            low, high = max(0, first - at), min(part.length, end - at)
            at += part.length
            if low >= high:
                continue
            if part.data is not None:
                yield Segment(data=part.data, first=low, last=high - 1)
            elif part.is_slo:
                if depth >= MAX_DEPTH:
                    raise Broken(
                        f"{self.request.path}: large objects within it are nested deeper than {MAX_DEPTH} levels"
                    )
                within = await self._within(part.container, part.object)
                async for segment in self._segments(within, part.start + low, part.start + high, depth + 1):
                    yield segment
            else:
                yield Segment(
                    part.container, part.object, part.start + low, part.start + high - 1, part.hash, part.size
                )

    async def _within(self, container: str, object: str) -> list[Part]:
        """The segments of a large object that is a segment itself."""
        key = (container, object)
        found = self.kept.pop(key, None)
        if found is None:
            query = queried(self.request.query, part_number=None)
            sub = self.request.sub("GET", source="slo", container=container, object=object, query=query)
            response = await ask(self.app, sub)
            body = (await drain(response))[: slo_manifest.MAX_SIZE * 4]
            if not response.ok:
                raise Broken(f"{self.request.path}: its part /{container}/{object} cannot be read: {response.status}")
            try:
                found = slo_manifest.parts(slo_manifest.load(body))
            except Refusal:
                raise Broken(f"{self.request.path}: its part /{container}/{object} is no manifest") from None
        self.kept[key] = found  # the last one read is the last one forgotten
        if len(self.kept) > KEPT:
            del self.kept[next(iter(self.kept))]
        return found


async def read(app: Handler, request: Request) -> Response:
    """GET or HEAD of what may be a static large object."""
    if request.query.get("multipart-manifest") == "get":
        return await _manifest(app, request)
    asked = request.headers
    if "If-Match" in asked or "If-None-Match" in asked:
        appended(asked, "X-Backend-Etag-Is-At", SLO_ETAG)
    if "Range" in asked:
        appended(asked, "X-Backend-Ignore-Range-If-Metadata-Present", "X-Static-Large-Object")
    response = await app(request)
    if not is_true(response.headers.get("X-Static-Large-Object")):
        return response
    number = await _part_number(request, response)
    old = _is_old(response)
    complete = response.status == 200 and (request.method == "GET" or not (number or old))
    if not complete and (response.status not in (304, 412) or old):
        response = await _again(app, request, response)
        if not is_true(response.headers.get("X-Static-Large-Object")) or not response.ok:
            return response
    if response.status in (304, 412):
        _dress(response, response.headers[SLO_ETAG])
        response.body = b""
        return response
    if request.method == "HEAD" and not number and not _is_old(response):
        headers = _dress(response, response.headers[SLO_ETAG])
        size = int(headers[SLO_SIZE])
        etags = (_etag_asked(request.headers, headers),)
        return conditional.answer("HEAD", request.headers, headers, size, lambda _first, _end: response, etags=etags)
    return await _whole(Reading(app, request), response, number)


def _is_old(response: Response) -> bool:
    """Whether a manifest was stored without what is to be known of the whole; then it is made out from its segments."""
    return not (response.headers.get(SLO_ETAG) and response.headers.get(SLO_SIZE, "").isdigit())


def _dress(response: Response, etag: str) -> Headers:
    """The headers of a manifest's reply as those of the large object."""
    headers = response.headers
    headers["X-Manifest-Etag"] = unquoted(headers.get("ETag", ""))
    headers["ETag"] = f'"{etag}"'
    headers.popall("Content-Range", None)
    return headers


def _etag_asked(asked: Headers, headers: Headers) -> str:
    """The ETag that conditions are about: a layer further out may know the object by another one."""
    for name in asked.get("X-Backend-Etag-Is-At", "").split(","):
        if found := headers.get(name.strip()):
            return found
    return headers["ETag"]


async def _part_number(request: Request, response: Response) -> int:
    """The part that is asked for; 0: none."""
    told = request.query.get("part-number")
    if told is None:
        return 0
    refusal = None
    if not (told.isascii() and told.isdigit() and int(told)):
        refusal = refuse(400, "Part number must be an integer greater than 0")
    elif "Range" in request.headers:
        refusal = refuse(400, "Range requests are not supported with part number queries")
    if refusal is not None:
        await close(response)
        raise Refusal(refusal)
    return int(told)


async def _again(app: Handler, request: Request, before: Response) -> Response:
    """The manifest, which a first reply did not bring whole."""
    await close(before)
    open_expired = request.headers.get("X-Open-Expired")
    sub = request.sub(
        "GET",
        source="slo",
        query=Query(request.query.raw),
        headers=Headers({"X-Open-Expired": open_expired} if open_expired else {}),
    )
    response = await ask(app, sub)
    if not is_true(response.headers.get("X-Static-Large-Object")) and (
        response.headers.get("X-Backend-Timestamp", "") < before.headers.get("X-Backend-Timestamp", "")
    ):
        await close(response)
        raise Refusal(refuse(503))
    return response


async def _whole(reading: Reading, response: Response, number: int) -> Response:
    """The reply of a large object, from that of its manifest."""
    request = reading.request
    rows = slo_manifest.load(await drain(response))
    parts = slo_manifest.parts(rows)
    size = sum(part.length for part in parts) if _is_old(response) else int(response.headers[SLO_SIZE])
    headers = _dress(response, response.headers.get(SLO_ETAG) or slo_manifest.etag_of(rows))
    if number:
        headers["X-Parts-Count"] = str(len(parts))
        if number > len(parts):
            headers["Content-Range"] = f"bytes */{size}"
            text = b"" if request.method == "HEAD" else b"The requested part number is not satisfiable"
            headers["Content-Length"] = str(len(text))
            return Response(416, text, headers)

    def part(first: int, end: int) -> Response:
        return Response(200, reading.data(parts, first, end))

    etags = (_etag_asked(request.headers, headers),)
    answer = conditional.answer(request.method, request.headers, headers, size, part, etags=etags, ranges=not number)
    if number and answer.status == 200:
        first = sum(part.length for part in parts[: number - 1])
        end = first + parts[number - 1].length
        await close(answer)
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        headers["Content-Length"] = str(end - first)
        body = b"" if request.method == "HEAD" or end == first else reading.data(parts, first, end)
        answer = Response(206, body, headers)
    return await started(answer)


async def _manifest(app: Handler, request: Request) -> Response:
    """The manifest itself."""
    raw = request.query.get("format") == "raw"
    asked = request.headers.copy()
    if raw:
        appended(request.headers, "X-Backend-Ignore-Range-If-Metadata-Present", "X-Static-Large-Object")
    response = await app(request)
    headers = response.headers
    if not is_true(headers.get("X-Static-Large-Object")) or response.status not in (200, 206):
        return response
    if not raw:
        headers["Content-Type"] = "application/json; charset=utf-8"
        return response
    if request.method == "HEAD":
        response = await _again(app, request, response)
        headers = response.headers
    if not response.ok:
        return response
    body = slo_manifest.as_sent(slo_manifest.load(await drain(response)))
    stored = headers.get("ETag", "")
    headers["ETag"] = md5(body, usedforsecurity=False).hexdigest()
    etags = (headers["ETag"], stored)
    return conditional.answer(
        request.method, asked, headers, len(body), lambda first, end: Response(200, body[first:end]), etags=etags
    )
