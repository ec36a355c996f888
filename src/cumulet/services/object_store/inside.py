"""Object storage without its clients: the cluster, what this host stores, and what the program does with objects by itself (the
expirer, container sync). A host that serves clients as well adds to it what `runtime.py` has.
"""

from typing import Any, Protocol

from cumulet.config import Settings
from cumulet.core.tasks import Tasks, in_thread
from cumulet.services.object_store.cluster import Cluster
from cumulet.services.object_store.container_sync import ContainerSyncer
from cumulet.services.object_store.encryption.keymaster import Keymaster, keymaster
from cumulet.services.object_store.expirer import Expirer
from cumulet.services.object_store.host import StorageHost
from cumulet.services.object_store.message import Handler
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.node import Nodes, Rings
from cumulet.services.object_store.pipeline import INNER, assemble
from cumulet.services.object_store.policies import Policies
from cumulet.services.object_store.proxy.core import Core
from cumulet.services.object_store.sync_realms import FILE as REALMS
from cumulet.services.object_store.sync_realms import Realms

FOLLOW = 5.0
"""Seconds between looks at the file of root secrets."""


class WithSettings(Protocol):
    @property
    def settings(self) -> Settings: ...


class Inside:
    """What layers, the core and daemons find as `service`. `told` is what GET /info says: each layer adds its own part.
    `policies` are the storage policies, `host` what this host stores itself; `core` answers requests, and `inner` does with the
    layers that know how an object is kept."""

    rings: Rings
    nodes: Nodes
    salt: HashSalt
    policies: Policies
    keymaster: Keymaster | None
    core: Handler
    inner: Handler
    expirer: Expirer
    syncer: ContainerSyncer

    def __init__(self, kernel: WithSettings) -> None:
        settings = kernel.settings
        self.kernel = kernel
        self.told: dict[str, Any] = {}
        self.told_admin: dict[str, Any] = {}
        self.cluster = Cluster(settings)
        self.host = StorageHost(self.cluster, settings)
        self.realms = Realms(settings.object_sync_realms or self.cluster.directory / REALMS, settings.object_sync_hosts)
        self.tasks = Tasks()

    async def start(self) -> None:
        """Make what a first start finds missing, read the rings, set all going."""
        settings = self.kernel.settings
        await self.cluster.start()
        self.salt, self.policies, self.rings = self.cluster.salt, self.cluster.policies, self.cluster.rings
        encrypts, alone = settings.object_encryption, self.cluster.makes
        self.keymaster = await in_thread(keymaster, self.cluster.directory, encrypts, alone)
        await self.host.start()
        self.nodes = self.host.nodes
        self.core = Core(self)
        self.inner = assemble(self, self.core, INNER)
        self.expirer, self.syncer = Expirer(self), ContainerSyncer(self)
        self.tasks.every("expirer of objects", settings.object_expirer_interval, self.expirer.run)
        self.tasks.every("container sync", settings.object_sync_interval, self.syncer.run)
        self.tasks.every("root secrets", FOLLOW, self._follow)

    async def stop(self) -> None:
        await self.tasks.stop()
        await self.host.stop()

    async def _follow(self) -> None:
        if self.keymaster is not None:
            await in_thread(self.keymaster.reload)
