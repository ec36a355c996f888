"""The data of large objects: bytes of many objects, one after the other, each asked for while the one before is sent. What
lies in a file here is handed on as that, so that the kernel sends it.

A segment that is not what was expected ends the stream with `Broken`: before the first byte it becomes a refusal (`started`),
later the connection is cut, for a whole reply has been promised.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import md5

from cumulet.api.http import File, Query
from cumulet.core.tasks import in_thread
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    chunks,
    close,
    drain,
    refuse,
)
from cumulet.services.object_store.values import unquoted

log = logging.getLogger("cumulet.object_store.segments")

Data = bytes | File

HASHED_INLINE = 1 << 16
"""Bytes that are hashed where they are; more go to a thread."""


class Broken(ConnectionError):
    """A large object cannot be sent to its end. As any error of the connection it ends it, so that nobody takes what was sent
    for the whole."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes `first` to `last` (included; None: to the end) of an object, which must have this ETag and size where they are
    given; or of `data`, which lies in the manifest itself."""

    container: str = ""
    object: str = ""
    first: int = 0
    last: int | None = None
    etag: str = ""
    size: int | None = None
    data: bytes | None = None

    @property
    def whole(self) -> bool:
        return not self.first and (self.last is None or (self.size is not None and self.last == self.size - 1))


async def started(response: Response) -> Response:
    """`response`, once its first bytes are there. A large object that is broken already is refused (409)."""
    body = response.body
    if isinstance(body, bytes):
        return response
    try:
        first = await anext(body, b"")
    except Broken as error:
        log.info("%s", error)
        return refuse(409)
    except Refusal as refusal:
        return refusal.response
    response.body = _rest(first, body)
    return response


async def _rest(first: Data, body: AsyncIterator[Data]) -> AsyncIterator[Data]:
    try:
        yield first
        async for piece in body:
            yield piece
    finally:
        await close(Response(200, body))


async def stream(
    app: Handler, request: Request, segments: AsyncIterator[Segment], source: str, length: int | None = None
) -> AsyncIterator[Data]:
    """The bytes of `segments`, which are `length` together where that is given. The next one is asked for while one is sent."""
    left = length
    ahead = asyncio.ensure_future(_next(app, request, segments, source))
    try:
        while (opened := await ahead) is not None:
            ahead = asyncio.ensure_future(_next(app, request, segments, source))
            async for piece in _checked(*opened):
                if left is not None:
                    left -= piece.length if isinstance(piece, File) else len(piece)
                    if left < 0:
                        raise Broken(f"{request.path}: its segments hold more bytes than they should")
                yield piece
        if left:
            raise Broken(f"{request.path}: {left} bytes are missing at the end of its segments")
    except Broken as error:
        log.warning("%s", error)
        raise
    finally:
        await _abandon(ahead)
        await close(Response(200, segments))


async def _abandon(ahead: "asyncio.Future[tuple[Segment, Response] | None]") -> None:
    """Let go of the segment that was asked for and is not wanted any more."""
    ahead.cancel()
    with contextlib.suppress(asyncio.CancelledError, Broken, Refusal):
        if (opened := await ahead) is not None:
            await close(opened[1])


async def _next(
    app: Handler, request: Request, segments: AsyncIterator[Segment], source: str
) -> tuple[Segment, Response] | None:
    """The next segment, opened; None after the last."""
    segment = await anext(segments, None)
    if segment is None:
        return None
    if segment.data is not None:
        last = len(segment.data) if segment.last is None else segment.last + 1
        return segment, Response(200, segment.data[segment.first : last])
    sub = request.sub(
        "GET",
        source=source,
        container=segment.container,
        object=segment.object,
        query=Query("multipart-manifest=get"),
        headers=Headers({"X-Open-Expired": told} if (told := request.headers.get("X-Open-Expired")) else {}),
    )
    if not segment.whole:
        sub.headers["Range"] = f"bytes={segment.first}-{'' if segment.last is None else segment.last}"
    response = await ask(app, sub)
    await _expect(request, segment, response)
    return segment, response


async def _expect(request: Request, segment: Segment, response: Response) -> None:
    """That a segment is there and still what it was when the manifest was written."""
    where = f"{request.path}: its segment /{segment.container}/{segment.object}"
    if not response.ok:
        text = (await drain(response))[:60].decode(errors="replace")
        if response.status >= 500:
            log.warning("%s cannot be read: %d (%s)", where, response.status, text)
            raise Refusal(refuse(503))
        raise Broken(f"{where} cannot be read: {response.status} ({text})")
    etag, size = unquoted(response.headers.get("ETag", "")), response.headers.get("Content-Length")
    if (segment.etag and etag != segment.etag) or (
        segment.size and segment.whole and size is not None and int(size) != segment.size
    ):
        await close(response)
        raise Broken(f"{where} is another one now: ETag {etag}, {size} bytes")


async def _checked(segment: Segment, response: Response) -> AsyncIterator[Data]:
    """The bytes of a segment. Those that come from elsewhere must have the ETag that is promised, where all of it is sent; what
    lies here is looked after by the auditor, as it is where an object is read by itself."""
    if isinstance(response.body, File):
        yield response.body
        return
    promised = unquoted(response.headers.get("ETag", "")) if segment.whole and segment.data is None else ""
    hash = md5(usedforsecurity=False)
    body = chunks(response)
    try:
        async for piece in body:
            if promised:
                if len(piece) > HASHED_INLINE:
                    await in_thread(hash.update, piece)
                else:
                    hash.update(piece)
            yield piece
    finally:
        await close(Response(200, body))
        await close(response)
    if promised and hash.hexdigest() != promised:
        raise Broken(f"segment /{segment.container}/{segment.object} does not hold what its ETag {promised} says")
