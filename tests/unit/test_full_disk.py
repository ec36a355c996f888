"""A full disk under the database is an answer that is worth trying again, and nothing is lost by it."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from cumulet.core.db.engine import Database
from cumulet.core.errors import Unavailable


def limit(tx: Connection, pages: int) -> None:
    tx.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


def fill(tx: Connection) -> None:
    tx.execute(text("CREATE TABLE IF NOT EXISTS t (x TEXT)"))
    tx.execute(text("INSERT INTO t VALUES (:x)"), [{"x": "x" * 4000}] * 500)


async def test_a_full_disk_is_unavailable_and_passes(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'db'}")
    await db.start()
    try:
        pages = await db.run(lambda tx: tx.exec_driver_sql("PRAGMA page_count").scalar_one())
        await db.run(limit, pages + 5)
        with pytest.raises(Unavailable, match="disk"):
            await db.run(fill)
        await db.run(limit, pages + 100000)
        await db.run(fill)
        assert await db.run(lambda tx: tx.execute(text("SELECT count(*) FROM t")).scalar_one()) == 500
    finally:
        await db.stop()
