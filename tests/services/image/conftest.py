"""The image service alone on a free port."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cumulet.core.kernel import Kernel
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import Client, kernel, serve


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Kernel]:
    async with kernel(tmp_path) as parts:
        yield parts


@pytest.fixture
async def images(parts: Kernel) -> ImageRuntime:
    runtime = ImageRuntime(parts)
    await runtime.start()
    return runtime


@pytest.fixture
async def client(images: ImageRuntime) -> AsyncIterator[Client]:
    async with serve(SERVICE, images) as client:
        yield client
