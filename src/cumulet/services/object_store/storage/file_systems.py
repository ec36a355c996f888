"""What file systems promise."""

import os
from functools import cache

JOURNALLED = frozenset({"ext3", "ext4", "xfs"})
"""Here the sync of a file that was just linked makes that name last as well, and the directories that were made before it:
they write one journal, in order. POSIX does not promise it."""


@cache
def names_last_with_files(directory: str) -> bool:
    """Whether syncing a file below a directory makes its names last; False where the file system is not known."""
    return _type(os.stat(directory).st_dev) in JOURNALLED


def _type(device: int) -> str:
    """The type of the file system that is mounted from a device, as /proc/self/mountinfo tells (proc(5)); "" if it does not."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as file:
        for line in file:
            told, _, more = line.partition(" - ")
            if told.split()[2] == wanted:
                return more.split()[0]
    return ""
