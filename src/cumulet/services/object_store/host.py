"""What this host contributes to the cluster: the storage servers of its devices."""

from cumulet.config import Settings
from cumulet.core.tasks import Tasks
from cumulet.services.object_store.cluster import Cluster
from cumulet.services.object_store.node import Kind, StorageServer
from cumulet.services.object_store.nodes import ClusterNodes
from cumulet.services.object_store.recon import Recon
from cumulet.services.object_store.rsyncd import RsyncDaemon
from cumulet.services.object_store.servers import StorageFace
from cumulet.services.object_store.storage.catalogue import Catalogue
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.objects import Objects

FOLLOW = 5.0
"""Seconds between looks at the rings' files."""
KINDS: tuple[Kind, ...] = ("account", "container", "object")


class StorageHost:
    """The storage servers of the cluster's devices that are here. `faces` are what other nodes reach them by, by name of the
    port."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.tasks = Tasks()
        self.devices = Devices(cluster.devices, mounts=settings.object_mounts, reserve=settings.object_reserve / 100)
        self.settings = settings
        self.cluster = cluster
        self.servers: dict[Kind, StorageServer] = {}
        self.recon = Recon(self)
        self.faces = {kind: StorageFace(kind, self.servers, self.recon) for kind in KINDS}
        self.nodes = ClusterNodes(self.servers, cluster.is_here)
        self.rsyncd = RsyncDaemon(cluster, settings)
        self.catalogue: Catalogue | None = None
        self.objects: Objects | None = None

    async def start(self) -> None:
        """After the cluster's own start."""
        self.catalogue = Catalogue(self.cluster, self.nodes, self.devices, self.settings)
        self.servers["account"] = self.catalogue.accounts
        self.servers["container"] = self.catalogue.containers
        self.objects = Objects(self.cluster, self.nodes, self.devices, self.settings)
        self.servers["object"] = self.objects.server
        await self.objects.start()
        self.catalogue.start()
        await self.rsyncd.follow()
        self.tasks.every("rings of object storage", FOLLOW, self._follow)

    async def _follow(self) -> None:
        """Take up rings whose files have changed; see that the rsync daemon runs where there is a node to copy from."""
        await self.cluster.reload()
        await self.rsyncd.follow()

    async def stop(self) -> None:
        await self.tasks.stop()
        await self.rsyncd.stop()
        if self.objects is not None:
            await self.objects.stop()
        if self.catalogue is not None:
            await self.catalogue.stop()
        if self.objects is not None:
            await self.objects.forget_intents()
        await self.nodes.stop()
        await self.devices.close()
