"""Progress of a job of many steps: one line for each, with the seconds it took; a live one on a terminal."""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TextIO

_FRAMES = "|/-\\"


class Step:
    """A step under way; set `result` to what came of it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.result = "done"
        self.began = time.monotonic()

    def line(self, mark: str) -> str:
        return f"{mark} {time.monotonic() - self.began:6.1f} s  {self.title}"


class Progress:
    """Writes the steps to `stream` (standard error, if the result goes to standard output)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self.began = time.monotonic()

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[Step]:
        """Show the title while the block runs, and the result afterwards, or that it failed."""
        step = Step(title)
        spinner = asyncio.create_task(self._spin(step)) if self._live else None
        try:
            yield step
        except BaseException:
            step.result = "FAILED"
            raise
        finally:
            if spinner is not None:
                spinner.cancel()
                with suppress(asyncio.CancelledError):
                    await spinner
            mark = "x" if step.result == "FAILED" else "+"
            self._write(f"{step.line(mark)}: {step.result}", end="\n")

    def say(self, text: str) -> None:
        """A line of its own."""
        self._write(text, end="\n")

    async def _spin(self, step: Step) -> None:
        for frame in itertools.cycle(_FRAMES):
            self._write(step.line(frame), end="")
            await asyncio.sleep(0.1)

    def _write(self, text: str, end: str) -> None:
        start = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{start}{text}{end}")
        self._stream.flush()
