"""Threads for work on disks: as little as can be between the event loop and the work, which comes with every request."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class DiskThreads:
    """So many threads; they are started when they are needed first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0

    def run(self, work: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Have a thread do it. Whoever waits may be cancelled; the work goes on to its end."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._busy += 1
        if self._busy > len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name=f"disk-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((loop, future, work, args))
        return future

    def close(self) -> None:
        """Let what was asked for come to its end."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, work, args = job
            try:
                done, failed = work(*args), None
            except BaseException as error:  # noqa: BLE001 - whoever waits is told
                done, failed = None, error
            if not loop.is_closed():
                try:
                    loop.call_soon_threadsafe(self._told, future, done, failed)
                except RuntimeError:  # closed meanwhile: nobody is there to be told
                    self._busy -= 1
            del job, future, work, args, done, failed

    def _told(self, future: "asyncio.Future[Any]", done: Any, failed: BaseException | None) -> None:
        self._busy -= 1
        if future.done():
            return
        if failed is None:
            future.set_result(done)
        else:
            future.set_exception(failed)
