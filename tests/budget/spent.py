"""What a stretch of work costs: its SQL statements, and the Python calls of this package that it takes."""

import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import event

import cumulet
from cumulet.core.db.engine import Database

SOURCE = str(Path(cumulet.__file__).parent)


class Spent:
    """What was counted. `statements` are as they were sent; transactions begin and end without one."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.calls: Counter[str] = Counter()
        self.counting = False

    def call(self, frame: FrameType, kind: str, _argument: Any) -> None:
        """What the interpreter tells a profiler."""
        code = frame.f_code
        generated = code.co_filename == "<string>" and "cumulet" in frame.f_globals.get("__name__", "")
        if self.counting and kind == "call" and (code.co_filename.startswith(SOURCE) or generated):
            self.calls[f"{code.co_filename.removeprefix(SOURCE)}:{code.co_qualname}"] += 1

    def statement(self, _connection: Any, _cursor: Any, text: str, *_more: Any) -> None:
        """What SQLAlchemy tells before it sends a statement."""
        if self.counting:
            self.statements.append(text)

    def __str__(self) -> str:
        calls = [f"{number} {name}" for name, number in sorted(self.calls.items())]
        return "\n".join([*self.statements, f"{self.calls.total()} calls:", *calls])


@asynccontextmanager
async def spending(db: Database | None = None) -> AsyncIterator[Spent]:
    """Count, while it is entered, on the event loop's thread; with a database on its threads, and its statements, too."""
    spent = Spent()
    if db is not None:
        await _profile(db, spent.call)
        event.listen(db.engine, "before_cursor_execute", spent.statement)
    sys.setprofile(spent.call)
    spent.counting = True
    try:
        yield spent
    finally:
        spent.counting = False
        sys.setprofile(None)
        if db is not None:
            event.remove(db.engine, "before_cursor_execute", spent.statement)
            await _profile(db, None)


async def _profile(db: Database, profiler: Any) -> None:
    """On the thread that reads, and on the one that writes: SQLite has one of each."""
    await db.read(lambda _tx: sys.setprofile(profiler))
    await db.run(lambda _tx: sys.setprofile(profiler))
