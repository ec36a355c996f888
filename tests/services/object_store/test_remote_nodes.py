"""Nodes over HTTP: what a proxy asks arrives whole, what goes wrong is a reply in time."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cumulet.api.http import Query
from cumulet.api.server import Server, bind
from cumulet.services.object_store import remote
from cumulet.services.object_store.message import Headers, Refusal, Response, chunks, drain, refuse, stream
from cumulet.services.object_store.node import BackendRequest, Device
from cumulet.services.object_store.remote import RemoteNodes
from cumulet.services.object_store.servers import StorageFace

Handle = Callable[[BackendRequest], Awaitable[Response]]
NAMES = {"account": "AUTH_x", "container": "c/ä%".replace("/", "-"), "object": "a/b//ü ?#%2F"}


@asynccontextmanager
async def node(handle: Handle, stall: float = 5.0) -> AsyncIterator[tuple[RemoteNodes, Device]]:
    """A node whose object server is a function, and what asks it."""
    server, sock, nodes = Server(), bind("127.0.0.1", 0), RemoteNodes(stall)
    face = StorageFace("object", {"object": SimpleNamespace(handle=handle)}, cast(Any, None))
    await server.listen(face.answer, sock)
    try:
        yield nodes, Device(0, "d1", "127.0.0.1", sock.getsockname()[1])
    finally:
        await nodes.stop()
        await server.stop()


def request(method: str = "GET", **more: Any) -> BackendRequest:
    return BackendRequest("object", method, "d1", 7, **{**NAMES, **more})


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_call_arrives_as_it_was_made() -> None:
    seen: list[BackendRequest] = []

    async def handle(made: BackendRequest) -> Response:
        seen.append(made)
        return Response(202, b"", {"X-Backend-Timestamp": "1.2", "X-Object-Meta-Ä": "grün", 'X-Object-Meta-"%)': "}"})

    headers = Headers(
        {
            "X-Timestamp": "0000000001.00000",
            "X-Object-Meta-Farbe": "grün",
            "X-Object-Meta-Ö": "ö",
            'X-Object-Meta-"%)': "(",
        }
    )
    async with node(handle) as (nodes, device):
        reply = await nodes.call(device, request("POST", headers=headers, query=Query("a=b%20c&d")))
        replicated = await nodes.call(device, BackendRequest("object", "REPLICATE", "d1", 7, "abc-def"))
    made = seen[0]
    assert (made.method, made.device, made.partition) == ("POST", "d1", 7)
    assert (made.account, made.container, made.object) == tuple(NAMES.values())
    assert made.query.get("a") == "b c" and made.headers["X-Object-Meta-Farbe"] == "grün"
    assert (made.headers["X-Object-Meta-Ö"], made.headers['X-Object-Meta-"%)']) == ("ö", "(")
    assert (
        reply.status == 202
        and reply.headers["X-Backend-Timestamp"] == "1.2"
        and reply.headers["X-Object-Meta-Ä"] == "grün"
        and reply.headers['X-Object-Meta-"%)'] == "}"
    )
    assert replicated.status == 202 and (seen[1].method, seen[1].account) == ("REPLICATE", "abc-def")


@pytest.mark.parametrize("length", [None, 9])
async def test_a_body_is_streamed_and_what_is_told_after_it_arrives(length: int | None) -> None:
    told: list[tuple[bytes, Headers, str | None]] = []

    async def handle(made: BackendRequest) -> Response:
        assert made.body is not None and made.trailer is not None
        data = b"".join([piece async for piece in made.body])
        told.append((data, made.trailer(), made.headers.get("Content-Length")))
        return Response(201)

    headers = Headers({"X-Timestamp": "1"} | ({"Content-Length": str(length)} if length else {}))
    body = pieces(b"one\r\n", b"\r\n--", b"")
    async with node(handle) as (nodes, device):
        made = request(
            "PUT", headers=headers, body=body, trailer=lambda: Headers({"Etag": "é", "X-Object-Sysmeta-A": "b"})
        )
        reply = await nodes.call(device, made)
    assert reply.status == 201
    assert told == [
        (b"one\r\n\r\n--", Headers({"Etag": "é", "X-Object-Sysmeta-A": "b"}), str(length) if length else None)
    ]


async def test_a_body_without_a_trailer_is_as_long_as_it_was() -> None:
    size = 3_000_001

    async def handle(made: BackendRequest) -> Response:
        assert made.body is not None and made.trailer is None
        return Response(201, b"%d" % sum([len(piece) async for piece in made.body]))

    async with node(handle) as (nodes, device):
        reply = await nodes.call(device, request("PUT", body=pieces(*[b"x" * 1000] * 3000, b"y")))
        assert reply.status == 201 and await drain(reply) == b"%d" % size
        assert (await nodes.call(device, request("PUT", body=stream(b"")))).status == 201


async def test_a_node_that_does_not_want_the_body_is_not_sent_it() -> None:
    async def handle(made: BackendRequest) -> Response:
        return refuse(507)

    asked = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal asked
        asked = True
        yield b"data"

    async with node(handle) as (nodes, device):
        assert (await nodes.call(device, request("PUT", body=body()))).status == 507
    assert not asked


async def test_a_body_that_is_wrong_is_refused_as_its_source_says() -> None:
    got: list[int] = []

    async def handle(made: BackendRequest) -> Response:
        assert made.body is not None
        try:
            async for _ in made.body:
                pass
        except Refusal as refusal:
            got.append(refusal.response.status)
            raise
        return Response(201)

    async def body() -> AsyncIterator[bytes]:
        yield b"data"
        raise Refusal(refuse(422, "not what was told"))

    async with node(handle) as (nodes, device):
        assert (await nodes.call(device, request("PUT", body=body()))).status == 422
        async with asyncio.timeout(60):
            while not got:
                await asyncio.sleep(0.01)
    assert got == [499]


async def test_a_reply_is_streamed_and_one_that_breaks_off_is_an_error() -> None:
    async def handle(made: BackendRequest) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for number in range(100):
                yield bytes([number]) * 10_000
                if made.object == "broken" and number == 50:
                    raise ConnectionError

        return Response(200, body(), {"Content-Length": "1000000", "Etag": "x"})

    async with node(handle) as (nodes, device):
        reply = await nodes.call(device, request())
        assert reply.headers["Content-Length"] == "1000000"
        assert await drain(reply) == b"".join(bytes([number]) * 10_000 for number in range(100))
        broken = await nodes.call(device, request(object="broken"))
        with pytest.raises(ConnectionError):
            await drain(broken)
        half = await nodes.call(device, request())
        async for _ in chunks(half):
            break
        assert (await nodes.call(device, request("HEAD"))).status == 200


async def test_a_node_that_is_gone_or_hangs_is_a_reply() -> None:
    async def handle(made: BackendRequest) -> Response:
        if made.method == "PUT":
            assert made.body is not None
            async for _ in made.body:
                break
        await asyncio.Event().wait()
        raise AssertionError

    async with node(handle, stall=0.2) as (nodes, device):
        assert (await nodes.call(device, request())).status == 504
        assert (await nodes.call(device, request("PUT", body=pieces(b"x")))).status == 504
    nodes = RemoteNodes()
    assert (await nodes.call(device, request())).status == 503
    await nodes.stop()


async def test_a_slow_client_is_not_the_nodes_fault() -> None:
    async def handle(made: BackendRequest) -> Response:
        assert made.body is not None
        return Response(201, b"".join([piece async for piece in made.body]))

    async def body(*pauses: float) -> AsyncIterator[bytes]:
        for pause in pauses:
            await asyncio.sleep(pause)
            yield b"a"

    async with node(handle, stall=0.9) as (nodes, device):
        puts = [request("PUT", body=body(*pauses)) for pauses in ((1.0, 0.0), (0.0, 1.0))]
        for reply in await asyncio.gather(*(nodes.call(device, put) for put in puts)):
            assert reply.status == 201 and await drain(reply) == b"aa"


async def test_a_standstill_of_our_own_is_not_the_nodes_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop stands still while a connection is being made, for longer than it may take."""
    loop, connect = asyncio.get_running_loop(), asyncio.get_running_loop().sock_connect
    stood_still = 0

    async def connect_and_stand_still(*asked: Any) -> None:
        nonlocal stood_still
        stood_still += 1
        loop.call_soon(time.sleep, remote.CONNECT * 1.5)
        await connect(*asked)

    async def handle(made: BackendRequest) -> Response:
        return Response(204)

    monkeypatch.setattr(remote, "CONNECT", 0.4)
    monkeypatch.setattr(loop, "sock_connect", connect_and_stand_still)
    async with node(handle) as (nodes, device):
        replies = await asyncio.gather(*(nodes.call(device, request()) for _ in range(2)))
    assert [reply.status for reply in replies] == [204, 204]
    assert stood_still == 2


async def test_a_node_that_takes_no_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CONNECT", 0.4)
    nodes = RemoteNodes()
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # nobody takes them, and there is no room for a third
            waits = stack.enter_context(contextlib.closing(socket.socket()))
            waits.setblocking(False)
            waits.connect_ex(full.getsockname())
        began = time.monotonic()
        assert (await nodes.call(Device(0, "d1", *full.getsockname()), request())).status == 504
        assert time.monotonic() - began >= 0.4
    await nodes.stop()


@pytest.mark.parametrize("path", ["/d1", "/d1/x/a/c/o", "/d1/-1/a/c/o", "//1/a", "/d1/7/%ff/c/o"])
async def test_a_path_that_is_none_is_refused(path: str) -> None:
    async def handle(made: BackendRequest) -> Response:
        raise AssertionError(made)

    async with node(handle) as (_, device):
        reader, writer = await asyncio.open_connection(device.address, device.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
        await writer.wait_closed()
