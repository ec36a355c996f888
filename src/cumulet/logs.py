"""Logging: one line an event, written by a thread of its own so that the event loop never waits for a disk.

A thread that woke up for every line would cost a busy loop more than the line: lines wait a moment for others, and are
written together; warnings and errors are written at once. Everything from the level set goes to the
log file; the terminal gets warnings and errors, without their tracebacks.
"""

import atexit
import logging
import logging.handlers
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cumulet.config import TERMINAL, Settings

LARGEST = 16 << 20
"""Bytes at which the log file is put aside as `NAME.1`, which becomes `NAME.2`, and so on."""
KEPT = 3
GATHER = 0.05
"""Seconds that a line waits for others."""
TOGETHER = 1000
"""Lines of one write, at most."""


class Record(logging.LogRecord):
    """An event with what some format shows of it, which is half of what the standard library finds out for each: where in the
    code it came from, in which thread and process. The access log has one for each request."""

    pathname = filename = module = funcName = threadName = processName = ""  # noqa: N815 - their names in the library
    lineno = thread = process = 0
    relativeCreated = 0.0  # noqa: N815

    def __init__(
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        sinfo: str | None = None,
        **_more: Any,
    ) -> None:
        self.name = name
        self.levelno, self.levelname = level, logging.getLevelName(level)
        one = args[0] if args and len(args) == 1 else None
        self.msg, self.args = msg, one if one and isinstance(one, Mapping) else args
        self.exc_info, self.exc_text, self.stack_info = exc_info, None, sinfo
        self.created = time.time()
        self.msecs = self.created % 1 * 1000


class TextFormatter(logging.Formatter):
    """A line of text. What a second looks like is made out once, not for each line."""

    _second, _shown = -1, ""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The same as by the words above, where there is nothing but them: as of nearly all, and in a third of the time."""
        if record.exc_info or record.exc_text or record.stack_info:
            return super().format(record)
        return f"{self.formatTime(record)} {record.levelname:<7} {record.name}: {record.getMessage()}"

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        second = int(record.created)
        if second != self._second:
            self._second, self._shown = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._shown},{int(record.msecs):03d}"


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
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return open(file, "a", encoding="utf-8", errors="backslashreplace")

    def write(self, records: Sequence[logging.LogRecord]) -> None:
        """Write several lines at once."""
        try:
            text = "".join(map(self._line, records))
            if self.stream is None:
                self.stream = self._open()  # type: ignore[no-untyped-call]
            if self.stream.tell() + len(text) > self.maxBytes:
                self.doRollover()
            self.stream.write(text)
            self.flush()
        except Exception:  # noqa: BLE001 - whatever it is, nobody but the terminal can be told of it
            self.handleError(records[-1])

    def _line(self, record: logging.LogRecord) -> str:
        """The record's line; none where it cannot be made: the others shall not be lost with it."""
        try:
            return f"{self.format(record)}\n"
        except Exception:  # noqa: BLE001
            self.handleError(record)
            return ""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not self._failed:
            self._failed = True
            print(f"error: the log file {self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)  # noqa: T201

    _failed = False


def configure_logging(settings: Settings) -> None:
    """Log to where the settings say. Raises OSError if the log file cannot be opened."""
    full = JsonFormatter() if settings.log_format == "json" else TextFormatter()
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
    writer = LogWriter(handlers)
    writer.start()
    atexit.register(writer.stop)
    logging.setLogRecordFactory(Record)
    # Nobody asks where in the code an event came from; so the standard library's own page on logging has it.
    logging._srcfile = None
    root = logging.getLogger()
    root.handlers = [writer]
    root.setLevel(settings.log_level.upper())
    for noisy in ("aiohttp", "asyncio", "qemu.qmp", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class LogWriter(logging.Handler):
    """Takes events on any thread, and has them written on its own by handlers that do the rest."""

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        super().__init__()
        self._handlers = handlers
        self._records: deque[logging.LogRecord] = deque()
        self._some, self._urgent = threading.Event(), threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._stopped = True
        self._urgent.set()
        self._some.set()
        self._thread.join()

    def handle(self, record: logging.LogRecord) -> bool:
        """Takes no lock: a deque needs none."""
        record.msg, record.args = record.getMessage(), None  # what it names may have changed when it is written
        self._records.append(record)
        if record.levelno >= logging.WARNING:
            self._urgent.set()
        if not self._some.is_set():
            self._some.set()
        return True

    def _work(self) -> None:
        while not self._stopped:
            self._some.wait()
            self._urgent.wait(GATHER)
            self._urgent.clear()
            self._some.clear()
            while self._records:
                count = min(TOGETHER, len(self._records))
                self._write([self._records.popleft() for _ in range(count)])

    def _write(self, records: Sequence[logging.LogRecord]) -> None:
        for handler in self._handlers:
            mine = [record for record in records if record.levelno >= handler.level]
            if isinstance(handler, LogFile) and mine:
                handler.write(mine)
                continue
            for record in mine:
                handler.handle(record)
