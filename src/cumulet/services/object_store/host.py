"""What this host contributes to the cluster: the storage servers of its devices."""

from pathlib import Path

from cumulet.services.object_store.cluster import Cluster
from cumulet.services.object_store.node import Kind, StorageServer
from cumulet.services.object_store.nodes import ClusterNodes
from cumulet.services.object_store.storage.catalogue import Catalogue
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.object_server import ObjectServer


class StorageHost:
    """The storage servers of the devices below `root`."""

    def __init__(self, root: Path, cluster: Cluster) -> None:
        self.devices = Devices(root)
        self.cluster = cluster
        self.servers: dict[Kind, StorageServer] = {}
        self.nodes = ClusterNodes(self.servers, cluster.is_here)

    async def start(self) -> None:
        """After the cluster's own start."""
        self.catalogue = Catalogue(self.cluster, self.nodes, self.devices)
        self.servers["account"] = self.catalogue.accounts
        self.servers["container"] = self.catalogue.containers
        self.servers["object"] = ObjectServer(self.devices, self.cluster.salt, self.nodes)

    async def stop(self) -> None:
        await self.catalogue.stop()
        self.devices.close()
