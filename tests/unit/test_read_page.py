"""Pages: read on the event loop where they are short, in the thread that reads where they are long, of one state always."""

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from cumulet.core.errors import Invalid
from tests.harness import kernel

COUNT = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < :most) SELECT count(*) FROM n"


def counted(tx: Connection, most: int, seen: list[str]) -> Any:
    seen.append(threading.current_thread().name)
    return tx.execute(text(COUNT), {"most": most}).scalar_one()


async def test_short_pages_are_read_on_the_loop_and_long_ones_in_a_thread(tmp_path: Path) -> None:
    async with kernel(tmp_path) as parts:
        short: list[str] = []
        assert await parts.db.read_page(counted, 10, short) == 10
        assert short == [threading.current_thread().name]
        long: list[str] = []
        assert await parts.db.read_page(counted, 100_000, long) == 100_000
        assert long[0] == short[0]
        assert long[1].startswith("db")
        assert await parts.db.read_inline(counted, 100_000, []) == 100_000  # nothing of the limit stays behind


async def test_what_a_page_raises_is_raised_and_ends_its_transaction(tmp_path: Path) -> None:
    def fail(tx: Connection) -> None:
        tx.execute(text("SELECT 1"))
        raise Invalid("no")

    async with kernel(tmp_path) as parts:
        for _ in range(2):
            with pytest.raises(Invalid):
                await parts.db.read_page(fail)
        assert await parts.db.read_page(counted, 3, []) == 3


async def test_a_page_sees_one_state_though_somebody_writes_meanwhile(tmp_path: Path) -> None:
    async with kernel(tmp_path) as parts:
        await parts.db.run(lambda tx: tx.execute(text("CREATE TABLE pages (x INTEGER)")))
        count = text("SELECT count(*) FROM pages")

        def look(tx: Connection) -> tuple[int, int]:
            before = tx.execute(count).scalar_one()
            with parts.db.engine.connect() as other, other.begin():
                other.execute(text("INSERT INTO pages VALUES (1)"))
            return before, tx.execute(count).scalar_one()

        assert await parts.db.read_page(look) == (0, 0)
        assert await parts.db.read_page(lambda tx: tx.execute(count).scalar_one()) == 1
