"""The object server over a real directory: swift's backend protocol, what is on the disk, and what containers are told."""

import asyncio
import errno
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.object_store.message import Headers, Response, drain
from cumulet.services.object_store.names import HashSalt, Timestamp, partition
from cumulet.services.object_store.node import BackendRequest, Device
from cumulet.services.object_store.storage import async_pending, object_server, object_updates
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.object_file import Writer
from cumulet.services.object_store.storage.object_server import SMALL, ObjectServer

SALT = HashSalt(b"", b"salt")
START = 1_700_000_000


class Containers:
    """What containers were told; `status` is what they answer."""

    def __init__(self) -> None:
        self.told: list[tuple[str, BackendRequest]] = []
        self.status = 201

    async def call(self, device: Device, request: BackendRequest) -> Response:
        self.told.append((f"{device.address}:{device.port}/{device.name}", request))
        return Response(self.status)


class Node:
    """A node of one device, and how a proxy would ask it."""

    def __init__(self, root: Path) -> None:
        (root / "sda").mkdir(parents=True)
        self.root = root
        self.devices = Devices(root, reserve=0)
        self.containers = Containers()
        self.server = ObjectServer(self.devices, SALT, self.containers)
        self.clock = START
        self.runner = asyncio.Runner()

    def start_process(self) -> None:
        """From now on the disk process makes what it can."""

        async def start() -> None:
            self.devices.process.start()
            async with asyncio.timeout(30):
                while self.devices.process.pid is None:
                    await asyncio.sleep(0.005)

        self.runner.run(start())

    def close(self) -> None:
        self.runner.run(self.devices.close())
        self.runner.close()

    def ask(
        self,
        method: str,
        name: str = "o",
        body: bytes | AsyncIterator[bytes] = b"",
        at: float | None = None,
        **headers: Any,
    ) -> tuple[int, Headers, bytes]:
        return self.runner.run(self._ask(method, name, body, at, headers))

    async def _ask(
        self, method: str, name: str, body: bytes | AsyncIterator[bytes], at: float | None, headers: dict[str, Any]
    ) -> tuple[int, Headers, bytes]:
        self.clock += 1
        asked = Headers({key.replace("_", "-"): str(value) for key, value in headers.items()})
        asked["X-Timestamp"] = Timestamp.parse(self.clock if at is None else at).internal
        if method == "PUT":
            asked.setdefault("Content-Type", "text/plain")
            if isinstance(body, bytes):
                asked.setdefault("Content-Length", str(len(body)))
        number = partition(SALT.digest("a", "c", name), 4)
        sent = pieces(body) if isinstance(body, bytes) else body
        request = BackendRequest("object", method, "sda", number, "a", "c", name, asked, body=sent)
        reply = await self.server.handle(request)
        return reply.status, reply.headers, await drain(reply)

    def files(self) -> list[str]:
        """All files below the device, but for what is noted of what goes on."""
        found = [path for path in (self.root / "sda").rglob("*") if path.is_file() and path.name != "intents"]
        return sorted(str(path.relative_to(self.root / "sda")) for path in found)


