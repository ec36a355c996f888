"""Callers whose tokens are not a project's: images are projects' alone, whatever roles the system or a domain gives."""

from collections.abc import AsyncIterator

import pytest

from cumulet.core.context import Caller
from cumulet.services.image.declaration import REGISTRY, SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import ROLES, Client, serve
from tests.harness import authenticate as usual

WHOLE = frozenset(ROLES)
OUTSIDE = {
    "system": Caller(user_id="u", system=True, roles=WHOLE),
    "domain": Caller(user_id="u", domain_id="default", roles=WHOLE),
}


async def authenticate(token: str, *, allow_expired: bool = False) -> Caller:
    return OUTSIDE.get(token) or await usual(token)


@pytest.fixture
async def client(images: ImageRuntime) -> AsyncIterator[Client]:
    async with serve(SERVICE, images, authenticate=authenticate) as client:
        yield client


@pytest.mark.parametrize("token", OUTSIDE)
async def test_of_the_system_or_a_domain(client: Client, images: ImageRuntime, token: str) -> None:
    made = {"name": "x", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    image = (await client("POST", "/v2/images", made, token="admin")).json()["self"]
    assert (
        await client("PUT", f"{image}/file", data=b"x", token="admin", Content_Type="application/octet-stream")
    ).status == 204
    space = "/v2/metadefs/namespaces"
    body = {"namespace": "blue", "visibility": "public"}
    assert (await client("POST", space, body, token="admin")).status == 201
    patch = "application/openstack-images-v2.1-json-patch"
    for method, path, sent, status in (
        ("GET", "/v2/images", None, 403), ("POST", "/v2/images", {"name": "x"}, 403), ("GET", image, None, 404),
        ("DELETE", image, None, 404), ("PUT", f"{image}/tags/x", None, 404), ("GET", f"{image}/file", None, 404),
        ("POST", f"{image}/actions/deactivate", None, 404), ("GET", f"{image}/members", None, 404),
        ("POST", f"{image}/members", {"member": "p"}, 404), ("GET", f"{image}/locations", None, 404),
        ("GET", "/v2/info/usage", None, 403), ("GET", "/v2/schemas/image", None, 200), ("GET", "/v2/info/import", None, 200),
        ("GET", space, None, 403), ("POST", space, {"namespace": "x"}, 403), ("GET", f"{space}/blue", None, 404),
        ("DELETE", f"{space}/blue", None, 404), ("GET", f"{space}/blue/tags", None, 404),
        ("GET", "/v2/metadefs/resource_types", None, 403),
    ):  # fmt: skip
        reply = await client(method, path, sent, token=token)
        assert reply.status == status, (method, path, reply.data)
    change = [{"op": "replace", "path": "/name", "value": "y"}]
    assert (await client("PATCH", image, change, token=token, Content_Type=patch)).status == 404
    async with serve(REGISTRY, images, others=[SERVICE], authenticate=authenticate) as registry:
        assert (await registry("GET", "/v1/images", token=token)).status == 403
        assert (await registry("GET", image.replace("v2", "v1"), token=token)).status == 403
