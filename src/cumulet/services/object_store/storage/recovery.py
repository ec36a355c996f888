"""Makes good what a crash has left: containers are told of objects that were written, changed or deleted, but not told of.

Where to look the last process has noted (`intents.py`), so that this costs a start nothing. A power cut may have taken these
notes: after one all that was changed since they were last seen to be written is looked at, in the background. What containers
are told here they may know already: rows carry times, and telling one twice changes nothing.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice

from cumulet.core.tasks import in_thread
from cumulet.services.object_store.storage import intents, object_file, suffix_hashes
from cumulet.services.object_store.storage.async_pending import Update
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.intents import Intents
from cumulet.services.object_store.storage.object_file import ZERO, Absent, Object, Torn
from cumulet.services.object_store.storage.object_updates import Named, Updates, overridden
from cumulet.services.object_store.storage.updater import Updater

log = logging.getLogger("cumulet.object_store.recovery")

AT_ONCE = 8
PATIENCE = 2.0
"""Seconds in which containers are told at once; the rest is left to the updater."""
BATCH = 200
UNWRITTEN = 120.0
"""Seconds for which the kernel may hold back what a file of intents says, and a little more."""


class Recovery:
    """Of this node's devices. `told` counts what containers were told."""

    def __init__(self, devices: Devices, noted: Intents, updates: Updates, updater: Updater) -> None:
        self.devices = devices
        self.intents = noted
        self.updates = updates
        self.updater = updater
        self.told = 0

    async def run(self) -> None:
        """Tell of all that was noted; also on devices that came later."""
        for device, file in await in_thread(self._left):
            try:
                await self._tell_all(device, await in_thread(intents.read, file))
                if await in_thread(intents.is_of_this_boot, file):
                    await in_thread(os.unlink, file)
            except OSError as error:
                log.error("what a crash has left on %s cannot be told now: %s", device, error)

    async def search(self) -> None:
        """After a power cut tell of all that was changed shortly before it. This takes half of one thread."""
        for device, file in await in_thread(self._left):
            try:
                await self._search(device, file)
            except OSError as error:
                log.error("what a power cut has left on %s cannot be looked for now: %s", device, error)

    async def _search(self, device: str, file: str) -> None:
        since = (await in_thread(os.stat, file)).st_mtime - UNWRITTEN
        log.info("what was changed on %s since %s is looked for", device, time.ctime(since))
        directories = _hash_directories(f"{self.devices.root}/{device}")
        while True:
            begun = time.monotonic()
            batch = await in_thread(_changed, directories, since)
            if batch is None:
                break
            await self._tell_all(device, batch)
            await asyncio.sleep(time.monotonic() - begun)
        await in_thread(os.unlink, file)

    def _left(self) -> list[tuple[str, str]]:
        """Devices, and what the programs before this one have noted on them."""
        found = []
        for device in self.devices.names():
            with contextlib.suppress(OSError):
                found += [(device, file) for file in self.intents.left(device)]
        return found

    async def _tell_all(self, device: str, directories: list[str]) -> None:
        """Tell containers what lies in hash directories; keep what they could not be told for the updater."""
        waiting = deque([update for each in directories for update in await in_thread(self._updates, device, each)])
        deadline = asyncio.get_running_loop().time() + PATIENCE

        async def work() -> None:
            while waiting:
                named, update = waiting.popleft()
                left: Update | None = update
                try:
                    async with asyncio.timeout_at(deadline):
                        left = await self.updater.tell(update)
                except TimeoutError:
                    pass
                self.told += 1
                if left is not None:
                    await self.updates.keep(named, left)

        await asyncio.gather(*(work() for _ in range(min(AT_ONCE, len(waiting)))))

    def _updates(self, device: str, directory: str) -> list[tuple[Named, Update]]:
        """What a hash directory says now: a row of a listing, and an entry of the queue where the object has an end."""
        policy = int(directory.split("/")[-4].partition("-")[2] or 0)
        try:
            held = _read(directory)
        except (Absent, Torn, OSError, ValueError):
            return []  # there never was anything, or it is the auditor's business
        if held is None:
            return []
        path, method, told, found = held
        named = Named(device, policy, *path, os.path.basename(directory))
        headers = told | {"X-Backend-Storage-Policy-Index": str(policy)}
        updates = [Update(method, *path, headers)]
        if found is not None and (at := int(found.metadata.get("X-Delete-At") or 0)):
            updates.append(self.updates.entry("PUT", named, at, found.timestamp, found.data_metadata))
        return [(named, update) for update in updates]


def _read(directory: str) -> tuple[tuple[str, str, str], str, dict[str, str], Object | None] | None:
    """Whose directory it is, the method and the headers of the row's update, and the object where there is one."""
    tombstone = object_file.choose(os.listdir(directory)).tombstone
    if tombstone:
        told = object_file.read_meta(f"{directory}/{tombstone}")
        return _path(told), "DELETE", {"X-Timestamp": object_file.stamp(tombstone).internal}, None
    found = object_file.read(directory, now=ZERO, expired=True)
    data, metadata = found.data_metadata, found.metadata
    typed_at, kind = found.content_type_timestamp, metadata["Content-Type"]
    _, mark, size = data["Content-Type"].partition(";swift_bytes=")
    if mark and mark not in kind:  # a POST that changed the type said nothing of the size
        kind += mark + size
    told = {
        "X-Size": metadata["Content-Length"],
        "X-Content-Type": kind,
        "X-Timestamp": found.data_timestamp.internal,
        "X-Content-Type-Timestamp": typed_at.internal,
        "X-Meta-Timestamp": found.timestamp.internal,
        "X-Etag": metadata["ETag"],
    }
    return _path(data), "PUT", overridden(told, metadata), found


def _path(metadata: dict[str, str]) -> tuple[str, str, str]:
    _, account, container, object = metadata["name"].split("/", 3)
    return account, container, object


def _hash_directories(device: str) -> Iterator[str]:
    for name in os.listdir(device):
        if name == "objects" or name.startswith("objects-"):
            for partition in suffix_hashes.listed(f"{device}/{name}"):
                yield from suffix_hashes.hash_directories(f"{device}/{name}/{partition}")


def _changed(directories: Iterator[str], since: float) -> list[str] | None:
    """Of the next hash directories those that were changed since then; None where there are no more."""
    some = list(islice(directories, BATCH))
    return [each for each in some if _changed_at(each) >= since] if some else None


def _changed_at(directory: str) -> float:
    try:
        return os.stat(directory).st_mtime
    except OSError:
        return 0.0
