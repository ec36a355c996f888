"""The one thread that writes to SQLite, where units of work that wait for it are committed together.

A commit makes the disk write (`synchronous=FULL`), which takes as long as several units. So what has queued up while one
commit ran becomes one transaction with a savepoint for each unit: one that fails takes only itself back, and nobody is told
of success before the commit that makes it last.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection

TOGETHER = 0.004
"""Seconds after which a transaction takes no further units: those in it wait for its end."""


class Waiting:
    """A unit of work that was asked for."""

    __slots__ = ("args", "callbacks", "error", "fn", "future", "kwargs", "result")

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any, future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.callbacks: list[Callable[[], None]] = []

    def work(self, connection: Connection) -> None:
        """Do it inside a savepoint of the running transaction."""
        raw: Any = connection.connection.driver_connection
        connection.info["after_commit"] = self.callbacks
        raw.execute("SAVEPOINT unit")
        try:
            self.result = self.fn(connection, *self.args, **self.kwargs)
        except Exception as error:  # noqa: BLE001 - it is handed to who asked
            self.error = error
            raw.execute("ROLLBACK TO unit")
        raw.execute("RELEASE unit")

    def tell(self) -> None:
        """Tell who asked how it went. Runs on the event loop."""
        if self.error is None:
            loop = self.future.get_loop()
            for callback in self.callbacks:
                loop.call_soon(callback)
        if self.future.cancelled():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs units of work, in the order in which they were asked for. `connect` opens its one connection."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._waiting: deque[Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="db-write")

    def run(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> asyncio.Future[Any]:
        """Have a unit run; its result comes once it is committed."""
        loop = asyncio.get_running_loop()
        unit = Waiting(fn, args, kwargs, loop.create_future())
        self._waiting.append(unit)
        self._thread.submit(self._write, loop)
        return unit.future

    async def stop(self) -> None:
        """Let what waits be written, and close."""
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
        self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        """One transaction with what waits now. Called once for each unit: often another call has written it already."""
        if not self._waiting:
            return
        taken: list[Waiting] = []
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.begin():
                end = time.perf_counter() + TOGETHER
                while self._waiting:
                    unit = self._waiting.popleft()
                    if not unit.future.cancelled():
                        taken.append(unit)
                        unit.work(self._connection)
                    if time.perf_counter() > end:
                        break
        except Exception as error:  # noqa: BLE001 - nothing of it was written, and all who asked are told
            taken = taken or [self._waiting.popleft()]
            for unit in taken:
                unit.error = unit.error or error
            self._close()  # whatever state the connection is in, the next unit begins anew
        loop.call_soon_threadsafe(_tell, taken)


def _tell(units: list[Waiting]) -> None:
    for unit in units:
        unit.tell()
