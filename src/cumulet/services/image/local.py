"""Local copies of images whose data lies in no file: servers boot from files.

A copy is made when the first server needs it, and removed with its image, or when nobody has asked for it for a while and
no disk shares its blocks (the hypervisor's base of an image is the same file under another name, where file systems allow).
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from weakref import WeakValueDictionary

from cumulet.core.tasks import in_thread
from cumulet.services.image.intake import receive

IDLE = 3600.0
"""Seconds for which a copy is kept that nobody asks for."""


class LocalCopies:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self, images: frozenset[str]) -> None:
        """Remove what is left of copies that were not finished, and of other images than these."""
        await asyncio.to_thread(self._clean, images)

    async def get(self, image_id: str, chunks: AsyncIterator[bytes], size: int) -> Path:
        """The copy of an image; made of `chunks` if there is none. The errors of `receive`."""
        file = self.directory / image_id
        async with self._locks.setdefault(image_id, asyncio.Lock()):
            if not await in_thread(_touched, file):
                part = self.directory / f"{image_id}.{secrets.token_hex(8)}"
                await receive(chunks, part, expected=size)
                await in_thread(part.rename, file)
        return file

    async def drop(self, image_id: str) -> None:
        """Remove the copy of an image. Nothing there: no effect."""
        await in_thread((self.directory / image_id).unlink, missing_ok=True)

    async def prune(self) -> None:
        """Remove what nobody has used for long."""
        await in_thread(self._prune, time.time() - IDLE)

    def _clean(self, images: frozenset[str]) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.directory.iterdir():
            if path.name not in images:
                path.unlink()

    def _prune(self, before: float) -> None:
        for path in self.directory.iterdir():
            found = path.stat()
            if "." not in path.name and found.st_nlink == 1 and found.st_mtime < before:
                path.unlink(missing_ok=True)


def _touched(file: Path) -> bool:
    """Note that a file is used; False where there is none."""
    try:
        os.utime(file)
    except FileNotFoundError:
        return False
    return True
