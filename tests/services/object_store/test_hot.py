"""Small objects that are held in memory: what was read, and what was written and never read."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.storage import hot, object_file
from cumulet.services.object_store.storage.hot import Hot
from cumulet.services.object_store.storage.object_file import INLINE, ZERO, Object
from tests.services.object_store.test_object_server import START, Node


@pytest.fixture(params=["threads", "process"])
def node(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(hot, "WRITTEN", 60.0)
    node = Node(tmp_path)
    if request.param == "process":
        node.start_process()
    yield node
    node.close()


class Reads:
    """How often an object was read from the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._read = object_file.read
        monkeypatch.setattr(object_file, "read", self.read)

    def read(self, *args: Any, **more: Any) -> Object:
        self.count += 1
        return self._read(*args, **more)


def directory(node: Node) -> Path:
    """The one hash directory."""
    [found] = {(node.root / "sda" / name).parent for name in node.files() if name.startswith("objects/")}
    return found


def test_what_is_held_in_memory_follows_the_disk(node: Node) -> None:
    def quiet() -> None:
        """Make the object's directory one that has not changed for a while."""
        [name] = {str(Path(name).parent) for name in node.files() if name.startswith("objects/")}
        os.utime(node.root / "sda" / name, ns=(0, os.stat(node.root / "sda" / name).st_mtime_ns - 10**9))

    node.ask("PUT", body=b"one", X_Delete_At=START + 100)
    quiet()
    assert [node.ask("GET")[2] for _ in range(3)] == [b"one"] * 3
    assert len(node.server.hot._held) == 1
    assert node.ask("GET", at=START + 100)[0] == 404, "its time has come"
    node.ask("POST", X_Object_Meta_A="1")
    assert node.ask("GET")[1]["X-Object-Meta-A"] == "1"
    quiet()
    assert [node.ask("HEAD")[1]["X-Object-Meta-A"] for _ in range(3)] == ["1"] * 3
    node.ask("PUT", body=b"two")
    assert node.ask("GET")[2] == b"two"
    quiet()
    assert [node.ask("GET")[2] for _ in range(3)] == [b"two"] * 3
    [name] = [name for name in node.files() if name.startswith("objects/")]
    later = name.replace(Path(name).name, f"{START + 500}.00000.ts")
    (node.root / "sda" / later).write_bytes(b"{}")  # as rsync brings it
    assert node.ask("GET")[0] == 404


def test_what_is_held_is_bounded(tmp_path: Path) -> None:
    hot = Hot(100_000)
    os.utime(tmp_path, (0, 0))
    seen = os.stat(tmp_path)
    held = Object(ZERO, ZERO, ZERO, {}, {}, None, 10_000, body=b"x" * 10_000)
    for number in range(100):
        hot.put(f"/{number}", seen, held, Headers())
    assert len(hot._held) == 8
    assert hot._size <= 100_000
    hot.drop("/99")
    assert len(hot._held) == 7


def remembered(node: Node) -> Object:
    """The one object that was written and not read since."""
    [unread] = node.server.hot._written.values()
    return unread.found


@pytest.mark.parametrize("size", [0, 1, 4096, INLINE])
def test_what_was_written_is_known_as_it_would_be_read(node: Node, size: int) -> None:
    data = os.urandom(size)
    more: dict[str, Any] = {
        "X_Object_Meta_Colour": "grün",
        "X_Object_Sysmeta_A": "b",
        "Content_Encoding": "x",
        "X_Delete_At": START + 99,
    }
    assert node.ask("PUT", body=data, **more)[0] == 201
    found = remembered(node)
    read = object_file.read(str(directory(node)), now=Timestamp.parse(START), body=True)
    assert read.path
    read.path = ""
    assert found == read
    status, headers, got = node.ask("GET")
    assert (status, got) == (200, data)
    node.server.hot.drop(str(directory(node)))
    status, from_disk, got = node.ask("GET")
    assert (status, got) == (200, data)
    assert sorted(headers.items()) == sorted(from_disk.items())


