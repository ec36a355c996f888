"""A node's place in the cluster: the directory of rings and of `swift.conf`, which is the same on every node.

A first start makes it where it is missing: one device on this host, one copy of everything. Further nodes are added to these
rings later (`cumulet ring add`), and nothing that is stored needs to be converted.
"""

import asyncio
import logging
from array import array
from pathlib import Path

from cumulet import ports
from cumulet.config import Settings
from cumulet.services.object_store import policies
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.node import Device, Kind, Rings
from cumulet.services.object_store.policies import Policies
from cumulet.services.object_store.ring import data
from cumulet.services.object_store.ring.data import RingData, parse_device
from cumulet.services.object_store.ring.ring import FileRing

log = logging.getLogger("cumulet.object_store")

POWER = 10
"""A first start's rings have 2**10 partitions: enough for ten devices, and few enough directories for one."""
DEVICE = "d1"
ALONE = "made at the first start"
"""What such a device carries as its `meta`: its address follows the settings as long as it is the only one."""


class Cluster:
    """The rings and the salt of a directory."""

    salt: HashSalt
    policies: Policies
    rings: Rings

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.directory = directory
        self.address = settings.object_bind
        self.port: dict[Kind, int] = {
            "account": ports.port("account", settings.port_offset).number,
            "container": ports.port("container", settings.port_offset).number,
            "object": ports.port("object", settings.port_offset).number,
        }
        self._files: list[FileRing] = []

    async def start(self, devices: Path) -> None:
        """Read what is there; make it if this is the first start. RingError if it cannot be used."""
        await asyncio.to_thread(self._start, devices)

    async def reload(self) -> None:
        """Read rings anew whose files have changed."""
        for file in self._files:
            await asyncio.to_thread(file.reload)

    def is_here(self, kind: Kind, device: Device) -> bool:
        """Whether a device is this node's."""
        return device.port == self.port[kind] and device.address == self.address

    def _start(self, devices: Path) -> None:
        told = self.directory / policies.FILE
        if not told.exists():
            policies.make(told)
        read = policies.read(told)
        self.salt, self.policies = read.salt, read.policies
        account, container = self._ring("account", "account", devices), self._ring("container", "container", devices)
        objects = {policy.index: self._ring(policy.ring, "object", devices) for policy in read.policies}
        self.rings = Rings(account, container, dict(objects))
        self._files = [account, container, *objects.values()]

    def _ring(self, name: str, kind: Kind, devices: Path) -> FileRing:
        path = self.directory / f"{name}.ring.gz"
        if not path.exists():
            (devices / DEVICE).mkdir(mode=0o700, parents=True, exist_ok=True)
            data.save(self._alone(kind), path)
        ring = FileRing(path)
        described = [device for device in ring.table.data.devices if device is not None]
        if len(described) == 1 and described[0]["meta"] == ALONE and not self.is_here(kind, ring.every()[0]):
            data.save(self._alone(kind), path)
            ring.reload()
        return ring

    def _alone(self, kind: Kind) -> RingData:
        """A ring of one device on this node."""
        told = {"ip": self.address, "port": self.port[kind], "device": DEVICE, "meta": ALONE}
        only = parse_device({"id": 0, "region": 1, "zone": 1, "weight": 100.0, **told})
        return RingData([array("H", bytes(2 << POWER))], [only], POWER, version=1)
