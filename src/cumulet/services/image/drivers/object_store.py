"""The store `swift`: one object for each image in this cloud's object storage, in an account that is the image service's own.

Data is collected in a local directory first, since it is inspected before it is kept. Large images are kept in segments.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from cumulet.core.errors import CloudError, Invalid, NotFound, RangeNotSatisfiable, Unavailable
from cumulet.services.image.intake import read_file, storage_errors
from cumulet.services.object_store.interface import Area

log = logging.getLogger("cumulet.image")

SCHEME = "swift+config"


class ObjectStore:
    """Implements `Store`."""

    kind = "swift"
    read_only = False

    def __init__(self, name: str, area: Area, directory: Path, segment: int) -> None:
        """`directory` is where data is collected; `segment`, in bytes, is told to admins."""
        self.name = name
        self.container = f"images-{name}"
        self._area = area
        self._segment = segment
        self._spool = directory.absolute() / "incoming"
        self._prefix = f"{SCHEME}://{name}/{self.container}/"

    @property
    def spool(self) -> Path:
        return self._spool

    async def start(self, keep: frozenset[str]) -> None:
        await asyncio.to_thread(self._clean)
        try:
            doomed = [name async for name in self._area.names(self.container) if name not in keep]
            for image_id in doomed:
                await self._area.delete(self.container, image_id)
            await self._area.tidy(self.container)
        except Unavailable as error:  # the cloud starts nevertheless: its nodes may come later
            log.warning("what uploads have left in the store %s stays until the next start: %s", self.name, error)

    async def put(self, image_id: str, file: Path) -> None:
        with storage_errors():
            size = (await asyncio.to_thread(file.stat)).st_size
            await self._area.put(self.container, image_id, read_file(file), size)

    async def remove(self, image_id: str) -> None:
        await self._area.delete(self.container, image_id)

    def url(self, image_id: str) -> str:
        return self._prefix + image_id

    def file(self, url: str) -> Path | None:
        return None

    async def size(self, url: str) -> int:
        try:
            return await self._area.size(self.container, self._image(url))
        except NotFound:
            raise self._missing(url) from None

    async def chunks(self, url: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        image_id = self._image(url)
        try:
            async for piece in self._area.read(self.container, image_id, offset, length):
                yield piece
        except NotFound:
            raise self._missing(url) from None
        except RangeNotSatisfiable:
            raise Invalid(f"The data at {url} ends before what was asked for.") from None

    def properties(self) -> Mapping[str, Any]:
        size = self._segment >> 20
        return {"container": self.container, "large_object_size": size, "large_object_chunk_size": size}

    def _image(self, url: str) -> str:
        image_id = url.removeprefix(self._prefix)
        if image_id == url or not image_id or "/" in image_id:
            raise Invalid(f"{url} names no data of the store {self.name}.")
        return image_id

    def _missing(self, url: str) -> CloudError:
        return Invalid(f"There is no data at {url}.")

    def _clean(self) -> None:
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._spool.iterdir():
            path.unlink()
