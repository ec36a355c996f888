"""Keeps the copies of account and container databases equal, and brings those to their places that lie elsewhere.

Each database tells each of its other places what it says of itself, then the rows that have changed since it told the last
time; a place that has none gets the whole file. A device that a database does not belong to (it stood in for another, or a
rebalance has moved the partition) gives it up when all its places have it.
"""

import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

from cumulet.api.http import Query
from cumulet.core.tasks import in_thread
from cumulet.services.object_store.message import PIECE, Response, drain, stream
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest, Device, Nodes
from cumulet.services.object_store.storage.database import Database, Info, Unit
from cumulet.services.object_store.storage.database_rounds import KINDS, Job, Places, Rounds
from cumulet.services.object_store.storage.databases import Databases
from cumulet.services.object_store.storage.replication import ROWS, Answer, Rows, decode_answer, encode, snapshot

log = logging.getLogger("cumulet.object_store.replicator")

BATCH = 1000
"""Rows that are told, or forgotten, at once."""


class DatabaseReplicator:
    """`pushed` counts rows and whole files, `failed` places that could not be told, `removed` databases given up."""

    def __init__(self, databases: Databases, nodes: Nodes, places: Places, *, reclaim_age: float) -> None:
        self.databases = databases
        self.nodes = nodes
        self.rounds = Rounds(databases, places)
        self.reclaim_age = reclaim_age
        self.pushed = self.failed = self.removed = self.passes = 0
        self.seconds = 0.0

    async def run(self) -> None:
        """One round over all databases of all devices."""
        begun = time.monotonic()
        for kind in KINDS:
            await self.rounds.over(kind, self._replicate, lambda job: bool(job.others))
        self.seconds = time.monotonic() - begun
        self.passes += 1

    async def reclaim(self) -> None:
        """Forget what was deleted so long ago that every copy knows it: rows, metadata, and whole databases."""
        before = Timestamp(max(0, Timestamp.now().ticks - int(self.reclaim_age * 100_000))).internal
        for kind in KINDS:
            await self.rounds.over(kind, lambda job, database: self._reclaim(job, database, before))

    async def _replicate(self, job: Job, database: Database) -> None:
        info = await database.ask()
        done = []
        handoffs = iter(self.rounds.ring(job.kind).handoffs(job.partition))
        for place in job.others:
            good = await self._tell(job, database, place)
            if good is None and job.here:  # that device has failed: another one stands in for it
                stand_in = next((other for other in handoffs if not self.rounds.is_this(job, other)), None)
                good = stand_in is not None and await self._tell(job, database, stand_in)
            done.append(bool(good))
        self.failed += done.count(False)
        if not job.here and all(done) and done:
            told = (info.id, info.sequence, info.metadata, info.put_timestamp, info.delete_timestamp)
            if await database.remove(
                lambda now: told == (now.id, now.sequence, now.metadata, now.put_timestamp, now.delete_timestamp)
            ):
                self.removed += 1

    async def _tell(self, job: Job, database: Database, place: Device) -> bool | None:
        """Make one place equal to this database in all that it lacks. None: its device is not there."""
        info = await database.ask()
        reply = await self._ask(job, place, "sync", encode(info))
        if reply.status == 404:
            return await self._whole(job, database, place)
        if not reply.ok:
            return None if reply.status == 507 else False
        answer = decode_answer(await drain(reply))
        if answer.info.hash == info.hash and answer.point >= info.sequence:
            return True
        return await self._rows(job, database, place, info, answer)

    async def _rows(self, job: Job, database: Database, place: Device, info: Info, answer: Answer) -> bool:
        point = answer.point
        since = ROWS[job.kind].since
        while point < info.sequence:
            rows = await database.read(lambda conn, after=point: since(conn, after, BATCH))  # type: ignore[misc]
            if not rows:
                return True
            body = encode(Rows(info.id, rows))
            reply = await self._ask(job, place, "rows", body)
            if not reply.ok:
                return False
            self.pushed += len(rows)
            point = rows[-1][0]
        return True

    async def _whole(self, job: Job, database: Database, place: Device) -> bool | None:
        temporary = Path(self.databases.devices.root, job.device, "tmp")
        copy = temporary / f"{uuid4().hex}.db"
        try:
            await in_thread(temporary.mkdir, exist_ok=True)
            await database.read(lambda conn: snapshot(conn, copy))
            reply = await self._ask(job, place, "whole", _pieces(copy))
        finally:
            await in_thread(copy.unlink, missing_ok=True)
        if reply.ok:
            self.pushed += 1
            return True
        return None if reply.status == 507 else False

    async def _ask(self, job: Job, place: Device, op: str, body: bytes | AsyncIterator[bytes]) -> Response:
        data = stream(body) if isinstance(body, bytes) else body
        kind = KINDS[job.kind]
        ask = BackendRequest(kind, "REPLICATE", place.name, job.partition, job.name, query=Query(f"op={op}"), body=data)
        return await self.nodes.call(place, ask)

    async def _reclaim(self, job: Job, database: Database, before: str) -> None:
        forget = ROWS[job.kind].reclaim

        def work(unit: Unit) -> int:
            kept = {name: said for name, said in unit.info.metadata.items() if said[0] or said[1] >= before}
            if kept != unit.info.metadata:
                unit.change(metadata=kept)
            return forget(unit, before, BATCH)

        while await database.write(work) == BATCH:
            pass

        def is_over(info: Info) -> bool:
            total = info.total
            return info.put_timestamp < info.delete_timestamp < before and not (total.containers or total.objects)

        if is_over(await database.ask()) and await database.remove(is_over):
            self.removed += 1


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await in_thread(open, path, "rb") as file:
        while piece := await in_thread(file.read, PIECE * 16):
            yield piece
