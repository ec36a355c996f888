"""The HTTP server behind `api/http.py`: aiohttp's low-level server, one site per port.

RFC 9112 (HTTP/1.1). What is settled here: `100 Continue` is sent when the body is first read, so that a refused upload is
never sent; bodies stream in both directions; a file is sent by the kernel; slow headers are cut off.
"""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

from aiohttp import HttpVersion10, WSMsgType, web
from aiohttp.http import SERVER_SOFTWARE
from msgspec import Struct
from multidict import CIMultiDict

from cumulet.api.field_names import FreeNames
from cumulet.api.http import File, Request, Response, Upgrade, encode_json, http_date
from cumulet.api.protocol import Protocol, WebServer
from cumulet.core.errors import Invalid
from cumulet.core.tasks import in_thread

log = logging.getLogger("cumulet.server")

WINDOW = 8 << 20
"""Bytes of a file that are sent at once, at most."""
HEADER_LIMIT = 32 << 10
"""Bytes of one header line: object metadata and large tokens need more than aiohttp's 8 KiB."""
HEADERS = 512
"""Header lines of one request: an object may carry 90 of metadata beside its own, and whoever sends too many is told so by the
service."""
STOP_GRACE = 5.0
"""Seconds that requests in flight get to end when the server stops."""

NO_CONTENT = frozenset({*range(100, 200), 204, 304})
REASONS = {status.value: status.phrase for status in HTTPStatus}

Handler = Callable[[Request], Awaitable[Response]]


