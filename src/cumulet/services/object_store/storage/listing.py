"""Listings of containers and accounts: names in order, from a marker on, under a prefix, folded at a delimiter.

A listing is JSON text made by SQLite. A folder that a delimiter makes is passed over with one seek, however much is in it, and
where nothing is folded the whole listing is one statement that runs without Python. Names are ordered as their UTF-8 is.
"""

import sqlite3
from dataclasses import dataclass

import msgspec

from cumulet.api.http import Query
from cumulet.services.object_store.message import Refusal, refuse
from cumulet.services.object_store.values import is_true

LIMIT = 10_000
RESERVED = "\x01"
"""Names that begin with less than this are the program's own, and only shown to it."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Wanted:
    """What part of the names is asked for. `path` is the older way to ask for one folder, without the folders in it."""

    prefix: str = ""
    delimiter: str = ""
    marker: str = ""
    end_marker: str = ""
    path: str | None = None
    reverse: bool = False
    limit: int = LIMIT
    reserved: bool = False

    @classmethod
    def asked(cls, query: Query, *, reserved: bool) -> "Wanted":
        """From a query string; Refusal (412) where it asks for more than is given."""
        limit = query.get("limit") or ""
        number = int(limit) if limit.isascii() and limit.isdigit() else LIMIT
        if number > LIMIT:
            raise Refusal(refuse(412, f"Maximum limit is {LIMIT}"))
        return cls(
            prefix=query.get("prefix") or "",
            delimiter=query.get("delimiter") or "",
            marker=query.get("marker") or "",
            end_marker=query.get("end_marker") or "",
            path=query.get("path"),
            reverse=is_true(query.get("reverse")),
            limit=number,
            reserved=reserved,
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The rows to choose from: a table with `name`, a condition that chooses among its rows with its values, and the
    expression that makes one row's JSON."""

    table: str
    condition: str
    values: tuple[object, ...]
    row: str


@dataclass(slots=True)
class Range:
    """The names between two, each either with its end or without."""

    low: str
    low_in: bool
    high: str | None
    high_in: bool = False

    def statement(self, source: Source, columns: str, reverse: bool) -> tuple[str, list[object]]:
        query = (
            f"SELECT {columns} FROM {source.table} WHERE {source.condition} AND name {'>=' if self.low_in else '>'} ?"
        )
        values = [*source.values, self.low]
        if self.high is not None:
            query += f" AND name {'<=' if self.high_in else '<'} ?"
            values.append(self.high)
        return query + f" ORDER BY name {'DESC' if reverse else 'ASC'} LIMIT ?", values


def after(text: str) -> str | None:
    """The first name behind all that begin with `text`; None where there is none."""
    while text:
        code = ord(text[-1]) + 1
        if code == 0xD800:
            code = 0xE000
        if code <= 0x10FFFF:
            return text[:-1] + chr(code)
        text = text[:-1]
    return None


def listing(conn: sqlite3.Connection, source: Source, wanted: Wanted) -> bytes:
    """The listing, a JSON list."""
    prefix, delimiter = wanted.prefix, wanted.delimiter
    if wanted.path is not None:
        prefix, delimiter = (wanted.path.rstrip("/") + "/" if wanted.path else ""), "/"
    low, high = wanted.marker, wanted.end_marker
    if wanted.reverse:
        low, high = high, low
    names = _range(prefix, low, high, wanted.reserved)
    if not delimiter:
        statement, values = names.statement(source, f"{source.row} AS j", wanted.reverse)
        whole = f"SELECT CAST('[' || coalesce(group_concat(j), '') || ']' AS BLOB) FROM ({statement})"
        return bytes(conn.execute(whole, [*values, wanted.limit]).fetchone()[0])
    entries = _folded(conn, source, names, wanted, prefix, delimiter, low)
    return f"[{','.join(entries)}]".encode()


def _range(prefix: str, low: str, high: str, reserved: bool) -> Range:
    """All names with a prefix between two markers, neither of them included."""
    names = Range(low, False, high or None)
    if prefix:
        if low < prefix:
            names = Range(prefix, True, names.high)
        end = after(prefix)
        if end is not None and (names.high is None or end < names.high):
            names.high = end
    if not reserved and names.low < RESERVED:
        names.low, names.low_in = RESERVED, True
    return names


def _folded(
    conn: sqlite3.Connection, source: Source, names: Range, wanted: Wanted, prefix: str, delimiter: str, low: str
) -> list[str]:
    """The entries: names without the delimiter behind the prefix as they are, the others as their folders, once each."""
    entries: list[str] = []
    in_path = wanted.path is not None
    while len(entries) < wanted.limit:
        statement, values = names.statement(source, f"name, {source.row}", wanted.reverse)
        cursor = conn.execute(statement, [*values, wanted.limit - len(entries) + 1])
        folder = _until_folder(cursor, entries, wanted, prefix, delimiter)
        if folder is None:
            break
        if not in_path and folder != low:
            entries.append(f'{{"subdir":{_encode(folder).decode()}}}')
        if wanted.reverse:
            names.high, names.high_in = folder, in_path
        else:
            behind = after(folder)
            if behind is None:
                break
            names.low, names.low_in = behind, True
    return entries


def _until_folder(
    cursor: sqlite3.Cursor, entries: list[str], wanted: Wanted, prefix: str, delimiter: str
) -> str | None:
    """Take rows until one is in a folder: that folder; None where the rows, or the room for them, have come to an end."""
    width, limit, start = len(delimiter), wanted.limit, len(prefix)
    in_path = wanted.path is not None
    for name, entry in cursor:
        if len(entries) >= limit:
            break
        end = name.find(delimiter, start)
        if in_path and name == prefix:
            continue
        if end >= 0 and not (in_path and end + width == len(name)):
            cursor.close()
            return str(name[: end + width])
        entries.append(entry)
    cursor.close()
    return None
