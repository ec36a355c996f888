"""Fixtures for every test."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Whether a test passes must not depend on how busy the machine is.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The whole program in this process, with simulated drivers; shared by all tests of the session."""
    from tests.cloud import InProcessCloud

    cloud = InProcessCloud(tmp_path_factory.mktemp("cloud") / "data")
    cloud.start()
    yield cloud
    cloud.stop()
