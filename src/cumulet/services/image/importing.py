"""How an import is carried out, as a durable operation (`image.import`): data is collected in the staging directory, made ready
there, put in each store, and then the image becomes active, in one transaction with the end of its task. Where not all stores
have to succeed it is active as soon as the first of them has the data, and each further one is told of when it has it.

Every step can be repeated after a crash at any point: what is collected has its name only when it is whole, what is made of it
is made anew, and a store takes the same data twice without effect; an image that is active already gives the data for the
stores that are left. Until its end an import holds the image by the property `os_glance_import_task`. A delete supersedes it,
and removes the files as an operation of its own (`image.remove`).
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cumulet.core import db
from cumulet.core.context import system_caller
from cumulet.core.db import after_commit
from cumulet.core.errors import CloudError, NotFound, Unavailable
from cumulet.core.operations import Finish, Operation, Permanent
from cumulet.core.tasks import in_thread
from cumulet.core.types import now
from cumulet.services.image import fetch, inspect, quota
from cumulet.services.image.convert import QEMU_NAMES, convert, unpacked
from cumulet.services.image.image import Image, find, remove_row
from cumulet.services.image.intake import Received, examine, link_or_copy, receive, storage_errors
from cumulet.services.image.search import save_labels
from cumulet.services.image.task import fail, forget, say, succeed

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

log = logging.getLogger("cumulet.image")

KIND, TIDY, REMOVE = "image.import", "image.tidy", "image.remove"
ATTEMPTS = 3
DIRECT, WEB, COPY, DOWNLOAD = "glance-direct", "web-download", "copy-image", "glance-download"
METHODS = (DIRECT, WEB, COPY, DOWNLOAD)
LOCK, WAITING, FAILED = "os_glance_import_task", "os_glance_importing_to_stores", "os_glance_failed_import"
COPIED = ("hw_", "trait:", "os_distro", "os_secure_boot", "os_type")
"""How the custom properties begin that `glance-download` takes along."""
PAUSE = 2.0
"""Seconds between two words on how far an import is."""


class Order(Struct):
    """What an import is to do."""

    task_id: str
    method: str
    stores: list[str]
    must_succeed: bool = True
    uri: str = ""
    source: str = ""  # the image to download
    endpoint: str = ""  # of the image service that has it, where that is another one
    refusal: str = ""  # why the caller does not get it
    inject: bool = False
    registered: bool = False  # the image came with the import, and goes if that fails


class Ready(Struct):
    """Data that can be put in stores, and what the image becomes with it."""

    data: Received
    image: dict[str, Any]
    properties: dict[str, str]


class Imports:
    """Carries imports out."""

    def __init__(self, runtime: "ImageRuntime") -> None:
        self.runtime = runtime
        settings = runtime.kernel.settings
        self.staging = (settings.image_staging or settings.data / "image-staging").absolute()
        self.tokens: dict[str, str] = {}
        """By task: what another cloud's image service is asked with. Kept nowhere else: an import that outlives the process
        fails without it."""
        runtime.kernel.operations.register(
            KIND, self.carry_out, on_failure=self.failed, undo=self.undo, attempts=ATTEMPTS
        )
        runtime.kernel.operations.register(TIDY, self.tidy)
        runtime.kernel.operations.register(REMOVE, self.remove)

    async def start(self, waiting: frozenset[str]) -> None:
        """Make the staging directory, and remove what waits there for nothing. `waiting`: ids of images with staged data."""
        await asyncio.to_thread(self._clean, waiting)
        self.runtime.kernel.tasks.every("image tasks", 3600, lambda: self.runtime.kernel.db.run(forget))

    def staged(self, image_id: str) -> Path:
        """Where data of an image waits, once all of it is there."""
        return self.staging / image_id

    def beside(self, image_id: str) -> Path:
        """A new name for what is made on the way."""
        return self.staging / f"{image_id}.{secrets.token_hex(8)}"

    async def stage(self, image_id: str, chunks: AsyncIterator[bytes], expected: int | None = None) -> Received:
        """Collect data under its final name."""
        received = await receive(chunks, self.beside(image_id), expected=expected, most=self.runtime.most)
        return await self._name(received, image_id)

    async def _name(self, received: Received, image_id: str) -> Received:
        with storage_errors():
            await in_thread(received.path.rename, self.staged(image_id))
        return msgspec.structs.replace(received, path=self.staged(image_id))

    async def drop(self, image_id: str) -> None:
        """Remove the staged data of an image. Nothing there: no effect."""
        await in_thread(self.staged(image_id).unlink, missing_ok=True)

    async def clear(self, image_id: str) -> None:
        """Remove it and what was made of it, or is on its way. Nothing there: no effect."""
        await in_thread(self._clear, image_id)

    def _clear(self, image_id: str) -> None:
        self.staged(image_id).unlink(missing_ok=True)
        for path in self.staging.glob(f"{image_id}.*"):
            path.unlink(missing_ok=True)

    def _clean(self, waiting: frozenset[str]) -> None:
        self.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.staging.iterdir():
            if path.is_file() and path.name not in waiting:
                path.unlink()

    # ---- the operation ---------------------------------------------------------------------------------------------------

    async def carry_out(self, operation: Operation) -> Finish:
        """Collect, make ready, put in the stores. See `Operations` for how often."""
        try:
            return await self._carry_out(operation.resource_id, msgspec.convert(operation.args, Order))
        except (inspect.Refused, fetch.Refused) as error:
            raise Permanent(str(error)) from error

    async def _carry_out(self, image_id: str, order: Order) -> Finish:
        if order.refusal:
            raise Permanent(order.refusal)
        image = await self.runtime.kernel.db.read_inline(find, system_caller(), image_id)
        say_so = partial(self._say, order)
        await say_so("")
        progress = Progress(say_so)
        if (
            order.method != COPY and image.status != "importing"
        ):  # active since before a crash: with all that was made of it
            order.method = COPY
        ready = await self._collect(image, order, progress)
        if order.method != COPY:
            ready = await self._make_ready(image, order, ready, progress)
        missed = await self._put(image, order, ready)
        if len(missed) == len(order.stores):
            raise Permanent(f"None of the uploads finished: {'; '.join(missed.values())}")
        return lambda tx: self._finish(tx, image_id, order, ready, missed)

    async def _collect(self, image: Image, order: Order, progress: "Progress") -> Ready:
        """The data as it comes, in a local file."""
        file = self.staged(image.id)
        if order.method == COPY:
            return Ready(await self._copied(image, image.id, progress), {}, {})
        if order.method == DOWNLOAD:
            return await self._downloaded(image, order, progress)
        there = await asyncio.to_thread(file.exists)
        if order.method == DIRECT:
            if not there or image.staged is None:
                raise Permanent("The staged data is gone.")
            return Ready(Received(file, image.staged.size, image.staged.digests), {}, {})
        if there:  # since before a crash
            return Ready(await examine(file), {}, {})
        chunks = self.runtime.fetcher.chunks(order.uri, self.runtime.most)
        return Ready(await self.stage(image.id, progress.counted(chunks)), {}, {})

    async def _copied(self, source: Image, image_id: str, progress: "Progress") -> Received:
        """The data of an image that has some, in a local file: a store's, or what is staged for `image_id`."""
        stores = self.runtime.stores
        for held in stores.holding(source):
            if (file := held.file) is not None:
                return Received(file, source.size or 0, {})
        for held in stores.holding(source):
            return await self.stage(image_id, progress.counted(held.store.chunks(held.url)))
        raise Permanent("The image has no data to copy.")

    async def _downloaded(self, image: Image, order: Order, progress: "Progress") -> Ready:
        """The data of another image, with what is taken along of what is said of it."""
        if order.endpoint:
            return await self._from_elsewhere(image, order, progress)
        try:
            source = await self.runtime.kernel.db.read_inline(find, system_caller(), order.source)
        except NotFound as error:
            raise Permanent(error.message) from None
        if source.status != "active":
            raise Permanent(f"Source image status should be active instead of {source.status}")
        if not await asyncio.to_thread(self.staged(image.id).exists):
            copied, name = await self._copied(source, image.id, progress), self.beside(image.id)
            if copied.path != self.staged(image.id):
                with storage_errors():
                    await in_thread(link_or_copy, copied.path, name)
                await self._name(Received(name, 0, {}), image.id)
        facts = {"md5": source.checksum or "", source.os_hash_algo or "": source.os_hash_value or ""}
        received = Received(self.staged(image.id), source.size or 0, facts)
        return Ready(received, *_taken_along(msgspec.structs.asdict(source), source.properties))

    async def _from_elsewhere(self, image: Image, order: Order, progress: "Progress") -> Ready:
        """The same from another image service, which is asked with the caller's token."""
        token = self.tokens.get(order.task_id)
        if token is None:
            raise Permanent("The program was started anew meanwhile, and does not keep tokens: import the image again.")
        url = f"{order.endpoint.rstrip('/').removesuffix('/v2')}/v2/images/{order.source}"
        headers = {"X-Auth-Token": token, "Accept-Encoding": "identity"}
        try:
            async with aiohttp.ClientSession(headers=headers, timeout=fetch.TIMEOUT, raise_for_status=True) as session:
                async with session.get(url, allow_redirects=False) as reply:
                    shown: dict[str, Any] = await reply.json()
                if shown.get("status") != "active":
                    raise Permanent(f"Source image status should be active instead of {shown.get('status')}")
                async with session.get(f"{url}/file", allow_redirects=False) as reply:
                    chunks = progress.counted(fetch.body(reply, url))
                    received = await self.stage(image.id, chunks, int(shown["size"]))
        except aiohttp.ClientResponseError as error:
            raise Permanent(f"{url} answers with {error.status}.") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{url} cannot be read: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise Permanent(f"{url} is described in a way that cannot be understood: {error!r}") from None
        return Ready(received, *_taken_along(shown, shown))

    async def _make_ready(self, image: Image, order: Order, ready: Ready, progress: "Progress") -> Ready:
        """Unpack, inspect, convert, as the settings say; what the data is in the end."""
        settings = self.runtime.kernel.settings
        values = {"disk_format": image.disk_format, "container_format": image.container_format, **ready.image}
        data = ready.data
        await self._check_signature(image, data)
        if settings.image_decompression and values["container_format"] == "compressed":
            data = await receive(unpacked(data.path), self.beside(image.id), most=self.runtime.most)
            values["container_format"] = "bare"
        bare = values["container_format"] == "bare"
        disk_format = values["disk_format"]
        wanted = settings.image_conversion
        converted = bare and disk_format in QEMU_NAMES and wanted not in ("none", disk_format)
        virtual = await self.runtime.inspect(data.path, disk_format, bare=bare, match=converted)
        if converted:
            if wanted == "raw" and virtual > self.runtime.most:
                raise Permanent(f"As raw data the image would have {virtual} bytes, more than are taken here.")
            target = self.beside(image.id)
            await convert(data.path, disk_format, target, wanted, progress)
            values["disk_format"], data = wanted, Received(target, 0, {})
            virtual = await self.runtime.inspect(target, wanted, bare=True)
        if not {"md5", "sha512"} <= {*data.digests}:
            data = await examine(data.path)
        await self._check_limit(image, data.size)
        injected = self.runtime.injected if order.inject else {}
        return Ready(data, {**values, **data.facts, "virtual_size": virtual}, {**ready.properties, **injected})

    async def _check_signature(self, image: Image, data: Received) -> None:
        """Refuse data that is not what was signed: as it came, before anything is made of it."""
        signature = self.runtime.signature(image)
        if signature is not None:
            if signature.algorithm not in data.digests:
                data = await examine(data.path, (signature.algorithm,))
            await self.runtime.verify(signature, data)

    async def _check_limit(self, image: Image, size: int) -> None:
        limits = await self.runtime.limits(image.owner)

        def look(tx: Connection) -> None:
            quota.check(tx, Image.table, limits, image.owner or "", **{quota.SIZE: size >> 20})

        await self.runtime.kernel.db.read(look)

    async def _put(self, image: Image, order: Order, ready: Ready) -> dict[str, str]:
        """Put the data in each store; what went wrong, by store, where not all have to succeed."""
        missed: dict[str, str] = {}
        there = {held.store.name for held in self.runtime.stores.holding(image)}
        for number, name in enumerate(order.stores, 1):
            try:
                if name not in there:
                    await self.runtime.stores.writable(name).put(image.id, ready.data.path)
            except (OSError, CloudError) as error:
                if order.must_succeed:
                    raise
                log.warning("image %s could not be put in the store %s: %s", image.id, name, error)
                missed[name] = f"{name}: {error}"
            await self.runtime.kernel.db.run(self._get_on, image.id, order, ready, number, missed)
        return missed

    def _get_on(
        self, tx: Connection, image_id: str, order: Order, ready: Ready, number: int, missed: Collection[str]
    ) -> None:
        """Tell how many of the stores have been tried; what those that have the data make of the image, if that is enough."""
        say(tx, order.task_id, f"Put in {number} of {len(order.stores)} stores")
        image = db.first(tx, Image, Image.table.c.id == image_id)
        if image is not None and image.properties.get(LOCK) == order.task_id:
            told = {WAITING: ",".join(order.stores[number:]), FAILED: _unlucky(image, order, missed)}
            done = [] if order.must_succeed else [name for name in order.stores[:number] if name not in missed]
            self._hold(tx, image, ready, done, told)

    def _finish(self, tx: Connection, image_id: str, order: Order, ready: Ready, missed: Collection[str]) -> None:
        image = find(tx, system_caller(), image_id)
        image.properties.pop(LOCK, None)
        done = [name for name in order.stores if name not in missed]
        self._hold(tx, image, ready, done, {WAITING: "", FAILED: _unlucky(image, order, missed)})
        succeed(tx, order.task_id, image_id)
        # An operation, so that it comes before whatever is done to the image next.
        self.runtime.kernel.operations.add(tx, TIDY, image_id)
        self.forget_token(tx, order.task_id)

    def _hold(self, tx: Connection, image: Image, ready: Ready, names: Sequence[str], told: Mapping[str, str]) -> None:
        """Write down that these stores have the data; with the first of them the image is active, and what came with it."""
        stores, values = self.runtime.stores, dict[str, Any]()
        properties = {**image.properties, **told}
        if names:
            there = [] if image.status == "importing" else stores.kept(image.id, stores.locations(image))
            known = {place.url for place in there}
            new = [place for place in (stores.place(name, image.id) for name in names) if place.url not in known]
            values["places"] = [*there, *new]
            if image.status == "importing":
                values |= {"status": "active", "staged": None, **ready.image}
                properties |= ready.properties
        db.update(tx, Image, image.id, **values, properties=properties, updated_at=now())
        save_labels(tx, image.id, image.tags, properties)

    def failed(self, tx: Connection, operation: Operation, error: BaseException) -> None:
        """The image waits for other data, or has what it had; one that came with the import goes."""
        order = msgspec.convert(operation.args, Order)
        image = db.first(tx, Image, Image.table.c.id == operation.resource_id)
        if image is not None and order.registered:
            remove_row(tx, image.id)
        elif image is not None:
            there = {held.store.name for held in self.runtime.stores.holding(image)}
            properties = {**image.properties, WAITING: "", FAILED: _unlucky(image, order, {*order.stores} - there)}
            properties.pop(LOCK, None)
            queued = {"status": "queued", "size": None, "staged": None} if image.status == "importing" else {}
            db.update(tx, Image, image.id, **queued, properties=properties, updated_at=now())
        fail(tx, order.task_id, str(error))
        self.forget_token(tx, order.task_id)

    def forget_token(self, tx: Connection, task_id: str) -> None:
        """Forget after this transaction what the image service of another cloud was to be asked with."""
        after_commit(tx, partial(self._drop_token, task_id))

    def _drop_token(self, task_id: str) -> None:
        self.tokens.pop(task_id, None)

    async def undo(self, operation: Operation) -> None:
        """Remove what an import has made that fails for good: before that is written down, since then the image may get
        other data at once."""
        image_id, own = operation.resource_id, self.runtime.stores.own

        def look(tx: Connection) -> set[str]:
            image = db.first(tx, Image, Image.table.c.id == image_id)
            return {held.store.name for held in self.runtime.stores.holding(image)} if image is not None else set()

        there = await self.runtime.kernel.db.read(look)
        for name in msgspec.convert(operation.args, Order).stores:
            if name in own and name not in there:
                await own[name].remove(image_id)
        await self.clear(image_id)

    async def tidy(self, operation: Operation) -> None:
        """Remove what was staged of an image that has been imported."""
        await self.clear(operation.resource_id)

    async def remove(self, operation: Operation) -> None:
        """Remove the files of an image that was deleted while it was imported."""
        for store in self.runtime.stores.own.values():
            await store.remove(operation.resource_id)
        await self.clear(operation.resource_id)

    async def _say(self, order: Order, message: str) -> None:
        await self.runtime.kernel.db.run(say, order.task_id, message)


class Progress:
    """Tells in the task how far an import is, now and then."""

    def __init__(self, say: Callable[[str], Awaitable[None]]) -> None:
        self._say = say
        self._next = time.monotonic() + PAUSE

    async def __call__(self, message: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE
            await self._say(message)

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same data; how much of it has come is told."""
        size = 0
        async for chunk in chunks:
            yield chunk
            size += len(chunk)
            await self(f"Copied {size >> 20} MiB")


def _taken_along(shown: Mapping[str, Any], custom: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What an image gets of the attributes and the custom properties of the one that it is downloaded from."""
    kept = {name: str(value) for name, value in custom.items() if name.startswith(COPIED)}
    return {name: shown[name] for name in ("disk_format", "container_format")}, kept


def _unlucky(image: Image, order: Order, missed: Collection[str]) -> str:
    """The stores that the image could not be put in: with those of earlier imports that this one leaves alone."""
    earlier = {*filter(None, image.properties.get(FAILED, "").split(","))} - {*order.stores}
    return ",".join(sorted({*earlier, *missed}))
