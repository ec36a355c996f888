"""The image cache: copies, on this host, of data that lies elsewhere: GET|DELETE /v2/cache, PUT|DELETE /v2/cache/{image_id},
GET /v2/cache/nodes/{image_id}, POST /v2/cache/clean, POST /v2/cache/prune.

There is one if the setting `image_cache` gives it room. An image gets into it with its first whole download, or when an admin
asks for it, as an operation; it is downloaded from it afterwards. What was not asked for longest leaves it when there is more
than fits (`prune`). Data that is on this host already is entered when an admin asks, and takes no room.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import Resource, read
from cumulet.core import db
from cumulet.core.context import Context, system_caller
from cumulet.core.db import after_commit
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.operations import Finish, Operation
from cumulet.core.tasks import in_thread
from cumulet.core.types import Id
from cumulet.services.image.image import Image, find, not_found
from cumulet.services.image.intake import Sink, receive
from cumulet.services.image.rules import ADMIN, in_project

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

log = logging.getLogger("cumulet.image")

FETCH = "image.cache"
RULES = in_project(
    dict.fromkeys(
        ("cache_image", "cache_list", "cache_delete", "cache_clean", "cache_prune", "list_cached_nodes"), ADMIN
    )
)


class CachedImage(
    Resource, table="image_cached", path="/v2/cache", key="", plural="cached_images", primary_key=("image_id",)
):
    """An image in the cache, or on its way there (`cached_at` is None)."""

    image_id: Id = read("The image.")
    size: int = read("Bytes in the cache.")
    hits: int = read("How often it was downloaded from there.")
    last_accessed: float = read("When it last was, in seconds since 1970.")
    cached_at: float | None = read("When it got there, likewise.", wire="last_modified")


class Cache:
    """The files of the cache, and the operation that fills it."""

    def __init__(self, runtime: "ImageRuntime", room: int) -> None:
        """`room` in bytes; 0: there is no cache."""
        self.runtime, self.room = runtime, room
        self.directory = runtime.kernel.settings.data.absolute() / "image-cache"
        self._arriving: set[Path] = set()
        runtime.kernel.operations.register(
            FETCH, self.fetch, on_failure=_forget_operation, undo=lambda o: self.drop(o.args["image_id"]), attempts=3
        )

    async def start(self) -> None:
        """Make the directory, and remove what is in it that nobody knows of."""
        if self.room:
            await self.clean()
            self.runtime.kernel.tasks.every("image cache", 600, self.prune)

    async def clean(self) -> None:
        """Remove files that nobody knows of, and entries whose file is gone."""
        rows = await self.runtime.kernel.db.read(lambda tx: db.find(tx, CachedImage))
        there = await asyncio.to_thread(self._clean, frozenset(row.image_id for row in rows))
        gone = [row for row in rows if row.cached_at and row.size and row.image_id not in there]

        def forget(tx: Connection) -> None:
            for row in gone:
                forget_cached(tx, row.image_id)

        await self.runtime.kernel.db.run(forget)

    def _clean(self, known: frozenset[str]) -> set[str]:
        """The names of the files that are left."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = set()
        for path in self.directory.iterdir():
            if path.name in known:
                there.add(path.name)
            elif path not in self._arriving:
                path.unlink(missing_ok=True)
        return there

    def file(self, image_id: str) -> Path:
        return self.directory / image_id

    async def hit(self, image_id: str) -> Path | None:
        """The file of an image that is cached; that it was asked for is noted."""
        if not self.room or not await asyncio.to_thread(self.file(image_id).exists):
            return None
        there = await self.runtime.kernel.db.run(_hit, image_id)
        return self.file(image_id) if there else None

    async def drop(self, image_id: str) -> None:
        """Remove the file of an image. Nothing there: no effect."""
        await in_thread(self.file(image_id).unlink, missing_ok=True)

    async def fetch(self, operation: Operation) -> Finish:
        """Copy an image's data into the cache; it may be copied again after a crash."""
        image_id = operation.args["image_id"]
        image = await self.runtime.kernel.db.read_inline(find, system_caller(), image_id)
        held = self.runtime.stores.holding(image)
        size = 0
        if held and not any(one.file for one in held):
            with self._part(image_id) as part:
                received = await receive(held[0].store.chunks(held[0].url), part, most=self.room)
                await in_thread(part.rename, self.file(image_id))
            size = received.size

        def finish(tx: Connection) -> None:
            where = [CachedImage.table.c.image_id == image_id]
            if not db.update_where(
                tx, CachedImage, where, size=size, cached_at=time.time()
            ):  # it was taken out meanwhile
                after_commit(tx, lambda: self._drop_soon(image_id))

        return finish

    @contextmanager
    def _part(self, image_id: str) -> Iterator[Path]:
        """A new name for data that is on its way."""
        part = self.directory / f"{image_id}.{secrets.token_hex(8)}"
        self._arriving.add(part)
        try:
            yield part
        finally:
            self._arriving.discard(part)

    async def filled(self, image: Image, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same data, which is in the cache once it was read to its end. Of several who read at once one fills it, and what
        cannot be kept does not disturb him."""
        arriving = {part.name.partition(".")[0] for part in self._arriving}
        if image.id in arriving or not 0 < (image.size or 0) <= self.room:
            async for chunk in chunks:
                yield chunk
            return
        with self._part(image.id) as part:
            sink = Sink(part, ("md5",))
            broken = not await _tried(in_thread(sink.open, image.size or 0))
            try:
                async for chunk in chunks:
                    yield chunk
                    broken = broken or not await _tried(sink.add([chunk]))
                if not broken and sink.size == image.size and image.checksum in (None, sink.digests()["md5"]):
                    await _tried(self._keep(image, sink))
            finally:
                await in_thread(sink.abandon)

    async def _keep(self, image: Image, sink: Sink) -> None:
        await in_thread(sink.finish)
        await in_thread(sink.path.rename, self.file(image.id))
        if await self.runtime.kernel.db.run(_enter, image.id, sink.size):
            await self.prune()
        else:
            await self.drop(image.id)

    def _drop_soon(self, image_id: str) -> None:
        self.runtime.kernel.tasks.spawn(f"uncaching {image_id}", self.drop(image_id))

    async def prune(self) -> tuple[int, int]:
        """Remove what was not asked for longest, until the rest fits; (how many, how many bytes)."""
        gone = await self.runtime.kernel.db.run(_prune, self.room)
        for row in gone:
            await self.drop(row.image_id)
        return len(gone), sum(row.size for row in gone)


def _hit(tx: Connection, image_id: str) -> bool:
    c = CachedImage.table.c
    where = [c.image_id == image_id, c.cached_at.is_not(None)]
    return bool(db.update_where(tx, CachedImage, where, hits=c.hits + 1, last_accessed=time.time()))


def _enter(tx: Connection, image_id: str, size: int) -> bool:
    """Note that an image is cached, unless it was deleted meanwhile."""
    if db.first(tx, Image, Image.table.c.id == image_id) is None:
        return False
    moment = time.time()
    where = [CachedImage.table.c.image_id == image_id]
    if not db.update_where(tx, CachedImage, where, size=size, cached_at=moment):
        db.insert(tx, CachedImage(image_id=image_id, size=size, hits=0, last_accessed=moment, cached_at=moment))
    return True


async def _tried(work: Awaitable[None]) -> bool:
    """Whether it could be done; what the file system does not allow is no more than logged."""
    try:
        await work
    except OSError as error:
        log.warning("an image could not be cached: %s", error)
        return False
    return True


def _prune(tx: Connection, room: int) -> list[CachedImage]:
    rows = db.find(tx, CachedImage, CachedImage.table.c.cached_at.is_not(None))
    gone = []
    size = sum(row.size for row in rows)
    for row in sorted((row for row in rows if row.size), key=lambda row: row.last_accessed):
        if size <= room:
            break
        size -= row.size
        gone.append(row)
        forget_cached(tx, row.image_id)
    return gone


def forget_cached(tx: Connection, image_id: str) -> None:
    """Remove what is stored of an image in the cache."""
    db.remove_where(tx, CachedImage, CachedImage.table.c.image_id == image_id)


def _forget_operation(tx: Connection, operation: Operation, _error: BaseException) -> None:
    forget_cached(tx, operation.args["image_id"])


# ---- the calls -------------------------------------------------------------------------------------------------------------


def _there(ctx: Ctx) -> None:
    if not ctx.service.cache.room:
        raise NotFound(message="Caching via API is not supported at this site.")


async def show_cache(ctx: Ctx) -> Any:
    """List the images in the cache, and those on their way there."""
    _there(ctx)
    rows = await ctx.service.kernel.db.read(lambda tx: db.find(tx, CachedImage))
    view = CachedImage.view()
    cached = [view(row) for row in rows if row.cached_at]
    return {"cached_images": cached, "queued_images": [row.image_id for row in rows if not row.cached_at]}


async def queue_image(ctx: Ctx, image_id: str) -> Response:
    """Have an image copied into the cache."""
    _there(ctx)

    def add(tx: Connection) -> None:
        image = find(tx, ctx.caller, image_id)
        if image.status != "active":
            raise Invalid("Only images with status active can be targeted for queueing")
        if db.first(tx, CachedImage, CachedImage.table.c.image_id == image.id) is None:
            moment = time.time()
            db.insert(tx, CachedImage(image_id=image.id, size=0, hits=0, last_accessed=moment, cached_at=None))
            ctx.service.kernel.operations.add(
                tx, FETCH, f"cache-{image.id}", {"image_id": image.id}, request_id=ctx.request_id
            )

    await ctx.service.kernel.db.run(add)
    return Response(202)


async def delete_cached(ctx: Ctx, image_id: str) -> Response:
    """Remove an image from the cache, or from what is on its way there."""
    _there(ctx)

    def remove(tx: Connection) -> None:
        there = db.remove_where(tx, CachedImage, CachedImage.table.c.image_id == image_id)
        if not there and db.first(tx, Image, Image.table.c.id == image_id) is None:
            raise not_found(image_id)

    await ctx.service.kernel.db.run(remove)
    await ctx.service.cache.drop(image_id)
    return Response(204)


async def clear_cache(ctx: Ctx) -> Response:
    """Remove all images from the cache, from what is on its way there, or from both."""
    _there(ctx)
    target = (ctx.request.headers.get("X-Image-Cache-Clear-Target") or "").lower()
    if target not in ("", "cache", "queue"):
        raise Invalid("If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.")
    c = CachedImage.table.c
    which = {"cache": [c.cached_at.is_not(None)], "queue": [c.cached_at.is_(None)]}.get(target, [])

    def clear(tx: Connection) -> list[CachedImage]:
        rows = db.find(tx, CachedImage, *which)
        db.remove_where(tx, CachedImage, *which)
        return rows

    for row in await ctx.service.kernel.db.run(clear):
        await ctx.service.cache.drop(row.image_id)
    return Response(204)


async def show_nodes(ctx: Ctx, image_id: str) -> Any:
    """Refused: there is one node, and no cache that nodes share."""
    _there(ctx)
    raise Conflict("Centralized caching is not enabled")


async def clean_cache(ctx: Ctx) -> Response:
    """Remove files that nobody knows of, and entries whose file is gone."""
    _there(ctx)
    await ctx.service.cache.clean()
    return Response(200)


async def prune_cache(ctx: Ctx) -> Any:
    """Remove what was not asked for longest, until the rest fits into the cache."""
    _there(ctx)
    files, size = await ctx.service.cache.prune()
    return {"total_files_pruned": files, "total_bytes_pruned": size}


endpoints = [
    Endpoint("GET", "/v2/cache", show_cache, "cache_list", resource=CachedImage),
    Endpoint("DELETE", "/v2/cache", clear_cache, "cache_delete", status=204, resource=CachedImage),
    Endpoint("PUT", "/v2/cache/{image_id}", queue_image, "cache_image", status=202, resource=CachedImage),
    Endpoint("DELETE", "/v2/cache/{image_id}", delete_cached, "cache_delete", status=204, resource=CachedImage),
    Endpoint("GET", "/v2/cache/nodes/{image_id}", show_nodes, "list_cached_nodes"),
    Endpoint("POST", "/v2/cache/clean", clean_cache, "cache_clean"),
    Endpoint("POST", "/v2/cache/prune", prune_cache, "cache_prune"),
]
