"""The HTTP server on raw sockets: what clients and attackers see on the wire (RFC 9110, RFC 9112)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cumulet.api.http import File, Request, Response, Upgrade, WebSocket
from cumulet.api.server import Handler, Server, bind


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    server, sock = Server(), bind("127.0.0.1", 0)
    await server.listen(handler, sock)
    try:
        yield int(sock.getsockname()[1])
    finally:
        await server.stop()


async def exchange(port: int, sent: bytes, *, until: bytes = b"\r\n\r\n") -> bytes:
    """What comes back, up to and with `until`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.readuntil(until), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def echo(request: Request) -> Response:
    return Response(200, await request.read(), {"X-Path": request.path})


async def refuse(request: Request) -> Response:
    return Response(401)


async def test_continue_is_sent_when_the_body_is_read() -> None:
    head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with serving(echo) as port:
        assert (await exchange(port, head)).startswith(b"HTTP/1.1 100 Continue")


async def test_a_refused_upload_is_never_asked_for() -> None:
    head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with serving(refuse) as port:
        assert (await exchange(port, head)).startswith(b"HTTP/1.1 401 ")


async def test_chunked_body() -> None:
    sent = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    async with serving(echo) as port:
        assert (await exchange(port, sent, until=b"abc")).endswith(b"abc")


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ],
    ids=["length and chunked", "two lengths", "huge header", "tls hello"],
)
async def test_what_is_not_http_is_refused(head: bytes) -> None:
    async with serving(echo) as port:
        assert (await exchange(port, head)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


async def test_head_has_no_body_but_its_length() -> None:
    async def answer(request: Request) -> Response:
        return Response(200, b"hello")

    async with serving(answer) as port, aiohttp.ClientSession() as session:
        async with session.head(f"http://127.0.0.1:{port}/") as reply:
            assert reply.headers["Content-Length"] == "5"
            assert await reply.read() == b""


async def test_a_part_of_a_file_is_sent(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(data)

    async def answer(request: Request) -> Response:
        return Response(200, File(tmp_path / "file", 100, 2_000_000))

    async with serving(answer) as port, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/") as reply:
            assert await reply.read() == data[100:2_000_100]


async def test_stopping_lets_a_request_end() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        entered.set()
        await leave.wait()
        return Response(200, b"done")

    server, sock = Server(), bind("127.0.0.1", 0)
    await server.listen(slow, sock)
    asking = asyncio.create_task(exchange(sock.getsockname()[1], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", until=b"done"))
    await entered.wait()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    leave.set()
    assert (await asking).endswith(b"done")
    await stopping


async def test_websocket() -> None:
    async def serve(socket: WebSocket) -> None:
        while (message := await socket.receive()) is not None:
            await socket.send(message[::-1])

    async def answer(request: Request) -> Response:
        return Response(101, Upgrade(serve))

    async with serving(answer) as port, aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://127.0.0.1:{port}/", protocols=["binary"]) as socket:
            await socket.send_bytes(b"abc")
            assert (await socket.receive_bytes()) == b"cba"
            assert socket.protocol == "binary"


async def test_methods_and_paths_reach_the_handler() -> None:
    async with serving(echo) as port:
        assert b"X-Path: /a b" in await exchange(port, b"COPY /a%20b?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
