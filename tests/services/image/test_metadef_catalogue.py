"""Metadata definitions from an operator's files, and the schemas that clients read."""

import json
from pathlib import Path
from typing import Any

import pytest

from cumulet.config import SettingsError
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import Client, kernel, serve
from tests.services.image.test_metadef import WHOLE

PATH = "/v2/metadefs/namespaces"


async def test_files_are_loaded_once(tmp_path: Path) -> None:
    files = tmp_path / "metadefs"
    files.mkdir()
    exported = {"self": "x", "created_at": "2026-01-31T09:15:00Z", "protected": True}
    (files / "a.json").write_text(json.dumps({"namespace": "blue", **WHOLE, **exported}))
    (files / "b.json").write_text(json.dumps({"namespace": "red", "visibility": "public", "owner": "project-demo"}))
    (files / "README").write_text("no JSON")
    async with kernel(tmp_path, image_metadefs=files) as parts:
        for _start in range(2):
            images = ImageRuntime(parts)
            await images.start()
            async with serve(SERVICE, images) as client:
                listed = (await client("GET", f"{PATH}?sort_key=namespace&sort_dir=asc")).json()["namespaces"]
                assert [(n["namespace"], n["owner"], n["protected"]) for n in listed] == [
                    ("blue", "admin" if not _start else "project-demo", True), ("red", "project-demo", False),
                ]  # fmt: skip
                blue = (await client("GET", f"{PATH}/blue")).json()
                assert blue["properties"] == WHOLE["properties"] and blue["tags"] == WHOLE["tags"]
                changed = {"namespace": "blue", "visibility": "public", "protected": True, "owner": "project-demo"}
                assert (await client("PUT", f"{PATH}/blue", changed, token="admin")).status == 200, "and stays changed"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"namespace": 5}', '{"namespace": "a", "tags": [{"name": "b"}, {"name": "b"}]}']
)
async def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "wrong.json").write_text(text)
    async with kernel(tmp_path, image_metadefs=tmp_path) as parts:
        with pytest.raises(SettingsError, match=r"wrong\.json"):
            await ImageRuntime(parts).start()


SINGLE = {"namespace": "namespaces", "object": "objects", "property": "properties", "tag": "tags"}


async def test_schemas(client: Client) -> None:
    async def schema(name: str) -> dict[str, Any]:
        reply = await client("GET", f"/v2/schemas/{name}", token="reader")
        assert reply.status == 200, reply.data
        found: dict[str, Any] = reply.json()
        return found

    for one, many in {"image": "images", "member": "members", "task": "tasks"}.items():
        single, collection = await schema(one), await schema(many)
        assert (single["name"], collection["name"]) == (one, many)
        assert collection["properties"][many]["items"]["properties"].items() <= single["properties"].items()
    for one, many in SINGLE.items():
        single, collection = await schema(f"metadefs/{one}"), await schema(f"metadefs/{many}")
        assert (single["name"], collection["name"]) == (one, many)
        assert {*single["required"]} <= {*single["properties"]} and single["additionalProperties"] is False
    assert (await schema("metadefs/resource_type"))["name"] == "resource_type_association"
    assert (await schema("metadefs/resource_types"))["name"] == "resource_type_associations"
    image = (await schema("image"))["properties"]
    assert image["disk_format"]["enum"][0] is None and image["disk_format"]["type"] == ["null", "string"]
    assert image["id"]["type"] == "string" and image["size"]["readOnly"] and image["visibility"]["type"] == "string"
    for name in ("cat", "metadefs/cat"):
        assert (await client("GET", f"/v2/schemas/{name}")).status == 404
    assert (await client("GET", "/v2/schemas/image", token="nobody")).status == 401
