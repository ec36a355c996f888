"""Property protections: who may do what with which custom property, by roles and by rules of policy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cumulet.config import SettingsError
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.property_protection import read_protections
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import Client, kernel, serve
from tests.services.image.test_image import PATCH, names, patch

ROLES = """
[x_none_.*]
create = @
read = @
update = !
delete =

[x_secret]
create = admin
read = admin
update = admin
delete = admin

[x_.*]
create = admin, member
read = @
update = admin
delete = admin,manager
"""


@asynccontextmanager
async def protected(tmp_path: Path, text: str, style: str = "roles") -> AsyncIterator[Client]:
    file = tmp_path / "protections.conf"
    file.write_text(text)
    settings: dict[str, Any] = {"image_property_protections": file, "image_property_protection_format": style}
    async with kernel(tmp_path, **settings) as parts:
        images = ImageRuntime(parts)
        await images.start()
        async with serve(SERVICE, images) as client:
            yield client


async def make(client: Client, status: int, token: str = "member", **properties: str) -> dict[str, Any]:
    reply = await client("POST", "/v2/images", {"name": "x", **properties}, token=token)
    assert reply.status == status, reply.data
    made: dict[str, Any] = reply.json()
    return made


async def test_roles(tmp_path: Path) -> None:
    async with protected(tmp_path, ROLES) as client:
        await make(client, 403, x_secret="s")
        await make(client, 403, unprotected="nobody's")
        image = await make(client, 201, x_a="1", x_none_b="2")
        assert image["x_a"] == "1"
        add = {"op": "add", "path": "/x_secret", "value": "s"}
        assert (await patch(client, image, add)).status == 403
        assert (await patch(client, image, add, token="admin")).status == 200
        for token, seen in (("admin", True), ("member", False)):
            assert ("x_secret" in (await client("GET", image["self"], token=token)).json()) is seen
            listed = (await client("GET", "/v2/images?owner=project-demo", token=token)).json()["images"]
            assert ("x_secret" in listed[0]) is seen
        assert await names(client, "x_secret=s") == [] and await names(client, "x_a=1") == ["x"]
        for change, token, status in (
            ({"op": "replace", "path": "/x_a", "value": "2"}, "member", 403),
            ({"op": "remove", "path": "/x_a"}, "member", 403),
            ({"op": "remove", "path": "/x_secret"}, "member", 409),  # to him there is none
            ({"op": "replace", "path": "/x_none_b", "value": "3"}, "admin", 403),
            ({"op": "remove", "path": "/x_none_b"}, "admin", 403),
            ({"op": "replace", "path": "/name", "value": "y"}, "member", 200),
            ({"op": "remove", "path": "/x_a"}, "manager", 200),
        ):
            assert (await patch(client, image, change, token=token)).status == status, (change, token)
        left = (await client("GET", image["self"], token="admin")).json()
        assert left["x_secret"] == "s" and left["name"] == "y" and "x_a" not in left, "what he cannot see stays"


async def test_policies(tmp_path: Path) -> None:
    text = "[x_.*]\ncreate = publicize_image\nread = @\nupdate = modify_image\ndelete = !\n"
    async with protected(tmp_path, text, "policies") as client:
        await make(client, 403, x_a="1")
        image = await make(client, 201, token="admin", x_a="1")
        change = [{"op": "replace", "path": "/x_a", "value": "2"}]
        assert (await client("PATCH", image["self"], change, token="admin", Content_Type=PATCH)).json()["x_a"] == "2"
        change = [{"op": "remove", "path": "/x_a"}]
        assert (await client("PATCH", image["self"], change, token="admin", Content_Type=PATCH)).status == 403


@pytest.mark.parametrize(
    ("text", "style", "words"),
    [
        ("[a]\ncreate = @\nread = @\nupdate = @", "roles", "`delete` is missing"), ("nonsense", "roles", "cannot read"),
        ("[a(]\ncreate=@\nread=@\nupdate=@\ndelete=@", "roles", "regular expression"),
        ("[a]\ncreate=@,!\nread=@\nupdate=@\ndelete=@", "roles", "both @ and !"),
        ("[a]\ncreate=x,y\nread=@\nupdate=@\ndelete=@", "policies", "several"),
        ("[a]\ncreate=x\nread=@\nupdate=@\ndelete=@", "policies", "no policy rule x"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, text: str, style: Any, words: str) -> None:
    file = tmp_path / "protections.conf"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_protections(file, style, frozenset({"modify_image"}))
