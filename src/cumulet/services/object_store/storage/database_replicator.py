"""Keeps the copies of account and container databases equal, and brings those to their places that lie elsewhere.

Each database tells each of its other places what it says of itself, then the rows that have changed since it told the last
time; a place that has none gets the whole file. A device that a database does not belong to (it stood in for another, or a
rebalance has moved the partition) gives it up when all its places have it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from cumulet.api.http import Query
from cumulet.core.tasks import in_thread
from cumulet.services.object_store import node
from cumulet.services.object_store.message import PIECE, Response, drain, stream
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest, Device, Nodes, Ring, Rings
from cumulet.services.object_store.storage.database import Damaged, Database, Full, Info, Missing, Unit
from cumulet.services.object_store.storage.databases import ACCOUNTS, CONTAINERS, Databases, Kind
from cumulet.services.object_store.storage.replication import ROWS, Answer, Rows, decode_answer, encode, snapshot

log = logging.getLogger("cumulet.object_store.replicator")

KINDS: dict[Kind, node.Kind] = {ACCOUNTS: "account", CONTAINERS: "container"}
AT_ONCE = 8
"""Databases that are compared at one time."""
BATCH = 1000
"""Rows that are told, or forgotten, at once."""


class Places(Protocol):
    """What is asked of the cluster."""

    @property
    def rings(self) -> Rings: ...

    def is_here(self, kind: node.Kind, device: Device) -> bool: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One database on a device of this node. `others` are its other places; `here`: it belongs to this one."""

    kind: Kind
    device: str
    partition: int
    name: str
    others: tuple[Device, ...]
    here: bool


class DatabaseReplicator:
    """`pushed` counts rows and whole files, `failed` places that could not be told, `removed` databases given up."""

    def __init__(self, databases: Databases, nodes: Nodes, places: Places, *, reclaim_age: float) -> None:
        self.databases = databases
        self.nodes = nodes
        self.places = places
        self.reclaim_age = reclaim_age
        self.pushed = self.failed = self.removed = self.passes = 0
        self.seconds = 0.0

    async def run(self) -> None:
        """One round over all databases of all devices."""
        begun = time.monotonic()
        for kind in KINDS:
            await self._all(kind, lambda job: bool(job.others), self._replicate)
        self.seconds = time.monotonic() - begun
        self.passes += 1

    async def reclaim(self) -> None:
        """Forget what was deleted so long ago that every copy knows it: rows, metadata, and whole databases."""
        before = Timestamp(max(0, Timestamp.now().ticks - int(self.reclaim_age * 100_000))).internal
        for kind in KINDS:
            await self._all(kind, lambda _: True, lambda job: self._reclaim(job, before))

    async def _all(
        self,
        kind: Kind,
        wanted: Callable[[Job], bool],
        work: Callable[[Job], Awaitable[None]],
    ) -> None:
        for device in await in_thread(self.databases.devices.names):
            jobs = await in_thread(self._jobs, kind, device, wanted)
            limit = asyncio.Semaphore(AT_ONCE)

            async def one(job: Job, limit: asyncio.Semaphore = limit) -> None:
                async with limit:
                    await self._guarded(job, work)

            for first in range(0, len(jobs), BATCH):
                await asyncio.gather(*(one(job) for job in jobs[first : first + BATCH]))

    async def _guarded(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        try:
            await work(job)
        except Missing:
            pass
        except (Damaged, Full) as error:
            self.failed += 1
            log.warning("%s", error)
        except Exception:
            self.failed += 1
            log.exception("the database %s on %s could not be replicated", job.name, job.device)

    def _jobs(self, kind: Kind, device: str, wanted: Callable[[Job], bool]) -> list[Job]:
        ring = self._ring(kind)

        def job(partition: int, name: str) -> Job:
            places = ring.devices(partition) if partition < 1 << ring.power else ()
            others = tuple(place for place in places if not self._is(kind, place, device))
            return Job(kind, device, partition, name, others, len(others) < len(places))

        names = self.databases.names(kind, device, lambda number: wanted(job(number, "")))
        return [job(number, name) for number, name in names]

    def _ring(self, kind: Kind) -> Ring:
        rings = self.places.rings
        return rings.account if kind == ACCOUNTS else rings.container

    def _is(self, kind: Kind, place: Device, device: str) -> bool:
        return place.name == device and self.places.is_here(KINDS[kind], place)

    async def _replicate(self, job: Job) -> None:
        database = self.databases.at(job.kind, job.device, job.partition, job.name)
        info = await database.ask()
        done = []
        handoffs = iter(self._ring(job.kind).handoffs(job.partition))
        for place in job.others:
            good = await self._tell(job, database, place)
            if good is None and job.here:  # that device has failed: another one stands in for it
                stand_in = next((other for other in handoffs if not self._is(job.kind, other, job.device)), None)
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

    async def _reclaim(self, job: Job, before: str) -> None:
        database = self.databases.at(job.kind, job.device, job.partition, job.name)
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
