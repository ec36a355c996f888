"""A large body on its way to the disk: hashed, written and synced off the event loop while more of it comes in.

MD5 is the slowest part, so it is kept busy: what has come in while one block was hashed is the next block. No more than two are
held, of MOST bytes at most; a client who is faster than that has to wait, one who is slow costs no thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from hashlib import md5
from typing import Any

from cumulet.services.object_store.storage.disk_threads import DiskThreads
from cumulet.services.object_store.storage.object_file import SOON, Writer

BLOCK = 1 << 20
"""Bytes that are hashed and written at once, at least."""
MOST = 4 << 20
SYNC = 8 << 20
"""Bytes after which the disk is set to work, rather than all at the end."""


class Stream:
    """One body. `run` writes it; whatever happens, nothing works on the file any more when that has ended."""

    def __init__(self, threads: DiskThreads, writer: Writer) -> None:
        self.threads = threads
        self.writer = writer
        self.digest = md5(usedforsecurity=False)
        self._block: list[asyncio.Future[Any]] = []
        self._sync: asyncio.Future[Any] | None = None

    async def run(self, pieces: list[bytes], body: AsyncIterator[bytes]) -> tuple[int, str]:
        """Write what has come already and all that comes: the length and the MD5."""
        size = sum(map(len, pieces))
        try:
            async for piece in body:
                pieces.append(piece)
                size += len(piece)
                if size >= BLOCK and (size >= MOST or all(part.done() for part in self._block)):
                    await self._written()
                    self._start(pieces)
                    pieces, size = [], 0
            await self._written()
            self._start(pieces, _write_and_sync)
            await self._written()
        finally:
            await self._settled()
        return self.writer.size, self.digest.hexdigest()

    def _start(self, pieces: list[bytes], write: Callable[[Writer, list[bytes]], None] = Writer.write) -> None:
        threads, writer = self.threads, self.writer
        self._block = [threads.run(_hash, self.digest, pieces), threads.run(write, writer, pieces)]
        if writer.unsynced >= SYNC and (self._sync is None or self._sync.done()):
            self._sync = threads.run(writer.sync)

    async def _written(self) -> None:
        """Wait for the block that is being written. NoSpace."""
        if self._block:
            await asyncio.wait(self._block)
            for part in self._block:
                part.result()

    async def _settled(self) -> None:
        """Wait until no thread works on the file, even if cancelled."""
        going = {part for part in (*self._block, self._sync) if part is not None and not part.done()}
        cancelled = False
        while going:
            try:
                _, going = await asyncio.wait(going)
            except asyncio.CancelledError:
                cancelled = True
        for part in self._block:
            if not part.cancelled():
                part.exception()
        if cancelled:
            raise asyncio.CancelledError


def _write_and_sync(writer: Writer, pieces: list[bytes]) -> None:
    """The last block is on the disk when it has been hashed, not only after that."""
    writer.write(pieces)
    if writer.unsynced > SOON:
        writer.sync()


def _hash(digest: Any, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        digest.update(piece)
