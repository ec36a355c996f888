"""Imports to several stores on their way: when the image is there to be used, and what a restart, a delete, and an end that
cannot be written leave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.importing import Imports
from cumulet.services.image.runtime import ImageRuntime
from tests import harness
from tests.harness import Client, kernel, serve
from tests.services.image.test_image_data import files, make, put, show
from tests.services.image.test_image_import import DATA, Site, _with_token

BOTH = {"all_stores": True, "all_stores_must_succeed": False}


@asynccontextmanager
async def life(directory: Path) -> AsyncIterator[Site]:
    """One life of an image service."""
    async with kernel(directory, image_stores="file,second") as parts:
        images = ImageRuntime(parts)
        await images.start()
        async with serve(SERVICE, images) as client:
            yield Site(client, images, "")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with life(tmp_path) as site:
        await site.images.kernel.operations.start()
        yield site


class Gate:
    """Lets data into a store only when it is opened, or never."""

    def __init__(self, site: Site, store: str = "second") -> None:
        self.begun, self.opened = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self._store = site.images.stores.own[store]
        self._put = self._store.put
        self._store.put = self.put  # type: ignore[method-assign]

    async def put(self, image_id: str, file: Path) -> None:
        self.begun.set()
        await self.opened.wait()
        if self.error is not None:
            raise self.error
        await self._put(image_id, file)

    def open(self, error: Exception | None = None) -> None:
        self.error = error
        self.opened.set()


def told(image: dict[str, Any]) -> tuple[str, str, str, str]:
    return (
        image["status"],
        image.get("stores", ""),
        image["os_glance_importing_to_stores"],
        image["os_glance_failed_import"],
    )


async def begun(site: Site, gate: Gate, **more: Any) -> dict[str, Any]:
    """An image whose import waits at the gate."""
    image: dict[str, Any] = await make(site.client)
    await site.stage(image)
    reply = await site.start(image, "glance-direct", **more)
    assert reply.status == 202, reply.data
    await gate.begun.wait()
    return image


async def test_the_first_store_makes_the_image_active(site: Site) -> None:
    gate = Gate(site)
    image = await begun(site, gate, **BOTH)
    shown = await show(site.client, image)
    assert told(shown) == ("active", "file", "second", "") and shown["os_glance_import_task"]
    assert shown["size"] == len(DATA) and await site.data(image) == DATA
    found = (await site.client("GET", "/v2/images?os_glance_importing_to_stores=second")).json()["images"]
    assert [one["id"] for one in found] == [image["id"]]
    assert (await site.start(image, "copy-image", token="admin", all_stores=True)).status == 409, "one at a time"
    gate.open()
    shown, task = await site.ended(image)
    assert told(shown) == ("active", "file,second", "", "") and task["status"] == "success"
    assert "os_glance_import_task" not in shown
    await site.tidy(image)


async def test_all_have_to_have_it_before(site: Site) -> None:
    gate = Gate(site)
    image = await begun(site, gate, all_stores=True)
    assert told(await show(site.client, image)) == ("importing", "", "second", "")
    assert (await site.client("GET", image["file"])).status == 204
    gate.open()
    assert told((await site.ended(image))[0]) == ("active", "file,second", "", "")


async def test_a_later_store_fails(site: Site) -> None:
    gate = Gate(site)
    image = await begun(site, gate, **BOTH)
    gate.open(OSError("broken"))
    shown, task = await site.ended(image)
    assert told(shown) == ("active", "file", "", "second") and task["status"] == "success"
    assert await site.data(image) == DATA
    gate.open()
    shown, _ = await site.imported(image, "copy-image", token="admin", stores=["second"])
    assert told(shown) == ("active", "file,second", "", "")
    await site.tidy(image)


async def test_an_active_image_stays_when_the_rest_fails_for_good(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    gate = Gate(site)
    image = await begun(site, gate, **BOTH)
    gate.open(RuntimeError("a bug"))
    shown, task = await site.ended(image)
    assert told(shown) == ("active", "file", "", "second") and (task["status"], task["message"]) == ("failure", "a bug")
    assert "os_glance_import_task" not in shown and await site.data(image) == DATA
    await site.tidy(image)


async def test_deactivated_and_deleted_on_the_way(site: Site) -> None:
    gate = Gate(site)
    image, deleted = await begun(site, gate, **BOTH), await begun(site, gate, **BOTH)
    assert (await site.client("POST", f"{image['self']}/actions/deactivate")).status == 204
    assert (await site.client("DELETE", deleted["self"])).status == 204
    gate.open()
    shown, _ = await site.ended(image)
    assert told(shown) == ("deactivated", "file,second", "", "")
    await site.tidy(image)


async def test_a_restart_goes_on_where_the_image_is_active(tmp_path: Path) -> None:
    async with life(tmp_path) as site:
        await site.images.kernel.operations.start()
        image = await begun(site, Gate(site), **BOTH)
        assert (await show(site.client, image))["status"] == "active"
    async with life(tmp_path) as site:
        assert (
            told(await show(site.client, image)) == ("active", "file", "second", "") and await site.data(image) == DATA
        )
        await site.images.kernel.operations.start()
        shown, task = await site.ended(image)
        assert told(shown) == ("active", "file,second", "", "") and task["status"] == "success"
        await site.tidy(image)


@pytest.mark.parametrize("method", ["glance-direct", "copy-image"])
async def test_an_end_that_cannot_be_written(site: Site, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """No file of an import stays until the next start because of it."""

    def refuse(*_args: object) -> None:
        raise RuntimeError("the end cannot be written")

    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    image = await make(site.client)
    if method == "copy-image":
        await put(site.client, image, DATA)
    else:
        await site.stage(image)
    with monkeypatch.context() as broken:
        broken.setattr(Imports, "_finish", refuse)
        shown, task = await site.imported(image, method, token="admin", all_stores=True)
    assert (task["status"], task["message"]) == ("failure", "the end cannot be written")
    if method == "copy-image":
        assert told(shown) == ("active", "file", "", "second") and await site.data(image) == DATA
        assert not (site.images.kernel.settings.data / "image-second" / image["id"]).exists()
    else:
        assert told(shown) == ("queued", "", "", "file,second") and files(site.images) == set()


async def test_a_restart_loses_the_token_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another region's image service is asked with is not stored: the import fails, says why, and leaves nothing."""
    callers = {name: _with_token(caller, name) for name, caller in harness.CALLERS.items()}
    monkeypatch.setattr(harness, "CALLERS", callers)
    asked = asyncio.Event()

    async def hang(*_args: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with life(tmp_path) as site:
        source, image = await make(site.client), await make(site.client)
        await put(site.client, source, DATA)
        with monkeypatch.context() as context:
            context.setattr(site.images, "endpoint", lambda _region, _interface: _text(site.client))
            context.setattr(Imports, "_from_elsewhere", hang)
            await site.images.kernel.operations.start()
            method = {"glance_image_id": source["id"], "glance_region": "elsewhere"}
            assert (await site.start(image, "glance-download", method=method)).status == 202
            await asked.wait()
        (site.images.imports.staging / f"{image['id']}.part").write_bytes(b"x")
    async with life(tmp_path) as site:
        await site.images.kernel.operations.start()
        shown, task = await site.ended(image)
        assert told(shown) == ("queued", "", "", "file") and "os_glance_import_task" not in shown
        assert task["status"] == "failure" and "started anew" in task["message"]
        await site.tidy(source)
        await site.stage(image)
        assert (await site.imported(image, "glance-direct"))[0]["status"] == "active"


async def _text(client: Client) -> str:
    return client.url


async def test_a_deleted_import_forgets_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = {name: _with_token(caller, name) for name, caller in harness.CALLERS.items()}
    monkeypatch.setattr(harness, "CALLERS", callers)
    async with life(tmp_path) as site:
        monkeypatch.setattr(site.images, "endpoint", lambda _region, _interface: _text(site.client))
        image = await make(site.client)
        method = {"glance_image_id": image["id"], "glance_region": "elsewhere"}
        assert (await site.start(image, "glance-download", method=method)).status == 202
        assert site.images.imports.tokens
        assert (await site.client("DELETE", image["self"])).status == 204
        assert not site.images.imports.tokens
