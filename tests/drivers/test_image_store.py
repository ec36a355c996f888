"""One suite for every store of image data: `file`, `object_store` (whole and in segments), and `http`, which only reads."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec import Struct

from cumulet.config import Settings
from cumulet.core.errors import Invalid, NotImplementedHere, TooLarge, Unavailable
from cumulet.services.image.drivers import Store
from cumulet.services.image.drivers.file import FileStore
from cumulet.services.image.drivers.http import HttpStore
from cumulet.services.image.drivers.object_store import ObjectStore
from cumulet.services.image.fetch import Fetcher
from cumulet.services.image.place import Web
from cumulet.services.object_store.area import Area
from cumulet.services.object_store.message import Response, refuse
from tests.services.object_store.stores import Store as Storage
from tests.services.object_store.stores import object_store

DATA = os.urandom(3_000_000)
IDS = "a" * 8, "b" * 8


class Site(Struct):
    """A store, and how data gets into it: a function from an image's id and data to the URL."""

    store: Store
    fill: Callable[[str, bytes], Awaitable[str]]
    missing: str  # a URL at which there is nothing


def writable(store: Store, directory: Path) -> Site:
    async def put(image_id: str, data: bytes) -> str:
        file = directory / "incoming"
        file.write_bytes(data)
        await store.put(image_id, file)
        file.unlink()
        return store.url(image_id)

    return Site(store, put, store.url("nothing"))


@asynccontextmanager
async def objects(directory: Path, segment: int, **settings: Any) -> AsyncIterator[tuple[ObjectStore, Area, Storage]]:
    """A store in object storage, where it keeps its data, and object storage itself."""
    (directory / "objects").mkdir()
    async with object_store(directory / "objects", **settings) as storage:
        area = storage.runtime.area("image", segment)
        yield ObjectStore("blue", area, directory / "store", segment), area, storage


@pytest.fixture(params=["file", "object", "segments", "http"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    if request.param == "file":
        store = FileStore("blue", tmp_path / "store")
        await store.start(frozenset())
        yield writable(store, tmp_path)
        return
    if request.param in ("object", "segments"):
        async with objects(tmp_path, 1 << 30 if request.param == "object" else 1 << 20) as (in_objects, _, _):
            await in_objects.start(frozenset())
            yield writable(in_objects, tmp_path)
        return
    pages: dict[str, bytes] = {}

    async def answer(asked: web.Request) -> web.Response:
        return web.Response(body=pages[asked.path]) if asked.path in pages else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    settings = Settings(data=tmp_path, image_download_private="127.0.0.0/8", image_download_ports="*")
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def publish(image_id: str, data: bytes) -> str:
        pages[f"/{image_id}"] = data
        return f"{url}/{image_id}"

    yield Site(HttpStore("web", Web(True, Fetcher(settings))), publish, f"{url}/nothing")
    await runner.cleanup()


async def read(store: Store, url: str, offset: int = 0, length: int | None = None) -> bytes:
    pieces = [piece async for piece in store.chunks(url, offset, length)]
    assert all(pieces) and max(map(len, pieces), default=0) <= 8 << 20
    return b"".join(pieces)


async def test_it_gives_what_it_has(site: Site) -> None:
    url = await site.fill(IDS[0], DATA)
    assert await site.store.size(url) == len(DATA)
    assert await read(site.store, url) == DATA
    for offset, length in ((0, 1), (5, 7), (1 << 20, 1 << 20), (len(DATA) - 3, 3), ((1 << 20) - 1, 2), (100, None)):
        assert await read(site.store, url, offset, length) == DATA[offset : None if length is None else offset + length]
    file = site.store.file(url)
    assert file is None or file.read_bytes() == DATA


async def test_what_is_not_there(site: Site) -> None:
    with pytest.raises(Invalid):
        await site.store.size(site.missing)
    with pytest.raises(Invalid):
        await read(site.store, site.missing)
    await site.store.remove("nothing")


async def test_images_do_not_meet(site: Site) -> None:
    urls = [await site.fill(one, one.encode() * 10) for one in IDS]
    assert [await read(site.store, url) for url in urls] == [one.encode() * 10 for one in IDS]
    await site.store.remove(IDS[0])
    assert await read(site.store, urls[1]) == IDS[1].encode() * 10


async def test_it_says_what_it_is(site: Site) -> None:
    store = site.store
    assert store.name and store.kind in ("file", "swift", "http") and isinstance(dict(store.properties()), dict)
    assert store.read_only is (store.kind == "http")


async def test_it_takes_data_or_says_that_it_does_not(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(DATA)
    store = site.store
    if store.read_only:
        for refused in (lambda: store.spool, lambda: store.url(IDS[0])):
            with pytest.raises(NotImplementedHere):
                refused()
        with pytest.raises(NotImplementedHere):
            await store.put(IDS[0], file)
        return
    for _ in range(2):
        await store.put(IDS[0], file)
        assert file.exists() and await read(store, store.url(IDS[0])) == DATA
    await store.put(IDS[1], file)
    file.unlink()
    for one in IDS:
        assert await read(store, store.url(one)) == DATA
    await store.start(frozenset({IDS[0]}))
    assert await read(store, store.url(IDS[0])) == DATA
    with pytest.raises(Invalid):
        await store.size(store.url(IDS[1]))
    await store.remove(IDS[0])
    assert not any(path.is_file() for path in store.spool.parent.rglob("*"))


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, TooLarge), (errno.EROFS, Unavailable), (errno.EIO, OSError)]
)
async def test_a_disk_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    store, file = FileStore("blue", tmp_path / "store"), tmp_path / "data"
    await store.start(frozenset())
    file.write_bytes(DATA)
    monkeypatch.setattr("cumulet.services.image.intake.Path.hardlink_to", refuse)
    monkeypatch.setattr("cumulet.services.image.intake._copy_some", refuse)
    with pytest.raises(kind):
        await store.put(IDS[0], file)
    assert not any(path.is_file() for path in (tmp_path / "store").rglob("*"))


