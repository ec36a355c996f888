"""A process of our own that makes the changes of small objects while there are many (ADR 15).

Threads that make a dozen system calls for each object and the event loop take the interpreter's lock from each other: the more
there is to do, the more of both processors' time goes into that. So as soon as many changes come at one time a second process
is started, to which they are sent, and it ends when there was nothing to do for a while. A change is made by it or by a thread,
as it comes; whoever sends one need not know.

If it is killed, what it was asked for last is asked for `again`: whether that was done is seen on the disk. If this program is
killed, it ends as well, in the middle of what it does. The next program must not look at the disk before that has happened:
the process holds a lock on the file `disk-process` of the devices' directory (flock(2)), and `wait_for_last` waits for it.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

from cumulet.core.tasks import in_thread
from cumulet.services.object_store.storage import disk_messages, disk_worker
from cumulet.services.object_store.storage.disk_messages import LARGEST, Asked, Failed, Ready, decode_reply, encode
from cumulet.services.object_store.storage.object_changes import Change, Outcome, Refused
from cumulet.services.object_store.storage.object_file import NoSpace, Torn

log = logging.getLogger("cumulet.object_store.disk_process")

LOCK = "disk-process"
BUFFER = 1 << 20
"""Bytes of changes that may wait in the socket, where the kernel lets us have so many."""
IDLE = 60.0
"""Seconds without work after which it ends."""
PAUSE = 10.0
"""Seconds after which one that ended by itself is started again."""
SLOW = 5.0
"""Seconds of waiting for the last program's process after which it is said what is waited for."""
AT_ONCE = 16
"""Replies that are taken in before others have their turn."""


class Gone(Exception):
    """The process ended before it answered: the change may have been made."""


class DiskProcess:
    """The one of this node. It lives on one event loop."""

    def __init__(self, root: str) -> None:
        self._lock = Path(root, LOCK)
        self._sock: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ready = False
        self._not_before = 0.0
        self._last_asked = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        self._room = memoryview(bytearray(LARGEST))
        self._leaving: set[asyncio.Task[int]] = set()

    @property
    def pid(self) -> int | None:
        """Its process, while it takes changes."""
        return self._process.pid if self._ready and self._process is not None else None

    async def wait_for_last(self) -> None:
        """Until the process that a killed program has left is gone. Where there never was one nothing is made."""
        if not await in_thread(self._lock.exists):
            return
        waiting = asyncio.ensure_future(in_thread(_hold, self._lock))
        try:
            handle = await asyncio.wait_for(asyncio.shield(waiting), SLOW)
        except TimeoutError:
            log.warning(
                "the disk process of the last program still works; what it leaves has to be seen (%s)", self._lock
            )
            handle = await waiting
        os.close(handle)

    def start(self) -> None:
        """See that it runs; until it does threads make the changes."""
        if self._starting is None and self._sock is None and asyncio.get_running_loop().time() >= self._not_before:
            self._starting = asyncio.create_task(self._start())

    def offer(self, change: Change) -> "asyncio.Future[Outcome] | None":
        """What becomes of a change; None where a thread has to make it. It raises as `object_changes.make` does, and Gone."""
        if not self._ready or self._sock is None:
            return None
        self._number += 1
        message = encode(Asked(self._number, change))
        if len(message) > LARGEST:
            return None
        try:
            self._sock.send(message)
        except OSError:  # it has enough to do, or is gone
            return None
        loop = asyncio.get_running_loop()
        self._last_asked = loop.time()
        future = self._waiting[self._number] = loop.create_future()
        return future

    async def close(self) -> None:
        """Have it end; what it was asked for has been answered."""
        if self._starting is not None:
            await self._starting
        self._end()
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _start(self) -> None:
        try:
            handle = await in_thread(_hold, self._lock)
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                for end in (ours, its):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
                ours.setblocking(False)
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", disk_worker.__name__, str(its.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    pass_fds=(its.fileno(), handle),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
            finally:
                its.close()
                os.close(handle)  # the process has the lock now, for as long as it lives
        except OSError as error:
            log.error("the disk process cannot be started: %s", error)
            self._not_before = asyncio.get_running_loop().time() + PAUSE
        else:
            self._sock = ours
            loop = asyncio.get_running_loop()
            loop.add_reader(ours.fileno(), self._readable)
            self._last_asked = loop.time()
            self._idle = loop.call_later(IDLE, self._look)
        finally:
            self._starting = None

    def _look(self) -> None:
        """End what has had nothing to do."""
        loop = asyncio.get_running_loop()
        ends = self._last_asked + IDLE
        if self._waiting or loop.time() < ends:
            self._idle = loop.call_at(max(ends, loop.time() + 1), self._look)
        else:
            self._end()

    def _readable(self) -> None:
        for _ in range(AT_ONCE):
            if self._sock is None:
                return
            try:
                size = self._sock.recv_into(self._room)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if size == 0:
                self._lost()
                return
            reply = decode_reply(self._room[:size])
            if isinstance(reply.outcome, Ready):
                self._ready = True
            else:
                _settle(self._waiting.pop(reply.number), reply.outcome)

    def _lost(self) -> None:
        """It ended by itself."""
        log.error("the disk process has ended; threads do its work until it is started again")
        self._not_before = asyncio.get_running_loop().time() + PAUSE
        self._end()

    def _end(self) -> None:
        """Let it go: it ends when it sees that the socket is closed."""
        self._ready = False
        if self._idle is not None:
            self._idle.cancel()
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
        if self._process is not None:
            leaving = asyncio.create_task(self._process.wait())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._sock = self._idle = self._process = None
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Gone())


def _settle(future: "asyncio.Future[Outcome]", outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, disk_messages.Refusal):
        future.set_exception(Refused(outcome.status, outcome.last, outcome.text))
    elif isinstance(outcome, disk_messages.Torn):
        future.set_exception(Torn("", "is damaged"))
    elif isinstance(outcome, Failed):
        future.set_exception(_failure(outcome))
    else:
        future.set_result(outcome)


def _failure(failed: Failed) -> Exception:
    if failed.number == errno.ENOSPC:
        return NoSpace()
    if failed.number:
        return OSError(failed.number, failed.text)
    return RuntimeError(f"the disk process failed:\n{failed.text}")


def _hold(lock: Path) -> int:
    """A descriptor that holds the lock."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(handle)
        raise
    return handle
