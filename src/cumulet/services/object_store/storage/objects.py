"""The object side of a node: the object server, and what keeps objects in order: replicator, auditor, updater."""

from typing import Protocol

from cumulet import ports
from cumulet.config import Settings
from cumulet.core.tasks import Tasks, in_thread
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.node import Device, Kind, Nodes, Rings
from cumulet.services.object_store.storage.auditor import Auditor
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.object_replicator import ObjectReplicator
from cumulet.services.object_store.storage.object_server import ObjectServer
from cumulet.services.object_store.storage.recovery import Recovery
from cumulet.services.object_store.storage.updater import Updater

DAY = 86400


class Cluster(Protocol):
    """What is asked of the cluster."""

    salt: HashSalt
    rings: Rings

    def is_here(self, kind: Kind, device: Device) -> bool: ...


class Objects:
    """Serves the objects of this node's devices; `start` sets the background work going."""

    def __init__(self, cluster: Cluster, nodes: Nodes, devices: Devices, settings: Settings) -> None:
        self.settings = settings
        self.devices = devices
        self.tasks = Tasks()
        self.server = ObjectServer(devices, cluster.salt, nodes)
        age = settings.object_reclaim_age
        self.updater = Updater(devices, cluster.salt, nodes, lambda: cluster.rings, reclaim_age=age)
        self.recovery = Recovery(devices, self.server.intents, self.server.updates, self.updater)
        self.auditor = Auditor(
            devices,
            lambda: list(cluster.rings.objects),
            files_per_second=settings.object_audit_files,
            bytes_per_second=settings.object_audit_bytes,
            fast_files_per_second=settings.object_audit_fast_files,
        )
        self.replicator = ObjectReplicator(
            devices,
            nodes,
            lambda: cluster.rings,
            lambda device: cluster.is_here("object", device),
            rsync_port=ports.port("rsync", settings.port_offset).number,
            reclaim_age=age,
        )

    async def start(self) -> None:
        await self.devices.process.wait_for_last()
        await in_thread(self.devices.sweep)
        await self.recovery.run()
        told = self.settings
        self.tasks.every("object updater", told.object_update_interval, self.updater.run)
        self.tasks.every("objects that a crash has left", told.object_update_interval, self._recover)
        self.tasks.every("object replicator", told.object_replication_interval, self.replicator.run)
        self.tasks.every("tombstones", min(DAY, told.object_reclaim_age), self.replicator.reclaim)
        self.tasks.every("object auditor", told.object_audit_interval, self.auditor.run)
        self.tasks.every("object auditor (fast)", told.object_audit_interval, self.auditor.run_fast)

    async def _recover(self) -> None:
        await self.recovery.run()
        await self.recovery.search()

    async def stop(self) -> None:
        await self.tasks.stop()
        await self.server.updates.settle()

    async def forget_intents(self) -> None:
        """All that was told is on the disk: to be called when the containers' databases are closed."""
        await in_thread(self.server.intents.close)