async def test_puts_at_once(tmp_path: Path) -> None:
    store = FileStore("blue", tmp_path / "store")
    await store.start(frozenset())
    files = [tmp_path / str(number) for number in range(8)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 100_000)
    await asyncio.gather(*(store.put(f"image-{number}", file) for number, file in enumerate(files)))
    for number in range(8):
        assert await read(store, store.url(f"image-{number}")) == bytes([number]) * 100_000


async def test_a_url_of_elsewhere_is_none_of_its_own(tmp_path: Path) -> None:
    store = FileStore("blue", tmp_path / "store")
    for url in (
        "file:///etc/passwd",
        f"file://{tmp_path}/store/../x",
        f"file://{tmp_path}/store/incoming/x",
        "http://x/y",
    ):
        assert store.file(url) is None
        with pytest.raises(Invalid):
            await store.size(url)


async def there(area: Area, container: str = "images-blue") -> tuple[list[str], list[str]]:
    """The names of the images and of the segments that are kept."""
    names = [name async for name in area.names(container)]
    return names, [name async for name in area.names(container + "+segments")]


async def pieces(data: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 300_000):
        yield data[start : start + 300_000]
    if error is not None:
        raise error


@pytest.mark.parametrize("segment", [1 << 30, 1 << 20])
async def test_an_object_that_does_not_come_whole(tmp_path: Path, segment: int) -> None:
    async with objects(tmp_path, segment) as (store, area, _):
        for data, size, error, kind in (
            (DATA, len(DATA) + 1, None, Invalid),
            (DATA, len(DATA) - 1, None, Invalid),
            (DATA[: 2 << 20], len(DATA), RuntimeError("broken"), RuntimeError),
        ):
            with pytest.raises(kind):
                await area.put(store.container, IDS[0], pieces(data, error), size)
            assert await there(area) == ([], [])
        asked = asyncio.Event()

        async def hang() -> AsyncIterator[bytes]:
            yield DATA[: 2 << 20]
            asked.set()
            await asyncio.Event().wait()

        putting = asyncio.ensure_future(area.put(store.container, IDS[0], hang(), len(DATA)))
        await asked.wait()
        await area.tidy(store.container)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert await there(area) == ([], [])


