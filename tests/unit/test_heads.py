"""Heads of requests on raw sockets: names of fields that are no tokens, and requests that are sent in pieces."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import pytest

from cumulet.api.field_names import MARK
from cumulet.api.http import Request, Response
from cumulet.api.protocol import END, MOST_HELD
from cumulet.api.server import Server, bind

ODD = '"(),/;<=>?@[\\]{}'
"""All that may stand in a name here and in no token."""
FREE = ("x-meta-", "x-amz-meta-")


@asynccontextmanager
async def telling(free_names: tuple[str, ...] = FREE) -> AsyncIterator[int]:
    """The port of a server that tells what it was sent."""

    async def tell(request: Request) -> Response:
        body = await request.read()
        lines = [f"{request.method} {request.path}", *(f"{name}: {value}" for name, value in request.headers.items())]
        return Response(200, "\n".join(lines).encode() + b"\n\n" + body)

    server, sock = Server(), bind("127.0.0.1", 0)
    await server.listen(tell, sock, free_names)
    try:
        yield int(sock.getsockname()[1])
    finally:
        await server.stop()


class Peer:
    """The other end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, pieces: Iterable[bytes]) -> None:
        """Send data so that the server, which runs in the same loop, reads each piece by itself."""
        for piece in pieces:
            self._writer.write(piece)
            for _ in range(3):
                await asyncio.sleep(0)

    async def answer(self) -> str:
        """The next reply: its body, or its status if that is not 200; "" where the connection is closed instead."""
        async with asyncio.timeout(60):
            try:
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                return ""
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            body = (await self._reader.readexactly(length)).decode()
        return body if head.startswith("HTTP/1.1 200") else head[9:12]


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answers(port: int, *pieces: bytes, count: int = 1) -> list[str]:
    """What is answered on a connection of its own."""
    async with peer(port) as other:
        await other.send(pieces)
        return [await other.answer() for _ in range(count)]


def head(*lines: str, method: str = "PUT") -> bytes:
    return "\r\n".join((f"{method} /a HTTP/1.1", "Host: a", *lines, "", "")).encode()


