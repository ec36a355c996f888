"""Background tasks that somebody owns: nothing runs unowned, and none dies in silence; and work that is not left halfway."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("cumulet.tasks")


class Tasks:
    """The background tasks of the program (or of one part of it)."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` once; a failure is logged with its name."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def every(self, name: str, seconds: float, work: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Run `work` every `seconds`, first after that time. A failed round is logged and the next one comes."""
        return self.spawn(name, self._repeat(name, seconds, work))

    async def _repeat(self, name: str, seconds: float, work: Callable[[], Awaitable[Any]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                log.exception("background task %s failed; it runs again in %s s", name, seconds)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s ended with an error", task.get_name(), exc_info=error)

    async def stop(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end whatever happens to the caller. One that is cancelled is held until then, and his locks with
    him: so whoever comes next (the delete that superseded him) meets no work that goes on behind his back."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("work that nobody waits for any more failed: %s", error)
        raise


async def in_thread(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking work in a thread; unlike with `asyncio.to_thread` a cancelled caller is held until it has ended."""
    return await to_the_end(asyncio.to_thread(fn, *args, **kwargs))