def test_what_was_written_is_not_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.ask("PUT", body=b"one")
    reads = Reads(monkeypatch)
    assert [node.ask(method)[0] for method in ("HEAD", "GET", "GET")] == [200] * 3
    assert reads.count == 0
    assert (len(node.server.hot._written), len(node.server.hot._held)) == (0, 1), "what was asked for is held longer"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_what_is_done_here_counts_at_once(node: Node, method: str, known: bool) -> None:
    """Whatever the clock of the file system says."""
    node.ask("PUT", body=b"one", X_Object_Meta_A="1")
    if known:
        assert node.ask("GET")[2] == b"one"
    before = os.stat(directory(node)).st_mtime_ns
    node.ask(method, body=b"two", X_Object_Meta_A="2")
    os.utime(directory(node), ns=(before, before))
    status, headers, got = node.ask("GET")
    if method == "DELETE":
        assert status == 404
    else:
        assert (headers["X-Object-Meta-A"], got) == ("2", b"two" if method == "PUT" else b"one")


def test_what_others_do_counts(node: Node) -> None:
    node.ask("PUT", body=b"one")
    there = directory(node)
    (there / f"{START + 500}.00000.ts").write_bytes(b"{}")  # as rsync brings it
    os.utime(there, ns=(0, os.stat(there).st_mtime_ns + 10**9))
    assert node.ask("GET")[0] == 404


def test_a_device_that_was_emptied(node: Node) -> None:
    node.ask("PUT", body=b"one")
    there = directory(node)
    there.rename(node.root / "elsewhere")
    assert node.ask("GET")[0] == 404
    assert not node.server.hot._written


@pytest.mark.parametrize("asked", [True, False])
def test_it_is_read_after_a_while(node: Node, monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    """Also where it was asked for in the meantime."""
    node.ask("PUT", body=b"one")
    if asked:
        assert node.ask("GET")[2] == b"one"
    held = node.server.hot
    for unread in held._written.values():
        unread.until -= hot.WRITTEN
    for known in held._held.values():
        known.until -= hot.WRITTEN
    reads = Reads(monkeypatch)
    assert node.ask("GET")[2] == b"one"
    assert reads.count == 1


def test_an_object_that_replaces_another_is_read(node: Node) -> None:
    """There may be more of it than what was written: metadata that is later still."""
    node.ask("PUT", body=b"one", at=START + 1)
    node.ask("POST", X_Object_Meta_A="1", at=START + 9)
    node.ask("PUT", body=b"two", at=START + 5)
    assert not node.server.hot._written
    _, headers, got = node.ask("GET")
    assert (got, headers["X-Object-Meta-A"]) == (b"two", "1")


def test_a_large_object_is_not_held(node: Node) -> None:
    node.ask("PUT", body=b"x" * (INLINE + 1))
    assert not node.server.hot._written


def test_changes_at_the_same_time_are_not_held(node: Node) -> None:
    """Which of them came last is known by their files."""

    async def both() -> list[int]:
        told, on = asyncio.Event(), asyncio.Event()
        call = node.containers.call

        async def wait(*args: Any) -> Any:
            told.set()
            await on.wait()
            return await call(*args)

        hosts = {"X_Container_Host": "10.0.0.1:6001", "X_Container_Device": "sdb", "X_Container_Partition": "7"}
        node.containers.call = wait  # type: ignore[method-assign, assignment]
        put = asyncio.create_task(node._ask("PUT", "o", b"one", START + 1, hosts))
        await told.wait()
        node.containers.call = call  # type: ignore[method-assign]
        deleted = await node._ask("DELETE", "o", b"", START + 2, {})
        on.set()
        return [(await put)[0], deleted[0]]

    assert node.runner.run(both()) == [201, 204]
    assert not node.server.hot._written
    assert node.ask("GET")[0] == 404
    assert not node.server.intents._together


def test_what_was_written_is_bounded(tmp_path: Path) -> None:
    hot = Hot(800_000)
    found = Object(ZERO, ZERO, ZERO, {}, {}, None, 10_000, body=b"x" * 10_000)
    for number in range(100):
        hot.wrote(f"/{number}", (1, 1), found)
    assert list(hot._written) == [f"/{number}" for number in range(92, 100)]
    for number in range(92, 100):
        hot.drop(f"/{number}")
    assert hot._unread == 0
