"""The image service at run time: its store, the way of data into it, and what other services ask."""

import asyncio
import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, or_

from cumulet.config import SettingsError
from cumulet.core import db
from cumulet.core.context import Caller, Context, system_caller
from cumulet.core.errors import Conflict, Invalid, UnsupportedMedia
from cumulet.core.kernel import Kernel
from cumulet.core.tasks import in_thread
from cumulet.core.types import now
from cumulet.services.identity.interface import Identity
from cumulet.services.image import image_data, image_import
from cumulet.services.image.cache import Cache, forget_cached
from cumulet.services.image.convert import properties
from cumulet.services.image.fetch import Fetcher
from cumulet.services.image.image import RULES, Image, find, remove_row
from cumulet.services.image.importing import LOCK, METHODS, REMOVE, Imports
from cumulet.services.image.inspect import Refused, check
from cumulet.services.image.intake import Received, read_file, receive
from cumulet.services.image.interface import ImageInfo
from cumulet.services.image.local import LocalCopies
from cumulet.services.image.location import Locator
from cumulet.services.image.metadef_catalogue import load_metadefs
from cumulet.services.image.patch import RESERVED_PREFIX
from cumulet.services.image.place import Places, Web
from cumulet.services.image.property_protection import Protections, read_protections
from cumulet.services.image.search import save_labels
from cumulet.services.image.signature import Rejected, Signature, told, verify
from cumulet.services.image.stores import Stores, discard
from cumulet.services.image.task import ImportInput, Task, fail
from cumulet.services.object_store.interface import ObjectStorage

log = logging.getLogger("cumulet.image")

GUEST_IMAGE = "cumulet-guest"
GUEST_IMAGE_ID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "cumulet-guest.image"))
"""Fixed, so that however often a first start is cut off, one guest image comes of it."""


