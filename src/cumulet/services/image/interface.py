"""What other services may ask of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from cumulet.core.context import Caller


class ImageInfo(Struct, frozen=True):
    """An image. Sizes in bytes, `min_disk` in GiB, `min_ram` in MiB; `properties` are the custom ones."""

    id: str
    name: str | None
    status: str
    disk_format: str | None
    container_format: str | None
    size: int | None
    virtual_size: int | None
    min_disk: int
    min_ram: int
    owner: str | None
    visibility: str
    properties: Mapping[str, Any]


class Images(Protocol):
    async def show(self, caller: Caller, image_id: str) -> ImageInfo:
        """The image, if the caller may see it; NotFound else."""
        ...

    async def path(self, image_id: str) -> Path:
        """The local file that holds an active image's data; it never changes while it exists. Of data that is in no file
        a copy is made, which is there for an hour at least. NotFound, Conflict (the image is not active), Unavailable."""
        ...

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
        """An active image with this id and a copy of this file's content (the guest image at the first start)."""
        ...

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
        """An image with this id, whose data are yet to come. One that is there is left as it is."""
        ...

    async def fill(self, image_id: str, file: Path) -> None:
        """Give a queued image a copy of this file's content and make it active. Active already: no effect. NotFound,
        Conflict (somebody else is uploading)."""
        ...

    async def discard(self, image_id: str) -> None:
        """Remove an image that has not become active. Gone, or active: no effect."""
        ...
