"""Every call of every service: what nobody, and somebody with a wrong token, is told."""

import re

import pytest

from cumulet import program
from cumulet.api.http import Endpoint
from cumulet.api.service import Service
from tests.cloud import InProcessCloud

CALLS = [(service, endpoint) for service in program.SERVICES for endpoint in service.endpoints]


def label(call: tuple[Service, Endpoint]) -> str:
    service, endpoint = call
    return f"{service.type} {endpoint.method} {endpoint.path} {endpoint.action}".strip()


def ask(cloud: InProcessCloud, service: Service, endpoint: Endpoint, token: str | None) -> int:
    path = re.sub(r"\{[^}]*\}", "00000000-0000-4000-8000-000000000000", endpoint.path)
    body: object = (
        {endpoint.action: {}} if endpoint.action else {} if endpoint.method in ("POST", "PUT", "PATCH") else None
    )
    return cloud.request(endpoint.method, service.ports[0], path, body, token=token).status_code


@pytest.mark.parametrize("call", CALLS, ids=label)
def test_nobody_gets_in(call: tuple[Service, Endpoint], cloud: InProcessCloud) -> None:
    service, endpoint = call
    if endpoint.auth:
        assert ask(cloud, service, endpoint, None) == 401
        assert ask(cloud, service, endpoint, "gAAAAA-not-a-token") == 401
    else:
        assert ask(cloud, service, endpoint, None) < 500
