"""The image service at run time: its store, the way of data into it, and what other services ask."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from cumulet.core import db
from cumulet.core.context import Caller, system_caller
from cumulet.core.errors import Conflict, UnsupportedMedia
from cumulet.core.kernel import Kernel
from cumulet.core.types import now
from cumulet.services.identity.interface import Identity
from cumulet.services.image import image_data
from cumulet.services.image.image import RULES, Image, find, remove_row
from cumulet.services.image.inspect import Refused, check
from cumulet.services.image.interface import ImageInfo
from cumulet.services.image.location import Locator
from cumulet.services.image.metadef_catalogue import load_metadefs
from cumulet.services.image.place import Places, Web
from cumulet.services.image.property_protection import Protections, read_protections
from cumulet.services.image.search import save_labels
from cumulet.services.image.store import Store, read_file

log = logging.getLogger("cumulet.image")

GUEST_IMAGE = "cumulet-guest"
GUEST_IMAGE_ID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "cumulet-guest.image"))
"""Fixed, so that however often a first start is cut off, one guest image comes of it."""


class ImageRuntime:
    """Implements `interface.Images`."""

    def __init__(
        self, kernel: Kernel, identity: Identity | None = None, rules: frozenset[str] = frozenset(RULES)
    ) -> None:
        """Without `identity` nothing is limited. `rules` are those that policy has: property protections may name them."""
        self.kernel = kernel
        self.identity = identity
        self.rules = rules
        self.protections = Protections()
        self.web: Places = Web(kernel.settings.image_web)
        Locator(self)
        self.store = Store(kernel.settings.data / "image")

    async def start(self) -> None:
        """Take back what a process that died had under way: uploads are queued again, their files removed."""
        settings = self.kernel.settings
        self.protections = await asyncio.to_thread(
            read_protections,
            settings.image_property_protections,
            settings.image_property_protection_format,
            self.rules,
        )
        await self.store.start(await self.kernel.db.run(_recover))
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

    async def show(self, caller: Caller, image_id: str) -> ImageInfo:
        return _info(await self.kernel.db.read_inline(find, caller, image_id))

    async def path(self, image_id: str) -> Path:
        image = await self.kernel.db.read_inline(find, system_caller(), image_id)
        if image.status != "active":
            raise Conflict(f"Image {image_id} is not active; it is {image.status}.")
        if image.places is not None and not any(place.url.startswith("file:") for place in image.places):
            raise Conflict(f"The data of image {image_id} lies outside this cloud; nothing can boot from it.")
        return self.store.path(image.id)

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
            await self.store.remove(image_id)

    async def ensure_guest_image(self, project_id: str, file: Path) -> ImageInfo:
        """The public image `cumulet-guest`, owned by `project_id`, with the content that `file` had when it was first made."""
        return await self.ensure_image(
            GUEST_IMAGE_ID, system_caller(project_id), GUEST_IMAGE, file, disk_format="qcow2", visibility="public"
        )

    async def take(self, image: Image, chunks: AsyncIterator[bytes], limits: Mapping[str, int] | None = None) -> None:
        """Store the data of a queued image and make it active. Conflict if it is not queued, UnsupportedMedia for data that
        may not be used; then, and whenever else this fails, the image is queued again and no file stays."""
        run = self.kernel.db.run
        await run(image_data.begin, image.id, limits or {})
        try:
            received = await self.store.receive(chunks)
            try:
                bare = image.container_format == "bare"
                size = await asyncio.to_thread(check, received.path, image.disk_format, bare=bare)
                await self.store.publish(received, image.id)
                await run(
                    image_data.finish, image.id, size=received.size, virtual_size=size, checksum=received.md5,
                    os_hash_algo="sha512", os_hash_value=received.sha512,
                )  # fmt: skip
            except BaseException:
                await self.store.drop(received.path)
                await self.store.remove(image.id)
                raise
        except BaseException as error:
            await run(image_data.give_up, image.id)
            if isinstance(error, Refused):
                log.warning("image %s was refused: %s", image.id, error)
                raise UnsupportedMedia(str(error)) from None
            raise


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


def _recover(tx: Connection) -> frozenset[str]:
    """Queue again what was being saved; returns the ids of images that have data."""
    db.update_where(tx, Image, [Image.table.c.status == "saving"], status="queued", updated_at=now())
    stored = Image.table.c.status.in_(("active", "deactivated"))
    return frozenset(image.id for image in db.find(tx, Image, stored))


def _info(image: Image) -> ImageInfo:
    return ImageInfo(
        image.id, image.name, image.status, image.disk_format, image.container_format, image.size, image.virtual_size,
        image.min_disk, image.min_ram, image.owner, image.visibility, image.properties,
    )  # fmt: skip
