"""Removes what was in accounts that have been deleted: their objects, then their containers, until nothing is left.

Each of an account's places takes its share of the containers. What cannot be deleted now is tried again in the next round.
"""

import asyncio
import logging
import sqlite3
from functools import partial
from hashlib import md5

import msgspec

from cumulet.api.http import Query
from cumulet.services.object_store.message import Headers, drain
from cumulet.services.object_store.names import HashSalt, Timestamp, partition
from cumulet.services.object_store.node import BackendRequest, Device, Nodes
from cumulet.services.object_store.proxy.headers import tell
from cumulet.services.object_store.storage.account_server import is_gone
from cumulet.services.object_store.storage.database import Database, Info
from cumulet.services.object_store.storage.database_rounds import Job, Places, Rounds
from cumulet.services.object_store.storage.databases import ACCOUNTS, Databases

log = logging.getLogger("cumulet.object_store.reaper")

AT_ONCE = 16
"""Objects that are deleted at one time."""
ALL = {"X-Backend-Allow-Reserved-Names": "true"}
FEW = 1000


class Reaper:
    """`delay` is for how many seconds a deleted account is left alone. `containers` and `objects` count what was removed."""

    def __init__(self, databases: Databases, nodes: Nodes, places: Places, salt: HashSalt, *, delay: float) -> None:
        self.nodes = nodes
        self.places = places
        self.salt = salt
        self.delay = delay
        self.rounds = Rounds(databases, places, at_once=1)
        self.containers = self.objects = 0

    async def run(self) -> None:
        """One round over the deleted accounts of this node."""
        await self.rounds.over(ACCOUNTS, self._account, lambda job: job.here)

    async def _account(self, job: Job, database: Database) -> None:
        info = await database.ask()
        due = Timestamp.parse(info.delete_timestamp).seconds + self.delay
        if not is_gone(info) or not info.total.containers or due > Timestamp.now().seconds:
            return
        log.info("what was in the deleted account %s is removed", info.account)
        share = self._share(job)
        after = ""
        while names := await database.read(partial(_names, after)):
            for name in names:
                if share is None or _number(name) % share[1] == share[0]:
                    await self._container(info, name)
            after = names[-1]

    def _share(self, job: Job) -> tuple[int, int] | None:
        """Which part of the containers this place is to remove: its place among all places, and how many they are."""
        places = self.rounds.ring(ACCOUNTS).devices(job.partition)
        mine = next((number for number, place in enumerate(places) if self.rounds.is_this(job, place)), None)
        return None if mine is None else (mine, len(places))

    async def _container(self, account: Info, name: str) -> None:
        """Delete the objects of a container, of whatever policy, and the container."""
        ring = self.places.rings.container
        part = partition(self.salt.digest(account.account, name), ring.power)
        places = ring.devices(part)
        for policy in self.places.rings.objects:
            after = ""
            while rows := await self._objects(account.account, name, part, places, policy, after):
                for first in range(0, len(rows), AT_ONCE):
                    some = rows[first : first + AT_ONCE]
                    gone = (self._object(account.account, name, each, policy, part, places) for each in some)
                    self.objects += sum(await asyncio.gather(*gone))
                after = rows[-1]
        copies = [self._headers() for _ in places]
        above = self.places.rings.account
        number = partition(self.salt.digest(account.account), above.power)
        tell(copies, "X-Account", number, above.devices(number))
        for copy in copies:
            copy["X-Account-Override-Deleted"] = "yes"
        replies = await asyncio.gather(
            *(
                self.nodes.call(
                    place, BackendRequest("container", "DELETE", place.name, part, account.account, name, headers=copy)
                )
                for place, copy in zip(places, copies, strict=True)
            )
        )
        if all(reply.ok or reply.status == 404 for reply in replies):
            self.containers += 1
        else:
            log.warning("the container %s of a deleted account is not removed yet", name)

    async def _objects(
        self, account: str, name: str, part: int, places: tuple[Device, ...], policy: int, after: str
    ) -> list[str]:
        """The next names in a container, from the first of its places that tells."""
        headers = Headers(ALL | {"X-Backend-Storage-Policy-Index": str(policy)})
        query = Query(Query("").replaced(marker=after, limit=str(FEW)))
        for place in places:
            ask = BackendRequest("container", "GET", place.name, part, account, name, headers=headers, query=query)
            reply = await self.nodes.call(place, ask)
            if reply.ok:
                return [row["name"] for row in msgspec.json.decode(await drain(reply))]
        return []

    async def _object(
        self, account: str, container: str, name: str, policy: int, part: int, containers: tuple[Device, ...]
    ) -> bool:
        ring = self.places.rings.objects[policy]
        number = partition(self.salt.digest(account, container, name), ring.power)
        places = ring.devices(number)
        copies = [self._headers() for _ in places]
        tell(copies, "X-Container", part, containers)
        for copy in copies:
            copy["X-Backend-Storage-Policy-Index"] = str(policy)
        replies = await asyncio.gather(
            *(
                self.nodes.call(
                    place,
                    BackendRequest("object", "DELETE", place.name, number, account, container, name, headers=copy),
                )
                for place, copy in zip(places, copies, strict=True)
            )
        )
        return all(reply.ok or reply.status in (404, 409) for reply in replies)

    def _headers(self) -> Headers:
        return Headers(ALL | {"X-Timestamp": Timestamp.now().internal})


def _names(after: str, conn: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM container WHERE deleted = 0 AND name > ? ORDER BY name LIMIT ?"
    return [name for (name,) in conn.execute(query, (after, FEW))]


def _number(name: str) -> int:
    return int.from_bytes(md5(name.encode(), usedforsecurity=False).digest(), "big")
