"""Brings objects to the storage policy of their container.

While nodes could not reach each other, one container may have been made twice, with two policies. One of them counts when the
copies meet (`replication.py: merge_info`); what was written under the other one is looked for here, row by row in the order in
which it was heard, and moved: of an object that both policies have the later one stays. The time that clients see does not
change, its offset does, so that the move is later than what was moved. The first of a container's places does it.
"""

import asyncio
import logging
import sqlite3
from functools import partial

from cumulet.services.object_store.message import Headers, Response, chunks, close
from cumulet.services.object_store.names import HashSalt, Timestamp
from cumulet.services.object_store.names import partition as partition_of
from cumulet.services.object_store.node import BackendRequest, Device, Nodes
from cumulet.services.object_store.proxy.headers import tell
from cumulet.services.object_store.storage import container_rows
from cumulet.services.object_store.storage.container_rows import Row
from cumulet.services.object_store.storage.database import Database, Info, Unit
from cumulet.services.object_store.storage.database_rounds import Job, Places, Rounds
from cumulet.services.object_store.storage.databases import CONTAINERS, Databases

log = logging.getLogger("cumulet.object_store.reconciler")

BATCH = 100
KEPT = (
    "content-",
    "x-object-",
    "x-delete-at",
    "x-static-large-object",
    "cache-control",
    "expires",
    "etag",
    "x-robots-tag",
)
"""What the headers of an object that is moved begin with."""


class Reconciler:
    """`moved` counts objects, `left` those that could not be moved now."""

    def __init__(self, databases: Databases, nodes: Nodes, places: Places, salt: HashSalt) -> None:
        self.nodes = nodes
        self.places = places
        self.salt = salt
        self.rounds = Rounds(databases, places, at_once=1)
        self.moved = self.left = 0

    async def run(self) -> None:
        """One round over the containers whose first place is here."""
        if len(self.places.rings.objects) > 1:
            await self.rounds.over(CONTAINERS, self._container, lambda job: job.here)

    async def _container(self, job: Job, database: Database) -> None:
        info = await database.ask()
        if not self.rounds.is_this(job, self.rounds.ring(CONTAINERS).devices(job.partition)[0]):
            return
        if all(policy == info.policy for policy in info.stats):
            return
        done = info.reconciled
        while rows := await database.read(partial(_misplaced, info.policy, done)):
            for sequence, row in rows:
                if not await self._move(info, job.partition, row):
                    self.left += 1
                    log.warning("an object of %s/%s is still of policy %d", info.account, info.container, row.policy)
                    return
                done = sequence
            await database.write(partial(_reconciled, info.policy, done))

    async def _move(self, info: Info, container_part: int, row: Row) -> bool:
        """Have an object, or that it is deleted, under the container's policy, and under the other one no more."""
        at = Timestamp.parse(row.data_at)
        moved_at = Timestamp(at.ticks, at.offset + 1)
        if row.deleted:
            return await self._delete(info, container_part, row.name, info.policy, at)
        ring = self.places.rings.objects.get(info.policy)
        if ring is None or row.policy not in self.places.rings.objects:
            return False
        part = partition_of(self.salt.digest(info.account, info.container, row.name), ring.power)
        replies = []
        for place, copy in self._copies(ring.devices(part), container_part, info, moved_at):
            replies.append(await self._copy(info, part, row, place, copy))
        if all(status in (200, 201, 404, 409) for status in replies):
            self.moved += 201 in replies
            return await self._delete(info, container_part, row.name, row.policy, moved_at)
        return False

    async def _copy(self, info: Info, part: int, row: Row, place: Device, headers: Headers) -> int:
        """Write one copy; 404 where there is nothing to be written any more, 409 where there is a later one."""
        found = await self._open(info, row)
        if not found.ok:
            return found.status
        for name, value in found.headers.items():
            if name.lower().startswith(KEPT):
                headers[name] = value.strip('"') if name.lower() == "etag" else value
        headers["X-Backend-Storage-Policy-Index"] = str(info.policy)
        headers["X-Backend-Replication"] = "true"
        ask = BackendRequest("object", "PUT", place.name, part, info.account, info.container, row.name, headers)
        ask.body = chunks(found)
        try:
            return (await self.nodes.call(place, ask)).status
        finally:
            await close(found)

    async def _open(self, info: Info, row: Row) -> Response:
        """The object under its present policy, from the first place that has it; 404 where all say that there is none."""
        ring = self.places.rings.objects[row.policy]
        part = partition_of(self.salt.digest(info.account, info.container, row.name), ring.power)
        worst = Response(404)
        for place in ring.devices(part):
            headers = Headers({"X-Backend-Storage-Policy-Index": str(row.policy), "X-Backend-Open-Expired": "true"})
            ask = BackendRequest("object", "GET", place.name, part, info.account, info.container, row.name, headers)
            reply = await self.nodes.call(place, ask)
            if reply.ok:
                return reply
            if reply.status != 404:
                worst = reply
        return worst

    async def _delete(self, info: Info, container_part: int, name: str, policy: int, at: Timestamp) -> bool:
        ring = self.places.rings.objects.get(policy)
        if ring is None:
            return False
        part = partition_of(self.salt.digest(info.account, info.container, name), ring.power)
        copies = self._copies(ring.devices(part), container_part, info, at)
        replies = await asyncio.gather(
            *(self._tombstone(info, part, name, policy, place, copy) for place, copy in copies)
        )
        return all(reply.ok or reply.status in (404, 409) for reply in replies)

    async def _tombstone(
        self, info: Info, part: int, name: str, policy: int, place: Device, headers: Headers
    ) -> Response:
        headers["X-Backend-Storage-Policy-Index"] = str(policy)
        ask = BackendRequest("object", "DELETE", place.name, part, info.account, info.container, name, headers)
        return await self.nodes.call(place, ask)

    def _copies(
        self, places: tuple[Device, ...], container_part: int, info: Info, at: Timestamp
    ) -> list[tuple[Device, Headers]]:
        """The headers of a request to each of an object's places, which together tell all places of the container."""
        copies = [Headers({"X-Timestamp": at.internal}) for _ in places]
        tell(copies, "X-Container", container_part, self.rounds.ring(CONTAINERS).devices(container_part))
        return list(zip(places, copies, strict=True))


def _misplaced(policy: int, after: int, conn: sqlite3.Connection) -> list[tuple[int, Row]]:
    return container_rows.since(conn, after, BATCH, but=policy)


def _reconciled(policy: int, until: int, unit: Unit) -> None:
    if unit.info.policy == policy:
        unit.change(reconciled=until)
