"""Units of work on SQLite: what waits is committed together, and each unit stands or falls by itself."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, event, insert, select
from sqlalchemy.exc import IntegrityError

from cumulet.core.db import Database, after_commit

things = Table("things", MetaData(), Column("id", Integer, primary_key=True))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.start()
    await database.run(lambda tx: things.create(tx))
    yield database
    await database.stop()


def add(tx: Connection, number: int, failure: Exception | None = None) -> int:
    tx.execute(insert(things), {"id": number})
    if failure is not None:
        raise failure
    return number


def all_of(tx: Connection) -> list[int]:
    return list(tx.execute(select(things.c.id).order_by(things.c.id)).scalars())


class Held:
    """Holds up the writing thread, so that units queue behind it."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self, tx: Connection) -> None:
        self.begun.set()
        assert self.over.wait(60)


async def together(database: Database, *units: Any) -> list[Any]:
    """Run units that all wait while another one is written."""
    held = Held()
    first = asyncio.ensure_future(database.run(held))
    await asyncio.to_thread(held.begun.wait, 10)
    rest = [asyncio.ensure_future(database.run(*unit)) for unit in units]
    await asyncio.sleep(0)  # which hands them over
    held.over.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


async def test_what_waits_is_one_commit(database: Database) -> None:
    commits: list[Any] = []
    event.listen(database.engine, "commit", commits.append)
    assert await together(database, *((add, number) for number in range(50))) == list(range(50))
    assert len(commits) < 25
    assert await database.read(all_of) == list(range(50))


async def test_a_unit_that_fails_takes_only_itself_back(database: Database) -> None:
    rung: list[int] = []

    def ring(tx: Connection, number: int, failure: Exception | None = None) -> int:
        after_commit(tx, lambda: rung.append(number))
        return add(tx, number, failure)

    found = await together(database, (ring, 1), (ring, 2, ValueError("no")), (ring, 1), (ring, 3))
    assert found[0] == 1
    assert isinstance(found[1], ValueError)
    assert isinstance(found[2], IntegrityError)
    assert found[3] == 3
    assert await database.read(all_of) == [1, 3]
    assert rung == [1, 3]


async def test_nobody_is_told_of_success_when_the_commit_fails(database: Database) -> None:
    rung: list[int] = []

    def ring(tx: Connection, number: int) -> int:
        after_commit(tx, lambda: rung.append(number))
        return add(tx, number)

    def refuse(_connection: Connection) -> None:
        raise OSError("the disk is gone")

    event.listen(database.engine, "commit", refuse)
    with pytest.raises(OSError, match="the disk is gone"):
        await database.run(ring, 1)
    event.remove(database.engine, "commit", refuse)
    assert await database.run(ring, 2) == 2
    assert await database.read(all_of) == [2]
    assert rung == [2]


async def test_a_unit_that_nobody_waits_for_any_more_is_left_out(database: Database) -> None:
    held = Held()
    first = asyncio.ensure_future(database.run(held))
    await asyncio.to_thread(held.begun.wait, 10)
    second = asyncio.ensure_future(database.run(add, 1))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    held.over.set()
    await first
    await database.run(add, 2)
    assert await database.read(all_of) == [2]


async def test_a_unit_that_has_begun_is_committed_though_its_task_is_cancelled(database: Database) -> None:
    held = Held()

    def work(tx: Connection) -> None:
        held(tx)
        add(tx, 7)

    task = asyncio.ensure_future(database.run(work))
    await asyncio.to_thread(held.begun.wait, 10)
    task.cancel()
    held.over.set()
    await database.run(add, 8)
    assert await database.read(all_of) == [7, 8]


async def test_a_long_read_does_not_hold_up_who_writes(database: Database) -> None:
    held = Held()
    reading = asyncio.ensure_future(database.read(held))
    await asyncio.to_thread(held.begun.wait, 10)
    assert await asyncio.wait_for(database.run(add, 1), 60) == 1
    held.over.set()
    await reading
