"""The process that makes changes while there are many: when it runs, and what becomes of them if somebody ends."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.storage import disk_process, intents, object_file
from cumulet.services.object_store.storage.disk_process import DiskProcess, Gone
from cumulet.services.object_store.storage.intents import Intents
from cumulet.services.object_store.storage.object_changes import Delete, Deleted, Put, Refused, Written, make
from cumulet.services.object_store.storage.object_file import Absent
from tests.services.object_store.test_object_server import Node

NOW = Timestamp(150_000_000_000_000)
LATER = Timestamp(NOW.ticks + 1)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.close()


def put_at(root: Path, name: str) -> Put:
    return Put(f"{root}/{name}", f"{root}/tmp", NOW, frozenset(), "", {"Content-Type": "a/b"}, b"data")


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


async def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


async def put_many(node: Node, count: int) -> list[int]:
    replies = await asyncio.gather(*(node._ask("PUT", f"o{n}", b"%d" % n, None, {}) for n in range(count)))
    return [status for status, _, _ in replies]


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def going_on(node: Node) -> list[str]:
    """What the next program would have to look at."""
    node.server.intents.close()
    return [one for file in Intents(node.devices).left("sda") for one in intents.read(file)]


def test_it_comes_with_many_changes_and_goes_when_there_are_none(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_process, "IDLE", 0.2)
    process = node.devices.process

    async def run() -> None:
        assert await put_many(node, 1) == [201]
        assert process._starting is None, "one at a time needs no other process"
        await put_many(node, 20)
        await until(lambda: process.pid)
        pid = process.pid
        assert pid is not None
        assert await put_many(node, 20) == [201] * 20
        await until(lambda: not lives(pid))
        assert process.pid is None
        assert await put_many(node, 20) == [201] * 20, "and it can come again"

    node.runner.run(run())


def test_what_it_was_doing_when_it_was_killed_is_done(node: Node) -> None:
    node.start_process()
    pid = node.devices.process.pid
    assert pid is not None

    async def run() -> list[int]:
        await stop(pid)
        asked = asyncio.ensure_future(put_many(node, 12))
        await until(lambda: len(node.devices.process._waiting) == 12)
        os.kill(pid, signal.SIGKILL)
        return await asked

    assert node.runner.run(run()) == [201] * 12
    assert [node.ask("GET", f"o{n}")[2] for n in range(12)] == [b"%d" % n for n in range(12)]
    assert node.devices.process.pid is None, "it is not started again at once"
    assert going_on(node) == []


def test_signals_that_all_processes_get_do_not_end_it(node: Node) -> None:
    node.start_process()
    pid = node.devices.process.pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert node.runner.run(put_many(node, 12)) == [201] * 12
    assert node.devices.process.pid == pid


async def test_the_next_program_waits_until_it_is_gone(tmp_path: Path) -> None:
    """It may still be at work when the program has been killed: nobody looks at the disk before it is gone."""
    process = DiskProcess(str(tmp_path))
    process.start()
    await until(lambda: process.pid)
    pid = process.pid
    assert pid is not None
    await stop(pid)
    offered = [process.offer(put_at(tmp_path, f"o{number}")) for number in range(3)]
    process._end()  # the kernel closes the socket of a program that is killed
    gone = await asyncio.gather(*(one for one in offered if one is not None), return_exceptions=True)
    assert [type(one) for one in gone] == [Gone] * 3
    waiting = asyncio.ensure_future(DiskProcess(str(tmp_path)).wait_for_last())
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    os.kill(pid, signal.SIGCONT)
    await asyncio.wait_for(waiting, 30)
    await process.close()
    assert not lives(pid)


async def test_where_there_never_was_one_a_start_makes_nothing(tmp_path: Path) -> None:
    """The directory of devices may be one that only root may write to, and each device another's."""
    process = DiskProcess(str(tmp_path))
    await process.wait_for_last()
    assert os.listdir(tmp_path) == []
    process._lock = tmp_path / "missing" / "lock"
    process.start()
    assert process._starting is not None
    await process._starting
    assert process.pid is None, "threads do it then"
    await process.close()


def test_an_object_that_was_written_already(tmp_path: Path) -> None:
    put = put_at(tmp_path, "hash")
    written = make(put)
    assert isinstance(written, Written)
    with pytest.raises(Refused) as refused:
        make(put)
    assert (refused.value.status, refused.value.last) == (409, NOW)
    told = os.stat(tmp_path / "hash")
    assert written.first == (told.st_mtime_ns, told.st_ino)
    again = replace(written, first=None)
    assert make(replace(put, again=True)) == again
    others = replace(put, data=b"atad"), replace(put, metadata={}), replace(put, timestamp=Timestamp(1))
    for other in others:
        with pytest.raises(Refused):
            make(replace(other, again=True))
    assert make(replace(put, timestamp=LATER, again=True)) == again, "it was not written"
    assert [path.name for path in (tmp_path / "hash").iterdir()] == [f"{LATER.internal}.data"]


def test_an_object_that_was_deleted_already(tmp_path: Path) -> None:
    directory, temporary = str(tmp_path / "hash"), str(tmp_path / "tmp")
    make(put_at(tmp_path, "hash"))
    delete = Delete(directory, temporary, LATER, "/a/c/o", None)
    first, again = make(delete), make(replace(delete, again=True))
    assert isinstance(first, Deleted)
    assert isinstance(again, Deleted)
    assert (first.status, again.status) == (204, 204)
    assert first.last == NOW
    assert again.last < LATER, "so that the container is told"
    with pytest.raises(Absent):
        object_file.read(directory, now=LATER)
