"""A node's place in the cluster: the directory of rings and of `swift.conf`, which is the same on every node.

A first start makes it where it is missing: one device on this host, one copy of everything. Further nodes are added to these
rings later (`cumulet ring add`), and nothing that is stored needs to be converted.
"""

import asyncio
import logging
import socket
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from cumulet import ports
from cumulet.config import Settings
from cumulet.services.object_store import policies
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.node import Device, Kind, Rings
from cumulet.services.object_store.policies import Policies
from cumulet.services.object_store.ring import builder_file, data
from cumulet.services.object_store.ring.builder import Builder
from cumulet.services.object_store.ring.data import RingError
from cumulet.services.object_store.ring.ring import FileRing

log = logging.getLogger("cumulet.object_store")

POWER = 10
"""A first start's rings have 2**10 partitions: enough for ten devices, and few enough directories for one."""
DEVICE = "d1"
ALONE = "made at the first start"
"""What such a device carries as its `meta`: its address follows the settings as long as it is the only one."""


def directory(settings: Settings) -> Path:
    """Where the rings are, `swift.conf` and the root secrets of encryption."""
    return settings.object_rings or settings.data.absolute() / "object-store" / "rings"


class Cluster:
    """The rings and the salt of a directory: the setting `object_rings`, or else one that a first start makes."""

    salt: HashSalt
    policies: Policies
    rings: Rings

    def __init__(self, settings: Settings) -> None:
        own = settings.data.absolute() / "object-store"
        self.directory = directory(settings)
        self.devices = settings.object_devices or own / "devices"
        self.makes = settings.object_rings is None
        self.makes_devices = settings.object_devices is None
        self.address = settings.object_bind
        self.port: dict[Kind, int] = {
            "account": ports.port("account", settings.port_offset).number,
            "container": ports.port("container", settings.port_offset).number,
            "object": ports.port("object", settings.port_offset).number,
        }
        self.files: dict[str, FileRing] = {}

    async def start(self) -> None:
        """Read what is there; make it if this is the first start. RingError if it cannot be used."""
        await asyncio.to_thread(self._start)

    async def reload(self) -> bool:
        """Read rings anew whose files have changed; whether any has."""
        return any([await asyncio.to_thread(file.reload) for file in self.files.values()])

    def is_here(self, kind: Kind, device: Device) -> bool:
        """Whether a device is this node's."""
        return device.port == self.port[kind] and is_own(device.address, self.address)

    @property
    def addresses(self) -> frozenset[str]:
        """Those of all nodes."""
        every = [device for file in self.files.values() for device in file.every()]
        return frozenset(address for d in every for address in (d.address, d.replication_address) if address)

    @property
    def alone(self) -> bool:
        """Whether every device is this node's."""
        kinds: dict[str, Kind] = {"account": "account", "container": "container"}
        return all(
            self.is_here(kinds.get(name, "object"), device)
            for name, file in self.files.items()
            for device in file.every()
        )

    def _start(self) -> None:
        if self.makes_devices:
            self.devices.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not self.devices.is_dir():
            raise RingError(
                f"{self.devices} (`object_devices`) is no directory: make it, with one directory for each device"
            )
        told = self.directory / policies.FILE
        if not told.exists():
            if not self.makes:
                raise RingError(f"{told} is missing: copy the cluster's swift.conf and its rings into that directory")
            policies.make(told)
        read = policies.read(told)
        self.salt, self.policies = read.salt, read.policies
        account, container = self._ring("account", "account"), self._ring("container", "container")
        objects = {policy.index: self._ring(policy.ring, "object") for policy in read.policies}
        self.rings = Rings(account, container, dict(objects))
        self.files = {ring.path.name.partition(".")[0]: ring for ring in (account, container, *objects.values())}

    def _ring(self, name: str, kind: Kind) -> FileRing:
        path = self.directory / f"{name}.ring.gz"
        if self.makes and not path.exists():
            (self.devices / DEVICE).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._save_alone(name, kind, None)
        ring = FileRing(path)
        described = [device for device in ring.table.data.devices if device is not None]
        if (
            self.makes
            and len(described) == 1
            and described[0]["meta"] == ALONE
            and not self.is_here(kind, ring.every()[0])
        ):
            self._save_alone(name, kind, ring)
            ring.reload()
        return ring

    def _save_alone(self, name: str, kind: Kind, before: FileRing | None) -> None:
        """A ring of one device on this node, and its builder; of one that is there, only the device's place changes."""
        place = {"ip": self.address, "port": self.port[kind]}
        file = self.directory / f"{name}.builder"
        if before is None:
            builder = Builder(POWER, 1, 1)
            builder.add({"region": 1, "zone": 1, "device": DEVICE, "weight": 100.0, "meta": ALONE, **place})
            builder.rebalance()
        else:
            builder = builder_file.load(file)
            builder.set_place(0, **place, replication_ip=place["ip"], replication_port=place["port"])
        builder_file.save(builder, file)
        data.save(builder.ring(), self.directory / f"{name}.ring.gz")


@cache
def is_own(address: str, bound: str) -> bool:
    """Whether an address is the one that this node's servers listen at: with a wildcard, whether it is this host's."""
    if not ip_address(bound).is_unspecified:
        return address == bound
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
