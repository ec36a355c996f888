"""The audit log: every notification as one JSON object a line, in a file for its owner only.

The lines are written by a thread, so that no request waits for a disk. Whoever rotates the file (logrotate, say) moves it
away: the next line begins a new one. The program itself never removes what it has written.
"""

import logging
import logging.handlers
import os
import queue
from pathlib import Path
from typing import Any

import msgspec

from cumulet.core.bus import Bus
from cumulet.core.notify import TOPIC
from cumulet.logs import LogFile


class AuditFile(LogFile):
    """The file, opened anew once somebody has moved it."""

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is not None and not _is_at(self.stream.fileno(), self.baseFilename):
            self.stream.close()
            self.stream = self._open()  # type: ignore[no-untyped-call]
        super().emit(record)


class AuditLog:
    """Writes what is published on `bus` from now on. Raises OSError if the file cannot be opened."""

    def __init__(self, path: Path, bus: Bus) -> None:
        self._lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self._file = AuditFile(path)
        self._writer = logging.handlers.QueueListener(self._lines, self._file)
        self._writer.start()
        bus.subscribe(TOPIC, self._hear)

    async def _hear(self, _event: str, message: Any) -> None:
        self._lines.put(logging.makeLogRecord({"msg": msgspec.json.encode(message).decode()}))

    def stop(self) -> None:
        """Write what is left, and close."""
        self._writer.stop()
        self._file.close()


def _is_at(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
