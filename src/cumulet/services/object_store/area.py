"""What other services of the program keep in object storage: an account of each, which is no project's (`.image`).

Requests pass all layers, so that what holds for clients' objects (encryption, storage policies) holds for these as well. An
object that is too large for one is a static large object, with its segments in `<container>+segments` as
`<name>/<series>/<number>`: a series is what one put writes, and the manifest tells which one counts. So an object is replaced
at once and whole, and segments of any other series are what a put or a delete left that was cut off.
Reference: https://docs.openstack.org/swift/latest/overview_large_objects.html
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from weakref import WeakValueDictionary

import msgspec

from cumulet.api.http import Query
from cumulet.core.errors import CloudError, Invalid, NotFound, RangeNotSatisfiable, TooLarge, Unavailable
from cumulet.services.object_store.layers.slo_manifest import MAX_SEGMENTS
from cumulet.services.object_store.message import (
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    chunks,
    close,
    drain,
    refuse,
    stream,
)
from cumulet.services.object_store.proxy.info import INFOS
from cumulet.services.object_store.proxy.limits import MOST_FILE

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

log = logging.getLogger("cumulet.object_store")

SEGMENTS = "+segments"
SERIES = "X-Object-Meta-Series"
OCTETS = "application/octet-stream"
AT_ONCE = 16
"""Objects that are deleted at the same time."""


class Named(msgspec.Struct):
    name: str


_rows = msgspec.json.Decoder(list[Named]).decode


class Area:
    """Implements `interface.Area`."""

    def __init__(self, service: "ObjectStoreRuntime", owner: str, segment: int) -> None:
        self._service = service
        self._account = f".{owner}"  # as swift's own accounts: no reseller's prefix begins so
        self._segment = segment
        self._made: set[str] = set()
        self._arriving: set[str] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def put(self, container: str, name: str, pieces: AsyncIterator[bytes], size: int) -> None:
        segment = max(self._segment, -(-size // MAX_SEGMENTS))
        if segment > MOST_FILE:
            raise TooLarge(f"{size} bytes are more than object storage takes as one object.")
        await self._make(container)
        series = secrets.token_hex(8)
        self._arriving.add(series)
        source = Source(pieces)
        try:
            if size <= segment:
                async with self._lock(container, name):
                    await self._upload(container, name, source, size)
                    await self._drop(container, name)
            else:
                await self._put_large(container, name, source, size, segment, series)
        finally:
            self._arriving.discard(series)

    async def _put_large(
        self, container: str, name: str, source: "Source", size: int, segment: int, series: str
    ) -> None:
        place, rows = f"{name}/{series}/", list[dict[str, Any]]()
        try:
            for number, start in enumerate(range(0, size, segment)):
                length, part = min(segment, size - start), f"{place}{number:08}"
                etag = await self._upload(container + SEGMENTS, part, source, length, last=start + length == size)
                rows.append({"path": f"/{container}{SEGMENTS}/{part}", "etag": etag, "size_bytes": length})
        except BaseException:
            await self._clean_up(container, [f"{place}{number:08}" for number in range(len(rows) + 1)])
            raise
        manifest = msgspec.json.encode(rows)
        headers = {"Content-Type": OCTETS, "Content-Length": str(len(manifest)), SERIES: series}
        async with self._lock(container, name):
            try:
                query = "multipart-manifest=put"
                await self._done("PUT", container, name, headers, query, body=stream(manifest))
            except BaseException:
                # It may be there nevertheless, if some of the nodes have it: then what it names has to go as well.
                await self._clean_up(container, [row["path"].split("/", 2)[2] for row in rows], name)
                raise
            await self._drop(container, name, series)

    async def _clean_up(self, container: str, segments: list[str], name: str = "") -> None:
        """Remove what a put has written that fails; what cannot be removed now `tidy` finds later."""
        try:
            if name:
                await self._forget(container, name)
            await self._delete_all(container + SEGMENTS, segments)
        except CloudError as error:
            log.warning("what a put has left in %s stays for now: %s", container, error)

    async def size(self, container: str, name: str) -> int:
        response = await self._done("HEAD", container, name)
        return int(response.headers["Content-Length"])

    async def read(
        self, container: str, name: str, offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes]:
        if length == 0:
            return
        headers = {}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        response = await self._done("GET", container, name, headers, reads=True)
        left = int(response.headers["Content-Length"])
        try:
            async with aclosing(chunks(response)) as pieces:
                async for piece in pieces:
                    left -= len(piece)
                    yield piece
        finally:
            await close(response)
        if left:
            raise Unavailable(f"The last {left} bytes of {container}/{name} cannot be read now.")

    async def delete(self, container: str, name: str) -> None:
        async with self._lock(container, name):
            await self._forget(container, name)
            await self._drop(container, name)

    async def names(self, container: str, prefix: str = "") -> AsyncGenerator[str]:
        marker = ""
        while True:
            query = urlencode({"format": "json", "prefix": prefix, "marker": marker})
            try:
                response = await self._done("GET", container, query=query, reads=True)
            except NotFound:
                return
            rows = _rows(await drain(response) or b"[]")
            for row in rows:
                yield row.name
            if not rows:
                return
            marker = rows[-1].name

    async def tidy(self, container: str) -> None:
        known: dict[str, str] = {}
        doomed = []
        async for segment in self.names(container + SEGMENTS):
            name, series, _ = segment.rsplit("/", 2)
            if series in self._arriving:
                continue
            if name not in known:
                known = {name: await self._series(container, name)}  # they come in order: one is enough to know
            if known[name] != series:
                doomed.append(segment)
        await self._delete_all(container + SEGMENTS, doomed)

    def _lock(self, container: str, name: str) -> asyncio.Lock:
        """Held by whoever says what a name stands for, and removes what it stood for."""
        return self._locks.setdefault(f"{container}/{name}", asyncio.Lock())

    async def _make(self, container: str) -> None:
        if container not in self._made:
            for one in (container, container + SEGMENTS):
                await self._done("PUT", one, headers={"Content-Length": "0"})
            self._made.add(container)

    async def _series(self, container: str, name: str) -> str:
        """The series that an object consists of; empty for one without, or where there is none."""
        try:
            return (await self._done("HEAD", container, name)).headers.get(SERIES, "")
        except NotFound:
            return ""

    async def _upload(self, container: str, name: str, source: "Source", length: int, *, last: bool = True) -> str:
        """Store the next bytes as an object; its ETag."""
        headers = {"Content-Type": OCTETS, "Content-Length": str(length)}
        try:
            response = await self._done("PUT", container, name, headers, body=source.take(length, last))
        except CloudError as error:
            if source.failure is not None:
                raise source.failure from None
            if isinstance(error, NotFound):
                self._made.discard(container.removesuffix(SEGMENTS))
                raise Unavailable(f"The container {container} is gone. Try again.") from None
            raise
        return response.headers["Etag"].strip('"')

    async def _forget(self, container: str, name: str) -> None:
        with suppress(NotFound):
            await self._done("DELETE", container, name)

    async def _drop(self, container: str, name: str, series: str = "") -> None:
        """Remove the segments of a name but those of `series`, and what is on its way yet."""
        kept = {series, *self._arriving}
        found = [one async for one in self.names(container + SEGMENTS, f"{name}/")]
        found = [one for one in found if one.count("/") == name.count("/") + 2]
        await self._delete_all(container + SEGMENTS, [one for one in found if one.rsplit("/", 2)[1] not in kept])

    async def _delete_all(self, container: str, names: Iterable[str]) -> None:
        waiting = iter(names)

        async def work() -> None:
            for name in waiting:
                await self._forget(container, name)

        for result in await asyncio.gather(*(work() for _ in range(AT_ONCE)), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _done(
        self,
        method: str,
        container: str,
        name: str = "",
        headers: dict[str, str] | None = None,
        query: str = "",
        *,
        body: AsyncIterator[bytes] | None = None,
        reads: bool = False,
    ) -> Response:
        """The reply to a request that has to succeed. Its body is let go unless somebody `reads` it."""
        request = Request(
            method,
            self._account,
            container,
            name,
            Headers(headers or ()),
            Query(query),
            body=body,
            settled=True,
            source="area",
            memo={INFOS: self._service.front.infos},
        )
        response = await ask(self._service.proxy, request)
        if not response.ok:
            raise await _refused(request, response)
        if not reads:
            await close(response)
        return response


class Source:
    """A stream that is handed on as several bodies. `failure` is what it raised, or what is wrong with it."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.failure: Exception | None = None

    async def take(self, length: int, last: bool) -> AsyncIterator[bytes]:
        """The next bytes. Refusal where the stream fails or has fewer; with `last` also where it has more."""
        try:
            while length:
                piece = self._rest or await anext(self._pieces, b"")
                if not piece:
                    raise Invalid(f"The data ends {length} bytes before it should.")
                part, self._rest = piece[:length], piece[length:]
                length -= len(part)
                yield part
            if last and (self._rest or await anext(self._pieces, b"")):
                raise Invalid("The data goes on where it should end.")
        except Exception as error:
            self.failure = error
            raise Refusal(refuse(499, "The data is not what it should be.")) from error


async def _refused(request: Request, response: Response) -> CloudError:
    text = (await drain(response)).decode(errors="replace").strip()
    if response.status == 404:
        return NotFound(message=f"There is no {request.path} in object storage.")
    if response.status == 416:
        return RangeNotSatisfiable(f"{request.path} ends before what was asked for.")
    if request.method == "PUT" and response.status in (413, 507):
        return TooLarge(f"Object storage has no room for {request.path}.")
    return Unavailable(f"Object storage answers {response.status} to {request.method} {request.path}: {text}")
