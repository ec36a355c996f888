"""Where image data lies: one file per image, `<data>/image/<image id>`; what is still arriving under `incoming/`.

A file gets its final name only when all of it is on the disk, and is never written again.
"""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from cumulet.core.tasks import in_thread

PIECE = 1 << 20
"""Bytes that are written, and hashed, at once: what an upload holds in memory."""


class Received(Struct, frozen=True):
    """Data that has arrived whole, still under its temporary name."""

    path: Path
    size: int
    md5: str
    sha512: str


class Store:
    """The files of all images, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.incoming = directory / "incoming"

    def path(self, image_id: str) -> Path:
        """Where the data of an image lies once it is published."""
        return self.directory / image_id

    async def start(self, keep: frozenset[str]) -> None:
        """Make the directories, and remove what uploads and deletions that never ended have left. `keep`: ids with data."""
        await asyncio.to_thread(self._clean, keep)

    async def receive(self, chunks: AsyncIterator[bytes]) -> Received:
        """Write the data to a temporary file, and sync it. Whatever goes wrong, no file stays."""
        writer = Writer(self.incoming / secrets.token_hex(16))
        try:
            await in_thread(writer.open)
            waiting, size = [], 0
            async for chunk in chunks:
                waiting.append(chunk)
                size += len(chunk)
                if size >= PIECE:
                    await in_thread(writer.write, waiting)
                    waiting, size = [], 0
            return await in_thread(writer.finish, waiting)
        except BaseException:
            await in_thread(writer.abandon)
            raise

    async def publish(self, received: Received, image_id: str) -> None:
        """Give the data its final name, durably."""
        await in_thread(self._publish, received.path, self.path(image_id))

    async def remove(self, image_id: str) -> None:
        """Remove the data of an image. Nothing there: no effect."""
        await self.drop(self.path(image_id))

    async def drop(self, path: Path) -> None:
        await in_thread(path.unlink, missing_ok=True)

    def _publish(self, source: Path, path: Path) -> None:
        source.rename(path)
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _clean(self, keep: frozenset[str]) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self.incoming.mkdir(exist_ok=True)
        for path in self.incoming.iterdir():
            path.unlink()
        for path in self.directory.iterdir():
            if path.is_file() and path.name not in keep:
                path.unlink()


class Writer:
    """A temporary file and the digests of what was written to it. Used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha512 = hashlib.sha512()
        self._size = 0

    def open(self) -> None:
        self._file = self.path.open("xb")

    def write(self, chunks: list[bytes]) -> None:
        assert self._file is not None, "it was opened"
        for chunk in chunks:
            self._file.write(chunk)
            self._md5.update(chunk)
            self._sha512.update(chunk)
            self._size += len(chunk)

    def abandon(self) -> None:
        """Leave no file."""
        self.path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()

    def finish(self, chunks: list[bytes]) -> Received:
        self.write(chunks)
        assert self._file is not None, "it was opened"
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Received(self.path, self._size, self._md5.hexdigest(), self._sha512.hexdigest())


async def read_file(path: Path) -> AsyncIterator[bytes]:
    """A local file in pieces, read off the loop."""
    handle = await asyncio.to_thread(path.open, "rb")
    try:
        while piece := await asyncio.to_thread(handle.read, PIECE):
            yield piece
    finally:
        handle.close()