async def test_objects_replaced_and_left_behind(tmp_path: Path) -> None:
    async with objects(tmp_path, 1 << 20) as (store, area, storage):
        for data in (DATA, DATA[::-1], b"small", DATA):
            await area.put(store.container, IDS[0], pieces(data), len(data))
            assert await read(store, store.url(IDS[0])) == data
            names, segments = await there(area)
            assert names == [IDS[0]] and len(segments) == (3 if len(data) > 1 << 20 else 0)
        both = [area.put(store.container, IDS[1], pieces(data), len(data)) for data in (DATA, DATA[::-1])]
        await asyncio.gather(*both)
        assert await read(store, store.url(IDS[1])) in (DATA, DATA[::-1]) and len((await there(area))[1]) == 6

        async def delayed() -> AsyncIterator[bytes]:
            async for piece in pieces(DATA):
                yield piece
            await store.remove(IDS[1])  # of what was there; what is on its way comes whole

        await area.put(store.container, IDS[1], delayed(), len(DATA))
        assert await read(store, store.url(IDS[1])) == DATA and len((await there(area))[1]) == 6
        # As a put leaves it whose program dies: segments without a manifest. The next life knows of no put that goes on.
        leftover = storage.runtime.area("image", 1 << 20)
        await leftover.put("images-blue+segments", f"{IDS[0]}/deadbeef/00000000", pieces(b"x"), 1)
        await leftover.put("images-blue+segments", "gone/deadbeef/00000000", pieces(b"x"), 1)
        assert len((await there(area))[1]) == 8
        await store.start(frozenset(IDS))
        assert [len(found) for found in await there(area)] == [2, 6]
        assert await read(store, store.url(IDS[0])) == DATA
        await store.start(frozenset())
        assert await there(area) == ([], [])


async def test_nobody_reads_the_objects(tmp_path: Path) -> None:
    async with objects(tmp_path, 1 << 20) as (store, area, storage):
        await area.put(store.container, IDS[0], pieces(DATA), len(DATA))
        for path in ("", "/images-blue", "/images-blue%2Bsegments", f"/images-blue/{IDS[0]}"):
            for token in ("manager", "member", "reader", "other", "nobody"):
                for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
                    status = (await storage(method, f"/v1/.image{path}", token=token)).status
                    assert status == (401 if token == "nobody" else 403), (method, path, token, status)
        assert await read(store, store.url(IDS[0])) == DATA


async def test_objects_are_encrypted_at_rest(tmp_path: Path) -> None:
    async with objects(tmp_path, 1 << 20, object_encryption=True) as (store, area, _storage):
        data = b"plain text of an image. " * 100_000
        await area.put(store.container, IDS[0], pieces(data), len(data))
        assert await read(store, store.url(IDS[0])) == data
        assert await read(store, store.url(IDS[0]), 1_000_000, 100_000) == data[1_000_000:1_100_000]
        await store.start(frozenset(IDS))
        assert await read(store, store.url(IDS[0]), 5, 9) == data[5:14]
        kept = list((tmp_path / "objects").rglob("*.data"))
        assert len(kept) == 4 and not any(b"plain text" in path.read_bytes() for path in kept)


async def test_object_storage_without_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with objects(tmp_path, 1 << 20) as (store, area, storage):
        await store.start(frozenset())
        await area.put(store.container, IDS[0], pieces(DATA), len(DATA))
        file = tmp_path / "data"
        file.write_bytes(DATA)

        def failing(status: int) -> Any:
            async def fail(*_: object) -> Response:
                return refuse(status)

            return fail

        for status, kind in ((503, Unavailable), (507, TooLarge)):
            with monkeypatch.context() as broken:
                broken.setattr(storage.runtime.nodes, "call", failing(status))
                with pytest.raises(kind):
                    await store.put(IDS[1], file)
                with pytest.raises(Unavailable):
                    await store.size(store.url(IDS[0]))
                await store.start(frozenset())  # the cloud starts nevertheless
        assert await read(store, store.url(IDS[0])) == DATA
        assert await there(area) == ([IDS[0]], [name for name in (await there(area))[1] if name.startswith(IDS[0])])


async def test_a_url_of_elsewhere_is_no_object_of_its_own(tmp_path: Path) -> None:
    async with objects(tmp_path, 1 << 20) as (store, _, _):
        for url in (store.url(""), store.url("a/b"), "swift+config://green/images-green/x", "file:///etc/passwd"):
            assert store.file(url) is None
            with pytest.raises(Invalid):
                await store.size(url)
