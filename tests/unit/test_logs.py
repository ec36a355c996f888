"""The log: every line is written, in order, those that matter at once; and a file that cannot be written is said once."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cumulet import logs
from cumulet.logs import LogFile, LogWriter, Record, TextFormatter


@contextmanager
def writing(*handlers: logging.Handler) -> Iterator[logging.Logger]:
    """A logger whose lines go through the writer to these handlers; all are written at the end."""
    logger = logging.Logger("test")
    writer = LogWriter(handlers)
    logger.addHandler(writer)
    writer.start()
    try:
        yield logger
    finally:
        writer.stop()
        for handler in handlers:
            with contextlib.suppress(OSError):  # a full disk is full when the file is closed, too
                handler.close()


def test_lines_of_many_threads_are_all_written(tmp_path: Path) -> None:
    with writing(LogFile(tmp_path / "log", maxBytes=1 << 20)) as logger:

        def work(name: int) -> None:
            for number in range(500):
                logger.info("%s %s", name, number)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = (tmp_path / "log").read_text().splitlines()
    for name in range(4):
        assert [line for line in lines if line.startswith(f"{name} ")] == [f"{name} {n}" for n in range(500)]
    assert len(lines) == 2000


def test_a_warning_does_not_wait_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "GATHER", 60.0)
    path = tmp_path / "log"
    with writing(LogFile(path, maxBytes=1 << 20)) as logger:
        logger.info("first")
        logger.warning("now")
        end = time.monotonic() + 60
        while not path.read_text().endswith("first\nnow\n"):
            assert time.monotonic() < end, path.read_text()
            time.sleep(0.001)


def test_what_a_line_tells_is_what_was_so_when_it_was_logged(tmp_path: Path) -> None:
    with writing(LogFile(tmp_path / "log", maxBytes=1 << 20)) as logger:
        seen = [1]
        logger.info("%s", seen)
        seen.append(2)
    assert (tmp_path / "log").read_text() == "[1]\n"


def test_a_file_that_grew_too_long_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "TOGETHER", 3)
    with writing(LogFile(tmp_path / "log", maxBytes=100, backupCount=20)) as logger:
        for number in range(60):
            logger.info("line %02d", number)
    files = sorted(tmp_path.iterdir(), key=lambda file: -int(file.suffix[1:] or 0))
    assert len(files) > 3 and all(file.stat().st_size <= 100 for file in files)
    assert "".join(file.read_text() for file in files) == "".join(f"line {n:02d}\n" for n in range(60))
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}


def test_a_line_that_cannot_be_made_takes_no_other_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Picky(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if "bad" in record.msg:
                raise ValueError(record.msg)
            return super().format(record)

    file = LogFile(tmp_path / "log", maxBytes=1 << 20)
    file.setFormatter(Picky())
    with writing(file) as logger:
        for text in ("one", "bad", "two \udc80", "three"):
            logger.info(text)
    assert (tmp_path / "log").read_text() == "one\ntwo \\udc80\nthree\n"
    assert "bad" in capsys.readouterr().err


def test_a_full_disk_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    file = LogFile("/dev/full", maxBytes=1 << 20)
    with writing(file) as logger:
        for number in range(5):
            logger.warning("line %s", number)
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_each_handler_gets_the_levels_that_it_takes(tmp_path: Path) -> None:
    class Kept(logging.Handler):
        def __init__(self) -> None:
            super().__init__(logging.WARNING)
            self.seen: list[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.seen.append(record.getMessage())

    terminal = Kept()
    with writing(LogFile(tmp_path / "log", maxBytes=1 << 20), terminal) as logger:
        logger.info("quiet 100%")
        logger.error("loud 100%")
    assert terminal.seen == ["loud 100%"]
    assert (tmp_path / "log").read_text() == "quiet 100%\nloud 100%\n"


def test_times_are_as_the_standard_librarys() -> None:
    ours, theirs = TextFormatter(), logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    record = logging.makeLogRecord({"msg": "x %d", "args": (1,), "levelname": "INFO", "name": "a.b"})
    for created in (1e9, 1e9 + 0.25, 1e9 + 1.999, 1_700_000_000.5):
        record.created, record.msecs = created, (created % 1) * 1000
        assert ours.format(record) == theirs.format(record)


def test_an_event_is_shown_as_the_standard_librarys() -> None:
    cases: list[tuple[str, Any]] = [
        ("%s and %d", ("a", 1)),
        ("%(name)s", ({"name": "b"},)),
        ("one mapping: %s", ({},)),
        ("none", ()),
    ]
    formatter = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    for message, arguments in cases:
        for exc_info in (None, (ValueError, ValueError("x"), None)):
            told = ("cumulet", logging.WARNING, "", 0, message, arguments, exc_info)
            assert formatter.format(Record(*told)) == formatter.format(logging.LogRecord(*told))
