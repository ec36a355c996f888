"""The image cache: who asks for it, what gets into it and out again, and that downloads come from it."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientPayloadError, web

from cumulet.core import db
from cumulet.core.errors import Unavailable
from cumulet.core.types import new_id
from cumulet.services.image.cache import CachedImage
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import Client, kernel, serve
from tests.services.image.test_image_data import make, put, show
from tests.services.image.test_image_import import Site

DATA = os.urandom(200_000)


class Cached(Site):
    asked = 0  # how often the web server was

    async def at_web(self, path: str = "data") -> dict[str, Any]:
        """An image whose data lies at the web server."""
        image = await make(self.client)
        reply = await self.client("POST", f"{image['self']}/locations", {"url": f"{self.web}/{path}"})
        assert reply.status == 202, reply.data
        await self.images.kernel.operations.idle()
        assert (await show(self.client, image))["status"] == "active"
        return image

    async def queue(self, image: dict[str, Any], token: str = "admin") -> int:
        status = (await self.client("PUT", f"/v2/cache/{image['id']}", token=token)).status
        await self.images.kernel.operations.idle()
        return status

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client("GET", "/v2/cache", token="admin")).json()
        return found

    async def entries(self, count: int = 1) -> list[dict[str, Any]]:
        """What is cached, once that are so many: an image is entered after its data was sent."""
        async with asyncio.timeout(60):
            while len(found := (await self.state())["cached_images"]) != count:
                await asyncio.sleep(0.01)
        return list(found)

    def files(self) -> set[str]:
        return {path.name for path in self.images.cache.directory.iterdir()}


@pytest.fixture
async def cached(tmp_path: Path) -> AsyncIterator[Cached]:
    sites: list[Cached] = []

    async def answer(request: web.Request) -> web.Response:
        sites[0].asked += request.method == "GET"
        return web.Response(body=DATA)

    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with kernel(
        tmp_path, image_web=True, image_cache=1, image_download_private="127.0.0.0/8", image_download_ports="*"
    ) as parts:
        images = ImageRuntime(parts)
        await images.start()
        await parts.operations.start()
        async with serve(SERVICE, images) as client:
            sites.append(Cached(client, images, f"http://127.0.0.1:{runner.addresses[0][1]}"))
            yield sites[0]
    await runner.cleanup()


async def test_downloads_come_from_it(cached: Cached) -> None:
    image = await cached.at_web()
    assert await cached.queue(image) == await cached.queue(image) == 202
    before = cached.asked
    assert await cached.data(image) == DATA and cached.asked == before
    reply = await cached.client("GET", image["file"], Range="bytes=5-9")
    assert (reply.status, reply.data) == (206, DATA[5:10])
    (entry,) = (await cached.state())["cached_images"]
    assert (entry["image_id"], entry["size"], entry["hits"]) == (image["id"], len(DATA), 2)
    assert entry["last_accessed"] and entry["last_modified"]
    assert (await cached.client("DELETE", image["self"])).status == 204
    assert (await cached.state())["cached_images"] == [] and cached.files() == set()


async def test_the_first_whole_download_fills_it(cached: Cached) -> None:
    image, before = await cached.at_web(), cached.asked
    reply = await cached.client("GET", image["file"], Range="bytes=5-9")
    assert reply.data == DATA[5:10] and cached.files() == set(), "a part is not kept"
    assert await cached.data(image) == DATA and cached.asked == before + 2
    (entry,) = await cached.entries()
    assert (entry["image_id"], entry["size"], entry["hits"]) == (image["id"], len(DATA), 0)
    assert cached.files() == {image["id"]}
    assert await cached.data(image) == DATA and cached.asked == before + 2
    assert (await cached.state())["cached_images"][0]["hits"] == 1
    assert (await cached.client("DELETE", image["self"])).status == 204
    assert (await cached.state())["cached_images"] == [] and cached.files() == set()


async def test_several_first_downloads_at_once(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    image, go = await cached.at_web(), asyncio.Event()
    real = cached.images.web.chunks

    async def slowly(url: str) -> AsyncIterator[bytes]:
        async for chunk in real(url):
            yield chunk
            await go.wait()

    monkeypatch.setattr(cached.images.web, "chunks", slowly)
    readers = [asyncio.create_task(cached.data(image)) for _ in range(3)]
    async with asyncio.timeout(60):
        while not cached.files():
            await asyncio.sleep(0.01)
    assert len(cached.files()) == 1, "one of them fills the cache"
    assert (await cached.client("POST", "/v2/cache/clean", token="admin")).status == 200
    assert len(cached.files()) == 1, "what is on its way is not cleaned away"
    go.set()
    assert await asyncio.gather(*readers) == [DATA] * 3
    await cached.entries()
    assert cached.files() == {image["id"]}


@pytest.mark.parametrize("trouble", ["changed", "broken", "full", "deleted", "too large"])
async def test_what_is_not_kept(cached: Cached, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """And does not disturb who downloads."""
    image, data = await cached.at_web(), DATA
    if trouble == "changed":
        data = b"\x01" * len(DATA)

    async def chunks(_url: str) -> AsyncIterator[bytes]:
        yield data[:1000]
        if trouble == "broken":
            raise Unavailable("the web server is gone")
        if trouble == "deleted":
            await cached.client("DELETE", image["self"])
        yield data[1000:]

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cached.images.web, "chunks", chunks)
    if trouble == "full":
        monkeypatch.setattr("cumulet.services.image.intake.Sink._write", full)
    if trouble == "too large":
        monkeypatch.setattr(cached.images.cache, "room", len(DATA) - 1)
    if trouble == "broken":
        with pytest.raises(ClientPayloadError):
            await cached.data(image)
    else:
        assert await cached.data(image) == data
    async with asyncio.timeout(60):
        while cached.files():
            await asyncio.sleep(0.01)
    assert await cached.state() == {"cached_images": [], "queued_images": []}


async def test_who_hangs_up_leaves_nothing(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    image, closed = await cached.at_web(), asyncio.Event()

    async def endless(_url: str) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            closed.set()

    monkeypatch.setattr(cached.images.web, "chunks", endless)
    async with aiohttp.ClientSession() as session:
        reply = await session.get(cached.client.url + image["file"], headers={"X-Auth-Token": "member"})
        await reply.content.readexactly(100_000)
        assert cached.files()
        reply.close()
    async with asyncio.timeout(60):
        await closed.wait()
        while cached.files():
            await asyncio.sleep(0.01)


async def test_a_start_removes_what_was_on_its_way(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"image_web": True, "image_cache": 1}
    async with kernel(tmp_path, **settings) as parts:
        images = ImageRuntime(parts)
        await images.start()
        image_id = new_id()
        await parts.db.run(
            lambda tx: db.insert(tx, CachedImage(image_id=image_id, size=0, hits=0, last_accessed=0.0, cached_at=None))
        )
        (images.cache.directory / f"{image_id}.part").write_bytes(b"x")
        (images.cache.directory / new_id()).write_bytes(b"x")
    async with kernel(tmp_path, **settings) as parts:
        images = ImageRuntime(parts)
        await images.start()
        assert list(images.cache.directory.iterdir()) == []


async def test_what_lies_here_takes_no_room(cached: Cached) -> None:
    image = await make(cached.client)
    assert await cached.queue(image) == 400
    await put(cached.client, image, DATA)
    assert await cached.queue(image) == 202
    (entry,) = (await cached.state())["cached_images"]
    assert (entry["image_id"], entry["size"]) == (image["id"], 0) and cached.files() == set()
    assert await cached.data(image) == DATA


async def test_who_may(cached: Cached) -> None:
    image = await cached.at_web()
    for token, status in (("nobody", 401), ("reader", 403), ("manager", 403)):
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("PUT", f"/{image['id']}"),
            ("POST", "/clean"),
            ("POST", "/prune"),
        ):
            assert (await cached.client(method, f"/v2/cache{path}", token=token)).status == status
    for method in ("PUT", "DELETE"):
        assert (await cached.client(method, "/v2/cache/none", token="admin")).status == 404
    assert (await cached.client("GET", f"/v2/cache/nodes/{image['id']}", token="admin")).status == 409
    versions = [v["id"] for v in (await cached.client("GET", "/versions")).json()["versions"]]
    assert versions[0] == "v2.18" and len(versions) == len(set(versions))


async def test_taking_out(cached: Cached) -> None:
    images = [await cached.at_web() for _ in range(3)]
    for image in images:
        await cached.queue(image)
    assert cached.files() == {image["id"] for image in images}
    assert (await cached.client("DELETE", f"/v2/cache/{images[0]['id']}", token="admin")).status == 204
    assert cached.files() == {image["id"] for image in images[1:]}
    for target, left in (("queue", 2), ("cache", 0)):
        reply = await cached.client("DELETE", "/v2/cache", token="admin", X_Image_Cache_Clear_Target=target)
        assert reply.status == 204 and len(cached.files()) == len((await cached.state())["cached_images"]) == left
    reply = await cached.client("DELETE", "/v2/cache", token="admin", X_Image_Cache_Clear_Target="x")
    assert reply.status == 400
    assert await cached.data(images[2]) == DATA


async def test_pruning_and_cleaning(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = await cached.at_web(), await cached.at_web()
    for image in (new, old, new):
        await cached.queue(image)
    await cached.data(new)
    monkeypatch.setattr(cached.images.cache, "room", len(DATA) + 1)
    pruned = (await cached.client("POST", "/v2/cache/prune", token="admin")).json()
    assert pruned == {"total_files_pruned": 1, "total_bytes_pruned": len(DATA)}
    assert cached.files() == {new["id"]}
    (cached.images.cache.directory / "stray").write_bytes(b"x")
    cached.images.cache.file(new["id"]).unlink()
    assert (await cached.client("POST", "/v2/cache/clean", token="admin")).status == 200
    assert cached.files() == set() and (await cached.state())["cached_images"] == []


async def test_what_cannot_be_fetched_leaves_the_queue(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    image = await cached.at_web()
    monkeypatch.setattr(cached.images.cache, "room", 1000)
    await cached.queue(image)
    assert await cached.state() == {"cached_images": [], "queued_images": []} and cached.files() == set()


async def test_taken_out_on_its_way(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    image, begun, go = await cached.at_web(), asyncio.Event(), asyncio.Event()
    real = cached.images.web.chunks

    async def slowly(url: str) -> AsyncIterator[bytes]:
        begun.set()
        await go.wait()
        async for chunk in real(url):
            yield chunk

    monkeypatch.setattr(cached.images.web, "chunks", slowly)
    assert (await cached.client("PUT", f"/v2/cache/{image['id']}", token="admin")).status == 202
    await begun.wait()
    assert (await cached.state())["queued_images"] == [image["id"]]
    assert (await cached.client("DELETE", f"/v2/cache/{image['id']}", token="admin")).status == 204
    go.set()
    await cached.images.kernel.operations.idle()
    async with asyncio.timeout(60):
        while cached.files():
            await asyncio.sleep(0.01)


async def test_no_cache(client: Client) -> None:
    assert (await client("GET", "/v2/cache", token="admin")).status == 404
    assert (await client("PUT", "/v2/cache/x", token="admin")).status == 404
