"""Images in this cloud's object storage: uploaded, imported, copied, cached, booted from and deleted there."""

import io
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cumulet.config import Settings, SettingsError
from cumulet.core.errors import Invalid
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from cumulet.services.image.stores import Stores
from cumulet.services.object_store.message import Response, refuse
from cumulet.services.object_store.runtime import ObjectStoreRuntime
from tests.cloud import InProcessCloud
from tests.harness import kernel, serve
from tests.services.image.test_cache import Cached
from tests.services.image.test_image_data import make, put, show
from tests.services.object_store.stores import Identity

DATA = os.urandom(2_500_000)


class Site(Cached):
    async def kept(self, store: str = "object-store") -> tuple[list[str], int]:
        """The images in object storage, and how many segments."""
        area = self.images.stores.own[store]._area  # type: ignore[attr-defined]
        names = [name async for name in area.names(f"images-{store}")]
        return names, len([name async for name in area.names(f"images-{store}+segments")])


@asynccontextmanager
async def life(directory: Path, **settings: Any) -> AsyncIterator[Site]:
    settings = {"image_stores": "file,object-store", "image_segment_size": 1, **settings}
    async with kernel(directory, **settings) as parts:
        objects = ObjectStoreRuntime(parts, Identity())  # type: ignore[arg-type]
        await objects.start()
        images = ImageRuntime(parts, objects=objects)
        await images.start()
        await parts.operations.start()
        try:
            async with serve(SERVICE, images) as client:
                yield Site(client, images, "")
        finally:
            await objects.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with life(tmp_path) as site:
        yield site


async def uploaded(site: Site, data: bytes = DATA, store: str = "object-store") -> dict[str, Any]:
    image = await make(site.client)
    reply = await site.client(
        "PUT", image["file"], data=io.BytesIO(data), Content_Type="application/octet-stream", X_Image_Meta_Store=store
    )
    assert reply.status == 204, reply.data
    return await show(site.client, image)


async def test_upload_download_and_delete(site: Site) -> None:
    image = await uploaded(site)
    assert (image["status"], image["stores"], image["size"]) == ("active", "object-store", len(DATA))
    assert "locations" not in image and "direct_url" not in image
    assert await site.kept() == ([image["id"]], 3)
    assert await site.data(image) == DATA
    for told, part in (("5-9", slice(5, 10)), ("1048570-1048580", slice(1048570, 1048581)), ("-7", slice(-7, None))):
        reply = await site.client("GET", image["file"], Range=f"bytes={told}")
        assert (reply.status, reply.data) == (206, DATA[part])
    assert (await site.client("GET", image["file"], Range=f"bytes={len(DATA)}-")).status == 416
    small = await uploaded(site, b"x" * 10)
    assert await site.data(small) == b"x" * 10
    assert (await site.client("DELETE", image["self"])).status == 204
    assert await site.kept() == ([small["id"]], 0)
    await site.tidy()


async def test_what_is_told(site: Site) -> None:
    told = (await site.client("GET", "/v2/info/stores")).json()["stores"]
    assert told == [{"id": "file", "default": "true"}, {"id": "object-store"}]
    (_, detail) = (await site.client("GET", "/v2/info/stores/detail", token="admin")).json()["stores"]
    assert (detail["type"], detail["properties"]["container"]) == ("swift", "images-object-store")
    assert detail["properties"]["large_object_size"] == 1


async def test_locations_are_shown_if_the_setting_says_so(tmp_path: Path) -> None:
    async with life(tmp_path, image_locations=True) as site:
        image = await uploaded(site)
        url = f"swift+config://object-store/images-object-store/{image['id']}"
        assert image["locations"] == [{"url": url, "metadata": {"store": "object-store"}}]


async def test_imported_to_both_and_deleted_from_one(site: Site) -> None:
    image = await make(site.client)
    await site.stage(image)
    shown, task = await site.imported(image, "glance-direct", all_stores=True)
    assert (shown["status"], shown["stores"], task["status"]) == ("active", "file,object-store", "success")
    data = await site.data(image)
    reply = await site.client("GET", f"{image['file']}?prefer=object-store", token="admin")
    assert reply.data == data and (await site.kept())[0] == [image["id"]]
    assert (await site.client("DELETE", f"/v2/stores/file/{image['id']}", token="admin")).status == 204
    assert (await show(site.client, image))["stores"] == "object-store" and await site.data(image) == data
    shown, _ = await site.imported(image, "copy-image", token="admin", stores=["file"])
    assert shown["stores"] == "object-store,file"
    assert (await site.client("DELETE", f"/v2/stores/object-store/{image['id']}", token="admin")).status == 204
    assert await site.kept() == ([], 0) and await site.data(image) == data
    await site.tidy(image)


