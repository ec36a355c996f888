"""What calls of images may cost: SQL statements, however many images there are."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.core.kernel import Kernel
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.budget.spent import spending
from tests.harness import Client, kernel, serve

PATCH = "application/openstack-images-v2.1-json-patch"


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Kernel]:
    async with kernel(tmp_path, image_locations=True) as parts:
        yield parts


@pytest.fixture
async def client(parts: Kernel) -> AsyncIterator[Client]:
    images = ImageRuntime(parts)
    await images.start()
    async with serve(SERVICE, images) as client:
        yield client


@pytest.fixture
async def image(client: Client) -> dict[str, Any]:
    for number in range(30):
        body = {"name": f"i{number}", "tags": ["a", "b"], "color": "red", "min_ram": number}
        made: dict[str, Any] = (await client("POST", "/v2/images", body)).json()
    return made


async def test_showing(parts: Kernel, client: Client, image: dict[str, Any]) -> None:
    async with spending(parts.db) as spent:
        assert (await client("GET", image["self"])).status == 200
    assert len(spent.statements) == 1, str(spent)


@pytest.mark.parametrize(
    "query", ["", "?limit=5", "?tag=a&color=red", "?sort=name:asc,created_at:desc", "?visibility=all"]
)
async def test_listing(parts: Kernel, client: Client, image: dict[str, Any], query: str) -> None:
    async with spending(parts.db) as spent:
        reply = await client("GET", f"/v2/images{query}")
    assert reply.json()["images"] and len(spent.statements) == 1, str(spent)


async def test_the_next_page(parts: Kernel, client: Client, image: dict[str, Any]) -> None:
    async with spending(parts.db) as spent:
        reply = await client("GET", f"/v2/images?limit=5&marker={image['id']}")
    assert len(reply.json()["images"]) == 5 and len(spent.statements) == 2, str(spent)


async def test_changing(parts: Kernel, client: Client, image: dict[str, Any]) -> None:
    change = [{"op": "replace", "path": "/name", "value": "y"}, {"op": "add", "path": "/more", "value": "x"}]
    async with spending(parts.db) as spent:
        assert (await client("PATCH", image["self"], change, Content_Type=PATCH)).status == 200
    assert len([s for s in spent.statements if not s.startswith(("SAVEPOINT", "RELEASE"))]) <= 5, str(spent)


async def test_namespaces_are_listed_and_shown_at_a_fixed_cost(parts: Kernel, client: Client) -> None:
    path = "/v2/metadefs/namespaces"
    for number in range(10):
        body = {
            "namespace": f"n{number}", "visibility": "public", "resource_type_associations": [{"name": f"t{number}"}],
            "properties": {f"p{n}": {"title": "P", "type": "string"} for n in range(20)},
            "objects": [{"name": f"o{n}"} for n in range(20)], "tags": [{"name": f"t{n}"} for n in range(20)],
        }  # fmt: skip
        assert (await client("POST", path, body, token="admin")).status == 201
    async with spending(parts.db) as spent:
        assert len((await client("GET", path)).json()["namespaces"]) == 10
    assert len(spent.statements) == 2, str(spent)
    async with spending(parts.db) as spent:
        assert len((await client("GET", f"{path}/n5")).json()["objects"]) == 20
    assert len(spent.statements) == 5, str(spent)
