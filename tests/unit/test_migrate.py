"""Schema changes at start."""

from pathlib import Path

import pytest
from sqlalchemy import text

from cumulet.core.db.engine import Database
from cumulet.core.db.migrate import SchemaError, heads, is_current


async def test_a_new_database_gets_the_newest_schema_once(tmp_path: Path) -> None:
    for _ in range(2):
        db = Database(f"sqlite:///{tmp_path / 'db'}")
        await db.start()
        assert await db.read(is_current)
        await db.stop()


def test_heads_are_told_from_file_names() -> None:
    from cumulet.core.db.migrate import _scripts

    assert heads() == frozenset(_scripts().get_heads())


async def test_a_newer_database_is_refused_with_a_sentence(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'db'}")
    await db.start()
    await db.run(lambda tx: tx.execute(text("INSERT INTO alembic_version VALUES ('core_9999')")))
    await db.stop()
    db = Database(f"sqlite:///{tmp_path / 'db'}")
    with pytest.raises(SchemaError, match="core_9999"):
        await db.start()
    await db.stop()
