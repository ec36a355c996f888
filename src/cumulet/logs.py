"""Logging: one line an event, written by a thread of its own so that the event loop never waits for a disk.

Everything from the level set goes to the log file; the terminal gets warnings and errors, without their tracebacks.
"""

import atexit
import logging
import logging.handlers
import os
import queue
import sys
from datetime import UTC, datetime

import msgspec

from cumulet.config import TERMINAL, Settings

LARGEST = 16 << 20
"""Bytes at which the log file is put aside as `NAME.1`, which becomes `NAME.2`, and so on."""
KEPT = 3


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TerminalFormatter(logging.Formatter):
    """What a person should know now. The traceback is in the log file."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        reason = (str(error).splitlines() or [type(error).__name__])[0] if error else ""
        text = f"{record.levelname.lower()}: {record.name.removeprefix('cumulet.')}: {record.getMessage()}"
        return f"{text}: {reason}" if reason else text


class LogFile(logging.handlers.RotatingFileHandler):
    """The log file, for its owner only. If it cannot be written (a full disk), that is said once, not for each line."""

    def _open(self):  # type: ignore[no-untyped-def]  # the standard library's own types are private
        return open(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not self._failed:
            self._failed = True
            print(f"error: the log file {self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)  # noqa: T201

    _failed = False


def configure_logging(settings: Settings) -> None:
    """Log to where the settings say. Raises OSError if the log file cannot be opened."""
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    full = JsonFormatter() if settings.log_format == "json" else text
    terminal = logging.StreamHandler(sys.stderr)
    handlers: list[logging.Handler] = [terminal]
    if settings.log_file == TERMINAL:
        terminal.setFormatter(full)
    else:
        file = LogFile(settings.log_path, maxBytes=LARGEST, backupCount=KEPT)
        file.setFormatter(full)
        terminal.setFormatter(TerminalFormatter())
        terminal.setLevel(logging.WARNING)
        handlers.append(file)
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(lines, *handlers, respect_handler_level=True)
    listener.start()
    atexit.register(listener.stop)
    root = logging.getLogger()
    root.handlers = [_ToThread(lines)]
    root.setLevel(settings.log_level.upper())
    for noisy in ("aiohttp", "asyncio", "qemu.qmp", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _ToThread(logging.handlers.QueueHandler):
    """Hands records on as they are: the standard one writes the traceback into the message, for both handlers alike."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.msg, record.args = record.getMessage(), None
        return record
