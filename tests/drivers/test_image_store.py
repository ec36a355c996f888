"""One suite for every store of image data: `file`, and `http`, which only reads."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from msgspec import Struct

from cumulet.config import Settings
from cumulet.core.errors import Invalid, NotImplementedHere, TooLarge, Unavailable
from cumulet.services.image.drivers import Store
from cumulet.services.image.drivers.file import FileStore
from cumulet.services.image.drivers.http import HttpStore
from cumulet.services.image.fetch import Fetcher
from cumulet.services.image.place import Web

DATA = os.urandom(3_000_000)
IDS = "a" * 8, "b" * 8


class Site(Struct):
    """A store, and how data gets into it: a function from an image's id and data to the URL."""

    store: Store
    fill: Callable[[str, bytes], Awaitable[str]]
    missing: str  # a URL at which there is nothing


@pytest.fixture(params=["file", "http"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    if request.param == "file":
        store = FileStore("blue", tmp_path / "store")
        await store.start(frozenset())

        async def put(image_id: str, data: bytes) -> str:
            file = tmp_path / "incoming"
            file.write_bytes(data)
            await store.put(image_id, file)
            file.unlink()
            return store.url(image_id)

        yield Site(store, put, store.url("nothing"))
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
    assert store.name and store.kind in ("file", "http") and isinstance(dict(store.properties()), dict)
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
