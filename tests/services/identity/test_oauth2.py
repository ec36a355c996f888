"""OAuth 2.0: tokens for clients' credentials, and its own way to refuse."""

import base64
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.harness import Reply
from tests.services.identity.conftest import Identity

PATH = "/v3/OS-OAUTH2/token"
FORM = "application/x-www-form-urlencoded"


async def ask(cloud: Identity, *, basic: str | None = None, type: str = FORM, **fields: str) -> Reply:
    headers = {"Content-Type": type}
    if basic is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(basic.encode()).decode()}"
    return await cloud.http("POST", PATH, data=urlencode(fields), token="nobody", **headers)


def told(reply: Reply, status: int, error: str) -> dict[str, Any]:
    """The body of a refusal."""
    body: dict[str, Any] = reply.json()
    assert (reply.status, body["error"]) == (status, error) and body["error_description"]
    assert ("WWW-Authenticate" in reply.headers) is (status == 401)
    return body


async def test_grants_that_are_refused(identity: Identity) -> None:
    assert (
        told(await ask(identity), 400, "invalid_request")["error_description"]
        == "The parameter grant_type is required."
    )
    told(await ask(identity, type="application/json", grant_type="client_credentials"), 400, "invalid_request")
    for grant in ("", "password", "é" * 500):
        told(await ask(identity, grant_type=grant), 400, "unsupported_grant_type")


@pytest.mark.parametrize("basic", [None, ":", "id:", ":secret", "no colon", "none:secret", "é:\x00", "x" * 5000 + ":y"])
async def test_clients_that_are_refused(identity: Identity, basic: str | None) -> None:
    reply = await ask(identity, basic=basic, grant_type="client_credentials")
    told(reply, 401, "invalid_client")
    assert reply.headers["WWW-Authenticate"] == f'Keystone uri="{identity.http.url}/v3"'


@pytest.mark.parametrize("header", ["Basic", "Basic %", "Basic 8J+Y", "Basic é", "Digest username=x", "Bearer x"])
async def test_what_is_no_header_of_a_client(identity: Identity, header: str) -> None:
    headers = {"Content-Type": FORM, "Authorization": header}
    reply = await identity.http("POST", PATH, data="grant_type=client_credentials", token="nobody", **headers)
    told(reply, 401, "invalid_client")


async def test_what_is_no_text(identity: Identity) -> None:
    reply = await identity.http("POST", PATH, data=b"grant_type=\xff", token="nobody", **{"Content-Type": FORM})
    assert reply.status == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_other_methods_are_refused(identity: Identity, method: str) -> None:
    told(await identity.http(method, PATH, token="nobody"), 405, "other_error")
    assert (await identity.http("HEAD", PATH, token="nobody")).status == 405
