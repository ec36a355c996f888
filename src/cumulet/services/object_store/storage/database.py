"""One SQLite file: its connections, its group commit, and what is always known of it.

All that waits to be written to a database is one transaction and one fsync (`synchronous=FULL`, WAL): whoever wrote is told
after it. Where all of it would be told again after a power cut there is no fsync (`NORMAL`): it outlives the process all the
same, and lasts when SQLite merges its log into the file. What a database says of itself (`Info`: timestamps, metadata, counts)
is one row, held in memory while the file is unchanged, so that asking for it costs no look at the disk. A file that SQLite
finds damaged is put aside and said.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cumulet.services.object_store.storage.disk_threads import DiskThreads

log = logging.getLogger("cumulet.object_store.database")
T = TypeVar("T")

ZERO = "0000000000.00000"
"""The timestamp of what never was."""
NO_HASH = "0" * 32
CACHE_KIB = 512
"""Of pages that one connection keeps."""

COMMON = """
CREATE TABLE info (one INTEGER PRIMARY KEY CHECK (one = 1), data TEXT NOT NULL);
CREATE TABLE sync (remote TEXT NOT NULL, incoming INTEGER NOT NULL, point INTEGER NOT NULL, updated_at TEXT NOT NULL,
                   PRIMARY KEY (remote, incoming)) WITHOUT ROWID;
"""


Reported = tuple[str, str, int, int, int]
"""Of a container: when it was made and deleted, its objects and bytes, the number of its last change. Without that a change
which is taken back while a report is on its way would look like one that was reported."""


class Stat(Struct, frozen=True):
    """How much there is under one storage policy. `containers` is 0 in a container's own database."""

    containers: int = 0
    objects: int = 0
    bytes: int = 0

    def plus(self, containers: int, objects: int, size: int) -> "Stat":
        return Stat(self.containers + containers, self.objects + objects, self.bytes + size)


class Info(Struct, frozen=True, omit_defaults=True):
    """What a database says of itself. `metadata` is by header's name: the value and when it was said, "" a removed one.
    `hash` is made of all rows, whatever their order; `sequence` numbers the changes of rows. `told` is what the account
    was last told of a container, and which change that was after."""

    account: str
    container: str = ""
    id: str = ""
    created_at: str = ZERO
    put_timestamp: str = ZERO
    delete_timestamp: str = ZERO
    status_changed_at: str = ZERO
    status: str = ""
    metadata: dict[str, tuple[str, str]] = {}
    policy: int = 0
    stats: dict[int, Stat] = {}
    hash: str = NO_HASH
    sequence: int = 0
    told: Reported | None = None
    sync_points: tuple[int, int] = (-1, -1)
    reconciled: int = 0

    @property
    def total(self) -> Stat:
        """All policies together."""
        stats = self.stats.values()
        return Stat(sum(s.containers for s in stats), sum(s.objects for s in stats), sum(s.bytes for s in stats))

    @property
    def own(self) -> Stat:
        """Under the database's own policy: what clients are told of a container."""
        return self.stats.get(self.policy) or Stat()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Info).decode


class Unit:
    """One transaction. What works on it changes rows through `connection`, and replaces `info`."""

    def __init__(self, connection: sqlite3.Connection, info: Info, fresh: bool) -> None:
        self.connection = connection
        self.info = info
        self.fresh = fresh
        """Whether the database has just been made, for what is done here."""

    def change(self, **values: Any) -> None:
        self.info = replace(self.info, **values)


class Missing(Exception):
    """There is no such database."""


class Damaged(Exception):
    """A database was found damaged, and put aside."""


class Full(Exception):
    """The device has no room, or does not write."""


Work = Callable[[Unit], Any]


class Waiting(NamedTuple):
    """Work for a transaction, and who waits for it."""

    work: Work
    new: Info | None
    future: "asyncio.Future[Any]"
    lasts: bool


