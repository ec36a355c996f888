"""What this node is about to do to objects, noted so that a crash in the middle can be made good (`recovery.py`).

An object has its name on the disk before its container is told, so a program that is killed in between leaves one that can be
read and is not listed. `<device>/intents` names the hash directories in which something is going on: a line of 64 bytes for
each, written over once it is over. Nothing waits for these to be synced: what a process has written outlives it. A power cut
may take them; the first line, which names the boot, tells that there was one, and the file's time of change since when to look.
"""

import contextlib
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cumulet.services.object_store.storage.object_file import sync_directory

if TYPE_CHECKING:
    from cumulet.services.object_store.storage.devices import Devices

FILE = "intents"
LINE = 64
BOOT = Path("/proc/sys/kernel/random/boot_id")
_PATH = re.compile(r"objects(-\d+)?/\d+/[0-9a-f]{3}/[0-9a-f]{32}")

Note = tuple[str, int]
"""A file of intents, and a line in it."""


class Intents:
    """The intents of a node. What one process has left is moved aside before another one writes its own."""

    def __init__(self, devices: "Devices") -> None:
        self._devices = devices
        self._lock = threading.Lock()
        self._free: dict[str, list[int]] = {}
        self._used: dict[str, int] = {}
        self._going_on: dict[str, list[int]] = {}
        self._together: set[str] = set()  # of these directories those in which there was more than one thing at a time

    def begun(self, device: str) -> bool:
        """Whether the file of a device is there: `begin` makes it."""
        return device in self._free

    def begin(self, device: str) -> None:
        """The first time that a device is seen: put aside what the last program noted there. In a thread."""
        with self._lock:
            if device not in self._free:
                self._begin(device)

    def reserve(self, directory: str) -> Note:
        """Where to note (`write_note`) that something is about to be named in a hash directory; its device has begun."""
        device = self._device(directory)
        with self._lock:
            free = self._free[device]
            if free:
                line = free.pop()
            else:
                line = self._used[device]
                self._used[device] += 1
            lines = self._going_on.setdefault(directory, [])
            if lines:
                self._together.add(directory)
            lines.append(line)
        return self._file(device), line

    def note(self, directory: str) -> None:
        """Note that something is about to be named in a hash directory. In a thread."""
        self.begin(self._device(directory))
        write_note(self.reserve(directory), directory)

    def settled(self, directory: str) -> bool:
        """What was noted last of a hash directory is done, and told. Whether nothing else went on in it at the same time."""
        with self._lock:
            lines = self._going_on[directory]
            self._free[self._device(directory)].append(lines.pop())
            alone = directory not in self._together
            if not lines:
                del self._going_on[directory]
                self._together.discard(directory)
            return alone

    def left(self, device: str) -> list[str]:
        """The files of a device that hold what was going on when a program ended."""
        self.begin(device)
        names = os.listdir(f"{self._devices.root}/{device}")
        return [f"{self._devices.root}/{device}/{name}" for name in names if name.startswith(f"{FILE}.")]

    def close(self) -> None:
        """The program ends, and nothing is going on any more."""
        with self._lock:
            if not self._going_on:
                for device in self._free:
                    with contextlib.suppress(OSError):
                        os.unlink(self._file(device))
            self._free.clear()

    def _begin(self, device: str) -> None:
        """Put aside what is there, and begin a file that a power cut does not take."""
        file = self._file(device)
        with contextlib.suppress(FileNotFoundError):
            os.rename(file, f"{file}.{os.stat(file).st_mtime_ns}")
        with contextlib.suppress(OSError):
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(handle, _line(boot()), 0)
                os.fsync(handle)
            finally:
                os.close(handle)
            sync_directory(os.path.dirname(file))
        self._used[device], self._free[device] = 1, []

    def _device(self, directory: str) -> str:
        return directory[len(self._devices.root) + 1 :].partition("/")[0]

    def _file(self, device: str) -> str:
        return f"{self._devices.root}/{device}/{FILE}"


def write_note(note: Note, directory: str) -> None:
    """The file is opened anew each time, so that a device that is idle may be taken away."""
    file, line = note
    with contextlib.suppress(OSError):  # of a device that fails, which what follows will say
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, _line(directory[len(os.path.dirname(file)) + 1 :]), line * LINE)
        finally:
            os.close(handle)


def boot() -> str:
    """What this boot of the machine is called; "" where it has no name."""
    with contextlib.suppress(OSError):
        return BOOT.read_text().strip()
    return ""


def is_of_this_boot(file: str) -> bool:
    """Whether all that was written to a file of intents is in it: the machine has not been off since."""
    with open(file, "rb") as held:
        return held.read(LINE) == _line(boot()) != _line("")


def _line(text: str) -> bytes:
    return text.encode().ljust(LINE - 1) + b"\n"


def read(file: str) -> list[str]:
    """The hash directories that a file of intents names."""
    with open(file, "rb") as held:
        lines = held.read().decode(errors="replace").split("\n")
    return sorted({f"{os.path.dirname(file)}/{line.rstrip()}" for line in lines if _PATH.fullmatch(line.rstrip())})
