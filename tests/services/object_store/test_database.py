"""The files behind accounts and containers: many of them, damaged ones, full devices, kills."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.services.object_store.databases import Node

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with Node(tmp_path) as node:
        assert (await node("PUT", "a")).status == 201
        yield node


def _files(node: Node, kind: str = "containers") -> list[Path]:
    return sorted((node.devices / "d1" / kind).glob("*/*/*/*.db"))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_only_so_many_databases_are_open(tmp_path: Path) -> None:
    async with Node(tmp_path, opened=8, known=20) as node:
        await node("PUT", "a")
        before = _descriptors()
        for number in range(60):
            await node("PUT", f"a/c{number}")
            await node.put_object(f"a/c{number}/o", number)
            assert await node.names(f"a/c{number}") == ["o"]
        assert (await node("HEAD", "a")).headers["X-Account-Object-Count"] == "60"
        for number in range(60):
            assert (await node("HEAD", f"a/c{number}")).headers["X-Container-Bytes-Used"] == str(number)
        await node.catalogue.databases.settled()
        assert _descriptors() - before < 10 * 8
        assert node.catalogue.databases.known <= 40


async def test_many_updates_are_one_transaction(node: Node) -> None:
    await node("PUT", "a/c")
    replies = await asyncio.gather(*(node.put_object(f"a/c/o{number:03d}") for number in range(200)))
    assert {reply.status for reply in replies} == {201}
    assert len(await node.names("a/c")) == 200
    assert (await node("HEAD", "a/c")).headers["X-Container-Object-Count"] == "200"


async def test_what_one_may_not_do_undoes_nothing_of_the_others(node: Node) -> None:
    await node("PUT", "a/c")
    good, bad, other = await asyncio.gather(
        node.put_object("a/c/o"),
        node("POST", "a/c", X_Container_Meta_Long="v" * 5000),
        node("POST", "a/c", X_Container_Meta_Short="v"),
    )
    assert [good.status, bad.status, other.status] == [201, 400, 204]
    told = (await node("HEAD", "a/c")).headers
    assert told["X-Container-Object-Count"] == "1"
    assert told["X-Container-Meta-Short"] == "v"
    assert "X-Container-Meta-Long" not in told


async def test_a_damaged_database_is_put_aside(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    await node("PUT", "a/c")
    for number in range(200):
        await node.put_object(f"a/c/{number:03d}")
    (path,) = _files(node)
    node.catalogue.databases.close_all()
    path.write_bytes(path.read_bytes()[:4096] + os.urandom(path.stat().st_size - 4096))
    assert (await node("GET", "a/c")).status == 503
    assert "damaged" in caplog.text
    assert (await node("HEAD", "a/c")).status == 404
    assert [path.name] == [p.name for p in (node.devices / "d1/quarantined/containers").glob("*/*.db")]
    assert (await node("PUT", "a/c")).status == 201


async def test_no_database_at_all_is_put_aside_too(node: Node) -> None:
    await node("PUT", "a/c")
    (path,) = _files(node)
    node.catalogue.databases.close_all()
    path.write_text("no database")
    assert (await node("POST", "a/c", X_Container_Meta_A="1")).status == 503
    assert not path.exists()


async def test_an_emptied_device_is_noticed(node: Node) -> None:
    await node("PUT", "a/c")
    await node.put_object("a/c/o")
    shutil.rmtree(node.devices / "d1" / "containers")
    assert (await node("HEAD", "a/c")).status == 404
    assert (await node.put_object("a/c/o")).status == 404
    assert (await node("PUT", "a/c")).status == 201
    assert await node.names("a/c") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A device of 2 MiB."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    device = tmp_path / "d1" / "d1"
    device.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(device)], check=True)
    yield device
    subprocess.run(["umount", str(device)], check=True)


async def test_a_full_device_is_507_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    async with Node(tmp_path) as node:
        await node("PUT", "a")
        await node("PUT", "a/c")
        kept = []
        for number in range(50_000):
            reply = await node.put_object(f"a/c/{number:06d}" + "x" * 200)
            if reply.status != 201:
                break
            kept.append(number)
        assert reply.status == 507
        assert (await node("PUT", "a/new")).status == 507
        assert [int(name[:6]) for name in await node.names("a/c")] == kept
        assert (await node("HEAD", "a/c")).headers["X-Container-Object-Count"] == str(len(kept))


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.services.object_store.databases import Node

async def write(node, worker):
    number = 0
    while True:
        reply = await node.put_object(f"a/c/{worker}-{number}", 1)
        assert reply.status == 201, reply
        print(f"{worker}-{number}", flush=True)
        if number % 3 == 0:
            assert (await node("DELETE", f"a/c/{worker}-{number}")).status == 204
            print(f"gone {worker}-{number}", flush=True)
        number += 1

async def main():
    node = Node(Path(sys.argv[1]))
    await node("PUT", "a")
    await node("PUT", "a/c")
    await asyncio.gather(*(write(node, worker) for worker in range(8)))

asyncio.run(main())
"""


def _told_until_killed(directory: Path, lines: int) -> list[str]:
    """What a writer says that it has done before it is killed."""
    command = [sys.executable, "-c", WRITER, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline().strip() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        return told + [line.strip() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, seed: int) -> None:
    lines = random.Random(seed).randrange(200, 1500)
    told = await asyncio.to_thread(_told_until_killed, tmp_path, lines)
    gone = {line.removeprefix("gone ") for line in told if line.startswith("gone ")}
    kept = {line for line in told if line and not line.startswith("gone ")} - gone
    async with Node(tmp_path) as node:
        names = set(await node.names("a/c"))
        assert not gone & names
        last = {max((name for name in kept if name.startswith(f"{w}-")), key=_number, default="") for w in range(8)}
        assert kept - names <= {name for name in last if _number(name) % 3 == 0}  # deleted, and not told any more
        assert (await node("HEAD", "a/c")).headers["X-Container-Object-Count"] == str(len(names))


def _number(name: str) -> int:
    return int(name.partition("-")[2] or 0)


async def test_there_is_one_of_each_file_however_much_is_forgotten(tmp_path: Path) -> None:
    async with Node(tmp_path, opened=2, known=2) as node:
        await node("PUT", "a")
        names = [f"a/c{number}" for number in range(12)]
        for name in names:
            await node("PUT", name)
        puts = [node.put_object(f"{name}/o{number}", number) for number in range(20) for name in names]
        random.Random(1).shuffle(puts)
        assert {reply.status for reply in await asyncio.gather(*puts)} == {201}
        for name in names:
            assert (await node("HEAD", name)).headers["X-Container-Object-Count"] == "20"
        told = (await node("HEAD", "a")).headers
        assert (told["X-Account-Object-Count"], told["X-Account-Bytes-Used"]) == ("240", str(12 * 190))
