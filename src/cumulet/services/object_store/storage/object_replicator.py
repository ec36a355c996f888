"""Keeps the copies of objects equal, and brings to their places those that had to be left with another node.

Partition by partition: the hashes of its suffixes are compared with those of every other place it belongs to (REPLICATE), and
what differs is pushed there by rsync, which takes whole files under names that never change. A device that the partition does
not belong to (a handoff, or one that a rebalance has taken it from) gives it up once all places have it.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from cumulet.core.tasks import in_thread
from cumulet.services.object_store.message import Headers, drain
from cumulet.services.object_store.node import BackendRequest, Device, Nodes, Ring, Rings
from cumulet.services.object_store.storage import suffix_hashes
from cumulet.services.object_store.storage.devices import Devices, tail
from cumulet.services.object_store.storage.rsync import Rsync
from cumulet.services.object_store.storage.suffix_hashes import Hashes

log = logging.getLogger("cumulet.object_store.replicator")

AT_ONCE = 2
"""Partitions that are compared at one time."""


@dataclass(frozen=True, slots=True)
class Job:
    """One partition on one device of this node. `here`: it belongs there."""

    device: str
    policy: int
    number: int
    directory: str
    others: tuple[Device, ...]
    here: bool


class ObjectReplicator:
    """Replicates what this node's devices hold. `seconds` is how long the last round took; `pushed` counts suffixes, `failed`
    places that could not be reached."""

    def __init__(
        self,
        devices: Devices,
        nodes: Nodes,
        rings: Callable[[], Rings],
        is_here: Callable[[Device], bool],
        *,
        rsync_port: int,
        reclaim_age: float,
    ) -> None:
        self.devices = devices
        self.nodes = nodes
        self.rings = rings
        self.is_here = is_here
        self.rsync = Rsync("object", rsync_port)
        self.reclaim_age = reclaim_age
        self.pushed = self.failed = self.passes = 0
        self.seconds = 0.0

    async def run(self) -> None:
        """One round over all partitions of all devices."""
        begun = time.monotonic()
        for policy, ring in self.rings().objects.items():
            jobs = [
                job
                for device in await in_thread(self.devices.names)
                for job in await in_thread(self._jobs, device, policy)
            ]
            alone = ring.replicas == 1
            waiting = iter([job for job in jobs if not (alone and job.here)])
            while batch := list(islice(waiting, AT_ONCE)):
                await asyncio.gather(*(self._replicate(ring, job) for job in batch))
        self.seconds = time.monotonic() - begun
        self.passes += 1

    async def reclaim(self) -> None:
        """Take away everywhere what need not be remembered any more."""
        for policy in self.rings().objects:
            for device in await in_thread(self.devices.names):
                for job in await in_thread(self._jobs, device, policy):
                    await in_thread(_reclaim, job.directory, self.reclaim_age)

    def _jobs(self, device: str, policy: int) -> list[Job]:
        objects = self.devices.objects(device, policy)
        try:
            numbers = [int(name) for name in os.listdir(objects) if name.isdigit()]
        except FileNotFoundError:
            return []
        ring = self.rings().objects[policy]
        return [self._job(ring, device, policy, number, f"{objects}/{number}") for number in sorted(numbers)]

    def _job(self, ring: Ring, device: str, policy: int, number: int, directory: str) -> Job:
        places = ring.devices(number) if number < 1 << ring.power else ()
        others = tuple(place for place in places if not (place.name == device and self.is_here(place)))
        return Job(device, policy, number, directory, others, len(others) < len(places))

    async def _replicate(self, ring: Ring, job: Job) -> None:
        try:
            if job.here:
                await self._compare(ring, job)
            elif job.others:
                await self._hand_over(job)
        except Exception:
            self.failed += 1
            log.exception("partition %d on %s could not be replicated", job.number, job.device)

    async def _compare(self, ring: Ring, job: Job) -> None:
        """Push to every other place of a partition what it lacks; where a device has failed, to a stand-in for it."""
        local = await in_thread(suffix_hashes.hashes, job.directory)
        stand_ins = iter(ring.handoffs(job.number))
        for place in job.others:
            target: Device | None = place
            remote = await self._hashes(place, job)
            while isinstance(remote, int) and remote == 507:
                target = next(stand_ins, None)
                if target is None:
                    break
                if not (target.name == job.device and self.is_here(target)):
                    remote = await self._hashes(target, job)
            if target is None or isinstance(remote, int):
                self.failed += 1
                continue
            differing = tuple(suffix for suffix, told in local.items() if remote.get(suffix) != told)
            if differing:
                local = await in_thread(suffix_hashes.hashes, job.directory, differing)
                differing = tuple(
                    suffix for suffix in differing if suffix in local and remote.get(suffix) != local[suffix]
                )
                await self._push(target, job, differing)

    async def _hand_over(self, job: Job) -> None:
        """Push a partition that does not belong here to all its places, then give up exactly what was pushed."""
        held = await in_thread(_files, job.directory)
        local = await in_thread(suffix_hashes.hashes, job.directory, tuple(suffix_hashes.suffixes(job.directory)))
        for place in job.others:
            remote = await self._hashes(place, job)
            if isinstance(remote, int):
                self.failed += 1
                return
            differing = tuple(suffix for suffix, told in local.items() if remote.get(suffix) != told)
            if differing and not await self._push(place, job, differing):
                return
        await in_thread(_give_up, job.directory, held)

    async def _push(self, place: Device, job: Job, suffixes: tuple[str, ...]) -> bool:
        """Have rsync bring suffixes to a place, and that reckon anew what it has. Whether all of it is there."""
        if not suffixes:
            return True
        objects = f"objects{tail(job.policy)}"
        local = f"{self.devices.root}/{place.name}" if self.is_here(place) else None
        if not await self.rsync.push(job.directory, suffixes, place, f"{objects}/{job.number}", local):
            self.failed += 1
            return False
        self.pushed += len(suffixes)
        return not isinstance(await self._hashes(place, job, suffixes), int)

    async def _hashes(self, place: Device, job: Job, brought: Iterable[str] = ()) -> Hashes | int:
        """What another place holds of a partition; the status where it does not say."""
        headers = Headers({"X-Backend-Storage-Policy-Index": str(job.policy)})
        request = BackendRequest("object", "REPLICATE", place.name, job.number, "-".join(brought), headers=headers)
        reply = await self.nodes.call(place, request)
        if not reply.ok:
            log.warning("%s/%s answered %d to REPLICATE", place.address, place.name, reply.status)
            return reply.status
        return suffix_hashes.decode(await drain(reply))


def _files(directory: str) -> list[str]:
    """All files of a partition."""
    return [
        f"{hashed}/{name}"
        for hashed in suffix_hashes.hash_directories(directory)
        for name in suffix_hashes.listed(hashed)
    ]


def _give_up(directory: str, held: list[str]) -> None:
    """Remove files of a partition, and what is empty then: something new may have come in the meantime, which stays."""
    for path in held:
        suffix_hashes.unlink(path)
        suffix_hashes.remove_empty(os.path.dirname(path))
    for suffix in suffix_hashes.suffixes(directory):
        suffix_hashes.invalidate(directory, suffix)
    if not suffix_hashes.suffixes(directory):
        suffix_hashes.forget(directory)
        suffix_hashes.remove_directory(directory)


def _reclaim(directory: str, age: float) -> None:
    for hashed in list(suffix_hashes.hash_directories(directory)):
        if suffix_hashes.reclaim(hashed, age):
            suffix_hashes.changed(hashed)
