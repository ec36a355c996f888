"""Storage nodes elsewhere, over HTTP on ports 6000 to 6002 as swift's nodes speak.

A node that cannot be reached, hangs up or does not get further for a while is a reply (503, 504). Where a reply has begun and
then breaks off, whoever reads its body gets a ConnectionError.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from cumulet.services.object_store.message import PIECE, Headers, Refusal, Response, refuse
from cumulet.services.object_store.mime import BOUNDARY, FOOTER, boundary, joined
from cumulet.services.object_store.names_in_ascii import packed, unpacked
from cumulet.services.object_store.node import BackendRequest, Device

CONNECT = 1.0
"""Seconds that a connection may take (swift's conn_timeout, which is 0.5), of those in which the event loop ran."""
TICK = 0.1
"""Seconds that count as one of those when they are over in time."""
STALL = 10.0
"""Seconds without progress after which a node is given up (swift's node_timeout). Those of a standstill of our own count as
well, as in swift: one of ten seconds is a failure by itself, and nobody waits for its replies any more."""
MOST_HEADERS = 512
HEADER_LIMIT = 32 << 10
OF_CONNECTION = frozenset(("connection", "keep-alive", "transfer-encoding", "date", "server"))
"""Headers of a reply that are the connection's, not the answer's."""


class RemoteNodes:
    """Connections to all other nodes, kept open."""

    def __init__(self, stall: float = STALL) -> None:
        self.stall = stall
        self._session: aiohttp.ClientSession | None = None

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(total=None),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                auto_decompress=False,
                max_line_size=HEADER_LIMIT,
                max_field_size=HEADER_LIMIT,
                max_headers=MOST_HEADERS,
                read_bufsize=PIECE * 4,
            )
        return self._session

    async def call(self, device: Device, request: BackendRequest) -> Response:
        address = f"[{device.address}]" if ":" in device.address else device.address
        url = URL(f"http://{address}:{device.port}{target(request)}", encoded=True)
        headers = request.headers
        pieces = None
        if request.body is not None and request.method != "GET":
            headers, pieces = _parted(request)
        try:
            async with asyncio.timeout(self.stall) as limit:
                sent = None if pieces is None else _Sent(pieces, limit, self.stall)
                try:
                    reply = await self._connections().request(
                        request.method,
                        url,
                        headers=packed(headers),
                        data=sent,
                        expect100=sent is not None,
                        allow_redirects=False,
                    )
                except aiohttp.ClientError:
                    if sent is not None and sent.refusal is not None:
                        return sent.refusal.response
                    raise
        except TimeoutError:
            return refuse(504, f"The node at {device.address} port {device.port} does not answer.")
        except (aiohttp.ClientError, OSError) as error:
            return refuse(503, f"The node at {device.address} port {device.port} cannot be reached: {error}")
        return await self._response(request, reply)

    async def _response(self, request: BackendRequest, reply: aiohttp.ClientResponse) -> Response:
        headers = Headers(
            (name, _text(value)) for name, value in reply.headers.items() if name.lower() not in OF_CONNECTION
        )
        response = Response(reply.status, b"", unpacked(headers))
        if request.method == "HEAD" or reply.content.at_eof():
            reply.release()
        else:
            response.body = self._pieces(reply)
        return response

    async def _pieces(self, reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        whole = False
        try:
            while True:
                async with asyncio.timeout(self.stall):
                    piece = await reply.content.readany()
                if not piece:
                    break
                yield piece
            whole = True
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"the node at {reply.url.host} broke off: {error}") from error
        finally:
            if whole:
                reply.release()
            else:
                reply.close()

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """Gives up connections after CONNECT. The session's own `sock_connect` does so after a standstill of this very process,
    too: once it is over, the time is, and connections that were made meanwhile end before anybody has looked at them. All that
    were on their way at once would be errors of their nodes, and a node with ten of them is left alone for a minute.
    """

    async def _create_connection(self, *asked: Any) -> ResponseHandler:
        async with running_time(CONNECT):
            return await super()._create_connection(*asked)


@asynccontextmanager
async def running_time(seconds: float) -> AsyncIterator[None]:
    """A TimeoutError after so many seconds in which the event loop came round in time: one in which it did not is not counted,
    and what has happened meanwhile is seen to first."""
    loop = asyncio.get_running_loop()
    left = round(seconds / TICK)
    timer: asyncio.TimerHandle

    async with asyncio.timeout(None) as limit:

        def tick(due: float) -> None:
            nonlocal left, timer
            now = loop.time()
            if now - due < TICK:
                left -= 1
            if left:
                timer = loop.call_at(now + TICK, tick, now + TICK)
            else:
                limit.reschedule(now)

        timer = loop.call_later(TICK, tick, loop.time() + TICK)
        try:
            yield
        finally:
            timer.cancel()


class _Sent:
    """A body on its way to a node. The time that the client takes to send more of it is not the node's."""

    def __init__(self, pieces: AsyncIterator[bytes], limit: asyncio.Timeout, stall: float) -> None:
        self._pieces = pieces
        self._limit = limit
        self._stall = stall
        self.refusal: Refusal | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._run()

    async def _run(self) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        try:
            self._limit.reschedule(None)
            async for piece in self._pieces:
                self._limit.reschedule(clock() + self._stall)
                yield piece
                self._limit.reschedule(None)
            self._limit.reschedule(clock() + self._stall)
        except Refusal as refusal:
            self.refusal = refusal
            self._limit.reschedule(clock() + self._stall)
            raise


def target(request: BackendRequest) -> str:
    """The path and query of a call."""
    parts = [request.device, str(request.partition), request.account, request.container, request.object]
    path = "/" + "/".join(quote(part, safe="/" if place == 4 else "") for place, part in enumerate(parts) if part)
    return f"{path}?{request.query.raw}" if request.query.raw else path


def _parted(request: BackendRequest) -> tuple[Headers, Any]:
    """The headers and the body of a request that has one."""
    assert request.body is not None
    if request.trailer is None:
        return request.headers, request.body
    mark = boundary()
    headers = Headers(request.headers)
    length = headers.pop("Content-Length", None)
    if length is not None:
        headers["X-Backend-Obj-Content-Length"] = length
    headers[FOOTER], headers[BOUNDARY] = "yes", mark
    return headers, joined(request.body, request.trailer, mark)


def _text(sent: str) -> str:
    return sent if sent.isascii() else sent.encode(errors="surrogateescape").decode(errors="replace")
