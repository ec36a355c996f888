"""What nodes tell each other of a database, and the side that is told: REPLICATE /device/partition/hash?op=...

    sync     what the teller's database says of itself; the answer is what this one does, and up to which change of the
             teller's rows it has heard
    rows     changes of rows, in order; from then on they are heard
    whole    a database, the file itself, for a node that has none

Databases that have heard the same are equal: rows and metadata are merged by their times, whatever came first. Where two
copies of a container are of different policies, the living one counts, then the one that has been so for longer.
"""

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cumulet.services.object_store.message import Response, refuse
from cumulet.services.object_store.node import BackendRequest
from cumulet.services.object_store.storage import account_rows, container_rows
from cumulet.services.object_store.storage.database import Database, Info, Unit, place_copy
from cumulet.services.object_store.storage.database_server import keep_metadata
from cumulet.services.object_store.storage.databases import ACCOUNTS, CONTAINERS, Databases, Kind


class RowKind(Struct, frozen=True):
    """What rows of a kind of database can do."""

    row: type
    apply: Callable[[Unit, Iterable[Any]], int]
    since: Callable[[sqlite3.Connection, int, int], list[tuple[int, Any]]]
    reclaim: Callable[[Unit, str, int], int]


ROWS: dict[Kind, RowKind] = {
    ACCOUNTS: RowKind(account_rows.Row, account_rows.apply, account_rows.since, account_rows.reclaim),
    CONTAINERS: RowKind(container_rows.Row, container_rows.apply, container_rows.since, container_rows.reclaim),
}


class Answer(Struct):
    """What a database answers to `sync`."""

    info: Info
    point: int


class Rows(Struct):
    """The body of `rows`: of which database, and the changes with their numbers in it."""

    id: str
    rows: list[tuple[int, msgspec.Raw]]


encode = msgspec.json.Encoder().encode
decode_answer = msgspec.json.Decoder(Answer).decode
_decode_info = msgspec.json.Decoder(Info).decode
_decode_rows = msgspec.json.Decoder(Rows).decode


async def replicate(databases: Databases, kind: Kind, request: BackendRequest) -> tuple[Response, Database]:
    """Answer one REPLICATE; the database that it was about may have changed."""
    database = databases.at(kind, request.device, request.partition, request.account)
    op = request.query.get("op")
    try:
        if op == "sync":
            reply = await _sync(database, kind, _decode_info(await _body(request)))
        elif op == "rows":
            reply = await _rows(database, kind, _decode_rows(await _body(request)))
        elif op == "whole":
            reply = await _whole(databases, database, request)
        else:
            reply = refuse(400, f"op must be sync, rows or whole, not '{op}'.")
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        reply = refuse(400, f"The body is not what {op} takes: {error}")
    return reply, database


def merge_info(unit: Unit, other: Info, kind: Kind) -> None:
    """Take over what another copy says of itself, as far as it is later."""
    mine = unit.info
    keep_metadata(unit, other.metadata, check=False)
    put, delete = max(mine.put_timestamp, other.put_timestamp), max(mine.delete_timestamp, other.delete_timestamp)
    created = min(mine.created_at, other.created_at)
    if (put, delete, created) != (mine.put_timestamp, mine.delete_timestamp, mine.created_at):
        status = "DELETED" if delete > put else ""
        changed_at = mine.status_changed_at if status == mine.status else other.status_changed_at
        unit.change(
            put_timestamp=put, delete_timestamp=delete, created_at=created, status=status, status_changed_at=changed_at
        )
    if kind == CONTAINERS and other.policy != mine.policy and _claim(other) < _claim(mine):
        unit.change(policy=other.policy, status_changed_at=other.status_changed_at, reconciled=0)


def _claim(info: Info) -> tuple[bool, str, int]:
    return info.delete_timestamp > info.put_timestamp, info.status_changed_at, info.policy


def point(conn: sqlite3.Connection, remote: str) -> int:
    """Up to which of its changes another database has told this one; -1 where it has told nothing."""
    found = conn.execute("SELECT point FROM sync WHERE remote = ? AND incoming = 1", (remote,)).fetchone()
    return -1 if found is None else int(found[0])


def hear(conn: sqlite3.Connection, remote: str, until: int) -> None:
    """What another database has to tell up to a change is known here."""
    if point(conn, remote) < until:
        conn.execute("INSERT OR REPLACE INTO sync VALUES (?, 1, ?, strftime('%s', 'now'))", (remote, until))


async def _body(request: BackendRequest) -> bytes:
    return b"" if request.body is None else b"".join([piece async for piece in request.body])


async def _sync(database: Database, kind: Kind, other: Info) -> Response:
    def work(unit: Unit) -> int:
        merge_info(unit, other, kind)
        if other.hash == unit.info.hash:
            hear(unit.connection, other.id, other.sequence)
        return point(unit.connection, other.id)

    heard = await database.write(work)
    return Response(200, encode(Answer(await database.ask(), heard)))


async def _rows(database: Database, kind: Kind, told: Rows) -> Response:
    row = ROWS[kind].row
    changes: list[tuple[int, Any]] = [(number, msgspec.json.decode(raw, type=row)) for number, raw in told.rows]

    def work(unit: Unit) -> None:
        ROWS[kind].apply(unit, [change for _, change in changes])
        if changes:
            hear(unit.connection, told.id, changes[-1][0])

    await database.write(work)
    return Response(202)


async def _whole(databases: Databases, database: Database, request: BackendRequest) -> Response:
    """Take a file and put it where there is none: 409 where there is one by then."""
    if database.exists:
        return refuse(409, "There is such a database already.")
    temporary = Path(databases.devices.root, request.device, "tmp")
    draft = temporary / f"{uuid4().hex}.db"
    try:
        await databases.work(temporary.mkdir, exist_ok=True)
        with await databases.work(open, draft, "wb") as file:
            if request.body is not None:
                async for piece in request.body:
                    await databases.work(file.write, piece)
        info = await databases.work(_adopt, draft)
        if databases.salt.name(info.account, info.container) != request.account:
            return refuse(400, f"The database is of {info.account}/{info.container}, which does not belong there.")
        if not await databases.work(place_copy, draft, database.path):
            return refuse(409, "There is such a database already.")
    except sqlite3.Error as error:
        return refuse(400, f"That is no database: {error}")
    finally:
        for name in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm")):
            await databases.work(name.unlink, missing_ok=True)
    return Response(201)


def _adopt(draft: Path) -> Info:
    """Make a copy a database of its own, which has heard all that the one it was copied from had to tell."""
    conn = sqlite3.connect(draft, isolation_level=None)
    try:
        info = _decode_info(conn.execute("SELECT data FROM info").fetchone()[0])
        conn.execute("BEGIN IMMEDIATE")
        hear(conn, info.id, info.sequence)
        adopted = replace(info, id=uuid4().hex, told=None)
        conn.execute("UPDATE info SET data = ?", (encode(adopted).decode(),))
        conn.execute("COMMIT")
    finally:
        conn.close()
    return adopted


def snapshot(conn: sqlite3.Connection, target: Path) -> None:
    """A copy of a whole database, as it is now."""
    copy = sqlite3.connect(target)
    try:
        conn.backup(copy)
    finally:
        copy.close()
