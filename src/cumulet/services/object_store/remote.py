"""Storage nodes elsewhere, over HTTP on ports 6000 to 6002 as swift's nodes speak.

A node that cannot be reached, hangs up or does not get further for a while is a reply (503, 504). Where a reply has begun and
then breaks off, whoever reads its body gets a ConnectionError.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from cumulet.services.object_store.message import PIECE, Headers, Refusal, Response, refuse
from cumulet.services.object_store.mime import BOUNDARY, FOOTER, boundary, joined
from cumulet.services.object_store.names_in_ascii import packed, unpacked
from cumulet.services.object_store.node import BackendRequest, Device

CONNECT = 1.0
"""Seconds that a connection may take (swift's conn_timeout, which is 0.5)."""
STALL = 10.0
"""Seconds without progress after which a node is given up (swift's node_timeout)."""
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
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
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
