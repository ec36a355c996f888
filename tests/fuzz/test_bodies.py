"""No body that a client can think of gets a 500: hypothesis makes them from each declaration, the whole cloud answers."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cumulet import program
from cumulet.api.http import Endpoint
from cumulet.api.resource import ResourceMeta, body_type
from cumulet.api.service import Service
from tests.cloud import InProcessCloud
from tests.fuzz.bodies import body_of, encode

EXAMPLES = 25


def targets() -> Iterator[tuple[Service, Endpoint]]:
    for service in program.SERVICES:
        for endpoint in service.endpoints:
            if endpoint.method in ("POST", "PUT", "PATCH"):
                yield service, endpoint


def label(target: tuple[Service, Endpoint]) -> str:
    service, endpoint = target
    return f"{service.type} {endpoint.method} {endpoint.path} {endpoint.action}".strip()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessCloud]:
    """A cloud of its own: what the bodies do to it must not meet other tests."""
    cloud = InProcessCloud(tmp_path_factory.mktemp("fuzz") / "data")
    cloud.start()
    yield cloud
    assert cloud.request("GET", "identity", "/v3/users").status_code == 200, "the admin was locked out on the way"
    cloud.stop()


@pytest.fixture(scope="module")
def ids(cloud: InProcessCloud) -> list[str]:
    """Ids of what a new cloud holds (but for the admin's own, or the test would lock itself out), and some of nothing."""
    connection: Any = cloud.connect()
    found = [n.id for n in connection.network.networks()] + [s.id for s in connection.network.subnets()]
    found += [f.id for f in connection.compute.flavors()] + [
        thing.id
        for collection in (connection.identity.projects, connection.identity.users, connection.identity.roles)
        for thing in collection()
        if thing.name != "admin"
    ]
    found.append(connection.network.create_network(name="fuzz").id)
    found.append(connection.network.create_security_group(name="fuzz").id)
    return [*found, "00000000-0000-4000-8000-000000000000", "default"]


def strategy(endpoint: Endpoint, ids: list[str]) -> st.SearchStrategy[object]:
    if isinstance(endpoint.body, ResourceMeta):
        return body_of(body_type(endpoint.body, endpoint.mode, endpoint.since), ids)
    if endpoint.body is None and isinstance(endpoint.resource, ResourceMeta):
        return body_of(body_type(endpoint.resource, "create", endpoint.since), ids)
    inner = body_of(object if endpoint.body is None else endpoint.body, ids)
    return st.fixed_dictionaries({endpoint.action: inner}) if endpoint.action else inner


@pytest.mark.parametrize("target", list(targets()), ids=label)
def test_no_body_gets_a_500(target: tuple[Service, Endpoint], cloud: InProcessCloud, ids: list[str]) -> None:
    service, endpoint = target

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(body=strategy(endpoint, ids), chosen=st.lists(st.sampled_from(ids), min_size=4, max_size=4))
    def send(body: object, chosen: list[str]) -> None:
        names = iter(chosen)
        path = re.sub(r"\{[^}]*\}", lambda _: next(names), endpoint.path)
        reply = cloud.request(
            endpoint.method, service.ports[0], path, data=encode(body), headers={"Content-Type": "application/json"}
        )
        assert reply.status_code not in (500, 502, 504), f"{reply.status_code} {reply.text[:300]}"

    send()
