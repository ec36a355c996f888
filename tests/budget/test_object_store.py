"""What requests for small objects may cost the event loop: Python calls of our own; and what listings ask of SQLite."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from cumulet.services.object_store.storage import database, hot
from tests.budget.spent import spending
from tests.services.object_store.conftest import store
from tests.services.object_store.stores import Store

__all__ = ["store"]

DATA = b"x" * 4096


@pytest.fixture
async def kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """With an object that has been read once, so that it is in memory."""
    monkeypatch.setattr(hot, "QUIET", 0)
    await store.put("c")
    await store.put("c/o", DATA)
    assert await store.get("c/o") == DATA
    return store


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_reading_an_object_from_memory(kept: Store, method: str) -> None:
    async with spending() as spent:
        reply = await kept(method, "c/o")
    assert reply.status == 200
    assert reply.data == (DATA if method == "GET" else b"")
    assert spent.calls["/services/object_store/storage/object_file.py:read"] == 0
    assert spent.calls.total() <= 120, str(spent)


async def test_writing_an_object(kept: Store) -> None:
    async with spending() as spent:
        reply = await kept("PUT", "c/o", DATA)
    assert reply.status == 201
    assert spent.calls.total() <= 300, str(spent)


async def test_deleting_an_object(kept: Store) -> None:
    async with spending() as spent:
        reply = await kept("DELETE", "c/o")
    assert reply.status == 204
    assert spent.calls.total() <= 230, str(spent)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What SQLite is asked to do."""
    asked: list[str] = []
    connect = database._connect

    def traced(path: Path) -> sqlite3.Connection:
        conn = connect(path)
        conn.set_trace_callback(asked.append)
        return conn

    monkeypatch.setattr(database, "_connect", traced)
    return asked


@pytest.mark.parametrize("query", ["delimiter=/", "delimiter=/&reverse=true", "delimiter=/&limit=30", "path="])
async def test_listing_folders(store: Store, statements: list[str], query: str) -> None:
    """One statement, and one more for the names behind the last folder."""
    await store.put("c")
    await asyncio.gather(*(store.put(f"c/{n:03d}/{m}") for n in range(40) for m in range(2)))
    await asyncio.gather(*(store.put(f"c/{n:03d}") for n in range(0, 40, 4)))
    statements.clear()
    reply = await store("GET", f"c?{query}")
    assert len(reply.data.split()) == {"delimiter=/&limit=30": 30, "path=": 10}.get(query, 50)
    asked = [text for text in statements if "FROM object" in text]
    assert 1 <= len(asked) <= 2, asked
