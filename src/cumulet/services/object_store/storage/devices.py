"""The devices of a node: directories, each of them one disk, in one directory. What of one is where, as in swift's tree."""

import os
import time
from pathlib import Path

from cumulet.core.tasks import in_thread
from cumulet.services.object_store.storage.disk_process import DiskProcess
from cumulet.services.object_store.storage.disk_threads import DiskThreads

THREADS = 8
"""Disk work of a node at one time."""

LOOK = 0.5
"""Seconds after which it is looked anew whether a device is there, and how much room it has (at once where it is little)."""


class Devices:
    """The devices below `root`. One that is not there (not mounted) has no directory; `mounts`: it must be a mount point, so
    that nothing is written to the disk beneath it."""

    def __init__(self, root: Path, *, mounts: bool = False, reserve: float = 0.01) -> None:
        self.root = str(root)
        self.mounts = mounts
        self.reserve = reserve
        self._there: dict[str, tuple[float, bool]] = {}
        self._room: dict[str, tuple[float, int, float]] = {}
        self.threads = DiskThreads(THREADS)
        self.process = DiskProcess(self.root)

    def usable(self, device: str) -> bool:
        """Whether a device is there, or was a moment ago. It blocks only as long as the file system of the root does."""
        until, there = self._there.get(device, (0.0, False))
        if not there or until < time.monotonic():
            path = f"{self.root}/{device}"
            if not device or "/" in device or device.startswith("."):
                return False
            there = os.path.ismount(path) if self.mounts else os.path.isdir(path)
            self._there[device] = (time.monotonic() + LOOK, there)
        return there

    def names(self) -> list[str]:
        """The devices that are there."""
        return sorted(name for name in os.listdir(self.root) if self.usable(name))

    def crowded(self, device: str, size: int = 0) -> bool:
        """Whether `size` bytes more would leave less room than is kept free, for tombstones and listings."""
        if not self.reserve:
            return False
        until, free, kept = self._room.get(device, (0.0, 0, 0.0))
        if until < (now := time.monotonic()) or free - size < 2 * kept:
            room = os.statvfs(f"{self.root}/{device}")
            free, kept = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize * self.reserve
            self._room[device] = (now + LOOK, free, kept)
        return free - size < kept

    def sweep(self) -> None:
        """Take away what a crash has left half written: to be called before anything is written."""
        for device in self.names():
            for name in os.listdir(f"{self.root}/{device}"):
                if name == "tmp" or name.startswith("tmp-"):
                    for left in os.listdir(f"{self.root}/{device}/{name}"):
                        os.unlink(f"{self.root}/{device}/{name}/{left}")

    def objects(self, device: str, policy: int) -> str:
        return f"{self.root}/{device}/objects{tail(policy)}"

    def temporary(self, device: str, policy: int) -> str:
        return f"{self.root}/{device}/tmp{tail(policy)}"

    def pending(self, device: str, policy: int) -> str:
        return f"{self.root}/{device}/async_pending{tail(policy)}"

    def quarantined(self, device: str, policy: int) -> str:
        return f"{self.root}/{device}/quarantined/objects{tail(policy)}"

    async def close(self) -> None:
        """Let what was asked for come to its end."""
        await self.process.close()
        await in_thread(self.threads.close)


def tail(policy: int) -> str:
    """What the names of a policy's directories end with."""
    return f"-{policy}" if policy else ""


def hash_directory(objects: str, partition: int, digest: str) -> str:
    return f"{objects}/{partition}/{digest[-3:]}/{digest}"
