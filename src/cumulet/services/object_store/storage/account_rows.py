"""The rows of an account: one for each container, made of what container servers report, in any order."""

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import md5

import msgspec
from msgspec import Struct

from cumulet.services.object_store.storage.database import Stat, Unit

SCHEMA = """
CREATE TABLE container (
    deleted INTEGER NOT NULL, name TEXT NOT NULL,
    put_timestamp TEXT NOT NULL, delete_timestamp TEXT NOT NULL,
    counted_at TEXT NOT NULL, objects INTEGER NOT NULL, bytes INTEGER NOT NULL, policy INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (deleted, name)) WITHOUT ROWID;
CREATE INDEX container_sequence ON container (sequence);
"""
COLUMNS = "name, put_timestamp, delete_timestamp, counted_at, objects, bytes, policy, deleted, sequence"


class Row(Struct, frozen=True, omit_defaults=True):
    """What is known of one container: when it was made and deleted, and what was in it when that was counted last."""

    name: str
    put_timestamp: str
    delete_timestamp: str
    counted_at: str
    objects: int = 0
    bytes: int = 0
    policy: int = 0

    @property
    def deleted(self) -> bool:
        return self.delete_timestamp > self.put_timestamp and not self.objects


_encode = msgspec.json.Encoder().encode


def merge(old: Row, new: Row) -> Row:
    """Both together; the order in which they came does not matter."""
    counted = max(old, new, key=lambda row: (row.counted_at, row.objects, row.bytes, row.policy))
    return Row(
        new.name,
        max(old.put_timestamp, new.put_timestamp),
        max(old.delete_timestamp, new.delete_timestamp),
        counted.counted_at,
        counted.objects,
        counted.bytes,
        counted.policy,
    )


def apply(unit: Unit, rows: Iterable[Row]) -> int:
    """Merge rows into the database and keep its counts and its hash; how many of them told something new."""
    changed = 0
    info = unit.info
    stats, digest, sequence = dict(info.stats), int(info.hash, 16), info.sequence
    for row in rows:
        old = find(unit.connection, row.name)
        new = row if old is None else merge(old, row)
        if new == old:
            continue
        changed += 1
        sequence += 1
        if old is not None:
            digest ^= _digest(old)
            _count(stats, old, -1)
            if old.deleted != new.deleted:
                _remove(unit.connection, old)
        digest ^= _digest(new)
        _count(stats, new, 1)
        unit.connection.execute(
            f"INSERT OR REPLACE INTO container ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                new.name,
                new.put_timestamp,
                new.delete_timestamp,
                new.counted_at,
                new.objects,
                new.bytes,
                new.policy,
                int(new.deleted),
                sequence,
            ),
        )
    if changed:
        unit.change(stats=stats, hash=f"{digest:032x}", sequence=sequence)
    return changed


def find(conn: sqlite3.Connection, name: str) -> Row | None:
    """The row of a container, a deleted one too."""
    query = f"SELECT {COLUMNS} FROM container WHERE deleted IN (0, 1) AND name = ?"
    found = conn.execute(query, (name,)).fetchone()
    return None if found is None else _row(found)


def since(conn: sqlite3.Connection, sequence: int, limit: int) -> list[tuple[int, Row]]:
    """What has changed after a point, in order: its number and the row."""
    query = f"SELECT {COLUMNS} FROM container WHERE sequence > ? ORDER BY sequence LIMIT ?"
    return [(found[8], _row(found)) for found in conn.execute(query, (sequence, limit))]


def reclaim(unit: Unit, before: str, limit: int) -> int:
    """Forget up to `limit` containers that were deleted `before` a time, which all copies know by then."""
    query = f"SELECT {COLUMNS} FROM container WHERE deleted = 1 AND delete_timestamp < ? LIMIT ?"
    rows = [_row(found) for found in unit.connection.execute(query, (before, limit)).fetchall()]
    digest = int(unit.info.hash, 16)
    for row in rows:
        digest ^= _digest(row)
        _remove(unit.connection, row)
    if rows:
        unit.change(hash=f"{digest:032x}")
    return len(rows)


def _count(stats: dict[int, Stat], row: Row, sign: int) -> None:
    there = 0 if row.deleted else sign
    stats[row.policy] = (stats.get(row.policy) or Stat()).plus(there, sign * row.objects, sign * row.bytes)


def _remove(conn: sqlite3.Connection, row: Row) -> None:
    conn.execute("DELETE FROM container WHERE deleted = ? AND name = ?", (int(row.deleted), row.name))


def _row(found: Sequence[object]) -> Row:
    return Row(*found[:7])  # type: ignore[arg-type]


def _digest(row: Row) -> int:
    return int.from_bytes(md5(_encode(row), usedforsecurity=False).digest(), "big")