class ImageRuntime:
    """Implements `interface.Images`."""

    def __init__(
        self,
        kernel: Kernel,
        identity: Identity | None = None,
        rules: frozenset[str] = frozenset(RULES),
        objects: ObjectStorage | None = None,
    ) -> None:
        """Without `identity` nothing is limited; without `objects` no store is in object storage. `rules` are those that
        policy has: property protections may name them."""
        self.kernel = kernel
        self.identity = identity
        self.rules = rules
        self.protections = Protections()
        self.fetcher = Fetcher(kernel.settings)
        self.web: Places = Web(kernel.settings.image_web, self.fetcher)
        Locator(self)
        settings = kernel.settings
        self.most, self.most_virtual = settings.image_size_limit << 30, settings.image_virtual_size_limit << 30
        self.methods = _methods(settings.image_import_methods)
        self.injected = _injected(settings.image_inject)
        self.stores = Stores(settings, self.web, objects)
        self.local = LocalCopies(settings.data.absolute() / "image-local")
        self.imports = Imports(self)
        self.cache = Cache(self, settings.image_cache << 30)

    async def start(self) -> None:
        """Take back what a process that died had under way: uploads are queued again, their files removed."""
        settings = self.kernel.settings
        self.protections = await asyncio.to_thread(
            read_protections,
            settings.image_property_protections,
            settings.image_property_protection_format,
            self.rules,
        )
        kept, waiting = await self.kernel.db.run(self._recover)
        for name, store in self.stores.own.items():
            await store.start(kept.get(name, frozenset()))
        await self.local.start(frozenset[str]().union(*kept.values()))
        self.kernel.tasks.every("local copies of images", 600, self.local.prune)
        await self.imports.start(waiting)
        await self.cache.start()
        if settings.image_metadefs is not None:
            made = await load_metadefs(self.kernel, settings.image_metadefs)
            log.info("made %s namespaces of metadata definitions", made)

    async def stop(self) -> None:
        """Nothing to let go: uploads end with their requests."""

    async def limits(self, project_id: str | None) -> Mapping[str, int]:
        """What a project may have, by the names in `quota.py`; what is not named is not limited."""
        if self.identity is None or project_id is None:
            return {}
        return await self.identity.limits("image", project_id)

    async def endpoint(self, region: str, interface: str) -> str | None:
        """The URL of an image service in the catalogue."""
        if self.identity is None:
            return "" if region == self.kernel.settings.region else None
        return await self.identity.endpoint("image", region, interface)

    def told_to_importers(self) -> Mapping[str, str]:
        """The headers that tell who has registered an image how its data can come, and where it can go."""
        told = {}
        if self.methods:
            told["OpenStack-image-import-methods"] = ",".join(self.methods)
        if self.stores.several:
            told["OpenStack-image-store-ids"] = ",".join(self.stores.all)
        return told

    async def import_new(self, ctx: "Context[ImageRuntime]", wanted: ImportInput) -> Task:
        """See `image_import.import_new`."""
        return await image_import.import_new(ctx, wanted)

    async def inspect(self, path: Path, disk_format: str | None, *, bare: bool, match: bool = False) -> int:
        """The virtual size of data that may be used; Refused else. It may be of another format only if the settings say so, and
        never where it has to `match`."""
        match = match or self.kernel.settings.image_format_match
        return await asyncio.to_thread(check, path, disk_format, bare=bare, most=self.most_virtual, match=match)

    def signature(self, image: Image) -> Signature | None:
        """The signature that an image's data has to have; Refused where it cannot be one."""
        return told(image.properties) if self.kernel.settings.image_signature_certificates is not None else None

    async def verify(self, signature: Signature | None, received: Received) -> None:
        """Refused unless the signature, if there is one, is of the data."""
        directory = self.kernel.settings.image_signature_certificates
        if signature is not None and directory is not None:
            await in_thread(verify, signature, bytes.fromhex(received.digests[signature.algorithm]), directory)

    def end_import(self, tx: Connection, image: Image, request_id: str) -> None:
        """End what goes on with an image that is deleted in this transaction: the files of an import go as an operation."""
        forget_cached(tx, image.id)
        if _is_importing(image):
            self.kernel.operations.add(tx, REMOVE, image.id, request_id=request_id, supersede=True)
            task_id = image.properties.get(LOCK, "")
            fail(tx, task_id, "The image was deleted.")
            self.imports.forget_token(tx, task_id)

    async def remove_data(self, image: Image) -> None:
        """Remove the files of an image that was deleted, unless an operation does."""
        await self.cache.drop(image.id)
        if not _is_importing(image):
            await self.remove_files(image.id)

    async def remove_files(self, image_id: str) -> None:
        """Remove an image's data from every store. What is on its way yet goes when it arrives."""
        for store in self.stores.own.values():
            await discard(store, image_id)
        await self.local.drop(image_id)
        await self.imports.drop(image_id)

    async def show(self, caller: Caller, image_id: str) -> ImageInfo:
        return _info(await self.kernel.db.read_inline(find, caller, image_id))

    async def path(self, image_id: str) -> Path:
        image = await self.kernel.db.read_inline(find, system_caller(), image_id)
        if image.status != "active":
            raise Conflict(f"Image {image_id} is not active; it is {image.status}.")
        for held in self.stores.holding(image):
            if (file := held.file) is not None:
                return file
        for held in self.stores.holding(image):
            if held.own:
                return await self.local.get(image.id, held.store.chunks(held.url), image.size or 0)
        raise Conflict(f"The data of image {image_id} lies outside this cloud; nothing can boot from it.")

    async def ensure_image(
        self,
        image_id: str,
        caller: Caller,
        name: str,
        file: Path,
        *,
        disk_format: str,
        visibility: str,
        properties: Mapping[str, Any] | None = None,
    ) -> ImageInfo:
        await self.ensure_queued(
            image_id, caller, name, disk_format=disk_format, visibility=visibility, properties=properties
        )
        await self.fill(image_id, file)
        return await self.show(system_caller(), image_id)

    async def ensure_queued(
        self,
        image_id: str,
        caller: Caller,
        name: str,
        *,
        disk_format: str,
        visibility: str,
        properties: Mapping[str, Any] | None = None,
        min_disk: int = 0,
        min_ram: int = 0,
    ) -> ImageInfo:
        moment = now()
        wanted = Image.new(
            id=image_id, name=name, owner=caller.project_id, status="queued", visibility=visibility,
            container_format="bare", disk_format=disk_format, created_at=moment, updated_at=moment,
            min_disk=min_disk, min_ram=min_ram,
            properties={key: str(value) for key, value in (properties or {}).items()},
        )  # fmt: skip
        return _info(await self.kernel.db.run(_ensure, wanted))

    async def fill(self, image_id: str, file: Path) -> None:
        image = await self.kernel.db.read_inline(find, system_caller(), image_id)
        if image.status != "active":
            await self.take(image, read_file(file))

    async def discard(self, image_id: str) -> None:
        if await self.kernel.db.run(_discard, image_id):
            await self.remove_files(image_id)

    async def ensure_guest_image(self, project_id: str, file: Path) -> ImageInfo:
        """The public image `cumulet-guest`, owned by `project_id`, with the content that `file` had when it was first made."""
        return await self.ensure_image(
            GUEST_IMAGE_ID, system_caller(project_id), GUEST_IMAGE, file, disk_format="qcow2", visibility="public"
        )

    async def take(
        self,
        image: Image,
        chunks: AsyncIterator[bytes],
        limits: Mapping[str, int] | None = None,
        *,
        store: str = "",
        expected: int | None = None,
    ) -> None:
        """Put the data of a queued image in a store and make it active. Conflict if it is not queued, UnsupportedMedia for data
        that may not be used, Invalid for data that is not what was signed; then, and whenever else this fails, the image is
        queued again and no file stays."""
        run = self.kernel.db.run
        await run(image_data.begin, image.id, limits or {})
        target = self.stores.own[store or self.stores.default.name]
        try:
            spooled = target.spool / f"{image.id}.{secrets.token_hex(8)}"
            signature = self.signature(image)
            algorithms = (signature.algorithm,) if signature else ()
            received = await receive(chunks, spooled, expected=expected, most=self.most, algorithms=algorithms)
            try:
                await self.verify(signature, received)
                size = await self.inspect(received.path, image.disk_format, bare=image.container_format == "bare")
                await target.put(image.id, received.path)
                places = [self.stores.place(target.name, image.id)]
                await run(image_data.finish, image.id, places=places, virtual_size=size, **received.facts)
            except BaseException:
                if not await run(image_data.has_data, image.id):  # it has where it was cut off after it was finished
                    await discard(target, image.id)
                raise
            finally:
                await in_thread(spooled.unlink, missing_ok=True)
        except BaseException as error:
            await run(image_data.give_up, image.id)
            if isinstance(error, Refused):
                log.warning("image %s was refused: %s", image.id, error)
                raise (Invalid if isinstance(error, Rejected) else UnsupportedMedia)(str(error)) from None
            raise

    def _recover(self, tx: Connection) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
        """Queue again what was being saved or staged; returns (ids of images by the store that has their data, ids of images
        with staged data)."""
        c = Image.table.c
        broken = or_(c.status == "saving", and_(c.status == "uploading", c.staged.is_(None)))
        db.update_where(tx, Image, [broken], status="queued", updated_at=now())
        kept: dict[str, set[str]] = {}
        waiting = set()
        for image in db.find(tx, Image, c.status.in_(("active", "deactivated", "uploading", "importing"))):
            if image.status in ("uploading", "importing") or LOCK in image.properties:
                waiting.add(image.id)
            for held in self.stores.holding(image):
                kept.setdefault(held.store.name, set()).add(image.id)
        return {name: frozenset(ids) for name, ids in kept.items()}, frozenset(waiting)


