"""Fixtures for every test."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The whole program in this process, with simulated drivers; shared by all tests of the session."""
    from tests.cloud import InProcessCloud

    cloud = InProcessCloud(tmp_path_factory.mktemp("cloud") / "data")
    cloud.start()
    yield cloud
    cloud.stop()
