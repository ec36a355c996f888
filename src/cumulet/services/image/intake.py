"""Data on its way in: from a stream to a file, hashed while it is written.

A piece is written, and added to each digest, by threads of its own at once, while the next one arrives: what an upload holds
in memory are two pieces. Whatever goes wrong, no file stays.
"""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from cumulet.core.errors import Invalid, TooLarge, Unavailable
from cumulet.core.tasks import in_thread

PIECE = 4 << 20
"""Bytes that are written, and hashed, at once."""
LARGEST = 2**63 - 1
HASH = "sha512"
"""The algorithm of `os_hash_value`."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Received(Struct, frozen=True):
    """Data that has arrived whole, in a file. `digests` are hexadecimal, by algorithm: always md5 and sha512."""

    path: Path
    size: int
    digests: dict[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        """What an image tells of its data."""
        return {
            "size": self.size, "checksum": self.digests["md5"], "os_hash_algo": HASH,
            "os_hash_value": self.digests[HASH],
        }  # fmt: skip


@contextmanager
def storage_errors() -> Iterator[None]:
    """A full disk and a file system that may not be written to, in upstream's words for them."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise TooLarge(f"Image storage media is full: {error.strerror}") from error
        if error.errno in DENIED:
            raise Unavailable(f"Insufficient permissions on image storage media: {error.strerror}") from error
        raise


async def receive(
    chunks: AsyncIterator[bytes],
    path: Path,
    *,
    expected: int | None = None,
    most: int = LARGEST,
    algorithms: Sequence[str] = (),
) -> Received:
    """Write the data to a new file, and sync it. TooLarge where there is no room or more than `most` bytes come, Invalid where
    not `expected` bytes come. `algorithms`: further digests that are wanted."""
    sink = Sink(path, ("md5", HASH, *algorithms))
    under_way: asyncio.Task[None] | None = None
    try:
        with storage_errors():
            await in_thread(sink.open, expected or 0)
            async for piece in _pieces(chunks, most):
                if under_way is not None:
                    await under_way
                under_way = asyncio.ensure_future(sink.add(piece))
            if under_way is not None:
                await under_way
            if expected is not None and sink.size != expected:
                raise Invalid(f"The data has {sink.size} bytes, not the {expected} that were announced.")
            await in_thread(sink.finish)
    except BaseException:
        if under_way is not None:
            with suppress(BaseException):
                await under_way
        await in_thread(sink.abandon)
        raise
    return Received(path, sink.size, sink.digests())


async def _pieces(chunks: AsyncIterator[bytes], most: int) -> AsyncIterator[list[bytes]]:
    """The chunks in groups of about PIECE bytes."""
    waiting: list[bytes] = []
    size = total = 0
    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        total += len(chunk)
        if total > most:
            raise TooLarge(f"The incoming image is too large: more than the {most} bytes that are taken here.")
        if size >= PIECE:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


class Sink:
    """A file that is written, and the digests of what was written to it."""

    def __init__(self, path: Path, algorithms: Sequence[str]) -> None:
        self.path = path
        self.size = 0
        self._handle = -1
        self._digests = {name: hashlib.new(name, usedforsecurity=False) for name in dict.fromkeys(algorithms)}

    def open(self, expected: int) -> None:
        """Make the file; a file system that has no room for `expected` bytes is full before they are sent."""
        if expected > shutil.disk_usage(self.path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    async def add(self, piece: list[bytes]) -> None:
        """Write a piece and hash it, each in a thread; returns when all have ended."""
        self.size += sum(map(len, piece))
        works: list[Callable[[list[bytes]], None]] = [self._write, *map(_updater, self._digests.values())]
        for result in await asyncio.gather(*(in_thread(work, piece) for work in works), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _write(self, piece: list[bytes]) -> None:
        for chunk in piece:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._handle, view) :]

    def finish(self) -> None:
        os.fsync(self._handle)
        os.close(self._handle)
        self._handle = -1

    def abandon(self) -> None:
        """Leave no file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self.path.unlink(missing_ok=True)

    def digests(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


def _updater(digest: Any) -> Callable[[list[bytes]], None]:
    def update(piece: list[bytes]) -> None:
        for chunk in piece:
            digest.update(chunk)

    return update


async def examine(path: Path, algorithms: Sequence[str] = ()) -> Received:
    """The size and the digests of a file that is there already."""

    async def one(name: str) -> str:
        return await in_thread(_digest, path, name)

    names = list(dict.fromkeys(("md5", HASH, *algorithms)))
    found = await asyncio.gather(*map(one, names))
    return Received(path, (await asyncio.to_thread(path.stat)).st_size, dict(zip(names, found, strict=True)))


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


async def read_file(path: Path, offset: int = 0, length: int = LARGEST) -> AsyncIterator[bytes]:
    """A local file, or a part of it, in pieces, read off the loop."""
    handle = await asyncio.to_thread(path.open, "rb")
    try:
        await asyncio.to_thread(handle.seek, offset)
        while length > 0 and (piece := await asyncio.to_thread(handle.read, min(PIECE, length))):
            length -= len(piece)
            yield piece
    finally:
        handle.close()


def link_or_copy(source: Path, target: Path) -> None:
    """The same data under another name: the same file where the file systems allow, else a copy. Images' data never changes."""
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        copy_file(source, target)


def copy_file(source: Path, target: Path) -> None:
    """A synced copy in a new file, made by the kernel (shared blocks where the file system can)."""
    with source.open("rb") as reader, target.open("xb") as writer:
        left = os.fstat(reader.fileno()).st_size
        while left > 0:
            done = _copy_some(reader.fileno(), writer.fileno(), left)
            if not done:
                break
            left -= done
        os.fsync(writer.fileno())


def _copy_some(source: int, target: int, left: int) -> int:
    try:
        return os.copy_file_range(source, target, min(left, 1 << 30))
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.sendfile(target, source, None, min(left, 1 << 30))
