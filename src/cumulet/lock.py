"""One program per data directory: a lock that the kernel releases however the program ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "lock"


class DataLockedError(Exception):
    """Another Cumulet uses the data directory; the text names its process."""


def holder(data: Path) -> int | None:
    """The pid of the program that holds `data`, 0 where it cannot be told, None where nobody does.

    Raises OSError if the lock file cannot be opened.
    """
    try:
        descriptor = os.open(data / LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


@contextmanager
def hold(data: Path) -> Iterator[None]:
    """Hold `data` for this process. Raises DataLockedError if another has it.

    The descriptor is not inherited, so virtual machines and helpers that outlive the program do not keep the lock.
    """
    descriptor = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataLockedError(locked_text(data, holder(data) or 0)) from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def locked_text(data: Path, pid: int) -> str:
    """One sentence about who holds the directory."""
    who = f"process {pid}" if pid else "another process"
    return f"the data directory {data} is in use by another Cumulet ({who})"
