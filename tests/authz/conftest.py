"""A cloud of its own for each module: the calls change what other tests count on."""

from collections.abc import Iterator

import pytest

from tests.authz.scene import Scene
from tests.cloud import InProcessCloud


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    cloud = InProcessCloud(tmp_path_factory.mktemp("authz") / "data", image_stores="file,second", image_cache=1)
    cloud.start()
    yield Scene(cloud)
    cloud.stop()
