"""Durable operations: whatever takes longer than a request is a row, written in the transaction of the change it belongs to.

    add(tx, ...)      in the request's unit of work: one row, state `queued`; after the commit the doorbell rings
    claim             a worker takes queued rows whose resource has no earlier unfinished one: `running`, with a lease
    handler           an async function of ensure-steps: each may be repeated after a crash at any point
    finish            the handler returns `fn(tx)`: the resource's last change and the row's `done` are one transaction
    failure           tried again after a pause, `attempts` times at most; then `undo(operation)` takes back outside the
                      database what came of it, and `on_failure(tx, operation, error)` brings the resource to its error
                      state, in the transaction that marks the row `failed`

The database is the truth. A lost doorbell costs a poll interval, a lost process its lease: another worker takes over.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar

from msgspec import Struct
from sqlalchemy import Column, Connection, Float, Index, Integer, String, Table, and_, exists, or_, select, update
from sqlalchemy import Text as SqlText

from cumulet.core.db import Database, Json, after_commit, metadata
from cumulet.core.errors import CloudError, Unavailable
from cumulet.core.tasks import Tasks
from cumulet.core.types import new_id, now

log = logging.getLogger("cumulet.operations")

LEASE = 60.0
"""Seconds after which an operation whose worker is silent is anybody's."""
POLL = 5.0
"""Seconds between looks at the table when no doorbell rings."""
BACKOFF = (0.2, 1.0, 3.0, 8.0, 15.0)
"""Seconds before the second, third, ... attempt."""
KEEP = 86400.0
"""Seconds that finished operations are kept."""

UNFINISHED = ("queued", "running")