async def test_the_cache_and_a_local_copy(tmp_path: Path) -> None:
    async with life(tmp_path, image_cache=1) as site:
        image, other = await uploaded(site), await uploaded(site, DATA[::-1])
        assert await site.data(image) == DATA
        await site.entries()
        assert await site.queue(other) == 202 and len(await site.entries(2)) == 2
        assert await site.data(image) == DATA and await site.data(other) == DATA[::-1]
        assert site.files() == {image["id"], other["id"]}
        path = await site.images.path(image["id"])
        assert path.read_bytes() == DATA and await site.images.path(image["id"]) == path
        await site.images.local.prune()
        assert path.exists(), "just asked for"
        os.utime(path, (0, 0))
        (tmp_path / "base").hardlink_to(path)
        await site.images.local.prune()
        assert path.exists(), "a disk is made of it"
        (tmp_path / "base").unlink()
        os.utime(path, (0, 0))
        await site.images.local.prune()
        assert not path.exists()
        assert (await site.images.path(image["id"])).read_bytes() == DATA
        (path.parent / f"{image['id']}.half").write_bytes(b"x")
    async with life(tmp_path, image_cache=1) as site:
        assert path.exists() and not (path.parent / f"{image['id']}.half").exists()
        assert (await site.client("DELETE", image["self"])).status == 204
        assert not path.exists() and await site.data(other) == DATA[::-1]


async def test_a_restart_removes_what_nobody_owns(tmp_path: Path) -> None:
    async with life(tmp_path) as site:
        image = await uploaded(site)
        store = site.images.stores.own["object-store"]
        file = tmp_path / "more"
        file.write_bytes(DATA)
        await store.put("nobody", file)
        (store.spool / "half").write_bytes(b"x")
        assert (await site.kept())[1] == 6
    async with life(tmp_path) as site:
        assert await site.kept() == ([image["id"]], 3) and await site.data(image) == DATA
        await site.tidy()


async def test_storage_nodes_that_do_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said to be there that is not; what is deleted meanwhile goes at the next start."""

    async def fail(*_: object) -> Response:
        return refuse(503)

    async with life(tmp_path) as site:
        image, deleted, waiting = await uploaded(site), await uploaded(site), await make(site.client)
        nodes = site.images.stores.own["object-store"]._area._service.nodes  # type: ignore[attr-defined]
        with monkeypatch.context() as broken:
            broken.setattr(nodes, "call", fail)
            assert (await site.client("GET", image["file"])).status == 503
            header = {"X_Image_Meta_Store": "object-store", "Content_Type": "application/octet-stream"}
            assert (await site.client("PUT", waiting["file"], data=io.BytesIO(DATA), **header)).status == 503
            assert (await show(site.client, waiting))["status"] == "queued"
            assert (await site.client("DELETE", deleted["self"])).status == 204
    async with life(tmp_path) as site:
        assert await site.kept() == ([image["id"]], 3) and await site.data(image) == DATA
        await site.tidy()


async def test_stores_of_other_names(tmp_path: Path) -> None:
    settings = {"image_stores": "far=object-store,near", "object_encryption": True}
    async with life(tmp_path, **settings) as site:
        image = await make(site.client)
        assert (await put(site.client, image, DATA)).status == 204
        assert (await show(site.client, image))["stores"] == "far" and (await site.kept("far"))[1] == 3
        assert await site.data(image) == DATA
        with pytest.raises(Invalid):
            await site.images.stores.own["far"].size("swift+config://near/images-far/x")
    with pytest.raises(SettingsError):
        Stores(Settings(data=tmp_path, image_stores="object-store"), site.images.web, None)


def test_the_whole_cloud_with_all_images_there(tmp_path: Path) -> None:
    """An image that an SDK uploads, one that the first start makes, and a server of it."""
    cloud = InProcessCloud(tmp_path / "data", image_stores="object-store", image_segment_size=1)
    cloud.start()
    try:
        demo = cloud.connect("cumulet-demo")
        image = demo.image.create_image("disk", disk_format="raw", container_format="bare", data=DATA)
        assert demo.image.download_image(image.id).content == DATA
        flavor = demo.compute.find_flavor("m1.tiny", ignore_missing=False)
        server = demo.compute.create_server(name="vm", image_id=image.id, flavor_id=flavor.id, networks="none")
        server = demo.compute.wait_for_server(server)
        assert server.status == "ACTIVE"
        (path,) = [path for path in (tmp_path / "data/image-local").iterdir() if path.name == image.id]
        assert path.read_bytes() == DATA
        demo.delete_server(server.id, wait=True)
        demo.delete_image(image.id, wait=True)
        assert not path.exists()
    finally:
        cloud.stop()
