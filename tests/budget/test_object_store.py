"""What requests for small objects may cost the event loop: Python calls of our own."""

import pytest

from cumulet.services.object_store.storage import hot
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