class AiohttpWire:
    """A request's body, from aiohttp. `unasked`: the client waits to be told to send it."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self.unasked = request.headers.get("Expect", "").lower() == "100-continue"

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.unasked and self._request.transport is not None:
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.unasked = False
        content = self._request.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (ConnectionError, web.RequestPayloadError) as error:
            raise Invalid(f"The request body was cut off: {error}") from error

    def at_hand(self) -> bytes | None:
        content = self._request.content
        if self.unasked or content.exception() is not None:
            return None
        return b"" if content.at_eof() else content.read_nowait() or None


class AiohttpWebSocket:
    """A websocket, from aiohttp."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> bytes | None:
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                return bytes(message.data)
            if message.type is WSMsgType.TEXT:
                return str(message.data).encode()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return None

    async def send(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        await self._socket.close()


class Server:
    """Every listening HTTP port of the program."""

    def __init__(self) -> None:
        self._runners: list[web.ServerRunner] = []
        self.addresses: list[tuple[str, int]] = []

    async def listen(self, handler: Handler, sock: socket.socket, free_names: Sequence[str] = ()) -> web.ServerRunner:
        """Serve `handler` on a bound socket. `free_names` are those of `Service`."""
        port = sock.getsockname()[1] if sock.family != socket.AF_UNIX else 0

        async def answer(raw: web.BaseRequest) -> web.StreamResponse:
            wire = AiohttpWire(raw)
            response = await handler(_receive(raw, wire, port))
            if wire.unasked:
                # Whether the body follows all the same, nobody can know: no other request may be read from this connection.
                response.headers["Connection"] = "close"
            return await _send(raw, response)

        server = WebServer(
            answer,
            access_log=None,
            keepalive_timeout=75,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
            max_headers=HEADERS,
            auto_decompress=False,
            lingering_time=5,
            free=FreeNames(free_names) if free_names else None,
        )
        runner = web.ServerRunner(server, shutdown_timeout=STOP_GRACE)
        await runner.setup()
        await web.SockSite(runner, sock, backlog=1024).start()
        self._runners.append(runner)
        self.addresses.append(sock.getsockname())
        return runner

    async def close(self, runner: web.ServerRunner) -> None:
        """Stop serving one socket."""
        if runner in self._runners:
            self._runners.remove(runner)
            await runner.cleanup()

    async def stop(self) -> None:
        """Stop listening, let requests in flight end, close."""
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        self._runners.clear()


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket; OSError (EADDRINUSE, EACCES, EADDRNOTAVAIL) where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def is_taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE


def _receive(raw: web.BaseRequest, wire: AiohttpWire, port: int) -> Request:
    target = raw.rel_url
    path, query = unquote(target.raw_path), target.raw_query_string
    method, headers = raw.method, cast("Mapping[str, str]", raw.headers)
    protocol = raw.protocol
    if isinstance(protocol, Protocol):
        if protocol.method.upper() == method:
            method = protocol.method  # as it was sent: its case counts (RFC 9110, 9.1)
        if protocol.put_by and protocol.free is not None:
            headers = protocol.free.put_back(headers.items())
    if not all(map(str.isascii, headers.values())):
        headers = CIMultiDict((name, _text(value)) for name, value in headers.items())
    scheme = headers.get("X-Forwarded-Proto", "http")
    return Request(
        method,
        path if path.isascii() else _text(path),
        query if query.isascii() else _text(query),
        headers,
        wire,
        base_url=f"{scheme}://{headers.get('X-Forwarded-Host') or headers.get('Host', '')}",
        remote=raw.remote or "",
        port=port,
        raw_path=target.raw_path,
    )


def _text(sent: str) -> str:
    """What was sent, as text that can be stored and sent back: aiohttp keeps bytes that are not UTF-8 as surrogates."""
    return sent.encode(errors="surrogateescape").decode(errors="replace")


class Whole(Struct):
    """A reply whose body is at hand, as aiohttp asks its handlers for one. What a `web.Response` finds out about itself is
    known here, and takes a good part of the time of a small request.

    A reply of no content says so by a length of 0 where the service tells a length: superfluous (RFC 9110, 8.6), but there are
    clients that read it, of what has not changed as well."""

    status: int
    headers: CIMultiDict[str]
    body: bytes
    keep_alive: bool | None = None
    write_eof: Callable[[], Awaitable[None]] | None = None
    """Sends the head, and the body with it; there once it is prepared."""

    async def prepare(self, request: web.BaseRequest) -> None:
        headers, status, body, version = self.headers, self.status, self.body, request.version
        if status in NO_CONTENT:
            body = b""
            if "Content-Length" in headers:
                headers["Content-Length"] = "0"
        elif request.method == "HEAD":
            if body and "Content-Length" not in headers:
                headers["Content-Length"] = str(len(body))
            body = b""
        else:
            headers["Content-Length"] = str(len(body))
            if body and "Content-Type" not in headers:
                headers["Content-Type"] = "application/octet-stream"
        if "Date" not in headers:
            headers["Date"] = http_date(int(time.time()))
        if "Server" not in headers:
            headers["Server"] = SERVER_SOFTWARE
        self.keep_alive = request.keep_alive and headers.get("Connection") != "close"
        if "Connection" not in headers and self.keep_alive is (version == HttpVersion10):  # else it goes without saying
            headers["Connection"] = "keep-alive" if self.keep_alive else "close"
        line = f"HTTP/{version.major}.{version.minor} {status} {REASONS.get(status, '')}"
        await request.writer.write_headers(line, headers)
        self.write_eof = partial(request.writer.write_eof, body)


async def _send(raw: web.BaseRequest, response: Response) -> web.StreamResponse:
    body: Any = response.body
    if isinstance(body, Upgrade):
        websocket = web.WebSocketResponse(protocols=body.protocols, max_msg_size=0, heartbeat=30)
        await websocket.prepare(raw)
        await body.serve(AiohttpWebSocket(websocket))
        await websocket.close()
        return websocket
    if not isinstance(body, bytes) and not response.is_data:
        body = encode_json(body)
    if isinstance(body, bytes):
        told: Any = response.headers
        headers = told if isinstance(told, CIMultiDict) else CIMultiDict(told)
        return cast("web.StreamResponse", Whole(response.status, headers, body))
    reply = web.StreamResponse(status=response.status, headers=response.headers)
    if isinstance(body, File):
        reply.content_length = body.length
    try:
        writer = await reply.prepare(raw)
        if raw.method != "HEAD" and writer is not None:
            await _send_body(raw, reply, writer, body)
        await reply.write_eof()
    except ConnectionError:  # the peer hung up, or is told by the end of the connection that this is not all
        if raw.transport is not None:
            raw.transport.abort()
    except BaseException:
        if raw.transport is not None:
            raw.transport.abort()
        raise
    finally:
        await _let_go(body)
    return reply


async def _send_body(raw: web.BaseRequest, reply: web.StreamResponse, writer: Any, body: Any) -> None:
    """What follows the headers, which go out with the first of it."""
    if not isinstance(body, File):
        async for piece in body:
            if isinstance(piece, File):
                await _send_piece(raw, reply, writer, piece)
            else:
                await reply.write(piece)
        if writer.length:  # less than Content-Length promised
            raise ConnectionResetError
    elif (transport := raw.transport) is not None:
        writer.send_headers()
        await send_file(transport, body)


async def _send_piece(raw: web.BaseRequest, reply: web.StreamResponse, writer: Any, file: File) -> None:
    """A file in the middle of a stream: by the kernel where the length of the whole is known, and nothing has to be put around
    each piece."""
    if writer.length is not None and raw.transport is not None:
        if writer.length < file.length:
            raise ConnectionResetError
        writer.send_headers()
        await send_file(raw.transport, file)
        writer.length -= file.length
        return
    offset, end = file.offset, file.offset + file.length
    handle = file.opened if file.opened is not None else await asyncio.to_thread(open, file.path, "rb")
    while offset < end and (
        piece := await in_thread(os.pread, handle.fileno(), min(end - offset, WINDOW >> 3), offset)
    ):
        offset += len(piece)
        await reply.write(piece)


async def _let_go(body: Any) -> None:
    """Close what a body reads from, whether or not it was read to its end."""
    if hasattr(body, "aclose"):
        await body.aclose()


async def send_file(transport: asyncio.Transport, file: File) -> None:
    """Have the kernel send a part of a file (sendfile(2)), which costs half of what reading and writing it does.

    The socket is doubled, since the loop watches its own one for the transport. A thread sends, since the data may have to come
    from the disk; it never waits for the peer: that the loop does.
    """
    loop = asyncio.get_running_loop()
    if file.opened is not None:
        handle = os.dup(file.opened.fileno())
    else:
        handle = await asyncio.to_thread(os.open, file.path, os.O_RDONLY | os.O_CLOEXEC)
    twin = os.dup(transport.get_extra_info("socket").fileno())
    offset, end = file.offset, file.offset + file.length
    try:
        while transport.get_write_buffer_size():  # the headers go first
            await _writable(loop, twin)
            await asyncio.sleep(0)
        while offset < end:
            try:
                sent = await in_thread(os.sendfile, twin, handle, offset, min(end - offset, WINDOW))
            except BlockingIOError:
                await _writable(loop, twin)
                continue
            if not sent:
                log.error("%s is shorter than was announced", file.path)
                raise ConnectionResetError
            offset += sent
    finally:
        os.close(twin)
        os.close(handle)


async def _writable(loop: asyncio.AbstractEventLoop, handle: int) -> None:
    """Wait until a socket takes data, or is broken."""
    ready = asyncio.Event()
    loop.add_writer(handle, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(handle)
