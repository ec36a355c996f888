"""The console log: what a guest wrote to its first serial port, kept within bounds. Blocking; run in threads."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

KEEP_BYTES = 1024**2
TRIM_BYTES = 4 * KEEP_BYTES
NAME = "console.log"


def read_console(folder: Path, lines: int | None) -> str:
    """The last `lines` lines, or all, of at most the last 1 MiB."""
    try:
        text = _tail(folder / NAME).decode(errors="replace")
    except FileNotFoundError:  # never started
        return ""
    return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:] if lines > 0 else [])


def trim_console(folders: Iterable[Path]) -> None:
    """Cut logs that grew too long down to their end. QEMU appends, so it goes on behind the new end."""
    for folder in folders:
        file = folder / NAME
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_size > TRIM_BYTES:
                kept = _tail(file)
                os.truncate(file, 0)
                with file.open("ab") as log:
                    log.write(kept)


def _tail(file: Path) -> bytes:
    with file.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - KEEP_BYTES))
        return log.read()
