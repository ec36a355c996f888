"""No body that a client can think of gets a 500: hypothesis makes them from each declaration, the whole cloud answers."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cumulet import program
from cumulet.api.http import Endpoint
from cumulet.api.resource import ANY, ResourceMeta, Version, body_type
from cumulet.api.service import Service
from cumulet.api.version import text
from tests.authz.scene import PLACES, Scene
from tests.fuzz.bodies import body_of, encode

EXAMPLES = 25


def targets() -> Iterator[tuple[Service, Endpoint]]:
    for service in program.SERVICES:
        for endpoint in service.endpoints:
            again = service.type == "compute" and endpoint.path.startswith("/v2/")
            if endpoint.method in ("POST", "PUT", "PATCH") and not again:
                yield service, endpoint


def label(target: tuple[Service, Endpoint]) -> str:
    service, endpoint = target
    return f"{service.type} {endpoint.method} {endpoint.path} {endpoint.action}".strip()


def newest(service: Service, endpoint: Endpoint) -> Version:
    """The newest version that has the call; ANY where there are no versions."""
    if service.microversions is None or endpoint.path.startswith("/v2/"):
        return ANY
    return min(endpoint.until, service.microversions.high)


def path_of(endpoint: Endpoint, scene: Scene, chosen: list[str]) -> str:
    """The path with ids of things of the kind it is about; with any others, if some are `chosen`."""
    names = iter(chosen)
    made = ["/"]
    for before, here in pairwise(endpoint.path.split("/")):
        if not here.startswith("{"):
            made.append(here)
        else:
            made.append(next(names, None) or (scene.place(before) if before in PLACES else scene.demo))
    return "/".join(made).replace("//", "/")


def strategy(endpoint: Endpoint, version: Version, ids: list[str]) -> st.SearchStrategy[object]:
    if isinstance(endpoint.body, ResourceMeta):
        return body_of(body_type(endpoint.body, endpoint.mode, version), ids)
    if endpoint.body is None and isinstance(endpoint.resource, ResourceMeta):
        return body_of(body_type(endpoint.resource, "create", version), ids)
    inner = body_of(object if endpoint.body is None else endpoint.body, ids)
    return st.fixed_dictionaries({endpoint.action: inner}) if endpoint.action else inner


@pytest.mark.parametrize("target", list(targets()), ids=label)
def test_no_body_gets_a_500(target: tuple[Service, Endpoint], scene: Scene) -> None:
    service, endpoint = target
    version = newest(service, endpoint)
    ids = scene.ids()
    headers = {"Content-Type": "application/json"}
    if service.microversions is not None and version != ANY:
        headers["OpenStack-API-Version"] = f"{service.microversions.service} {text(version)}"
    oldest = strategy(endpoint, endpoint.since, ids).map(lambda body: (body, False))
    latest = strategy(endpoint, version, ids).map(lambda body: (body, True))
    others = st.lists(st.sampled_from(ids), min_size=4, max_size=4)

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(sent=oldest | latest, chosen=st.just([]) | st.just([]) | others)
    def send(sent: tuple[object, bool], chosen: list[str]) -> None:
        body, new = sent
        if endpoint.since > ANY and not new:
            new = version != ANY
        path = path_of(endpoint, scene, chosen)
        more = headers if new else {"Content-Type": "application/json"}
        reply = scene.cloud.request(endpoint.method, service.ports[0], path, data=encode(body), headers=more)
        assert reply.status_code not in (500, 502, 504), f"{reply.status_code} {reply.text[:300]}"

    send()
