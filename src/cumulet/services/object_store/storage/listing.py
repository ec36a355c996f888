"""Listings of containers and accounts: names in order, from a marker on, under a prefix, folded at a delimiter.

A listing is JSON text that SQLite makes in one statement, in two where it is folded, outside Python's lock. A folder that a
delimiter makes is passed over with one seek, however much is in it; names in no folder are read row by row. Names are ordered
as their UTF-8 is, and cut as such: SQLite's functions for text end at its first NUL, those for bytes do not.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from cumulet.api.http import Query
from cumulet.services.object_store.message import Refusal, refuse
from cumulet.services.object_store.values import is_true

LIMIT = 10_000
RESERVED = b"\x01"
"""Names that begin with less than this are the program's own, and only shown to it."""
LAST = b"\xff"
"""More than all names, and at the end of a text more than all that begin with it: no UTF-8 has this byte."""
LOW, HIGH = "CAST(:low AS TEXT)", "CAST(:high AS TEXT)"


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
    values: Mapping[str, object]
    row: str

    def rows(self, columns: str, low: str, high: str, reverse: bool) -> str:
        """The statement for the names from `low` on that come before `high`."""
        return (
            f"SELECT {columns} FROM {self.table} WHERE {self.condition} AND name >= {low} AND name < {high} "
            f"ORDER BY name {'DESC' if reverse else 'ASC'}"
        )


def listing(conn: sqlite3.Connection, source: Source, wanted: Wanted) -> bytes:
    """The listing, a JSON list."""
    prefix, delimiter = wanted.prefix.encode(), wanted.delimiter.encode()
    if wanted.path is not None:
        prefix, delimiter = (wanted.path.rstrip("/") + "/" if wanted.path else "").encode(), b"/"
    low, high = _range(wanted, prefix, delimiter)
    values = {**source.values, "low": low, "high": high, "limit": wanted.limit}
    if not delimiter:
        return _plain(conn, source, wanted.reverse, values)
    in_path = wanted.path is not None
    values |= {"prefix": len(prefix), "delimiter": delimiter, "own": b"\0" if in_path else b""}
    entries, rest, room = conn.execute(_folded(source, wanted.reverse, in_path), values).fetchone()
    if rest is None:
        return b"[%b]" % entries
    bound = {"high": rest + b"\0"} if wanted.reverse else {"low": rest}
    names = _plain(conn, source, wanted.reverse, {**values, **bound, "limit": room})
    return b"[%b,%b" % (entries, names[1:]) if entries else names


def _plain(conn: sqlite3.Connection, source: Source, reverse: bool, values: Mapping[str, object]) -> bytes:
    """All names as they are."""
    rows = source.rows(f"{source.row} AS j", LOW, HIGH, reverse)
    whole = f"SELECT CAST('[' || coalesce(group_concat(j), '') || ']' AS BLOB) FROM ({rows} LIMIT :limit)"
    return bytes(conn.execute(whole, values).fetchone()[0])


def _range(wanted: Wanted, prefix: bytes, delimiter: bytes) -> tuple[bytes, bytes]:
    """The first name that may be listed, and the first that may not any more: both markers are left out, with all that is in
    the folder which the lower one may be, and the folder that `path` names."""
    low, high = wanted.marker.encode(), wanted.end_marker.encode()
    if wanted.reverse:
        low, high = high, low
    behind = low + b"\0"
    if delimiter and low.endswith(delimiter) and low.find(delimiter, len(prefix)) == len(low) - len(delimiter):
        behind = low + LAST
    first = prefix if wanted.path is None else prefix + b"\0"
    return max(behind, first, b"" if wanted.reserved else RESERVED), min(high or LAST, prefix + LAST)


def _folded(source: Source, reverse: bool, in_path: bool) -> str:
    """The statement that folds: names without the delimiter behind the prefix as they are, the others as their folders, once
    each; in a path no folders, but names that end with the first delimiter. It gives the entries, and the name from which on
    all that there is room for is in no folder, if there is one.

    It goes in steps, each from what was `found` to what is found next: a folder as BLOB, or the first name of a run of names
    in no folder as TEXT. Behind a folder that is a seek, behind a name a search for the folder that ends its run, no farther
    than a listing may be long. `room` is what may be listed after `was`; less than nothing where the run before is too long.
    """
    name = "CAST(name AS BLOB)"
    at = f"instr(substr({name}, :prefix + 1), :delimiter)"
    inside = f"{at} BETWEEN 1 AND length({name}) - :prefix - 1" if in_path else f"{at} > 0"
    folder = f"substr({name}, 1, :prefix + {at} - 1 + length(:delimiter))"
    either = f"CASE WHEN {inside} THEN {folder} ELSE name END"
    subdir = "NULL" if in_path else "'{\"subdir\":' || json_quote(CAST(was AS TEXT)) || '}'"
    begin, behind = "|| :own", "|| x'ff'"  # of the names in a folder; its own name is not in it in a path
    ahead, search = (f"found {behind}", HIGH), ("found", HIGH)
    if reverse:
        ahead, search = (LOW, f"found {begin}"), (LOW, "found")

    def rows(columns: str, low: str, high: str) -> str:
        return source.rows(columns, low, high, reverse)

    def run(columns: str, first: str, end: str) -> str:
        bounds = (f"{end} {behind}", f"{first} || x'00'") if reverse else (first, f"{end} {begin}")
        return rows(columns, *bounds)

    return f"""
        WITH RECURSIVE step(before, was, found, room) AS (
            SELECT NULL, NULL, ({rows(either, LOW, HIGH)} LIMIT 1), :limit
            UNION ALL
            SELECT was, found,
                CASE typeof(found) WHEN 'blob' THEN ({rows(either, *ahead)} LIMIT 1)
                    ELSE (SELECT {folder} FROM ({rows("name", *search)} LIMIT :limit) WHERE {inside} LIMIT 1) END,
                room - {0 if in_path else "(typeof(found) = 'blob')"}
                    - CASE typeof(was) WHEN 'text' THEN ({run("count(*)", "was", "found")}) ELSE 0 END
            FROM step WHERE found IS NOT NULL AND room > 0)
        SELECT CAST(coalesce(group_concat(entries), '') AS BLOB), CAST(max(rest) AS BLOB), min(room) FROM (
            SELECT
                CASE WHEN room >= 0 AND typeof(was) = 'blob' THEN CASE typeof(before) WHEN 'text'
                    THEN (SELECT group_concat(j) FROM ({run(f"{source.row} AS j", "before", "was")} LIMIT :limit))
                        || coalesce(',' || {subdir}, '')
                    ELSE {subdir} END END AS entries,
                CASE WHEN room < 0 THEN before WHEN found IS NULL AND typeof(was) = 'text' THEN was END AS rest,
                CASE WHEN room >= 0 THEN room END AS room
            FROM step)"""