class Database:
    """One file. `info` may be asked anywhere and at any time: None where nothing is known without a look at the file."""

    def __init__(self, name: str, schema: str, pool: DiskThreads, used: Callable[["Database"], None]) -> None:
        self.name = name
        self.path = Path(name)
        self.schema = schema
        self.memo: Any = None
        """What a server has made of `info` and keeps until it changes."""
        self.reported: Reported | None = None
        """What its account was told last."""
        self._pool = pool
        self._used = used
        self._info: Info | None = None
        self._file = (0, 0)
        self._lock = threading.RLock()
        self._reading_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._synced = True
        """Whether transactions are on the disk when they are over."""
        self._readers: list[sqlite3.Connection] = []
        self._reading = 0
        self._waiting: list[Waiting] = []
        self._writing = False

    # On the loop

    @property
    def info(self) -> Info | None:
        """What is known, if the file is still the one it is known of."""
        if self._info is not None and _identity(self.name) != self._file:
            return None
        return self._info

    @property
    def exists(self) -> bool:
        return self.path.exists()

    @property
    def idle(self) -> bool:
        return not (self._writing or self._waiting or self._reading)

    @property
    def open(self) -> bool:
        return self._writer is not None or bool(self._readers)

    async def ask(self) -> Info:
        """What it says of itself; Missing."""
        info = self.info
        if info is not None:
            return info
        self._used(self)
        told: Info = await self._pool.run(self._ask)
        return told

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read in a thread, in one consistent view; Missing."""
        self._used(self)
        found: T = await self._pool.run(self._read, work)
        return found

    async def write(self, work: Callable[[Unit], T], new: Info | None = None, *, lasts: bool = True) -> T:
        """Do `work` in a transaction, together with all that waits; return when it lasts. Where there is no database, one is
        made that says `new` of itself; Missing where that is None. What `work` raises undoes its own part alone; then the rest
        is done again, so it must not do anything but what the transaction undoes. Without `lasts` a power cut may undo it."""
        self._used(self)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(Waiting(work, new, future, lasts))
        if not self._writing:
            self._writing = True
            loop.call_soon(self._next, loop)  # with all that comes in this round of the loop
        return await future

    async def remove(self, still: Callable[[Info], bool]) -> bool:
        """Take the file away with all that belongs to it, if that is `still` right for what it says of itself at the end.
        Whoever writes to it meanwhile is told that it is missing."""
        removed: bool = await self._pool.run(self._remove, still)
        return removed

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = self._waiting, []
        try:
            self._pool.post(self._commit, loop, batch)
        except RuntimeError as error:  # the node is stopping
            self._told(loop, batch, [(False, error)] * len(batch))

    def _told(
        self, loop: asyncio.AbstractEventLoop, batch: list[Waiting], outcomes: Sequence[tuple[bool, Any]]
    ) -> None:
        """Tell all of a batch what became of theirs; then the next batch is written."""
        if self._waiting:
            loop.call_soon(self._next, loop)  # with all that comes in this round of the loop
        else:
            self._writing = False
        for waiting, (good, value) in zip(batch, outcomes, strict=True):
            if waiting.future.done():
                continue
            if good:
                waiting.future.set_result(value)
            else:
                waiting.future.set_exception(value)

    # In threads of the pool

    def _commit(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting]) -> None:
        try:
            with self._lock, self._explained():
                outcomes: list[tuple[bool, Any]] = self._transaction(batch)
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            outcomes = [(False, error)] * len(batch)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is there to be told
            loop.call_soon_threadsafe(self._told, loop, batch, outcomes)

    def _transaction(self, batch: list[Waiting]) -> list[tuple[bool, Any]]:
        self._still_there()
        fresh = False
        if self._writer is None and not self.path.exists():
            fresh = True
            new = next((waiting.new for waiting in batch if waiting.new is not None), None)
            if new is None or not self.path.parents[4].is_dir():
                raise self._missing()
            _make(self.path, self.schema, replace(new, id=new.id or uuid4().hex))
        conn = self._opened()
        self._sync(conn, any(waiting.lasts for waiting in batch))
        try:
            return self._done(conn, fresh, lambda unit: [(True, _alone(unit, waiting.work)) for waiting in batch])
        except sqlite3.Error:
            raise
        except Exception:  # noqa: BLE001 - rare: what fails is found, and the rest is done without it
            return self._done(conn, fresh, lambda unit: [_attempt(unit, waiting.work) for waiting in batch])

    def _opened(self) -> sqlite3.Connection:
        """The connection that writes."""
        if self._writer is None:
            self._writer, self._synced = _connect(self.path), True
            self._file = _identity(self.path)
        return self._writer

    def _sync(self, conn: sqlite3.Connection, lasts: bool) -> None:
        """Have transactions on the disk when they are over, or not."""
        if lasts != self._synced:
            conn.execute(f"PRAGMA synchronous = {'FULL' if lasts else 'NORMAL'}")
            self._synced = lasts

    def _done(
        self, conn: sqlite3.Connection, fresh: bool, all_of_it: Callable[[Unit], list[tuple[bool, Any]]]
    ) -> list[tuple[bool, Any]]:
        """What comes of work in one transaction."""
        conn.execute("BEGIN IMMEDIATE")
        try:
            before = self._info or _load(conn)
            unit = Unit(conn, before, fresh)
            outcomes = all_of_it(unit)
            if unit.info is not before:
                if self.reported is not None:
                    unit.change(told=self.reported)
                conn.execute("UPDATE info SET data = ?", (_encode(unit.info).decode(),))
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
        if unit.info is not self._info:
            self._known(unit.info)
        return outcomes

    def _ask(self) -> Info:
        with self._lock, self._explained():
            self._still_there()
            if self._info is None:
                if self._writer is None and not self.path.exists():
                    raise self._missing()
                self._known(_load(self._opened()))
            assert self._info is not None
            return self._info

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.info is None:
            self._ask()
        with self._explained():
            with self._reading_lock:
                self._reading += 1
                conn = self._readers.pop() if self._readers else None
            try:
                conn = conn or _connect(self.path)
                conn.execute("BEGIN")
                try:
                    return work(conn)
                finally:
                    conn.execute("COMMIT")
            finally:
                with self._reading_lock:
                    self._reading -= 1
                    if conn is not None and not self._readers and self._writer is not None:
                        self._readers.append(conn)
                    elif conn is not None:
                        conn.close()

    def _missing(self) -> Exception:
        """What it means that there is no file: there is no such database, or its device is gone."""
        device = self.path.parents[4]
        return Missing(self.path) if device.is_dir() else Full(f"The device {device} is not there.")

    def _known(self, info: Info) -> None:
        self._info, self.memo = info, None
        if self.reported is None:
            self.reported = info.told

    def _still_there(self) -> None:
        """Forget all that is known of a file which is another one by now: a device was emptied, a copy has come."""
        if self._writer is not None and _identity(self.path) != self._file:
            self._let_go()
            self._unknown()

    def _unknown(self) -> None:
        self._info = self.memo = self.reported = None

    def shut(self) -> bool:
        """Close the connections, if nobody uses them: the log is merged into the file. What is known stays known."""
        with self._lock:
            if not self.idle:
                return False
            with contextlib.suppress(sqlite3.Error):  # it is told once more
                self._keep_reported()
            self._let_go()
            return True

    def _keep_reported(self) -> None:
        """Write what the account was told, so that it need not be told again."""
        if self._writer is None or self._info is None or self.reported in (None, self._info.told):
            return
        if _identity(self.name) == self._file:
            self._info = replace(self._info, told=self.reported)
            self._writer.execute("UPDATE info SET data = ?", (_encode(self._info).decode(),))

    def _let_go(self) -> None:
        with self._reading_lock:
            connections = [*self._readers, self._writer]
            self._readers.clear()
            self._writer = None
        for conn in connections:
            if conn is not None:
                with contextlib.suppress(sqlite3.Error):
                    conn.close()

    def _remove(self, still: Callable[[Info], bool]) -> bool:
        with self._lock, self._explained():
            self._still_there()
            if not self.path.exists():
                return True
            if not still(_load(self._opened())):
                return False
            self._let_go()
            self._unknown()
            shutil.rmtree(self.path.parent, ignore_errors=True)
            for folder in list(self.path.parents)[1:3]:  # the suffix and the partition, if nothing else is in them
                with contextlib.suppress(OSError):
                    folder.rmdir()
            return True

    @contextlib.contextmanager
    def _explained(self) -> Any:
        """SQLite's errors as what they mean here."""
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "malformed" in text or "not a database" in text:
                raise self._quarantine(text) from error
            if "unable to open" in text and not self.path.exists():
                raise self._missing() from None
            if any(word in text for word in ("full", "disk I/O", "readonly", "unable to open")):
                raise Full(f"{self.path}: {text}") from error
            raise
        except sqlite3.DatabaseError as error:
            raise self._quarantine(str(error)) from error
        except OSError as error:
            raise Full(f"{self.path}: {error}") from error

    def _quarantine(self, reason: str) -> Damaged:
        """Put the damaged file aside, where it does no harm and can be looked at."""
        with self._lock:
            return self._put_aside(reason)

    def _put_aside(self, reason: str) -> Damaged:
        self._let_go()
        self._unknown()
        folder = self.path.parent
        kind, device = self.path.parents[3].name, self.path.parents[4]
        aside = device / "quarantined" / kind / folder.name
        with contextlib.suppress(OSError):
            aside.parent.mkdir(parents=True, exist_ok=True)
            if aside.exists():
                aside = aside.with_name(f"{aside.name}-{uuid4().hex}")
            os.rename(folder, aside)
        log.error("database %s is damaged (%s): it was put aside as %s", self.path, reason, aside)
        return Damaged(f"The database was damaged ({reason}) and has been put aside.")


