"""A ring as requests ask it: which devices hold a partition, and which stand in for them.

Stand-ins (handoffs) come in swift's order, so that programs of both kinds in one cluster look for a stray copy in the same
places: first devices of regions that hold none, then of such zones, then of such hosts, then any.
"""

import logging
from collections.abc import Callable, Hashable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

from cumulet.services.object_store.node import Device
from cumulet.services.object_store.ring import data
from cumulet.services.object_store.ring.data import RingData, RingError

log = logging.getLogger("cumulet.object_store")

LONG_WALK = 1 << 16
"""Of a ring with more partitions than this only so many are looked at for handoffs."""

TIERS: tuple[Callable[[Device], Hashable], ...] = (
    lambda device: device.region,
    lambda device: (device.region, device.zone),
    lambda device: (device.region, device.zone, device.address),
    lambda device: device.id,
)
"""What copies are kept apart by, the widest first."""


class Table:
    """One state of a ring."""

    def __init__(self, ring: RingData) -> None:
        self.data = ring
        self.power = ring.power
        self.version = ring.version
        self.all = [None if told is None else device(told) for told in ring.devices]
        assigned = {number for row in ring.table for number in row}
        self._assigned = [found for number in sorted(assigned) if (found := self.all[number]) is not None]
        self._tiers = [(tier, len({tier(device) for device in self._assigned})) for tier in TIERS]

    @property
    def replicas(self) -> int:
        return len(self.data.table)

    def devices(self, partition: int) -> tuple[Device, ...]:
        found: list[int] = []
        for row in self.data.table:
            if partition < len(row) and row[partition] not in found:
                found.append(row[partition])
        return tuple(filter(None, map(self.all.__getitem__, found)))

    def handoffs(self, partition: int) -> list[Device]:
        primaries = self.devices(partition)
        used = {device.id for device in primaries}
        if len(used) == len(self._assigned):
            return []
        found: list[Device] = []
        for tier, count in self._tiers:
            seen = {tier(device) for device in (*primaries, *found)}
            if len(seen) == count:
                continue
            for candidate in self._walk(partition):
                if candidate.id not in used and tier(candidate) not in seen:
                    found.append(candidate)
                    used.add(candidate.id)
                    seen.add(tier(candidate))
                    if len(seen) == count:
                        break
        return found

    def _walk(self, partition: int) -> Iterator[Device]:
        """The devices of all partitions, in an order that is the partition's own."""
        parts = 1 << self.power
        digest = md5(str(partition).encode(), usedforsecurity=False).digest()
        start = int.from_bytes(digest[:4], "big") >> (32 - self.power)
        step = parts // LONG_WALK or 1
        for places in (range(start, parts, step), range(step - (parts - start) % step, start, step)):
            for place in places:
                for row in self.data.table:
                    if place < len(row) and (found := self.all[row[place]]) is not None:
                        yield found


class FileRing:
    """A ring that follows its file (`node.Ring`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = _stamp(path)
        self.table = Table(data.load(path))

    @property
    def power(self) -> int:
        return self.table.power

    @property
    def replicas(self) -> int:
        return self.table.replicas

    def devices(self, partition: int) -> tuple[Device, ...]:
        return self.table.devices(partition)

    def handoffs(self, partition: int) -> list[Device]:
        return self.table.handoffs(partition)

    def every(self) -> list[Device]:
        """All devices."""
        return [device for device in self.table.all if device is not None]

    def reload(self) -> bool:
        """Take the file's content if it has changed; one that cannot be used is told of, and the old state stays in force."""
        stamp = _stamp(self.path)
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.table = Table(data.load(self.path))
        except RingError as error:
            log.error("%s; its earlier state stays in force", error)
            return False
        log.info("the ring %s is read anew", self.path)
        return True


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size, told.st_ino


def device(told: dict[str, Any]) -> Device:
    """A device from swift's description."""
    return Device(
        id=told["id"],
        name=told["device"],
        address=told["ip"],
        port=told["port"],
        region=told["region"],
        zone=told["zone"],
        weight=told["weight"],
        replication_address=told["replication_ip"],
        replication_port=told["replication_port"],
    )
