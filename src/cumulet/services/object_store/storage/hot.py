"""Small objects that were read or written lately, in memory, so that reading them again costs no thread and no file.

What is held of an object is good as long as its hash directory has not changed since, which its time of change tells: nothing
is written in place, and whatever becomes of an object (also by rsync) adds or removes a name there. A directory that changed
just now is not held: times of change are not fine enough to tell two changes of one moment apart.

What this node itself has just written need not be read to be known. It is held from then on, apart from the others, so that
much writing does not drive out what is read; and whatever else this node does to the object ends that (`drop`). Only a change
that somebody else makes (rsync) within the same tick of the clock could go unseen: so it is read after a while all the same.
"""

import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from math import inf

from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.storage.object_file import Object
from cumulet.services.object_store.storage.object_headers import headers_of

QUIET = 100_000_000
"""Nanoseconds for which a directory must not have changed."""
OVERHEAD = 2048
"""Bytes that an object costs in memory beside its data, about."""
WRITTEN = 60.0
"""Seconds for which what was written here is known without reading it."""


@dataclass(slots=True)
class Held:
    """An object, the headers that are sent with it, what its directory was like, and for how long that tells."""

    found: Object
    headers: Headers
    changed: int
    inode: int
    until: float = inf


@dataclass(slots=True)
class Unread:
    """An object as it was written, what its directory was like then, and for how long that tells."""

    found: Object
    changed: int
    inode: int
    until: float


class Hot:
    """Up to `most` bytes of objects: those that were not asked for for the longest time go first. And beside them, up to an
    eighth of that, objects that have been written and not been asked for since."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = self._unread = 0
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._written: OrderedDict[str, Unread] = OrderedDict()

    def get(self, directory: str) -> Held | None:
        """What is held of a hash directory, if it is still so."""
        held = self._held.get(directory)
        if held is None:
            return self._first(directory) if directory in self._written else None
        try:
            now = os.stat(directory)  # of what was used lately: the kernel has it in memory
        except OSError:
            now = None
        if now is None or now.st_mtime_ns != held.changed or now.st_ino != held.inode or held.until < time.monotonic():
            self.drop(directory)
            return None
        self._held.move_to_end(directory)
        return held

    def _first(self, directory: str) -> Held | None:
        """What has been written, as it is first asked for."""
        written = self._written[directory]
        self.drop(directory)
        try:
            now = os.stat(directory)
        except OSError:
            return None
        changed = now.st_mtime_ns != written.changed or now.st_ino != written.inode
        if changed or written.until < time.monotonic():
            return None
        held = Held(written.found, headers_of(written.found), written.changed, written.inode, written.until)
        self._hold(directory, held)
        return held

    def put(self, directory: str, seen: os.stat_result, found: Object, headers: Headers) -> None:
        """Hold an object that was read after `seen` was."""
        if time.time_ns() - seen.st_mtime_ns < QUIET:
            return
        self.drop(directory)
        self._hold(directory, Held(found, headers, seen.st_mtime_ns, seen.st_ino))

    def wrote(self, directory: str, seen: tuple[int, int], found: Object) -> None:
        """Hold an object that this node has put in its place, and has done nothing else there since. `seen`: the time of change
        of the directory then, and its inode."""
        self.drop(directory)
        self._written[directory] = Unread(found, *seen, time.monotonic() + WRITTEN)
        self._unread += _size(found)
        while self._unread > self._most >> 3:
            _, gone = self._written.popitem(last=False)
            self._unread -= _size(gone.found)

    def _hold(self, directory: str, held: Held) -> None:
        self._held[directory] = held
        self._size += _size(held.found)
        while self._size > self._most:
            _, gone = self._held.popitem(last=False)
            self._size -= _size(gone.found)

    def drop(self, directory: str) -> None:
        """Something has become of an object."""
        held = self._held.pop(directory, None)
        if held is not None:
            self._size -= _size(held.found)
        written = self._written.pop(directory, None)
        if written is not None:
            self._unread -= _size(written.found)


def _size(found: Object) -> int:
    return OVERHEAD + len(found.body or b"")
