"""What works on accounts and containers in the background: reports that came too late, deleted accounts, damage."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from cumulet.services.object_store.message import Response
from cumulet.services.object_store.node import BackendRequest, Device
from tests.services.object_store.databases import Node
from tests.services.object_store.stores import Store


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with Node(tmp_path) as node:
        await node("PUT", "a")
        await node("PUT", "a/c")
        yield node


def _file(node: Node, kind: str) -> Path:
    return next((node.devices / "d1" / kind).glob("*/*/*/*.db"))


async def test_what_an_account_could_not_be_told_it_is_told_later(tmp_path: Path) -> None:
    here, there = Node(tmp_path, "d1", 6001), Node(tmp_path, "d2", 6002)
    members = {"d1": here, "d2": there}
    for node in members.values():
        node.join(members)
    async with here, there:
        await here("PUT", "a")
        await there("PUT", "a")
        await here("PUT", "a/c")
        await here.catalogue.reports.deliver()
        there.down = True
        await here.put_object("a/c/o", 5)
        await here.catalogue.reports.deliver()
        assert (await here("HEAD", "a")).headers["X-Account-Bytes-Used"] == "5"
        assert (await there("HEAD", "a")).headers["X-Account-Bytes-Used"] == "0"
        await here.catalogue.reports.again()
        there.down = False
        await here.catalogue.reports.again()
        assert (await there("HEAD", "a")).headers["X-Account-Bytes-Used"] == "5"


async def test_what_was_not_reported_before_a_stop_is_reported_after_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node("PUT", "a")
    await node("PUT", "a/c")
    await node.put_object("a/c/o", 7)
    node.down = True  # its account cannot be told, and then it stops
    await node.close()
    async with Node(tmp_path) as node:
        assert (await node("HEAD", "a")).headers["X-Account-Bytes-Used"] == "0"
        await node.catalogue.report_all()
        assert (await node("HEAD", "a")).headers["X-Account-Bytes-Used"] == "7"
        node.calls.clear()
        await node.catalogue.report_all()
        assert not node.calls


async def test_what_was_reported_is_not_reported_again_after_a_stop(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        await node("PUT", "a")
        await node("PUT", "a/c")
        await node.put_object("a/c/o", 7)
    async with Node(tmp_path) as node:
        await node.catalogue.report_all()
        assert not node.calls


async def test_a_change_that_is_taken_back_during_a_report_is_reported_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, never = asyncio.Event(), asyncio.Event()
    async with Node(tmp_path / "alive") as node:
        await node("PUT", "a")
        await node("PUT", "a/c")
        await node.put_object("a/c/stays", 1)
        await node.catalogue.reports.deliver()
        call = node.nodes.call

        async def unanswered(device: Device, request: BackendRequest) -> Response:
            reply = await call(device, request)
            told.set()
            await never.wait()
            return reply

        await node.put_object("a/c/goes", 5)
        monkeypatch.setattr(node.nodes, "call", unanswered)
        report = asyncio.create_task(node.catalogue.reports.deliver())
        await told.wait()
        await node("DELETE", "a/c/goes")  # now the container is as it was when its report was answered last
        shutil.copytree(tmp_path / "alive", tmp_path / "crashed")
        never.set()
        await report
    async with Node(tmp_path / "crashed") as node:
        assert (await node("HEAD", "a")).headers["X-Account-Bytes-Used"] == "6"
        await node.catalogue.report_all()
        assert (await node("HEAD", "a")).headers["X-Account-Bytes-Used"] == "1"


async def test_wrong_counts_are_made_right(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    await node.put_object("a/c/o", 7)
    node.catalogue.databases.close_all()
    path = _file(node, "containers")
    with sqlite3.connect(path) as conn:
        info = msgspec.json.decode(conn.execute("SELECT data FROM info").fetchone()[0])
        info["stats"]["0"] = {"objects": 41, "bytes": 1}
        conn.execute("UPDATE info SET data = ?", (msgspec.json.encode(info).decode(),))
    conn.close()
    async with Node(node.devices.parent) as again:
        assert (await again("HEAD", "a/c")).headers["X-Container-Object-Count"] == "41"
        await again.catalogue.auditor.run()
        told = (await again("HEAD", "a/c")).headers
        assert (told["X-Container-Object-Count"], told["X-Container-Bytes-Used"]) == ("1", "7")
        assert again.catalogue.auditor.mended == 1
        assert again.catalogue.auditor.audited == 2
        assert "counts of the container" in caplog.text


def _damage(path: Path) -> None:
    """Overwrite one page in the middle."""
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))


async def test_the_auditor_finds_damage_that_nobody_has_met(node: Node) -> None:
    await asyncio.gather(*(node.put_object(f"a/c/{number:04d}") for number in range(2000)))
    node.catalogue.databases.close_all()
    path = _file(node, "containers")
    _damage(path)
    await node.catalogue.auditor.run()
    assert not path.exists()
    assert list((node.devices / "d1" / "quarantined" / "containers").glob("*/*.db"))
    assert (await node("HEAD", "a")).status == 204


def _data_files(devices: Path) -> int:
    return len(list(devices.glob("*/objects/*/*/*/*.data")))


async def test_what_was_in_a_deleted_account_is_removed(store: Store) -> None:
    for container in ("c1", "c2"):
        await store.put(container)
        for number in range(20):
            await store.put(f"{container}/dir/o{number}", b"data")
    store.account = "AUTH_project-other"
    await store.put("kept", token="other")
    await store.put("kept/o", b"data", token="other")
    store.account = "AUTH_project-demo"
    catalogue = store.runtime.host.catalogue
    assert catalogue is not None
    await catalogue.reaper.run()
    assert (await store("HEAD", "c1")).headers["X-Container-Object-Count"] == "20"
    deleted = await store("DELETE", "", token="admin")
    assert deleted.status == 204
    assert (await store("GET", "")).status in (404, 410)
    await catalogue.reaper.run()
    assert (catalogue.reaper.objects, catalogue.reaper.containers) == (40, 2)
    assert _data_files(Path(store.runtime.host.devices.root)) == 1
    await catalogue.reports.deliver()
    await catalogue.reaper.run()
    assert catalogue.reaper.containers == 2
    assert await store.get("/v1/AUTH_project-other/kept/o", token="other") == b"data"
