"""Background tasks that somebody owns: nothing runs unowned, and none dies in silence."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

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
