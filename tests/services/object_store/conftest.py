"""Object storage for tests of its features."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cumulet.services.object_store.storage import hot
from tests.services.object_store.stores import Store, object_store


@pytest.fixture(autouse=True)
def _read_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is got is what the files hold, not what is remembered of writing them (that is `test_hot.py`'s)."""
    monkeypatch.setattr(hot, "WRITTEN", -1.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with object_store(tmp_path) as store:
        yield store
