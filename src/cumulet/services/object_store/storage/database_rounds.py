"""Rounds over the databases of a node: what its background work has in common."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from cumulet.core.tasks import in_thread
from cumulet.services.object_store import node
from cumulet.services.object_store.node import Device, Ring, Rings
from cumulet.services.object_store.storage.database import Damaged, Database, Full, Missing
from cumulet.services.object_store.storage.databases import ACCOUNTS, CONTAINERS, Databases, Kind

log = logging.getLogger("cumulet.object_store.database")

KINDS: dict[Kind, node.Kind] = {ACCOUNTS: "account", CONTAINERS: "container"}
BATCH = 1000


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


class Rounds:
    """`failed` counts the databases that could not be worked on."""

    def __init__(self, databases: Databases, places: Places, at_once: int = 8) -> None:
        self.databases = databases
        self.places = places
        self.failed = 0
        self._at_once = at_once

    async def over(
        self,
        kind: Kind,
        work: Callable[[Job, Database], Awaitable[None]],
        wanted: Callable[[Job], bool] = lambda _: True,
    ) -> None:
        """Do `work` for every database of a kind in partitions that are `wanted`, some of them at once. One that fails is
        logged, and the round goes on."""
        limit = asyncio.Semaphore(self._at_once)

        async def one(job: Job) -> None:
            async with limit:
                await self._one(job, work)

        for device in await in_thread(self.databases.devices.names):
            jobs = await in_thread(self._jobs, kind, device, wanted)
            for first in range(0, len(jobs), BATCH):
                await asyncio.gather(*(one(job) for job in jobs[first : first + BATCH]))

    def ring(self, kind: Kind) -> Ring:
        rings = self.places.rings
        return rings.account if kind == ACCOUNTS else rings.container

    def is_this(self, job: Job, place: Device) -> bool:
        """Whether a place is the very device that the job is about."""
        return place.name == job.device and self.places.is_here(KINDS[job.kind], place)

    async def _one(self, job: Job, work: Callable[[Job, Database], Awaitable[None]]) -> None:
        try:
            await work(job, self.databases.at(job.kind, job.device, job.partition, job.name))
        except Missing:
            pass
        except (Damaged, Full) as error:
            self.failed += 1
            log.warning("%s", error)
        except Exception:
            self.failed += 1
            log.exception("work on the database %s on %s failed", job.name, job.device)

    def _jobs(self, kind: Kind, device: str, wanted: Callable[[Job], bool]) -> list[Job]:
        ring = self.ring(kind)

        def job(partition: int, name: str) -> Job:
            places = ring.devices(partition) if partition < 1 << ring.power else ()
            here = self.places.is_here
            others = tuple(place for place in places if not (place.name == device and here(KINDS[kind], place)))
            return Job(kind, device, partition, name, others, len(others) < len(places))

        names = self.databases.names(kind, device, lambda number: wanted(job(number, "")))
        return [job(number, name) for number, name in names]
