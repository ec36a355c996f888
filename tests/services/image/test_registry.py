"""The registry's port: what an administrator who still looks there is told."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cumulet.core.types import new_id
from cumulet.services.image.declaration import REGISTRY, SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import Client, serve


@pytest.fixture
async def registry(images: ImageRuntime) -> AsyncIterator[Client]:
    async with serve(REGISTRY, images, others=[SERVICE]) as client:
        yield client


async def make(client: Client, **body: Any) -> str:
    made = {"name": "x", "disk_format": "raw", "container_format": "bare", **body}
    reply = await client("POST", "/v2/images", made, token="admin")
    assert reply.status == 201, reply.data
    return str(reply.json()["id"])


async def test_the_version_is_told_to_anybody(registry: Client) -> None:
    for path in ("/", "/versions"):
        (version,) = (await registry("GET", path, token="nobody")).json()["versions"]
        assert version["id"] == "v1.0" and version["links"][0]["href"] == f"{registry.url}/v1/"


@pytest.mark.parametrize("base", ["", "/v1"])
async def test_images_are_listed_and_shown(client: Client, registry: Client, base: str) -> None:
    one = await make(client, name="one", visibility="public", color="red")
    two = await make(client, name="two", visibility="private", protected=True)
    await make(client, name="three", os_hidden=True)

    async def names(query: str) -> list[str]:
        reply = await registry("GET", f"{base}/images?{query}", token="admin")
        assert reply.status == 200, reply.data
        return [image["name"] for image in reply.json()["images"]]

    for query, wanted in {
        "": ["two", "one"], "sort_key=name&sort_dir=asc": ["one", "two"], "is_public=true": ["one"], "is_public=0": ["two"],
        "is_public=None": ["two", "one"], "property-color=red": ["one"], "protected=true": ["two"], "name=one": ["one"],
        "limit=1": ["two"], f"marker={two}": ["one"], "size_min=1": [],
    }.items():  # fmt: skip
        assert await names(query) == wanted, query
    brief = (await registry("GET", f"{base}/images?name=one", token="admin")).json()["images"]
    assert brief == [
        {"id": one, "name": "one", "disk_format": "raw", "container_format": "bare", "size": None, "checksum": None}
    ]
    (detail,) = (await registry("GET", f"{base}/images/detail?name=one", token="admin")).json()["images"]
    shown = (await registry("GET", f"{base}/images/{one}", token="admin")).json()["image"]
    assert detail == shown and shown["is_public"] is True and shown["properties"] == {"color": "red"}
    assert shown["owner"] == "project-admin" and shown["deleted"] is False
    for query in ("is_public=x", "sort_key=x", "sort_dir=up&sort_key=name", "limit=x", f"marker={new_id()}"):
        assert (await registry("GET", f"{base}/images?{query}", token="admin")).status == 400, query
    assert (await registry("GET", f"{base}/images/{new_id()}", token="admin")).status == 404


async def test_only_administrators_look_and_nobody_writes(client: Client, registry: Client) -> None:
    image = await make(client, visibility="public")
    paths = ("/v1/images", "/v1/images/detail", f"/v1/images/{image}", "/images")
    for token, status in (("manager", 403), ("member", 403), ("reader", 403), ("other", 403), ("nobody", 401)):
        for path in paths:
            assert (await registry("GET", path, token=token)).status == status, (token, path)
    for method, path in (
        ("POST", "/v1/images"), ("PUT", f"/v1/images/{image}"), ("DELETE", f"/v1/images/{image}"),
        ("DELETE", f"/images/{image}"),
        ("PUT", f"/v1/images/{image}/members"), ("DELETE", f"/v1/images/{image}/members/x"),
    ):  # fmt: skip
        reply = await registry(method, path, {}, token="admin")
        assert reply.status == 410 and "version 2" in reply.json()["message"], (method, path)
    assert (await client("GET", f"/v2/images/{image}", token="admin")).status == 200
