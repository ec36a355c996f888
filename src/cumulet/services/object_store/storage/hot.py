"""Small objects that were read lately, in memory, so that reading them again costs no thread.

What is held of an object is good as long as its hash directory has not changed since, which its time of change tells: nothing
is written in place, and whatever becomes of an object (also by rsync) adds or removes a name there. A directory that changed
just now is not held: times of change are not fine enough to tell two changes of one moment apart.
"""

import os
import time
from collections import OrderedDict
from dataclasses import dataclass

from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.storage.object_file import Object

QUIET = 100_000_000
"""Nanoseconds for which a directory must not have changed."""
OVERHEAD = 2048
"""Bytes that an object costs in memory beside its data, about."""


@dataclass(slots=True)
class Held:
    """An object, the headers that are sent with it, and what its directory was like."""

    found: Object
    headers: Headers
    changed: int
    inode: int


class Hot:
    """Up to `most` bytes of objects: those that were not asked for for the longest time go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._held: OrderedDict[str, Held] = OrderedDict()

    def get(self, directory: str) -> Held | None:
        """What is held of a hash directory, if it is still so."""
        held = self._held.get(directory)
        if held is None:
            return None
        try:
            now = os.stat(directory)  # of what was used lately: the kernel has it in memory
        except OSError:
            now = None
        if now is None or now.st_mtime_ns != held.changed or now.st_ino != held.inode:
            self.drop(directory)
            return None
        self._held.move_to_end(directory)
        return held

    def put(self, directory: str, seen: os.stat_result, found: Object, headers: Headers) -> None:
        """Hold an object that was read after `seen` was."""
        if time.time_ns() - seen.st_mtime_ns < QUIET:
            return
        self.drop(directory)
        self._held[directory] = Held(found, headers, seen.st_mtime_ns, seen.st_ino)
        self._size += _size(found)
        while self._size > self._most:
            _, gone = self._held.popitem(last=False)
            self._size -= _size(gone.found)

    def drop(self, directory: str) -> None:
        gone = self._held.pop(directory, None)
        if gone is not None:
            self._size -= _size(gone.found)


def _size(found: Object) -> int:
    return OVERHEAD + len(found.body or b"")
