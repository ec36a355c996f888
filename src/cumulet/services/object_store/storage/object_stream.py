"""A large body on its way to the disk: hashed, written and synced off the event loop while more of it comes in.

MD5 is the slowest part, so it is kept busy: one thread hashes block after block without asking the loop in between, and another
one writes them. No more than MOST bytes wait for them; a client who is faster than that has to wait, one who is slow costs
no thread.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from hashlib import md5

from cumulet.services.object_store.storage.disk_threads import DiskThreads
from cumulet.services.object_store.storage.object_file import SOON, Writer

BLOCK = 1 << 20
"""Bytes that are hashed and written at once, at least."""
MOST = 8 << 20
SYNC = 8 << 20
"""Bytes after which the disk is set to work, rather than all at the end."""

Block = list[bytes]


class Line:
    """Blocks that a thread does `work` on in their order, as long as there are any. `done`: the bytes of those it is through
    with, of which the loop is `told`."""

    def __init__(self, threads: DiskThreads, work: Callable[[Block], None], told: Callable[[], None]) -> None:
        self._threads = threads
        self._work = work
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._blocks: deque[tuple[Block, int]] = deque()
        self._lock = threading.Lock()
        self._going = False
        self.thread: asyncio.Future[None] | None = None
        self.done = 0

    def put(self, block: Block, size: int) -> None:
        with self._lock:
            self._blocks.append((block, size))
            if self._going:
                return
            self._going = True
        self.thread = self._threads.run(self._run)
        self.thread.add_done_callback(lambda _: self._told())

    def stop(self) -> None:
        """Begin no other block."""
        with self._lock:
            self._blocks.clear()

    def _run(self) -> None:
        """What it raises ends it for good."""
        while True:
            with self._lock:
                if not self._blocks:
                    self._going = False
                    return
                block, size = self._blocks.popleft()
            self._work(block)
            self._loop.call_soon_threadsafe(self._did, size)

    def _did(self, size: int) -> None:
        self.done += size
        self._told()


class Stream:
    """One body. `run` writes it; whatever happens, nothing works on the file any more when that has ended."""

    def __init__(self, threads: DiskThreads, writer: Writer) -> None:
        self.threads = threads
        self.writer = writer
        self.digest = md5(usedforsecurity=False)
        self._size = 0
        self._progress = asyncio.Event()
        self._hashed = Line(threads, self._hash, self._progress.set)
        self._written = Line(threads, writer.write, self._progress.set)
        self._sync: asyncio.Future[None] | None = None

    async def run(self, pieces: Block, body: AsyncIterator[bytes]) -> tuple[int, str]:
        """Write what has come already and all that comes: the length and the MD5. NoSpace, OSError."""
        size = sum(map(len, pieces))
        try:
            async for piece in body:
                pieces.append(piece)
                size += len(piece)
                if size >= BLOCK:
                    self._put(pieces, size)
                    pieces, size = [], 0
                    await self._behind(MOST)
            if pieces:
                self._put(pieces, size)
            await self._behind(0)
            if self._sync is not None:  # a failure of the disk is told once, to whoever asks first
                await asyncio.shield(self._sync)
        finally:
            await self._settled()
        return self.writer.size, self.digest.hexdigest()

    def _put(self, block: Block, size: int) -> None:
        self._size += size
        self._hashed.put(block, size)
        self._written.put(block, size)

    async def _behind(self, most: int) -> None:
        """Wait until no more than so many bytes are still to be hashed or written. Meanwhile the disk is set to work: also on
        the last block, as soon as it is written, since it is hashed later than that."""
        while True:
            self._progress.clear()
            for going in (self._hashed.thread, self._written.thread, self._sync):
                if going is not None and going.done():
                    going.result()
            everything = most == 0 and self._written.done == self._size
            if self.writer.unsynced > (SOON if everything else SYNC) and (self._sync is None or self._sync.done()):
                self._sync = self.threads.run(self.writer.sync)
            if self._size - min(self._hashed.done, self._written.done) <= most:
                return
            await self._progress.wait()

    async def _settled(self) -> None:
        """Wait until no thread works on the file, even if cancelled."""
        self._hashed.stop()
        self._written.stop()
        going = {one for one in (self._hashed.thread, self._written.thread, self._sync) if one is not None}
        cancelled = False
        while unsettled := [one for one in going if not one.done()]:
            try:
                await asyncio.wait(unsettled)
            except asyncio.CancelledError:
                cancelled = True
        for one in going:
            if not one.cancelled():
                one.exception()
        if cancelled:
            raise asyncio.CancelledError

    def _hash(self, block: Block) -> None:
        for piece in block:
            self.digest.update(piece)
