"""The store `file`: one file for each image, `<directory>/<image id>`; what is still arriving is under `incoming/`.

A file gets its final name only when all of it is on the disk, and is never written again.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cumulet.core.errors import Invalid
from cumulet.core.tasks import in_thread
from cumulet.services.image.intake import LARGEST, PIECE, link_or_copy, read_file, storage_errors

SCHEME = "file"


class FileStore:
    """Implements `Store`."""

    kind = "file"
    read_only = False

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory.absolute()
        self.incoming = self.directory / "incoming"

    @property
    def spool(self) -> Path:
        return self.incoming

    def path(self, image_id: str) -> Path:
        """Where the data of an image lies."""
        return self.directory / image_id

    async def start(self, keep: frozenset[str]) -> None:
        await asyncio.to_thread(self._clean, keep)

    async def put(self, image_id: str, file: Path) -> None:
        with storage_errors():
            await in_thread(self._put, image_id, file)

    async def remove(self, image_id: str) -> None:
        await in_thread(self.path(image_id).unlink, missing_ok=True)

    def url(self, image_id: str) -> str:
        return self.path(image_id).as_uri()

    def file(self, url: str) -> Path | None:
        parts = urlsplit(url)
        path = Path(unquote(parts.path))
        return path if parts.scheme == SCHEME and path.parent == self.directory else None

    async def size(self, url: str) -> int:
        path = self._found(url)
        try:
            return (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            raise Invalid(f"There is no data at {url}.") from None

    async def chunks(self, url: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        path = self._found(url)
        try:
            async for piece in read_file(path, offset, LARGEST if length is None else length):
                yield piece
        except FileNotFoundError:
            raise Invalid(f"There is no data at {url}.") from None

    def properties(self) -> Mapping[str, Any]:
        return {"data_dir": str(self.directory), "chunk_size": PIECE, "thin_provisioning": False}

    def _found(self, url: str) -> Path:
        path = self.file(url)
        if path is None:
            raise Invalid(f"{url} names no data of the store {self.name}.")
        return path

    def _put(self, image_id: str, file: Path) -> None:
        arriving = self.incoming / f"{image_id}.{secrets.token_hex(8)}"
        try:
            link_or_copy(file, arriving)
            arriving.rename(self.path(image_id))
        finally:
            arriving.unlink(missing_ok=True)  # also after it was given the name of the same file
        _sync(self.directory)

    def _clean(self, keep: frozenset[str]) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self.incoming.mkdir(exist_ok=True)
        for path in self.incoming.iterdir():
            path.unlink()
        for path in self.directory.iterdir():
            if path.is_file() and path.name not in keep:
                path.unlink()


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
