"""Limits of a project's images, and what it is told of them."""

from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from typing import Any, cast

import pytest

from cumulet.core.kernel import Kernel
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import Client, serve


class Set:
    """Limits that a test sets."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, int]] = {}

    async def limits(self, service_type: str, project_id: str) -> Mapping[str, int]:
        assert service_type == "image"
        return self.of.get(project_id, {})


@pytest.fixture
def limits() -> Set:
    return Set()


@pytest.fixture
async def client(parts: Kernel, limits: Set) -> AsyncIterator[Client]:
    images = ImageRuntime(parts, cast(Any, limits))
    await images.start()
    async with serve(SERVICE, images) as client:
        yield client


async def test_how_many_images(client: Client, limits: Set) -> None:
    limits.of["project-demo"] = {"image_count_total": 2}
    for status in (201, 201, 413):
        reply = await client("POST", "/v2/images", {"name": "x"})
        assert reply.status == status, reply.data
    assert "image_count_total" in reply.json()["message"]
    assert (await client("POST", "/v2/images", {"name": "x"}, token="other")).status == 201
    limits.of["project-demo"] = {"image_count_total": -1}
    assert (await client("POST", "/v2/images", {"name": "x"})).status == 201


async def test_usage(client: Client, limits: Set) -> None:
    limits.of["project-demo"] = {"image_size_total": 10, "image_count_total": 5}
    for size in (3 << 20, 1 << 19):
        image = (
            await client("POST", "/v2/images", {"name": "x", "disk_format": "raw", "container_format": "bare"})
        ).json()
        reply = await client("PUT", image["file"], data=BytesIO(bytes(size)), Content_Type="application/octet-stream")
        assert reply.status == 204, reply.data
    usage = (await client("GET", "/v2/info/usage", token="reader")).json()["usage"]
    assert usage == {
        "image_size_total": {"usage": 3, "limit": 10},
        "image_stage_total": {"usage": 0, "limit": -1},
        "image_count_total": {"usage": 2, "limit": 5},
        "image_count_uploading": {"usage": 0, "limit": -1},
    }
    assert (await client("GET", "/v2/info/usage", token="other")).json()["usage"]["image_count_total"]["usage"] == 0
    assert (await client("GET", "/v2/info/usage", token="nobody")).status == 401


async def test_how_much_data(client: Client, limits: Set) -> None:
    async def upload(size: int) -> int:
        image = (
            await client("POST", "/v2/images", {"name": "x", "disk_format": "raw", "container_format": "bare"})
        ).json()
        reply = await client("PUT", image["file"], data=BytesIO(bytes(size)), Content_Type="application/octet-stream")
        if reply.status != 204:
            assert "image_" in reply.json()["message"]
            assert (await client("GET", image["self"])).json()["status"] == "queued"
        return reply.status

    limits.of["project-demo"] = {"image_size_total": 1}
    assert await upload(3 << 20) == 204, "what is there is what counts, as with upstream"
    assert await upload(1) == 413
    limits.of["project-demo"] = {"image_count_uploading": 0}
    assert await upload(1) == 413
    limits.of["project-demo"] = {"image_size_total": 3, "image_count_uploading": 1}
    assert await upload(1) == 204


@pytest.mark.parametrize("kind", ["tags", "properties"])
async def test_how_many_tags_and_properties(client: Client, kind: str) -> None:
    def body(count: int) -> dict[str, object]:
        return {"tags": [f"t{n}" for n in range(count)]} if kind == "tags" else {f"p{n}": "x" for n in range(count)}

    assert (await client("POST", "/v2/images", body(129))).status == 413
    image = (await client("POST", "/v2/images", body(128))).json()
    patch = "application/openstack-images-v2.1-json-patch"
    change: dict[str, object] = {"op": "add", "path": "/more", "value": "x"}
    if kind == "tags":
        change = {"op": "replace", "path": "/tags", "value": body(129)["tags"]}
        assert (await client("PUT", f"{image['self']}/tags/more")).status == 413
        assert (await client("PUT", f"{image['self']}/tags/t1")).status == 204
    assert (await client("PATCH", image["self"], [change], Content_Type=patch)).status == 413


async def test_how_many_members(client: Client) -> None:
    image = (await client("POST", "/v2/images", {"name": "x"})).json()
    for number in range(128):
        reply = await client("POST", f"{image['self']}/members", {"member": f"p{number}"})
        assert reply.status == 200, reply.data
    assert (await client("POST", f"{image['self']}/members", {"member": "more"})).status == 413
