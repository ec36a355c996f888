"""Threads for work on disks: as little as can be between the event loop and the work, which comes with every request."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Job = tuple[Callable[..., Any], tuple[Any, ...]]


class DiskThreads:
    """So many threads; they are started when they are needed first."""

    def __init__(self, count: int, name: str = "disk") -> None:
        self._count = count
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._busy = 0
        self._closed = False

    @property
    def busy(self) -> int:
        """Pieces of work that are being done or are waiting."""
        return self._busy

    def run(self, work: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Have a thread do it. Whoever waits may be cancelled; the work goes on to its end."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self.post(_done, loop, future, work, args)
        return future

    def post(self, work: Callable[..., None], *args: Any) -> None:
        """Have a thread do it, which raises nothing and tells by itself who has to know. RuntimeError once closed."""
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the {self._name} threads have ended")
            self._busy += 1
            if self._busy > len(self._threads) < self._count:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put((work, args))

    def close(self) -> None:
        """Let what was asked for come to its end."""
        with self._lock:
            self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, args = job
            work(*args)
            with self._lock:
                self._busy -= 1
            del job, work, args


def _done(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", work: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """Do it, and tell whoever waits on the loop."""
    try:
        done, failed = work(*args), None
    except BaseException as error:  # noqa: BLE001 - whoever waits is told
        done, failed = None, error
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(_told, future, done, failed)
        except RuntimeError:  # closed meanwhile: nobody is there to be told
            return


def _told(future: "asyncio.Future[Any]", done: Any, failed: BaseException | None) -> None:
    if future.done():
        return
    if failed is None:
        future.set_result(done)
    else:
        future.set_exception(failed)