def _alone(unit: Unit, work: Work) -> Any:
    value = work(unit)
    unit.fresh = False
    return value


def _attempt(unit: Unit, work: Work) -> tuple[bool, Any]:
    """Work in a savepoint of its own; what SQLite says against the whole transaction is raised."""
    before = unit.info
    unit.connection.execute("SAVEPOINT work")
    try:
        value = work(unit)
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - whoever waits is told
        unit.info = before
        unit.connection.execute("ROLLBACK TO work")
        unit.connection.execute("RELEASE work")
        return False, error
    unit.connection.execute("RELEASE work")
    unit.fresh = False
    return True, value


def _identity(path: Path | str) -> tuple[int, int]:
    try:
        told = os.stat(path)
    except OSError:
        return 0, 0
    return told.st_dev, told.st_ino


def _load(conn: sqlite3.Connection) -> Info:
    row = conn.execute("SELECT data FROM info").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the row that says what it is of is missing")
    try:
        return _decode(row[0])
    except msgspec.DecodeError as error:
        raise sqlite3.DatabaseError(f"the row that says what it is of cannot be read: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw", uri=True, timeout=20, isolation_level=None, check_same_thread=False
    )
    conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute("PRAGMA temp_store = MEMORY")
    return conn


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _sync(path: Path) -> None:
    """Make a file, or what a directory lists, last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path, schema: str, info: Info) -> None:
    """A new database: made whole where a start sweeps, then moved to its place, so that nobody ever finds half of one."""
    made = [folder for folder in path.parents[:4] if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parents[4] / "tmp"
    temporary.mkdir(exist_ok=True)
    draft = temporary / f"{uuid4().hex}.db"
    try:
        conn = sqlite3.connect(draft, isolation_level=None)
        try:
            conn.execute("PRAGMA synchronous = OFF")
            conn.execute("PRAGMA journal_mode = MEMORY")
            conn.executescript(f"BEGIN; {COMMON} {schema} COMMIT;")
            conn.execute("INSERT INTO info VALUES (1, ?)", (_encode(info).decode(),))
            conn.execute("PRAGMA journal_mode = WAL")
        finally:
            conn.close()
        _sync(draft)
        os.rename(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folders(path, made)


def place_copy(draft: Path, path: Path) -> bool:
    """Move a finished database to its place, for good, unless there is one by now."""
    made = [folder for folder in path.parents[:4] if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    _sync(draft)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    _sync_folders(path, made)
    return True


def _sync_folders(path: Path, made: list[Path]) -> None:
    for folder in {path.parent, *(folder.parent for folder in made)}:
        _sync(folder)