table = Table(
    "core_operation",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("kind", String(64), nullable=False),
    Column("resource_id", String(64), nullable=False),
    Column("args", Json(dict[str, Any]), nullable=False),
    Column("project_id", String(64)),
    Column("user_id", String(64)),
    Column("request_id", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owner", String(64)),
    Column("lease_until", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("error", SqlText),
    Column("created_at", String(26), nullable=False),
    Column("ended_at", Float),
    Index("core_operation_state", "state", "not_before"),
    Index("core_operation_resource", "resource_id", "seq"),
)


class Operation(Struct, kw_only=True):
    """One operation. `attempts` counts the runs begun, this one included."""

    table: ClassVar[Table] = table

    seq: int
    id: str
    kind: str
    resource_id: str
    args: dict[str, Any]
    project_id: str | None
    user_id: str | None
    request_id: str
    state: str
    attempts: int
    owner: str | None
    lease_until: float
    not_before: float
    error: str | None
    created_at: str
    ended_at: float | None


Finish = Callable[[Connection], None]
Handler = Callable[[Operation], Awaitable[Finish | None]]
Undo = Callable[[Operation], Awaitable[None]]
OnFailure = Callable[[Connection, Operation, BaseException], None]


class Permanent(Exception):
    """Raised by a handler for a failure that no further attempt can change. Errors of the caller
    (`CloudError` other than `Unavailable`) count as permanent too."""


class Kind(Struct, frozen=True):
    handler: Handler
    on_failure: OnFailure | None
    undo: Undo | None
    attempts: int


class Operations:
    """The operations of this process: adds rows, and works on them."""

    def __init__(self, db: Database, owner: str, *, workers: int = 32) -> None:
        self._db = db
        self._owner = owner
        self._workers = workers
        self._kinds: dict[str, Kind] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._current: dict[int, Operation] = {}
        self._doorbell = asyncio.Event()
        self._tasks = Tasks()
        self._stopping = False

    def register(
        self,
        kind: str,
        handler: Handler,
        *,
        on_failure: OnFailure | None = None,
        undo: Undo | None = None,
        attempts: int = 5,
    ) -> None:
        """Say who carries out operations of `kind` ("server.create"). `undo` runs whatever it was that failed for good, the
        handler or the write of its end, and may run again after a crash; it ends before the resource is free for others."""
        self._kinds[kind] = Kind(handler, on_failure, undo, attempts)

    def add(
        self,
        tx: Connection,
        kind: str,
        resource_id: str,
        args: dict[str, Any] | None = None,
        *,
        project_id: str | None = None,
        user_id: str | None = None,
        request_id: str = "",
        delay: float = 0.0,
        supersede: bool = False,
    ) -> str:
        """Queue an operation on a resource, in the caller's unit of work; returns its id.

        Operations of one resource run in the order in which they were added. With `supersede` (a delete) all earlier
        ones are ended: queued ones never run, a running one is cancelled where it stands.
        """
        if kind not in self._kinds:
            raise KeyError(f"no handler is registered for operations of kind {kind}")
        if supersede:
            self._cancel_earlier(tx, resource_id)
        operation_id = new_id()
        tx.execute(
            table.insert(),
            {
                "id": operation_id,
                "kind": kind,
                "resource_id": resource_id,
                "args": args or {},
                "project_id": project_id,
                "user_id": user_id,
                "request_id": request_id,
                "state": "queued",
                "attempts": 0,
                "lease_until": 0.0,
                "not_before": time.time() + delay,
                "created_at": now(),
            },
        )
        after_commit(tx, self._doorbell.set)
        return operation_id

    def _cancel_earlier(self, tx: Connection, resource_id: str) -> None:
        where = and_(table.c.resource_id == resource_id, table.c.state.in_(UNFINISHED))
        seqs = list(tx.execute(select(table.c.seq).where(where)).scalars())
        if seqs:
            tx.execute(update(table).where(where).values(state="cancelled", ended_at=time.time()))
            after_commit(tx, lambda: self._cancel(seqs))

    def _cancel(self, seqs: list[int]) -> None:
        for seq in seqs:
            if task := self._running.get(seq):
                task.cancel()

    async def start(self) -> None:
        """Take back what an earlier life of this process left running, and begin to work."""
        await self._db.run(_requeue, self._owner)
        self._tasks.spawn("operations dispatcher", self._dispatch())
        self._tasks.every("operations leases", LEASE / 4, self._renew)
        self._tasks.every("operations cleaning", 3600, self._clean)

    async def stop(self) -> None:
        """Stop claiming, and end what runs where it stands: the rows stay, the next start goes on."""
        self._stopping = True
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._tasks.stop()

    async def idle(self) -> None:
        """Wait until no operation is due or running (for tests and for an orderly end)."""
        while True:
            due = await self._db.read(_due)
            if not due and not self._running:
                return
            if self._running:
                await asyncio.wait(list(self._running.values()))
            else:
                self._doorbell.set()
                await asyncio.sleep(0.01)

    async def _dispatch(self) -> None:
        wait = 0.0
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._doorbell.wait()
            except TimeoutError:
                pass
            self._doorbell.clear()
            try:
                wait = await self._claim_and_run()
            except Exception:
                log.exception("could not claim operations; trying again")
                wait = POLL

    async def _claim_and_run(self) -> float:
        """Claim as many as there is room for; returns the seconds after which to look again."""
        room = self._workers - len(self._running)
        if room <= 0:
            return POLL
        # A superseded operation may still be on its way out here: its resource waits until it has ended.
        busy = frozenset(o.resource_id for o in self._current.values())
        claimed, wait = await self._db.run(_claim, self._owner, room, frozenset(self._kinds), busy)
        for operation in claimed:
            task = asyncio.get_running_loop().create_task(
                self._run(operation), name=f"{operation.kind} {operation.resource_id}"
            )
            self._running[operation.seq] = task
            self._current[operation.seq] = operation
            task.add_done_callback(partial(self._ended, operation.seq))
        return wait

    def _ended(self, seq: int, task: asyncio.Task[None]) -> None:
        self._running.pop(seq, None)
        self._current.pop(seq, None)
        self._doorbell.set()  # there is room, and the resource's next operation may run
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("operation %s could not be recorded; its lease will run out", task.get_name(), exc_info=error)

    async def _run(self, operation: Operation) -> None:
        kind = self._kinds[operation.kind]
        try:
            finish = await kind.handler(operation)
            await self._db.run(_finish, operation, finish)
        except asyncio.CancelledError:
            if not self._stopping:
                log.info("%s of %s was superseded", operation.kind, operation.resource_id)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is recorded
            await self._failed(operation, kind, error)

    async def _failed(self, operation: Operation, kind: Kind, error: Exception) -> None:
        hopeless = isinstance(error, Permanent) or (
            isinstance(error, CloudError) and not isinstance(error, Unavailable)
        )
        if hopeless or operation.attempts >= kind.attempts:
            log.warning(
                "%s of %s failed: %s", operation.kind, operation.resource_id, error, exc_info=not hopeless and error
            )
            await self._undo(operation, kind)
            await self._db.run(_fail, operation, kind.on_failure, error)
            return
        pause = BACKOFF[min(operation.attempts, len(BACKOFF)) - 1]
        log.info("%s of %s failed, again in %s s: %s", operation.kind, operation.resource_id, pause, error)
        await self._db.run(_retry, operation, pause, error)

    async def _undo(self, operation: Operation, kind: Kind) -> None:
        """What cannot be taken back does not keep the resource from its error state."""
        if kind.undo is not None:
            try:
                await kind.undo(operation)
            except Exception:
                log.exception("what came of %s of %s could not be taken back", operation.kind, operation.resource_id)

    async def _clean(self) -> None:
        await self._db.run(_forget)

    async def _renew(self) -> None:
        if self._running:
            await self._db.run(_renew, self._owner, list(self._running))


def _requeue(tx: Connection, owner: str) -> None:
    """Runs that ended with the process are not counted as attempts: they say nothing of the operation."""
    tx.execute(
        update(table)
        .where(table.c.state == "running", table.c.owner == owner)
        .values(state="queued", owner=None, lease_until=0.0, attempts=table.c.attempts - 1)
    )


def _claim(
    tx: Connection, owner: str, room: int, kinds: frozenset[str], busy: frozenset[str]
) -> tuple[list[Operation], float]:
    moment = time.time()
    earlier = table.alias("earlier")
    blocked = exists().where(
        earlier.c.resource_id == table.c.resource_id, earlier.c.seq < table.c.seq, earlier.c.state.in_(UNFINISHED)
    )
    free = or_(table.c.state == "queued", and_(table.c.state == "running", table.c.lease_until < moment))
    due = (
        select(table)
        .where(free, table.c.not_before <= moment, table.c.kind.in_(kinds), ~blocked)
        .order_by(table.c.seq)
        .limit(room)
        .with_for_update(skip_locked=True)
    )
    rows = [Operation(**row._asdict()) for row in tx.execute(due) if row.resource_id not in busy]
    for row in rows:
        row.state, row.owner, row.attempts, row.lease_until = "running", owner, row.attempts + 1, moment + LEASE
    if rows:
        tx.execute(
            update(table)
            .where(table.c.seq.in_([row.seq for row in rows]))
            .values(state="running", owner=owner, attempts=table.c.attempts + 1, lease_until=moment + LEASE)
        )
    next_due = tx.execute(
        select(table.c.not_before)
        .where(table.c.state == "queued", table.c.not_before > moment)
        .order_by(table.c.not_before)
        .limit(1)
    ).scalar()
    return rows, POLL if next_due is None else min(POLL, max(0.0, next_due - moment))


def _still_mine(tx: Connection, operation: Operation, **values: Any) -> bool:
    """Write the operation's end, unless it was superseded or taken over meanwhile."""
    mine = and_(table.c.seq == operation.seq, table.c.state == "running", table.c.owner == operation.owner)
    return bool(tx.execute(update(table).where(mine).values(**values)).rowcount)


def _finish(tx: Connection, operation: Operation, finish: Finish | None) -> None:
    if _still_mine(tx, operation, state="done", ended_at=time.time()) and finish is not None:
        finish(tx)


def _fail(tx: Connection, operation: Operation, on_failure: OnFailure | None, error: BaseException) -> None:
    ended = _still_mine(tx, operation, state="failed", ended_at=time.time(), error=str(error))
    if ended and on_failure is not None:
        on_failure(tx, operation, error)


def _retry(tx: Connection, operation: Operation, pause: float, error: BaseException) -> None:
    _still_mine(tx, operation, state="queued", owner=None, not_before=time.time() + pause, error=str(error))


def _renew(tx: Connection, owner: str, seqs: list[int]) -> None:
    tx.execute(
        update(table)
        .where(table.c.seq.in_(seqs), table.c.owner == owner, table.c.state == "running")
        .values(lease_until=time.time() + LEASE)
    )


def _forget(tx: Connection) -> None:
    tx.execute(table.delete().where(table.c.state.not_in(UNFINISHED), table.c.ended_at < time.time() - KEEP))


def _due(tx: Connection) -> bool:
    return tx.execute(select(table.c.seq).where(table.c.state.in_(UNFINISHED)).limit(1)).first() is not None
