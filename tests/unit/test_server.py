"""The HTTP server on raw sockets: what clients and attackers see on the wire (RFC 9110, RFC 9112)."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cumulet.api.http import File, Request, Response, Upgrade, WebSocket
from cumulet.api.server import Handler, Server, bind

WHOLE = os.urandom(6_000_000)


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
        return await asyncio.wait_for(reader.readuntil(until), 60)
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


async def test_what_of_a_body_is_at_hand() -> None:
    """What came with the headers needs no waiting; what did not come, or was not asked for, does."""
    told: list[bytes | None] = []

    async def take(request: Request) -> Response:
        told.append(request.at_hand())
        async for piece in request.chunks():
            told.append(piece)
            told.append(request.at_hand())
            break
        return Response(200)

    head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
    async with serving(take) as port:
        await exchange(port, head + b"\r\nabc")
        assert told == [b"abc"]
        told.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"Expect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"abc")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
        assert told == [None, b"abc", b""]


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


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    file = tmp_path / "whole"
    file.write_bytes(WHOLE)
    return file


def giving(file: Path, length: int) -> Handler:
    async def answer(request: Request) -> Response:
        return Response(200, File(file, 0, length))

    return answer


async def test_files_on_one_connection(whole: Path) -> None:
    """The next reply on a connection comes after the file; a file of no bytes is a reply as well."""

    async def answer(request: Request) -> Response:
        offset, length = map(int, request.path.strip("/").split("/"))
        return Response(200, File(whole, offset, length))

    connector = aiohttp.TCPConnector(limit=1)
    async with serving(answer) as port, aiohttp.ClientSession(connector=connector) as session:
        for offset, length in ((0, 6_000_000), (0, 0), (5, 1), (5_999_999, 1), (1_000_000, 3_000_000), (0, 0)):
            async with session.get(f"http://127.0.0.1:{port}/{offset}/{length}") as reply:
                assert await reply.read() == WHOLE[offset : offset + length]
            async with session.head(f"http://127.0.0.1:{port}/{offset}/{length}") as reply:
                assert reply.headers["Content-Length"] == str(length) and await reply.read() == b""


async def test_readers_that_are_slow_hold_nobody_up(whole: Path) -> None:
    """More of them than there are threads wait for nothing, while others are served."""
    async with serving(giving(whole, 6_000_000)) as port, aiohttp.ClientSession() as session:
        slow = [await asyncio.open_connection("127.0.0.1", port, limit=1024) for _ in range(40)]
        for _, writer in slow:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(60), session.get(f"http://127.0.0.1:{port}/") as reply:
            assert await reply.read() == WHOLE
        reader, _ = slow[0]
        async with asyncio.timeout(60):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(6_000_000) == WHOLE
        for _, writer in slow:
            writer.transport.abort()


def _handles() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("announced", [6_000_000, 7_000_000])
async def test_a_reader_that_hangs_up_and_a_file_that_is_short(
    whole: Path, announced: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(giving(whole, announced)) as port:
        handles = _handles()
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            if announced == 6_000_000:
                await reader.readexactly(1000)
                writer.transport.abort()
            else:
                async with asyncio.timeout(60):
                    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                        await reader.readexactly(announced)
                writer.close()
        async with asyncio.timeout(60):
            while _handles() > handles:
                await asyncio.sleep(0.01)
    assert not [record for record in caplog.records if record.exc_info]


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


async def test_any_method_reaches_the_service_between_others_on_one_connection() -> None:
    async def tell(request: Request) -> Response:
        return Response(200, f"{request.method} {len(await request.read())}".encode())

    async with serving(tell) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for method, data in (("GET", ""), ("REPLICATE", ""), ("PUT", "abc"), ("LICK", "ab"), ("X-Y", ""), ("GET", "")):
            head = f"{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n"
            for piece in (head[:5], head[5:], data) if method == "PUT" else (head + data,):
                writer.write(piece.encode())
                await writer.drain()
            assert f"Content-Length: {len(method) + 2}\r\n" in (await reader.readuntil(b"\r\n\r\n")).decode()
            assert await reader.readexactly(len(method) + 2) == f"{method} {len(data)}".encode()
        writer.close()
        await writer.wait_closed()


async def test_a_stream_that_ends_too_early_ends_the_connection() -> None:
    async def short() -> AsyncIterator[bytes]:
        yield b"12345"

    async def answer(_: Request) -> Response:
        return Response(200, short(), {"Content-Length": "10"})

    async with serving(answer) as port, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/") as reply:
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.read()


async def test_an_opened_file_is_sent_whole_though_its_name_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(WHOLE)
    with path.open("rb") as opened:
        path.unlink()

        async def answer(_: Request) -> Response:
            return Response(200, File(path, 10, len(WHOLE) - 10, opened))

        async with serving(answer) as port, aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/") as reply:
                assert await reply.read() == WHOLE[10:]


GET, HEAD, OLD, OLD_KEPT, LAST = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
)
BYTES = "application/octet-stream"


@pytest.mark.parametrize(
    ("sent", "response", "line", "length", "type", "connection", "body"),
    [
        (GET, Response(200, b"ab"), "HTTP/1.1 200 OK", "2", BYTES, None, b"ab"),
        (GET, Response(200, b"ab", {"content-type": "x/y"}), "HTTP/1.1 200 OK", "2", "x/y", None, b"ab"),
        (GET, Response(200, b"ab", {"content-length": "9"}), "HTTP/1.1 200 OK", "2", BYTES, None, b"ab"),
        (GET, Response(404), "HTTP/1.1 404 Not Found", "0", None, None, b""),
        (GET, Response(498, b"ab"), "HTTP/1.1 498 ", "2", BYTES, None, b"ab"),
        (GET, Response(204, b"ab"), "HTTP/1.1 204 No Content", None, None, None, b""),
        (GET, Response(204, b"", {"Content-Length": "7"}), "HTTP/1.1 204 No Content", "0", None, None, b""),
        (GET, Response(304), "HTTP/1.1 304 Not Modified", None, None, None, b""),
        (HEAD, Response(200, b"ab"), "HTTP/1.1 200 OK", "2", None, None, b""),
        (HEAD, Response(200, b"", {"Content-Length": "7"}), "HTTP/1.1 200 OK", "7", None, None, b""),
        (HEAD, Response(404), "HTTP/1.1 404 Not Found", None, None, None, b""),
        (OLD, Response(200, b"ab"), "HTTP/1.0 200 OK", "2", BYTES, "closed", b"ab"),
        (OLD_KEPT, Response(200, b"ab"), "HTTP/1.0 200 OK", "2", BYTES, "keep-alive", b"ab"),
        (LAST, Response(200, b"ab"), "HTTP/1.1 200 OK", "2", BYTES, "close", b"ab"),
        (GET, Response(200, b"ab", {"Connection": "close"}), "HTTP/1.1 200 OK", "2", BYTES, "close", b"ab"),
    ],
)
async def test_what_a_reply_looks_like(
    sent: bytes,
    response: Response,
    line: str,
    length: str | None,
    type: str | None,
    connection: str | None,
    body: bytes,
) -> None:
    async def answer(_: Request) -> Response:
        return Response(response.status, response.body, dict(response.headers))

    async with serving(answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        open_still = connection in (None, "keep-alive")
        for _ in range(2 if open_still else 1):
            writer.write(sent)
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode()
            first, *lines = head.rstrip("\r\n").split("\r\n")
            told = dict(each.lower().split(": ", 1) for each in lines)
            assert len(told) == len(lines), "each is said once"
            assert first == line
            assert (told.get("content-length"), told.get("content-type")) == (length, type)
            assert told.get("connection") == (None if connection == "closed" else connection)
            assert "date" in told
            assert "server" in told
            assert await reader.readexactly(len(body)) == body
        if not open_still:
            assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        await writer.wait_closed()


async def test_nobody_writes_headers_of_his_own() -> None:
    async def answer(_: Request) -> Response:
        return Response(200, b"ab", {"X-Said": "a\r\nX-Other: b"})

    async with serving(answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        assert b"X-Other" not in await asyncio.wait_for(reader.read(), 60)
        writer.close()
        await writer.wait_closed()