def apart(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


async def test_names_that_are_no_tokens_reach_the_service_as_they_were_sent() -> None:
    names = [
        *(f"X-Amz-Meta-{sign}%22" for sign in ODD),
        f"x-meta-{ODD}{ODD}",
        "X-META-%(",
        'x-meta-x-meta-"',
        "X-Meta-~",
    ]
    sent = head("Content-Length: 3", *(f"{name}: v" for name in names)) + b"abc"
    plain = head(method="GET")
    async with telling() as port:
        whole, after = await answers(port, sent, plain, count=2)
        assert whole.splitlines() == [
            "PUT /a", "Host: a", "Content-Length: 3", *(f"{name}: v" for name in names), "", "abc"
        ]  # fmt: skip
        assert after == "GET /a\nHost: a\n\n"
        assert await answers(port, *apart(sent, 1), *apart(sent, 7), plain, count=3) == [whole, whole, after]
        assert await answers(port, sent + plain, count=2) == [whole, after]


@pytest.mark.parametrize("sent", [b"GET / HTTP/one\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"])
async def test_what_is_no_http_is_told_in_one_line(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with telling() as port:
        assert await answers(port, sent) == ["400"]
    [told] = [record for record in caplog.records if record.name == "cumulet.server"]
    assert told.getMessage().startswith("127.0.0.1 sent what is no HTTP: ")
    assert "\n" not in told.getMessage()
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_service_that_does_not_ask_for_it_gets_none() -> None:
    async with telling(()) as port:
        assert await answers(port, head('X-Meta-": 1')) == ["400"]
        form = f"{MARK}x-meta-%22: 1"
        assert (await answers(port, head(form)))[0].splitlines()[2] == form


@pytest.mark.parametrize(
    "lines",
    [
        ['X-Meta-" : 1'],
        ['X-Meta-"\t: 1'],
        ['X-Meta-" b: 1'],
        [' X-Meta-": 1'],
        ['X-Meta-"\x01: 1'],
        ['X-Meta-"\x7f: 1'],
        ['X-Meta-"ü: 1'],
        ['X-Meta-"\n: 1'],
        ['X-Meta-"\r: 1'],
        ['X-Meta-"'],
        ['X-Meta-": a\nb: 1'],
        ['X-Meta-": a\x00'],
        ['X-Meta-": 1', ": 1"],
        ['X-Meta-": 1', " b: 1"],
        ['X-Meta-": 1', "Content-Length: 1", "Content-Length: 2"],
        ['X-Meta-": 1', "Content-Length: 1", "Transfer-Encoding: chunked"],
        ['X-Meta-": 1', "Content-Length : 0"],
        ['X-Meta-": 1', "Host: b"],
        ['Content-Length": 1'],
        ['"Content-Length: 1'],
        ['Transfer-Encoding": chunked'],
        ['X-Other-": 1'],
        ['"X-Meta-: 1'],
        ['X-Meta-a: 1\nX-Meta-": 1'],
    ],
    ids=lambda lines: "+".join(lines).encode("unicode_escape").decode(),
)
async def test_what_else_is_wrong_with_a_head_is_refused(lines: list[str]) -> None:
    async with telling() as port:
        sent = head(*lines)
        assert await answers(port, sent, head(method="GET"), count=2) == ["400", ""]
        assert await answers(port, sent[:40], sent[40:], count=2) == ["400", ""]


FORMS = (
    "Content-Length", "content-length%22", "Transfer-Encoding", "Host", "X-Auth-Token", "x-meta-a", "x-meta-%22%0D%0AHost",
    "x-meta-%22%C3%BC", "x-meta-%22%FF", "x-meta-%22%3A", "%22x-meta-",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
async def test_no_other_header_comes_of_the_form_that_names_are_put_by_in(form: str) -> None:
    async with telling() as port:
        (told,) = await answers(port, head(f"{MARK}{form}: chunked", 'X-Meta-": 1'))
        assert told == f'PUT /a\nHost: a\n{MARK}{form}: chunked\nX-Meta-": 1\n\n'


METHODS = (b"GET", b"PROPFIND")


@pytest.mark.parametrize("first", METHODS)
@pytest.mark.parametrize("second", METHODS)
async def test_a_part_of_a_head_is_no_request(first: bytes, second: bytes) -> None:
    begun = first + b" /a HTTP/1.1\r\nHost: a\r\n"
    long = b"".join(b"X-%d: " % number + b"c" * 30_000 + b"\r\n" for number in range(MOST_HELD // 30_000 + 1))
    async with telling() as port:
        for before in (begun, begun + long):
            (told,) = await answers(port, before + b"X-B: ", second + b" /b HTTP/1.1\r\nX-Meta-d: 1\r\n\r\n")
            assert told.startswith(f"{first.decode()} /a\n") and told.endswith("\nX-Meta-d: 1\n\n")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("before", [0, 1, 3, 50, 500])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_part_of_a_body_is_no_request(method: bytes, before: int, chunked: bool) -> None:
    """Not even one that begins with a piece, after an empty line and behind more requests than are parsed in advance."""
    within = method + b' /b HTTP/1.1\r\nX-Meta-": 1\r\n\r\n'
    size = len(END + within)
    line = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    get = head(method="GET")
    async with telling() as port:
        for parts in ((END, within), (END + within[:-1], within[-1:]), (END + within,), (within, END)):
            body = (b"%x\r\n" % size + parts[0], *parts[1:], b"\r\n0\r\n\r\n") if chunked else parts
            *_, told, after = await answers(port, get * before + head(line), *body, get, count=before + 2)
            assert told.startswith("PUT /a\n") and told.encode().endswith(b"\n\n" + b"".join(parts))
            assert after.startswith("GET /a\n")


REQUESTS = (
    head(method="GET"),
    head("Content-Length: 11") + b"\r\n\r\nGET /\r\n",
    head("Content-Length: 4", 'X-Meta-": 1') + b"\r\n\r\n",
    head("Transfer-Encoding: chunked") + b"4\r\n\r\n\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    head("Transfer-Encoding: chunked", "X-Meta-(: 1", method="SSYNC") + b"4\r\n\r\n\r\n\r\n0\r\nX: 1\r\n\r\n",
    head("Content-Length: 0", method="REPLICATE"),
    "GET /ü HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
)


async def test_it_makes_no_difference_where_the_pieces_of_requests_end() -> None:
    luck = random.Random(7)
    async with telling() as port:
        expected = [(await answers(port, request))[0] for request in REQUESTS]
        assert "400" not in expected
        async with peer(port) as other:
            for _ in range(300):
                number = luck.randrange(len(REQUESTS))
                await other.send(_torn(REQUESTS[number], luck))
                assert await other.answer() == expected[number]


async def test_requests_that_come_together_are_answered_in_order_or_refused() -> None:
    """What is only made fit where a request begins for certain may be refused behind others, and ends the connection then."""
    luck = random.Random(7)
    async with telling() as port:
        expected = [(await answers(port, request))[0] for request in REQUESTS]
        for _ in range(300):
            numbers = [luck.randrange(len(REQUESTS)) for _ in range(5)]
            found = await answers(
                port, *_torn(b"".join(REQUESTS[number] for number in numbers), luck), count=len(numbers)
            )
            good = next((place for place, one in enumerate(found) if one in ("400", "")), len(found))
            assert found[:good] == [expected[number] for number in numbers[:good]] and not any(found[good + 1 :])
            assert good == len(numbers) or not {0, 1, 3}.issuperset(numbers)


def _torn(data: bytes, luck: random.Random) -> list[bytes]:
    """Data in up to five pieces."""
    ends = sorted(luck.sample(range(1, len(data)), luck.randrange(5)))
    return [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]
