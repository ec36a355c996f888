"""Network namespaces: their names, their life, and threads that work inside them.

A namespace belongs to a thread, so nothing here may run on the event loop's thread: `in_thread` starts a thread of its
own for one piece of work, and `inside` moves that thread. Processes and sockets it makes are born where it stands.
"""

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cumulet.services.network.drivers import DataplaneError
from cumulet.services.network.drivers.linux.command import run

DIRECTORY = Path("/run/netns")
CLONE_NEWNET = 0x40000000

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def identity(name: str) -> int | None:
    """The kernel's number of a namespace, which no other has while it lives; None if there is none of this name."""
    try:
        found = os.stat(DIRECTORY / name)
    except FileNotFoundError:
        return None
    # A name whose making was cut short is an ordinary file, not on the namespaces' own file system.
    return found.st_ino if found.st_dev == os.stat("/proc/self/ns/net").st_dev else None


def ensure(name: str) -> int:
    """Make a namespace unless it lives; returns its identity."""
    number = identity(name)
    if number is None:
        (DIRECTORY / name).unlink(missing_ok=True)
        run(("ip", "netns", "add", name))
        number = identity(name)
    if number is None:
        raise DataplaneError(f"the namespace {name} vanished while it was made")
    return number


def remove(name: str) -> None:
    """Remove a namespace's name; the kernel frees the rest when nothing holds it. Unknown: no effect."""
    if identity(name) is None:
        (DIRECTORY / name).unlink(missing_ok=True)
    else:
        run(("ip", "netns", "del", name))


def names(start: str) -> list[str]:
    """The names of all namespaces, whole or not, that begin with `start`."""
    try:
        return sorted(entry for entry in os.listdir(DIRECTORY) if entry.startswith(start))
    except FileNotFoundError:
        return []


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Move the calling thread, which must be one of `in_thread`, into a namespace for a while."""
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError("the main thread never leaves its namespace")
    with open("/proc/thread-self/ns/net", "rb") as before:
        try:
            with open(DIRECTORY / name, "rb") as there:
                _setns(there.fileno(), name)
        except FileNotFoundError as error:
            raise DataplaneError(f"there is no namespace {name}") from error
        try:
            yield
        finally:
            _setns(before.fileno(), "the program's own")


def _setns(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise DataplaneError(f"could not enter namespace {name}: {os.strerror(ctypes.get_errno())}")


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own, born in the program's namespace, and wait for its result."""
    thread = ThreadPoolExecutor(1, "dataplane")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)


def write_sysctl(values: dict[str, str]) -> None:
    """Set kernel settings (paths below /proc/sys/net) of the thread's namespace; IPv6's only if there is IPv6."""
    root = Path("/proc/sys/net")
    for path, value in values.items():
        if path.startswith("ipv6/") and not (root / "ipv6").exists():
            continue
        try:
            (root / path).write_text(value)
        except OSError as error:
            raise DataplaneError(f"could not set net/{path} to {value}: {error.strerror}") from error
