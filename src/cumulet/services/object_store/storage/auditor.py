"""Looks at every object's file from time to time, and quarantines what is damaged, so that a whole copy takes its place.

Two rounds: a fast one reads no more than footers (that a file is as long as it should be), a thorough one all the data, held
against its MD5. Both keep to a rate, since they take the disk from those who want it.
"""

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from hashlib import md5
from itertools import islice
from typing import Any

from cumulet.core.tasks import in_thread
from cumulet.services.object_store.storage import object_file, suffix_hashes
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.object_file import OpenFile, Torn
from cumulet.services.object_store.storage.quarantine import quarantine

log = logging.getLogger("cumulet.object_store.auditor")

BLOCK = 1 << 20
BATCH = 200
BROKEN = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
"""How a disk says that it has lost what it was given."""


class Pace:
    """Lets so many of something pass in a second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._due = time.monotonic()

    async def passed(self, amount: float) -> None:
        """So much has been done: wait until more may be."""
        now = time.monotonic()
        self._due = max(self._due, now - 1) + (amount / self.rate if self.rate else 0)
        await asyncio.sleep(max(0.0, self._due - now))


class Auditor:
    """Audits this node's devices. `audited` and `quarantined` count since the start; `passes` rounds that were finished."""

    def __init__(
        self,
        devices: Devices,
        policies: Callable[[], list[int]],
        *,
        files_per_second: float,
        bytes_per_second: float,
        fast_files_per_second: float,
    ) -> None:
        self.devices = devices
        self.policies = policies
        self.files_per_second = files_per_second
        self.bytes_per_second = bytes_per_second
        self.fast_files_per_second = fast_files_per_second
        self.audited = self.quarantined = self.passes = 0

    async def run(self) -> None:
        """Read all data, once."""
        files, data = Pace(self.files_per_second), Pace(self.bytes_per_second)
        async for place, directory in self._directories():
            await self._audit(place, directory, data)
            await files.passed(1)
        self.passes += 1

    async def run_fast(self) -> None:
        """Read all footers, once."""
        files = Pace(self.fast_files_per_second)
        async for place, directory in self._directories():
            await self._audit(place, directory, None)
            await files.passed(1)

    async def _directories(self) -> Any:
        for device in await in_thread(self.devices.names):
            for policy in self.policies():
                found = _walk(self.devices.objects(device, policy))
                place = self.devices.quarantined(device, policy)
                while batch := await in_thread(_next, found):
                    for directory in batch:
                        yield place, directory

    async def _audit(self, place: str, directory: str, data: Pace | None) -> None:
        """Audit a hash directory; all its data where `data` gives the pace."""
        self.audited += 1
        torn: Torn | None = None
        try:
            begun = await in_thread(_open, directory, data is not None)
            if begun is None or data is None:
                return
            file, length, etag, path = begun
            digest, offset = md5(usedforsecurity=False), 0
            while offset < length:
                read = await in_thread(_more, digest, file, offset, min(BLOCK, length - offset))
                if not read:
                    raise Torn(path, "ends too early")
                offset += read
                await data.passed(read)
            if digest.hexdigest() != etag:
                raise Torn(path, f"does not have the MD5 {etag} that it was stored with")
        except FileNotFoundError:
            return  # replaced while it was looked at
        except (Torn, ValueError) as error:
            torn = error if isinstance(error, Torn) else None
            log.error("quarantined: %s", str(error))
        except NotADirectoryError:
            return
        except OSError as error:
            log.error("%s cannot be read: %s", directory, error.strerror)
            if error.errno not in BROKEN:
                return
        else:
            return
        self.quarantined += 1
        await in_thread(quarantine, directory, place, torn)
        await in_thread(suffix_hashes.changed, directory)


def _walk(objects: str) -> Iterator[str]:
    try:
        partitions = os.listdir(objects)
    except (FileNotFoundError, NotADirectoryError):
        return
    for partition in partitions:
        yield from suffix_hashes.hash_directories(f"{objects}/{partition}")


def _next(found: Iterator[str]) -> list[str]:
    return list(islice(found, BATCH))


def _open(directory: str, whole: bool) -> tuple[OpenFile, int, str, str] | None:
    """Hold the files of a hash directory against their names and footers; the data's file, if it is to be read. Torn."""
    files = object_file.choose(os.listdir(directory))
    for name in (files.meta, files.content_type, files.tombstone):
        if name:
            object_file.read_meta(f"{directory}/{name}")
    if not files.data:
        return None
    path = f"{directory}/{files.data}"
    metadata, length, _, _ = object_file.read_data(path, body=False)
    if not whole:
        return None
    return OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC)), length, metadata["ETag"], path


def _more(digest: Any, file: OpenFile, offset: int, length: int) -> int:
    piece = os.pread(file.fd, length, offset)
    digest.update(piece)
    os.posix_fadvise(file.fd, offset, length, os.POSIX_FADV_DONTNEED)
    return len(piece)
