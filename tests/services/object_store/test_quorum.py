"""What the proxy makes of nodes that fail: of three copies, with nodes that each test has answer as it likes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from cumulet.services.object_store.message import Headers, Refusal, Request, Response, drain, refuse, stream
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest, Device
from cumulet.services.object_store.proxy import upload
from cumulet.services.object_store.proxy.backends import Backends
from cumulet.services.object_store.proxy.where import Place

DEVICES = [Device(number, f"d{number}", "127.0.0.1", 6000 + number) for number in range(6)]
Answer = Callable[[BackendRequest], Awaitable[Response]]


class Ring:
    power, replicas = 4, 3

    def devices(self, partition: int) -> tuple[Device, ...]:
        return tuple(DEVICES[:3])

    def handoffs(self, partition: int) -> list[Device]:
        return DEVICES[3:]


class Nodes:
    """Nodes with what each has got, by the name of its device."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.stored: dict[str, bytes] = {}

    async def call(self, device: Device, request: BackendRequest) -> Response:
        self.asked.append(device.name)
        if device.name in self.answers:
            return await self.answers[device.name](request)
        return await self.store(device.name, request)

    async def store(self, name: str, request: BackendRequest) -> Response:
        if request.method != "PUT":
            return Response(204 if request.method == "DELETE" else 202)
        assert request.body is not None
        self.stored[name] = b"".join([piece async for piece in request.body])
        return Response(201, b"", {"Etag": "abc"})


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(request: BackendRequest) -> Response:
        return Response(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def put(nodes: Nodes, body: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> Response:
    request = Request("PUT", "a", "c", "o", Headers(headers or {}), body=body)
    asked = [BackendRequest("object", "PUT", "", 0, "a", "c", "o") for _ in range(3)]
    return await upload._several(Backends(nodes), Place(Ring(), 0, 0), asked, upload.Intake(request))


async def pieces() -> AsyncIterator[bytes]:
    for number in range(100):
        yield bytes([number]) * 1000


WHOLE = b"".join(bytes([number]) * 1000 for number in range(100))


async def ask(nodes: Nodes, method: str = "GET", **more: Any) -> Response:
    return await Backends(nodes).read(Ring(), BackendRequest("object", method, "", 0, "a", "c", "o"), **more)


async def write(nodes: Nodes, method: str, **more: Any) -> Response:
    asked = [BackendRequest("object", method, "", 0, "a", "c", "o") for _ in range(3)]
    return await Backends(nodes).write(Ring(), asked, **more)


async def test_all_copies_get_all_of_it() -> None:
    nodes = Nodes()
    assert (await put(nodes, pieces())).status == 201
    assert nodes.stored == {"d0": WHOLE, "d1": WHOLE, "d2": WHOLE}


@pytest.mark.parametrize("status", [500, 503, 504, 507])
async def test_a_handoff_stands_in(status: int) -> None:
    nodes = Nodes(d0=says(status), d2=says(status), d3=says(503))
    assert (await put(nodes, pieces())).status == 201
    assert nodes.stored == {"d1": WHOLE, "d4": WHOLE, "d5": WHOLE}


async def test_most_copies_are_enough() -> None:
    nodes = Nodes(**dict.fromkeys(("d0", "d3", "d4", "d5"), says(503)))
    assert (await put(nodes, pieces())).status == 201
    assert nodes.stored == {"d1": WHOLE, "d2": WHOLE}


async def test_too_few_copies_are_none() -> None:
    nodes = Nodes(**dict.fromkeys(("d0", "d1", "d3", "d4", "d5"), says(503)))
    assert (await put(nodes, pieces())).status == 503


async def test_full_disks_say_so() -> None:
    nodes = Nodes(**dict.fromkeys(("d0", "d1", "d2", "d3", "d4", "d5"), says(507)))
    assert (await put(nodes, pieces())).status == 507


async def test_a_node_that_breaks_on_the_way() -> None:
    async def breaks(request: BackendRequest) -> Response:
        assert request.body is not None
        await anext(request.body)
        return refuse(503)

    nodes = Nodes(d1=breaks)
    assert (await put(nodes, pieces())).status == 201
    assert nodes.stored == {"d0": WHOLE, "d2": WHOLE}
    nodes = Nodes(d1=breaks, d2=breaks)
    assert (await put(nodes, pieces())).status == 503


async def test_a_node_that_takes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "NODE_TIMEOUT", 0.05)

    async def hangs(request: BackendRequest) -> Response:
        assert request.body is not None
        await anext(request.body)
        await asyncio.Event().wait()
        return Response(201)

    nodes = Nodes(d1=hangs)
    assert (await put(nodes, pieces())).status == 201
    assert nodes.stored == {"d0": WHOLE, "d2": WHOLE}


async def test_a_client_who_goes_away_leaves_nothing() -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield b"half"
        raise Refusal(refuse(499))

    nodes = Nodes()
    with pytest.raises(Refusal) as refused:
        await put(nodes, cut())
    assert refused.value.response.status == 499
    assert nodes.stored == {}
    with pytest.raises(Refusal):
        await put(nodes, stream(b"half"), {"Content-Length": "8"})
    assert nodes.stored == {}


async def test_a_refusal_of_all_is_told() -> None:
    for status in (409, 412, 422):
        nodes = Nodes(d0=says(status), d1=says(status), d2=says(status))
        assert (await put(nodes, pieces())).status == status


async def test_reads_take_the_first_that_has_it() -> None:
    for have in ("d0", "d1", "d2", "d3"):
        nodes = Nodes(**{f"d{n}": says(404) for n in range(6)} | {have: says(200, b"x")})
        assert (await ask(nodes)).body == b"x"
    assert (await ask(Nodes(**{f"d{n}": says(404) for n in range(6)}))).status == 404
    assert (await ask(Nodes(**{f"d{n}": says(503) for n in range(6)}))).status == 503
    nodes = Nodes(**{f"d{n}": says(503) for n in range(6)} | {"d1": says(404), "d2": says(404)})
    assert (await ask(nodes)).status == 404


def at(seconds: int) -> str:
    return Timestamp.parse(seconds).internal


async def test_the_newest_is_found() -> None:
    old, new = says(200, b"old", X_Backend_Timestamp=at(5)), says(200, b"new", X_Backend_Timestamp=at(9))
    gone = says(404, X_Backend_Timestamp=at(7))
    nowhere = {f"d{n}": says(404) for n in range(3, 6)}
    assert (await ask(Nodes(d0=old, d1=new, d2=old, **nowhere), newest=True)).body == b"new"
    assert (await ask(Nodes(d0=old, d1=gone, d2=new, **nowhere), newest=True)).body == b"new"
    assert (await ask(Nodes(d0=old, d1=gone, d2=gone, **nowhere), newest=True)).status == 404


async def test_data_that_breaks_off_is_taken_up_elsewhere() -> None:
    data = bytes(range(256)) * 40

    def serves(most: int, etag: str = "abc") -> Answer:
        async def answer(request: BackendRequest) -> Response:
            start = int(request.headers.get("Range", "bytes=0-")[6:].split("-")[0])

            async def body() -> AsyncIterator[bytes]:
                yield data[start : start + most]
                if start + most < len(data):
                    raise ConnectionResetError

            length = str(len(data) - start)
            return Response(206 if start else 200, body(), {"Etag": etag, "Content-Length": length})

        return answer

    response = await ask(Nodes(d0=serves(3000), d1=serves(3000), d2=serves(3000), d3=serves(9000)))
    assert await drain(response) == data
    response = await ask(
        Nodes(**{f"d{n}": serves(3000) for n in range(3)}, **{f"d{n}": says(404) for n in range(3, 6)})
    )
    with pytest.raises(OSError, match="broke off"):
        await drain(response)


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ((204, 204, 204), 204),
        ((204, 204, 404), 204),
        ((204, 404, 404), 404),
        ((404, 404, 404), 404),
        ((204, 404, 409), 409),
    ],
)
async def test_deletes(answers: tuple[int, ...], status: int) -> None:
    nodes = Nodes(**{f"d{n}": says(answer) for n, answer in enumerate(answers)})
    assert (await write(nodes, "DELETE", unless={404: 204})).status == status


async def test_a_change_reaches_what_lies_elsewhere() -> None:
    nodes = Nodes(d0=says(202), d1=says(404), d2=says(404), d3=says(202), d4=says(404), d5=says(404))
    assert (await write(nodes, "POST", handoffs_for=404)).status == 202
    nodes = Nodes(d0=says(202), **{f"d{n}": says(404) for n in range(1, 6)})
    assert (await write(nodes, "POST", handoffs_for=404)).status == 503
    nodes = Nodes(**{f"d{n}": says(404) for n in range(6)})
    assert (await write(nodes, "POST", handoffs_for=404)).status == 404


async def test_nodes_that_fail_often_are_left_alone() -> None:
    nodes = Nodes(d0=says(503))
    backends = Backends(nodes)
    for _ in range(30):
        assert (await backends.read(Ring(), BackendRequest("object", "HEAD", "", 0))).ok
    assert nodes.asked.count("d0") <= 10
    full = Nodes(d0=says(507))
    backends = Backends(full)
    for _ in range(30):
        await backends.read(Ring(), BackendRequest("object", "HEAD", "", 0))
    assert full.asked.count("d0") == 1
