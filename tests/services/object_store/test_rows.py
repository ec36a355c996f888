"""Rows of containers and accounts: whatever order updates come in, and however often, the database is the same."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cumulet.services.object_store.storage import account_rows, container_rows
from cumulet.services.object_store.storage.container_rows import delete_row, put_row
from cumulet.services.object_store.storage.database import Database, Info, Stat, Unit
from cumulet.services.object_store.storage.disk_threads import DiskThreads

TIMES = [f"14000000{n:02d}.00000" for n in range(8)]


def _objects(chance: random.Random, count: int) -> list[container_rows.Row]:
    rows = []
    for _ in range(count):
        name, policy, at = chance.choice("abc"), chance.choice([0, 0, 1]), chance.choice(TIMES)
        if chance.random() < 0.3:
            rows.append(delete_row(name, policy, at))
        else:
            kind = chance.choice(["t/a", "t/b", "t/a;swift_bytes=7"])
            later = chance.choice(["", chance.choice(TIMES)])
            rows.append(put_row(name, policy, at, chance.randrange(3), kind, chance.choice("xy"), later, ""))
    return rows


def _containers(chance: random.Random, count: int) -> list[account_rows.Row]:
    pick = chance.choice
    return [
        account_rows.Row(
            pick("abc"), pick(TIMES), pick(TIMES), pick(TIMES), pick([0, 0, 3]), chance.randrange(3), pick([0, 1])
        )
        for _ in range(count)
    ]


async def _after(
    path: Path, schema: str, apply: Callable[..., int], batches: Iterable[list[Any]], query: str
) -> tuple[list[Any], str, dict[int, Stat]]:
    """What a database holds when it has been told this: its rows, its counts and its hash."""
    with closing(DiskThreads(1)) as pool:
        database = Database(str(path / "x" / "x.db"), schema, pool, lambda _: None)

        def work(rows: list[Any]) -> Callable[[Unit], int]:
            return lambda unit: apply(unit, rows)

        await asyncio.gather(*(database.write(work(rows), Info("a")) for rows in batches))
        rows = await database.read(lambda conn: conn.execute(query).fetchall())
        info = await database.ask()
        database.shut()
        return rows, info.hash, {policy: stat for policy, stat in info.stats.items() if stat != Stat()}


KINDS: list[Any] = [
    (
        container_rows.SCHEMA,
        container_rows.apply,
        _objects,
        "object",
        "policy, name, data_at, type_at, meta_at, size, listed",
    ),
    (
        account_rows.SCHEMA,
        account_rows.apply,
        _containers,
        "container",
        "name, put_timestamp, delete_timestamp, objects",
    ),
]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("schema", "apply", "make", "table", "columns"), KINDS, ids=["container", "account"])
async def test_order_does_not_matter(
    tmp_path: Path,
    seed: int,
    schema: str,
    apply: Callable[..., int],
    make: Callable[..., list[Any]],
    table: str,
    columns: str,
) -> None:
    chance = random.Random(seed)
    updates = make(chance, 25)
    query = f"SELECT {columns}, deleted FROM {table} ORDER BY name"
    expected = await _after(tmp_path / "1", schema, apply, [[update] for update in updates], query)
    for round in range(2, 5):
        told = updates * chance.choice([1, 2])
        chance.shuffle(told)
        cut = chance.randrange(1, len(told))
        batches = [told[:cut], told[cut:]] if round % 2 else [[update] for update in told]
        assert await _after(tmp_path / str(round), schema, apply, batches, query) == expected


@pytest.mark.parametrize("seed", range(20))
def test_merging_is_a_choice_of_the_greatest(seed: int) -> None:
    chance = random.Random(seed)
    kinds: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
        (_objects, container_rows.merge),
        (_containers, account_rows.merge),
    ]
    for make, merge in kinds:
        for _ in range(100):
            a, b, c = (replace(row, name="n", policy=0) for row in make(chance, 3))
            assert merge(a, b) == merge(b, a)
            assert merge(a, merge(b, c)) == merge(merge(a, b), c)
            assert merge(a, merge(a, b)) == merge(a, b)


async def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = _objects(random.Random(1), 300)
    query = "SELECT policy, 0, sum(1 - deleted), sum(size) FROM object GROUP BY policy ORDER BY policy"
    found, _, stats = await _after(tmp_path, container_rows.SCHEMA, container_rows.apply, [rows], query)
    assert {policy: Stat(*counts) for policy, *counts in found} == stats