def _is_importing(image: Image) -> bool:
    return image.status == "importing" or LOCK in image.properties


def _methods(setting: str) -> tuple[str, ...]:
    """The import methods that the setting names."""
    names = tuple(name.strip() for name in setting.split(",") if name.strip())
    if wrong := [name for name in names if name not in METHODS]:
        raise SettingsError(f"`image_import_methods` names {wrong[0]}; there are {', '.join(METHODS)}")
    return names


def _injected(setting: str) -> dict[str, str]:
    try:
        return properties(setting)
    except ValueError as error:
        raise SettingsError(f"`image_inject`: {error}") from None


def _ensure(tx: Connection, wanted: Image) -> Image:
    found = db.first(tx, Image, Image.table.c.id == wanted.id)
    if found is not None:
        return found
    db.insert(tx, wanted)
    save_labels(tx, wanted.id, wanted.tags, wanted.properties)
    return wanted


def _discard(tx: Connection, image_id: str) -> bool:
    image = db.first(tx, Image, Image.table.c.id == image_id, Image.table.c.status.in_(("queued", "saving")))
    if image is not None:
        remove_row(tx, image_id)
    return image is not None


def _info(image: Image) -> ImageInfo:
    return ImageInfo(
        image.id, image.name, image.status, image.disk_format, image.container_format, image.size, image.virtual_size,
        image.min_disk, image.min_ram, image.owner, image.visibility,
        {name: value for name, value in image.properties.items() if not name.startswith(RESERVED_PREFIX)},
    )  # fmt: skip
