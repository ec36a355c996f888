"""The rows of a container: one for each object name and storage policy, made of whatever was said of it, in any order.

An update tells three things, each with its own time: the data (size, ETag, or that it is deleted), the content type, and that
metadata changed. Of each the latest counts; where two were said at the same time the greater one, so that copies of a
container which have heard the same hold the same. A row carries its part of a JSON listing ready made.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import md5

import msgspec
from msgspec import Struct

from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.storage.database import Stat, Unit

SCHEMA = """
CREATE TABLE object (
    policy INTEGER NOT NULL, deleted INTEGER NOT NULL, name TEXT NOT NULL,
    data_at TEXT NOT NULL, type_at TEXT NOT NULL, meta_at TEXT NOT NULL,
    size INTEGER NOT NULL, shown INTEGER, listed TEXT NOT NULL, sequence INTEGER NOT NULL,
    PRIMARY KEY (policy, deleted, name)) WITHOUT ROWID;
CREATE INDEX object_sequence ON object (sequence);
"""
COLUMNS = "policy, deleted, name, data_at, type_at, meta_at, size, shown, listed, sequence"


class Row(Struct, frozen=True, omit_defaults=True):
    """What is known of one object. `shown` is the size that listings show where it is not the one that counts: of a large
    object, whose manifest alone is stored here."""

    name: str
    policy: int = 0
    deleted: bool = False
    data_at: str = ""
    type_at: str = ""
    meta_at: str = ""
    size: int = 0
    etag: str = ""
    shown: int | None = None
    content_type: str = ""


class Listed(Struct):
    """An object as listings have it."""

    name: str
    hash: str
    bytes: int
    content_type: str
    last_modified: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Listed).decode


def put_row(
    name: str, policy: int, at: str, size: int, content_type: str, etag: str, type_at: str = "", meta_at: str = ""
) -> Row:
    """What the update of an object says; `swift_bytes` in a content type is the size that is shown."""
    kind, shown = _split(content_type)
    type_at = max(at, type_at)
    return Row(name, policy, False, at, type_at, max(type_at, meta_at), size, etag, shown, kind)


def delete_row(name: str, policy: int, at: str) -> Row:
    return Row(name, policy, True, at, at, at, 0, "", None, "")


def merge(old: Row, new: Row) -> Row:
    """Both together: the later of each part. merge(a, b) == merge(b, a), and merging again changes nothing."""
    data = max(old, new, key=_data)
    kind = max(old, new, key=lambda row: (row.type_at, row.content_type))
    return Row(
        new.name,
        new.policy,
        data.deleted,
        data.data_at,
        kind.type_at,
        max(old.meta_at, new.meta_at),
        data.size,
        data.etag,
        data.shown,
        kind.content_type,
    )


def _data(row: Row) -> tuple[str, bool, int, str, int]:
    return row.data_at, row.deleted, row.size, row.etag, -1 if row.shown is None else row.shown


def apply(unit: Unit, rows: Iterable[Row]) -> int:
    """Merge rows into the database and keep its counts and its hash; how many of them told something new."""
    changed = 0
    info = unit.info
    stats, digest, sequence = dict(info.stats), int(info.hash, 16), info.sequence
    for row in rows:
        old = find(unit.connection, row.policy, row.name)
        new = row if old is None else merge(old, row)
        if new == old:
            continue
        changed += 1
        sequence += 1
        if old is not None:
            digest ^= _digest(old)
            if old.deleted != new.deleted:
                _remove(unit.connection, old)
            stats[row.policy] = stats[row.policy].plus(0, -(not old.deleted), -old.size)
        digest ^= _digest(new)
        stats[row.policy] = (stats.get(row.policy) or Stat()).plus(0, int(not new.deleted), new.size)
        unit.connection.execute(
            "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                new.policy,
                int(new.deleted),
                new.name,
                new.data_at,
                new.type_at,
                new.meta_at,
                new.size,
                new.shown,
                _listed(new),
                sequence,
            ),
        )
    if changed:
        unit.change(stats=stats, hash=f"{digest:032x}", sequence=sequence)
    return changed


def find(conn: sqlite3.Connection, policy: int, name: str) -> Row | None:
    """The row of a name, a deleted one too."""
    query = f"SELECT {COLUMNS} FROM object WHERE policy = ? AND deleted IN (0, 1) AND name = ?"
    found = conn.execute(query, (policy, name)).fetchone()
    return None if found is None else _row(found)


def since(conn: sqlite3.Connection, sequence: int, limit: int, but: int = -1) -> list[tuple[int, Row]]:
    """What has changed after a point, in order, `but` under one policy: its number and the row."""
    query = f"SELECT {COLUMNS} FROM object WHERE sequence > ? AND policy != ? ORDER BY sequence LIMIT ?"
    return [(found[9], _row(found)) for found in conn.execute(query, (sequence, but, limit))]


def reclaim(unit: Unit, before: str, limit: int) -> int:
    """Forget up to `limit` objects that were deleted `before` a time, which all copies know by then."""
    count = 0
    digest = int(unit.info.hash, 16)
    query = f"SELECT {COLUMNS} FROM object WHERE policy = ? AND deleted = 1 AND meta_at < ? LIMIT ?"
    for policy in unit.info.stats:
        for found in unit.connection.execute(query, (policy, before, limit - count)).fetchall():
            row = _row(found)
            digest ^= _digest(row)
            _remove(unit.connection, row)
            count += 1
    if count:
        unit.change(hash=f"{digest:032x}")
    return count


def _remove(conn: sqlite3.Connection, row: Row) -> None:
    conn.execute(
        "DELETE FROM object WHERE policy = ? AND deleted = ? AND name = ?", (row.policy, int(row.deleted), row.name)
    )


def _row(found: Sequence[object]) -> Row:
    policy, deleted, name, data_at, type_at, meta_at, size, shown, listed, _ = found
    told = _decode(str(listed))
    return Row(
        str(name),
        policy,  # type: ignore[arg-type]
        bool(deleted),
        str(data_at),
        str(type_at),
        str(meta_at),
        size,  # type: ignore[arg-type]
        told.hash,
        shown,  # type: ignore[arg-type]
        told.content_type,
    )


def _listed(row: Row) -> str:
    shown = row.size if row.shown is None else row.shown
    at = "" if row.deleted else Timestamp.parse(row.meta_at).iso
    return _encode(Listed(row.name, row.etag, shown, row.content_type, at)).decode()


def _digest(row: Row) -> int:
    """A part of the hash of all rows: it is their exclusive or, so their order does not matter."""
    return int.from_bytes(md5(_encode(row), usedforsecurity=False).digest(), "big")


def _split(content_type: str) -> tuple[str, int | None]:
    """A content type without its parameter `swift_bytes`, and what that said."""
    if "swift_bytes" not in content_type:
        return content_type, None
    parts, shown = [], None
    for part in content_type.split(";"):
        key, _, value = part.strip().partition("=")
        if key == "swift_bytes" and value.strip('"').isdigit():
            shown = int(value.strip('"'))
        else:
            parts.append(part)
    return ";".join(parts), shown
