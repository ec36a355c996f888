"""Copies of databases on several nodes become equal, whatever they missed, and those in the wrong place go away."""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.api.server import Server, bind
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import Kind, Rings, StorageServer
from cumulet.services.object_store.servers import StorageFace
from cumulet.services.object_store.storage import database_replicator
from tests.services.object_store.databases import Node, SmallRing

NAMES = ("d1", "d2", "d3")


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[dict[str, Node]]:
    members = {name: Node(tmp_path, name, 6001 + number) for number, name in enumerate(NAMES)}
    for node in members.values():
        node.join(members)
    yield members
    for node in members.values():
        await node.close()


async def _everywhere(nodes: dict[str, Node], method: str, path: str, /, but: str = "", **headers: str) -> None:
    """The same call to every node but one."""
    at = next(iter(nodes.values())).now()
    for name, node in nodes.items():
        if name != but:
            assert (await node(method, path, **{"X_Timestamp": at, **headers})).ok  # type: ignore[arg-type]


async def _rounds(nodes: dict[str, Node], count: int = 1) -> None:
    for _ in range(count):
        for node in nodes.values():
            if not node.down:
                await node.replicate()


async def _told(node: Node, path: str) -> Any:
    """What a node says of a database: its headers, and its rows."""
    head = await node("HEAD", path)
    return (
        head.status,
        {k: v for k, v in head.headers.items() if k != "X-Backend-Status-Changed-At"},
        await node.rows(path),
    )


async def _all_equal(nodes: dict[str, Node], path: str) -> Any:
    told = [await _told(node, path) for node in nodes.values()]
    assert told[0] == told[1] == told[2]
    return told[0]


async def test_a_node_that_missed_something_learns_it(nodes: dict[str, Node]) -> None:
    await _everywhere(nodes, "PUT", "a")
    await _everywhere(nodes, "PUT", "a/c", X_Container_Meta_Color="blue")
    nodes["d3"].down = True
    for number in range(20):
        await nodes["d1"].put_object(f"a/c/o{number:02d}", number, X_Timestamp=f"1500000000.{number:05d}")
    await nodes["d2"]("DELETE", "a/c/o03", X_Timestamp="1500000001.00000")
    await nodes["d2"]("POST", "a/c", X_Container_Meta_Color="red")
    nodes["d3"].down = False
    await _rounds(nodes, 2)
    _, headers, rows = await _all_equal(nodes, "a/c")
    assert headers["X-Container-Meta-Color"] == "red"
    assert [row["name"] for row in rows] == [f"o{number:02d}" for number in range(20) if number != 3]
    await _all_equal(nodes, "a")


async def test_a_round_over_equal_copies_tells_no_rows(nodes: dict[str, Node]) -> None:
    await _everywhere(nodes, "PUT", "a/c")
    for node in nodes.values():
        await node.put_object("a/c/o", X_Timestamp="1500000000.00000")
    await _rounds(nodes, 2)
    before = [node.catalogue.replicator.pushed for node in nodes.values()]
    await _rounds(nodes)
    assert [node.catalogue.replicator.pushed for node in nodes.values()] == before


async def test_only_what_is_new_is_told(nodes: dict[str, Node]) -> None:
    await _everywhere(nodes, "PUT", "a/c")
    for number in range(50):
        await nodes["d1"].put_object(f"a/c/{number}")
    await _rounds(nodes, 2)
    before = nodes["d1"].catalogue.replicator.pushed
    await nodes["d1"].put_object("a/c/new")
    await nodes["d1"].replicate()
    assert nodes["d1"].catalogue.replicator.pushed - before == 2  # one row, to two places


async def test_more_rows_than_are_told_at_once(nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_replicator, "BATCH", 7)
    await _everywhere(nodes, "PUT", "a/c")
    await asyncio.gather(*(nodes["d1"].put_object(f"a/c/{number}") for number in range(50)))
    await nodes["d1"].replicate()
    assert len(await nodes["d3"].names("a/c")) == 50


async def test_a_wiped_device_gets_whole_files(nodes: dict[str, Node]) -> None:
    await _everywhere(nodes, "PUT", "a")
    await _everywhere(nodes, "PUT", "a/c")
    for node in nodes.values():
        await node.put_object("a/c/o", X_Timestamp="1500000000.00000")
    device = nodes["d2"].devices / "d2"
    shutil.rmtree(device)
    device.mkdir()
    assert (await nodes["d2"]("HEAD", "a/c")).status == 404
    await nodes["d1"].replicate()
    await _all_equal(nodes, "a/c")
    assert await nodes["d2"].names("a/c") == ["o"]
    assert not list((device / "tmp").iterdir())
    for node in nodes.values():
        await node.catalogue.reports.deliver()
    await _rounds(nodes, 2)
    before = nodes["d1"].catalogue.replicator.pushed
    await _rounds(nodes)
    assert nodes["d1"].catalogue.replicator.pushed == before
    path = next((device / "containers").glob("*/*/*/*.db"))
    with sqlite3.connect(path) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_database_that_belongs_elsewhere_is_given_up(nodes: dict[str, Node]) -> None:
    await _everywhere(nodes, "PUT", "a/c")
    handoff = nodes["d3"]
    for node in nodes.values():
        node.rings = Rings(node.rings.account, SmallRing((nodes["d1"].device, nodes["d2"].device)), {})
    await handoff.put_object("a/c/o")
    nodes["d2"].down = True
    await handoff.replicate()
    assert (await handoff("HEAD", "a/c")).status == 204  # one place does not have it yet
    nodes["d2"].down = False
    await handoff.replicate()
    assert (await handoff("HEAD", "a/c")).status == 404
    assert not list((handoff.devices / "d3" / "containers").iterdir())
    assert await nodes["d1"].names("a/c") == await nodes["d2"].names("a/c") == ["o"]


