"""Connections and units of work.

A unit of work is a plain synchronous function `fn(tx, ...)`: it takes a connection and values, returns values, and cannot
await, so nothing can be called out to from inside a transaction. `await db.run(fn, ...)` runs one that writes,
`await db.read(fn, ...)` one that only reads, and `db.read_inline(fn, ...)` a look-up so short (a token, one row by its id)
that a hop to another thread would cost more than it. `await db.read_page(fn, ...)` is for lists, of which nobody knows
beforehand how long they take: a short one is read at once, a long one in the thread that reads.

A unit that has begun runs to its end and commits even when the task that awaits it is cancelled. On MySQL it may run more
than once (a deadlock is tried again), so it must not have effects outside its transaction: those go through `after_commit`.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from cumulet.core.db.writer import Writer
from cumulet.core.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

Unit = Callable[Concatenate[Connection, P], T]

DEADLOCK = frozenset({1205, 1213})
"""MySQL's errors that mean: roll back and try the whole transaction again."""
TRIES = 6
PAGE_STEPS = 10_000
"""Steps of SQLite's machine that one statement of a page may take on the event loop: some 400 rows in the order of
an index, well below a millisecond."""


def after_commit(tx: Connection, callback: Callable[[], None]) -> None:
    """Have `callback` called on the event loop once this unit of work has been committed; not at all if it fails."""
    tx.info.setdefault("after_commit", []).append(callback)


class Database:
    """The one database of the cloud, at a SQLAlchemy URL.

    SQLite runs in WAL mode with a thread that writes (`writer.py`) and one that reads, so that a long list does not hold
    up who writes; MySQL/MariaDB on a pool of `threads`.
    """

    def __init__(self, url: str, *, threads: int = 8) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(url) if self.is_sqlite else _server_engine(url, threads)
        self._pool = ThreadPoolExecutor(1 if self.is_sqlite else threads, thread_name_prefix="db")
        self._local = threading.local()
        self._held: list[Connection] = []
        self._writer = Writer(self.engine.connect) if self.is_sqlite else None
        self._reader: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Bring the schema up to date and open the connections."""
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self._pool, self._migrate)
        if self.is_sqlite:
            self._reader = self.engine.connect()
            self._reader.info["mode"] = "autocommit"  # each statement sees the newest state and holds no lock after it

    async def stop(self) -> None:
        if self._writer is not None:
            await self._writer.stop()
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        if self._reader is not None:
            self._reader.close()
        for connection in self._held:
            connection.close()
        self.engine.dispose()

    async def run(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one writing unit of work in a transaction of its own; commit what it did, or nothing."""
        loop = self._running()
        if self._writer is not None:
            try:
                return await self._writer.run(fn, args, kwargs)  # type: ignore[no-any-return]
            except (OperationalError, sqlite3.OperationalError) as error:
                if _is_full(error):
                    raise Unavailable("The disk under the database is full.") from error
                raise
        return await loop.run_in_executor(self._pool, self._unit, fn, args, kwargs)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work that only reads, on one consistent state of the database."""
        return await self._running().run_in_executor(self._pool, self._read_unit, fn, args, kwargs)

    async def read_inline(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a look-up of one or two short statements without leaving the event loop, where the database is embedded."""
        if self._reader is None:
            return await self.read(fn, *args, **kwargs)
        return fn(self._reader, *args, **kwargs)

    async def read_page(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work that only reads and may be short or long, on one consistent state of the database.

        It may run twice: where the database is embedded it begins on the event loop, and anew in the other thread once a
        statement turns out to be long. SQLite lets go of the interpreter at every row, so a short list that is read beside a
        busy event loop costs twice its time.
        """
        if self._reader is None:
            return await self.read(fn, *args, **kwargs)
        try:
            return self._page_unit(self._reader, fn, args, kwargs)
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                raise
        return await self.read(fn, *args, **kwargs)

    @staticmethod
    def _page_unit(connection: Connection, fn: Callable[..., T], args: Any, kwargs: Any) -> T:
        raw: Any = connection.connection.driver_connection
        raw.execute("BEGIN")
        raw.set_progress_handler(_is_long, PAGE_STEPS)
        try:
            return fn(connection, *args, **kwargs)
        finally:
            raw.set_progress_handler(None, 0)
            raw.execute("COMMIT")

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the database has not been started")
        return self._loop

    def _connection(self) -> Connection:
        """This thread's connection."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.invalidated:
            connection = self._local.connection = self.engine.connect()
            self._held.append(connection)
        return connection

    def _unit(self, fn: Callable[..., T], args: Any, kwargs: Any) -> T:
        for attempt in range(TRIES):
            connection = self._connection()
            connection.info["after_commit"] = []
            try:
                with connection.begin():
                    result = fn(connection, *args, **kwargs)
            except OperationalError as error:
                if attempt + 1 == TRIES or not _worth_retrying(error):
                    raise
                continue
            for callback in connection.info.pop("after_commit"):
                self._running().call_soon_threadsafe(callback)
            return result
        raise AssertionError("unreachable")

    def _read_unit(self, fn: Callable[..., T], args: Any, kwargs: Any) -> T:
        connection = self._connection()
        connection.info["mode"] = "read"
        try:
            with connection.begin():
                return fn(connection, *args, **kwargs)
        finally:
            connection.info["mode"] = "write"

    def _migrate(self) -> None:
        from cumulet.core.db.migrate import is_current, upgrade

        with self.engine.connect() as connection:
            current = is_current(connection)
        if not current:
            with self.engine.begin() as connection:
                upgrade(connection)


def _is_long() -> int:
    """What SQLite asks once a statement has taken PAGE_STEPS: whether to interrupt it."""
    return 1


def _is_full(error: BaseException | None) -> bool:
    """Whether SQLite had no room: it then ends the whole transaction, so other errors may have followed the first."""
    while error is not None:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        error = error.__context__
    return False


def _worth_retrying(error: OperationalError) -> bool:
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return code in DEADLOCK or error.connection_invalidated


def _server_engine(url: str, threads: int) -> Engine:
    return create_engine(url, pool_size=threads + 2, pool_pre_ping=True, pool_recycle=3600, hide_parameters=True)


def _keep_private(path: str | None) -> None:
    """Have the file of the database, and those that SQLite makes beside it with the same mode, be its owner's alone."""
    if path and path != ":memory:":
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.fchmod(file, 0o600)
        os.close(file)


def _sqlite_engine(url: str) -> Engine:
    _keep_private(make_url(url).database)
    arguments = {"check_same_thread": False, "timeout": 30}
    engine = create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not open deferred transactions of its own
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails with SQLITE_BUSY however long it waits.
        mode = connection.info.get("mode", "write")
        if mode != "autocommit":
            raw: Any = connection.connection.driver_connection
            raw.execute("BEGIN" if mode == "read" else "BEGIN IMMEDIATE")

    return engine
