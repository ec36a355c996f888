"""Stores: what image data lies in. Every driver passes the suite in `tests/drivers/test_image_store.py`.

Data in a store never changes. It is named by the image's id in the store and by a URL outside; it comes in whole or not at
all. Drivers: `file` (a directory), `object_store` (this cloud's object storage) and `http` (what lies at web servers, read
only).
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol


class Store(Protocol):
    """One store."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """The driver, as upstream names it."""
        ...

    @property
    def read_only(self) -> bool: ...

    @property
    def spool(self) -> Path:
        """The directory where data that is meant for this store is collected. NotImplementedHere if it is read only."""
        ...

    async def start(self, keep: frozenset[str]) -> None:
        """Make ready, and remove what was left by uploads and deletions that never ended. `keep`: ids with data here."""
        ...

    async def put(self, image_id: str, file: Path) -> None:
        """Keep the data that is in a local file, durably, whatever becomes of the file: it is not written to any more. A
        second time: no effect. TooLarge (there is no room) or NotImplementedHere (the store is read only): nothing of it
        is left in the store."""
        ...

    async def remove(self, image_id: str) -> None:
        """Remove the data of an image. Nothing there: no effect."""
        ...

    def url(self, image_id: str) -> str:
        """Names the data of an image that was put here."""
        ...

    def file(self, url: str) -> Path | None:
        """The local file that holds the data, where one does."""
        ...

    async def size(self, url: str) -> int:
        """How many bytes there are; Invalid where there are none."""
        ...

    def chunks(self, url: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The data, or a part of it, in pieces of bounded size; Invalid where there is none."""
        ...

    def properties(self) -> Mapping[str, Any]:
        """What admins are shown of it."""
        ...