async def test_a_deleted_container_is_deleted_everywhere_and_forgotten(nodes: dict[str, Node]) -> None:
    early = "1500000000.00000"
    await _everywhere(nodes, "PUT", "a/c", X_Timestamp=early)
    nodes["d1"].down = True
    await _everywhere(nodes, "DELETE", "a/c", but="d1", X_Timestamp="1500000001.00000")
    nodes["d1"].down = False
    await _rounds(nodes)
    for node in nodes.values():
        gone = await node("HEAD", "a/c")
        assert (gone.status, gone.headers["X-Backend-DELETE-Timestamp"]) == (404, "1500000001.00000")
        await node.catalogue.replicator.reclaim()
        assert not list((node.devices / node.device.name / "containers").iterdir())


async def test_old_tombstones_are_forgotten_and_young_ones_are_not(nodes: dict[str, Node]) -> None:
    node = nodes["d1"]
    await node("PUT", "a/c")
    await node("DELETE", "a/c/old", X_Timestamp="1500000000.00000")
    await node("DELETE", "a/c/young")
    await node.put_object("a/c/alive", X_Timestamp="1500000000.00000")
    await node.catalogue.replicator.reclaim()
    path = next((node.devices / "d1" / "containers").glob("*/*/*/*.db"))
    with sqlite3.connect(path) as conn:
        assert sorted(conn.execute("SELECT name, deleted FROM object")) == [("alive", 0), ("young", 1)]


async def test_of_two_policies_the_older_one_counts(nodes: dict[str, Node]) -> None:
    await nodes["d1"]("PUT", "a/c", X_Backend_Storage_Policy_Index="1", X_Timestamp="1500000000.00000")
    await nodes["d2"]("PUT", "a/c", X_Backend_Storage_Policy_Index="0", X_Timestamp="1500000001.00000")
    await _rounds(nodes)
    for node in nodes.values():
        assert (await node("HEAD", "a/c")).headers["X-Backend-Storage-Policy-Index"] == "1"


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_each_heard_they_end_equal(nodes: dict[str, Node], seed: int) -> None:
    chance = random.Random(seed)
    await _everywhere(nodes, "PUT", "a")
    await _everywhere(nodes, "PUT", "a/c")
    base = Timestamp.now().ticks
    for _ in range(60):
        node = nodes[chance.choice(NAMES)]
        at = Timestamp(base + chance.randrange(30)).internal
        name = f"a/c/{chance.choice('abcd')}"
        what = chance.randrange(4)
        if what == 0:
            await node("DELETE", name, X_Timestamp=at)
        elif what == 1:
            await node("POST", "a/c", X_Timestamp=at, X_Container_Meta_A=str(chance.randrange(3)))
        else:
            await node.put_object(name, chance.randrange(9), X_Timestamp=at)
        if chance.random() < 0.1:
            await node.replicate()
    await _rounds(nodes, 2)
    await _all_equal(nodes, "a/c")


async def test_bad_bodies_are_refused(nodes: dict[str, Node]) -> None:
    node = nodes["d1"]
    await node("PUT", "a/c")
    name = node.salt.name("a", "c")
    for op, body in (("sync", b"{"), ("rows", b'{"id": 1}'), ("whole", b"no database"), ("else", b"")):
        other = "0" * 32 if op == "whole" else name
        reply = await node.ask("container", "REPLICATE", other, f"op={op}", body, {})
        assert reply.status == 400, op
    assert (await node.ask("container", "REPLICATE", "0" * 32, "op=sync", b'{"account":"a"}', {})).status == 404


async def test_over_http(tmp_path: Path) -> None:
    """The same between processes: rows, whole files, and replies, on the ports that nodes have for each other."""
    members = {name: Node(tmp_path, name, 6001 + number) for number, name in enumerate(("d1", "d2"))}
    servers, ports = [], {}
    for name, node in members.items():
        node.join(members)
        made: dict[Kind, StorageServer] = {"container": node.catalogue.containers, "account": node.catalogue.accounts}
        for kind in made:
            server, sock = Server(), bind("127.0.0.1", 0)
            await server.listen(StorageFace(kind, made, None).answer, sock)  # type: ignore[arg-type]
            servers.append(server)
            ports[name, kind] = sock.getsockname()[1]
    for node in members.values():
        node.nodes.ports = ports
    one, two = members.values()
    try:
        await one("PUT", "a")
        await one("PUT", "a/c", X_Container_Meta_Name="\u65e5\u672c")
        body = [
            {"name": f"{n:05d}/\u00e9", "created_at": f"1500000000.{n:05d}", "size": 1, "etag": "e"}
            for n in range(2500)
        ]
        await one("UPDATE", "a/c", "", msgspec.json.encode(body))
        await one.replicate()  # the files
        assert await two("HEAD", "a/c")
        assert await _told(one, "a/c") == await _told(two, "a/c")
        await asyncio.gather(*(one("DELETE", f"a/c/{n:05d}/\u00e9") for n in range(2400)))
        await two.put_object("a/c/new")
        await one.replicate()
        await two.replicate()
        assert await _told(one, "a/c") == await _told(two, "a/c")
        assert len(await two.names("a/c")) == 101
        assert await _told(one, "a") == await _told(two, "a")
    finally:
        for node in members.values():
            await node.close()
        for server in servers:
            await server.stop()
