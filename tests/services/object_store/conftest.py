"""Object storage for tests of its features."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.object_store.stores import Store, object_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with object_store(tmp_path) as store:
        yield store