async def pieces(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture(params=["threads", "process"])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    node = Node(tmp_path)
    if request.param == "process":
        node.start_process()
    yield node
    node.close()


@pytest.mark.parametrize("size", [0, 1, 4096, 65536, 65537, SMALL, SMALL + 1, 5_000_001])
@pytest.mark.parametrize("told", [True, False])
def test_what_was_put_is_got(node: Node, size: int, told: bool) -> None:
    data = os.urandom(size)
    body = data if told else pieces(data, 100_000)
    status, headers, _ = node.ask("PUT", body=body, X_Object_Meta_Colour="blue", X_Object_Sysmeta_A="b")
    assert (status, headers["Etag"]) == (201, md5(data).hexdigest())
    status, headers, got = node.ask("GET")
    assert (status, got) == (200, data)
    assert headers["Content-Length"] == str(size)
    assert headers["Etag"] == f'"{md5(data).hexdigest()}"'
    assert (headers["X-Object-Meta-Colour"], headers["X-Object-Sysmeta-A"]) == ("blue", "b")
    assert headers["X-Backend-Timestamp"] == headers["X-Timestamp"] == f"{START + 1}.00000"
    status, headers, got = node.ask("HEAD")
    assert (status, headers["Content-Length"], got) == (200, str(size), b"")


def test_the_later_timestamp_wins(node: Node) -> None:
    node.ask("PUT", body=b"new", at=START + 10)
    status, headers, _ = node.ask("PUT", body=b"old", at=START + 5)
    assert (status, headers["X-Backend-Timestamp"]) == (409, f"{START + 10}.00000")
    assert node.ask("PUT", body=b"same", at=START + 10)[0] == 409
    assert node.ask("DELETE", at=START + 9)[0] == 409
    assert node.ask("POST", at=START + 9)[0] == 409
    assert node.ask("GET")[2] == b"new"
    assert len(node.files()) == 1


def test_a_tombstone_is_remembered(node: Node) -> None:
    status, headers, _ = node.ask("GET")
    assert status == 404
    assert "X-Backend-Timestamp" not in headers
    node.ask("PUT", body=b"x", at=START)
    assert node.ask("DELETE", at=START + 1)[0] == 204
    status, headers, _ = node.ask("GET")
    assert (status, headers["X-Backend-Timestamp"]) == (404, f"{START + 1}.00000")
    assert node.ask("PUT", body=b"x", at=START + 0.5)[0] == 409
    assert [name.rpartition("/")[2] for name in node.files()] == [f"{START + 1}.00000.ts"]
    assert node.ask("DELETE", at=START + 2)[0] == 404  # the time is remembered even so
    assert node.ask("PUT", body=b"x", at=START + 1.5)[0] == 409


def test_a_post_replaces_what_clients_set(node: Node) -> None:
    node.ask("PUT", body=b"data", X_Object_Meta_A="1", X_Object_Sysmeta_S="s", X_Object_Transient_Sysmeta_T="t")
    put = node.clock
    status, headers, _ = node.ask("POST", X_Object_Meta_B="2", Content_Type="image/png")
    assert (status, headers["X-Backend-Content-Type"], headers["X-Object-Sysmeta-S"]) == (202, "image/png", "s")
    status, headers, data = node.ask("GET")
    assert (status, data, headers["Content-Type"]) == (200, b"data", "image/png")
    assert headers["X-Object-Meta-B"] == "2"
    assert headers["X-Object-Sysmeta-S"] == "s"
    assert "X-Object-Meta-A" not in headers
    assert "X-Object-Transient-Sysmeta-T" not in headers
    assert headers["X-Backend-Data-Timestamp"] == f"{put}.00000"
    assert headers["X-Backend-Timestamp"] == f"{put + 1}.00000"
    node.ask("POST", X_Object_Meta_C="3")  # says nothing of the type, which stays
    status, headers, _ = node.ask("HEAD")
    assert (headers["Content-Type"], headers["X-Object-Meta-C"]) == ("image/png", "3")
    assert len(node.files()) == 2
    node.ask("PUT", body=b"again")
    assert node.ask("HEAD")[1]["Content-Type"] == "text/plain"
    assert len(node.files()) == 1


def test_what_is_not_what_was_told_leaves_nothing(node: Node) -> None:
    assert node.ask("PUT", body=b"x", Etag="0" * 32)[0] == 422
    assert node.ask("PUT", body=b"x", Content_Length=2)[0] == 499
    big = os.urandom(SMALL * 3)
    assert node.ask("PUT", body=big, Etag="0" * 32)[0] == 422
    assert node.ask("PUT", body=big, Content_Length=len(big) + 1)[0] == 499

    async def cut() -> AsyncIterator[bytes]:
        yield big
        raise ConnectionResetError

    assert node.ask("PUT", body=cut())[0] == 499
    assert node.ask("PUT", body=b"x", Content_Length="x")[0] == 400
    assert node.ask("PUT", body=b"x", X_Delete_At="soon")[0] == 400
    assert node.ask("PUT", body=b"x", X_Delete_At=START - 5)[0] == 400
    assert node.ask("GET")[0] == 404
    assert node.files() == []
    assert node.containers.told == []


def test_conditions_and_ranges(node: Node) -> None:
    data = os.urandom(200_000)
    etag = md5(data).hexdigest()
    node.ask("PUT", body=data, X_Object_Sysmeta_Other="else")
    assert node.ask("PUT", body=b"", If_None_Match="*")[0] == 412
    assert node.ask("PUT", body=b"", If_None_Match=etag)[0] == 412
    assert node.ask("GET", If_None_Match=f'"{etag}"')[0] == 304
    assert node.ask("GET", If_Match='"x"')[0] == 412
    assert node.ask("GET", If_Match='"else"', X_Backend_Etag_Is_At="X-Object-Sysmeta-Other")[0] == 200
    status, headers, got = node.ask("GET", Range="bytes=5-70000")
    assert (status, got) == (206, data[5:70001])
    assert headers["Content-Range"] == "bytes 5-70000/200000"
    ignored = "X-Object-Sysmeta-Other"
    assert node.ask("GET", Range="bytes=5-6", X_Backend_Ignore_Range_If_Metadata_Present=ignored)[0] == 200
    assert node.ask("GET", Range="bytes=200000-")[0] == 416
    assert node.ask("GET", name="none", If_Match="*")[0] == 412


def test_an_object_whose_time_has_come(node: Node) -> None:
    node.ask("PUT", body=b"x", X_Delete_At=START + 100)
    assert node.ask("GET", at=START + 99)[0] == 200
    status, headers, _ = node.ask("GET", at=START + 100)
    assert (status, headers["X-Backend-Timestamp"]) == (404, f"{START + 1}.00000")
    assert node.ask("GET", at=START + 100, X_Backend_Open_Expired="true")[0] == 200
    assert node.ask("DELETE", at=START + 101, X_If_Delete_At=START + 99)[0] == 412
    assert node.ask("DELETE", at=START + 101, X_If_Delete_At=START + 100)[0] == 204
    assert node.ask("DELETE", name="none", X_If_Delete_At=START)[0] == 404


UPDATE: dict[str, Any] = {
    "X_Container_Host": "10.0.0.1:6001",
    "X_Container_Device": "sdb",
    "X_Container_Partition": "7",
}


def test_containers_are_told(node: Node) -> None:
    node.ask("PUT", body=b"four", **UPDATE)
    node.ask("POST", X_Object_Meta_A="1", Content_Type="a/b", **UPDATE)
    node.ask("DELETE", **UPDATE)
    assert [place for place, _ in node.containers.told] == ["10.0.0.1:6001/sdb"] * 3
    put, post, delete = [request for _, request in node.containers.told]
    assert (put.method, put.partition, put.account, put.container, put.object) == ("PUT", 7, "a", "c", "o")
    assert put.headers["X-Size"] == "4"
    assert put.headers["X-Etag"] == md5(b"four").hexdigest()
    assert put.headers["X-Content-Type"] == "text/plain"
    assert (post.method, post.headers["X-Content-Type"]) == ("PUT", "a/b")
    assert post.headers["X-Timestamp"] == put.headers["X-Timestamp"]
    assert post.headers["X-Meta-Timestamp"] == post.headers["X-Content-Type-Timestamp"] == f"{START + 2}.00000"
    assert (delete.method, delete.headers["X-Timestamp"]) == ("DELETE", f"{START + 3}.00000")
    node.ask("PUT", body=b"four", X_Object_Sysmeta_Container_Update_Override_Etag="e", **UPDATE)
    assert node.containers.told[-1][1].headers["X-Etag"] == "e"


def test_what_cannot_be_told_is_kept(node: Node) -> None:
    node.containers.status = 503
    assert node.ask("PUT", body=b"four", **UPDATE)[0] == 201
    [(_, update)] = async_pending.waiting(node.devices.pending("sda", 0))
    assert update is not None
    assert (update.method, update.account, update.container, update.object) == ("PUT", "a", "c", "o")
    assert update.headers["X-Size"] == "4"


def test_what_takes_long_to_be_told_is_kept_before_the_answer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = asyncio.Event()

    async def call(device: Device, request: BackendRequest) -> Response:
        await slow.wait()
        return Response(201)

    monkeypatch.setattr(object_updates, "PATIENCE", 0.01)
    monkeypatch.setattr(node.containers, "call", call)
    two = UPDATE | {"X_Container_Host": "10.0.0.1:6001, 10.0.0.2:6001", "X_Container_Device": "sdb, sdc"}
    assert node.ask("PUT", body=b"four", **two)[0] == 201
    (kept,) = [name for name in node.files() if name.startswith("async_pending/")]
    assert async_pending.decode((node.root / "sda" / kept).read_bytes()).object == "o"
    slow.set()
    node.runner.run(node.server.updates.settle())


def test_the_queue_of_what_is_to_be_deleted(node: Node) -> None:
    hosts: dict[str, Any] = {
        "X_Delete_At_Host": "10.0.0.1:6001",
        "X_Delete_At_Device": "sdb",
        "X_Delete_At_Partition": "3",
    }
    node.ask("PUT", body=b"four", X_Delete_At=START + 1000, X_Delete_At_Container="1699999", **hosts)
    [(_, told)] = node.containers.told
    assert (told.account, told.container) == (".expiring_objects", "1699999")
    assert told.object == f"{START + 1000}-a/c/o"
    assert told.headers["X-Content-Type"] == "text/plain;swift_expirer_bytes=4"
    node.ask("POST", X_Delete_At=START + 2000, **hosts)
    assert node.containers.told[-1][1].object == f"{START + 2000}-a/c/o"
    [(_, kept)] = async_pending.waiting(node.devices.pending("sda", 0))
    assert kept is not None
    assert (kept.method, kept.object) == ("DELETE", f"{START + 1000}-a/c/o")


def test_a_torn_file_is_quarantined(node: Node) -> None:
    node.ask("PUT", body=b"four")
    [name] = node.files()
    path = node.root / "sda" / name
    path.write_bytes(path.read_bytes()[:-1])
    assert node.ask("GET")[0] == 404
    [name] = node.files()
    assert name.startswith("quarantined/objects/")
    assert node.ask("PUT", body=b"four")[0] == 201


def test_a_device_that_is_not_there(node: Node) -> None:
    (node.root / "sda").rmdir()
    assert node.ask("PUT", body=b"x")[0] == 507
    assert node.ask("GET")[0] == 507
    assert not (node.root / "sda").exists()


def test_a_small_object_that_is_damaged_is_not_sent(node: Node) -> None:
    node.ask("PUT", body=b"four")
    [name] = node.files()
    with (node.root / "sda" / name).open("r+b") as file:
        file.write(b"F")
    assert node.ask("GET")[0] == 404
    [name] = node.files()
    assert name.startswith("quarantined/")


@pytest.mark.parametrize("sent", [10, SMALL + 10, 6 << 20])
def test_a_cancelled_request_leaves_nothing(node: Node, sent: int) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            async for piece in pieces(os.urandom(sent)):
                yield piece
            begun.set()
            await asyncio.Event().wait()

        asking = asyncio.create_task(node._ask("PUT", "o", body(), None, {}))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    node.runner.run(run())
    assert node.files() == []
    assert node.containers.told == []


def test_a_request_cancelled_while_it_is_written_tells_the_container(node: Node) -> None:
    async def run() -> None:
        asking = asyncio.create_task(node._ask("PUT", "o", b"four", None, UPDATE))
        while not node.devices.threads._busy:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    node.runner.run(run())
    assert node.ask("GET")[2] == b"four"
    assert [request.method for _, request in node.containers.told] == ["PUT"]


def test_many_at_once(node: Node) -> None:
    """Of what is said of one object at a time by many, the latest stays."""

    async def run() -> None:
        await asyncio.gather(
            *(
                node._ask(
                    *("DELETE", "o", b"", START + number, {})
                    if number % 3 == 0
                    else ("PUT", "o", b"%d" % number, START + number, {})
                )
                for number in (7, 3, 99, 41, 40, 100, 2, 55, 98, 12)
            )
        )

    node.runner.run(run())
    status, _, body = node.ask("GET")
    assert (status, body) == (200, b"100")
    assert len(node.files()) >= 1


def test_threads_read_for_a_while_once_the_disk_was_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node.ask("PUT", body=b"data")[0] == 201
    monkeypatch.setattr(object_server, "COLD", 0.0)
    monkeypatch.setattr(object_server, "_blocks_read", lambda: 7)
    node.ask("GET")
    assert node.server._cold_until == 0, "it waited for something else"
    reads = itertools.count()
    monkeypatch.setattr(object_server, "_blocks_read", lambda: next(reads))
    node.ask("GET")
    assert node.server._cold_until > time.monotonic()
    assert node.ask("GET")[2] == b"data"
    node.server._cold_until = 0.0
    monkeypatch.setattr(object_server, "_blocks_read", lambda: 7)
    monkeypatch.setattr(object_server, "SLOW", 0.0)
    node.ask("GET")
    assert node.server._cold_until > 0, "the kernel counts no reads of some file systems"


def test_a_disk_that_fails_while_a_large_object_comes_in(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of it once: to the sync that is made on the way, not to the one at the end."""

    untold, real = [OSError(errno.EIO, os.strerror(errno.EIO))], Writer.sync

    def sync(self: Writer) -> None:
        if untold:
            raise untold.pop()
        real(self)

    assert node.ask("PUT", body=b"before")[0] == 201
    monkeypatch.setattr(Writer, "sync", sync)
    assert node.ask("PUT", body=os.urandom(20_000_000))[0] == 507
    assert node.ask("GET")[2] == b"before"
    assert len(node.files()) == 1
