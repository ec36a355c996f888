"""A cloud of its own for each module: what is sent here must not meet other tests."""

from collections.abc import Iterator

import pytest

from tests.authz.scene import KINDS, Scene
from tests.cloud import InProcessCloud


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """People, and a thing of every kind."""
    cloud = InProcessCloud(tmp_path_factory.mktemp("fuzz") / "data")
    cloud.start()
    scene = Scene(cloud)
    for kind in KINDS:
        scene[kind]
    yield scene
    assert cloud.request("GET", "identity", "/v3/users").status_code == 200, "the admin was locked out on the way"
    cloud.stop()
