"""The devices of a node: directories, each of them one disk, in one directory. What of one is where, as in swift's tree."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 16
"""Disk work of a node at one time."""


class Devices:
    """The devices below `root`. One that is not there (not mounted) has no directory; `mounts`: it must be a mount point, so
    that nothing is written to the disk beneath it."""

    def __init__(self, root: Path, *, mounts: bool = False, reserve: float = 0.01) -> None:
        self.root = str(root)
        self.mounts = mounts
        self.reserve = reserve
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")

    def usable(self, device: str) -> bool:
        """Whether a device is there. It blocks only as long as the file system of the root does."""
        path = f"{self.root}/{device}"
        if not device or "/" in device or device.startswith("."):
            return False
        return os.path.ismount(path) if self.mounts else os.path.isdir(path)

    def names(self) -> list[str]:
        """The devices that are there."""
        return sorted(name for name in os.listdir(self.root) if self.usable(name))

    def crowded(self, device: str) -> bool:
        """Whether so little room is left that no new data is taken: what is kept of it is for listings and tombstones."""
        room = os.statvfs(f"{self.root}/{device}")
        return room.f_bavail < room.f_blocks * self.reserve

    def objects(self, device: str, policy: int) -> str:
        return f"{self.root}/{device}/objects{tail(policy)}"

    def temporary(self, device: str, policy: int) -> str:
        return f"{self.root}/{device}/tmp{tail(policy)}"

    def pending(self, device: str, policy: int) -> str:
        return f"{self.root}/{device}/async_pending{tail(policy)}"

    def quarantined(self, device: str, policy: int) -> str:
        return f"{self.root}/{device}/quarantined/objects{tail(policy)}"

    def close(self) -> None:
        self.threads.shutdown(wait=True)


def tail(policy: int) -> str:
    """What the names of a policy's directories end with."""
    return f"-{policy}" if policy else ""


def hash_directory(objects: str, partition: int, digest: str) -> str:
    return f"{objects}/{partition}/{digest[-3:]}/{digest}"
