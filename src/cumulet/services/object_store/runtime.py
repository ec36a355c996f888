"""Object storage, running: the rings, the nodes, the salt, and the proxy's handler with its layers."""

from typing import Any

from cumulet.api.http import Request as HttpRequest
from cumulet.api.http import Response as HttpResponse
from cumulet.core.kernel import Kernel
from cumulet.core.tasks import Tasks
from cumulet.services.identity.interface import Identity
from cumulet.services.object_store.cluster import Cluster
from cumulet.services.object_store.container_sync import ContainerSyncer
from cumulet.services.object_store.expirer import Expirer
from cumulet.services.object_store.host import StorageHost
from cumulet.services.object_store.message import Handler
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.node import Nodes, Rings
from cumulet.services.object_store.pipeline import INNER, assemble
from cumulet.services.object_store.policies import Policies
from cumulet.services.object_store.proxy.core import Core
from cumulet.services.object_store.proxy.front import Front
from cumulet.services.object_store.recon import Recon
from cumulet.services.object_store.sync_realms import FILE as REALMS
from cumulet.services.object_store.sync_realms import Realms


class ObjectStoreRuntime:
    """What layers and the core find as `service`. `told` is what GET /info says: each layer adds its own part. `policies` are
    the storage policies, `host` what this host stores itself. `proxy` answers clients, `core` is what is innermost of it, and
    `inner` that with the layers that know how an object is kept."""

    rings: Rings
    nodes: Nodes
    salt: HashSalt
    policies: Policies
    core: Handler
    proxy: Handler
    inner: Handler
    front: Front

    def __init__(self, kernel: Kernel, identity: Identity) -> None:
        self.kernel = kernel
        self.identity = identity
        self.told: dict[str, Any] = {}
        self.told_admin: dict[str, Any] = {}
        self.cluster = Cluster(kernel.settings)
        self.host = StorageHost(self.cluster, kernel.settings)
        self.tasks = Tasks()
        self.recon = Recon(self)
        realms = kernel.settings.object_sync_realms or self.cluster.directory / REALMS
        self.realms = Realms(realms, kernel.settings.object_sync_hosts)

    async def start(self) -> None:
        """Make what a first start finds missing, read the rings, serve."""
        await self.cluster.start()
        self.salt, self.policies, self.rings = self.cluster.salt, self.cluster.policies, self.cluster.rings
        await self.host.start()
        self.nodes = self.host.nodes
        self.core = Core(self)
        self.proxy = assemble(self, self.core)
        self.inner = assemble(self, self.core, INNER)
        self.front = Front(self)
        settings = self.kernel.settings
        self.expirer, self.syncer = Expirer(self), ContainerSyncer(self)
        self.tasks.every("expirer of objects", settings.object_expirer_interval, self.expirer.run)
        self.tasks.every("container sync", settings.object_sync_interval, self.syncer.run)

    async def stop(self) -> None:
        await self.tasks.stop()
        await self.host.stop()

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a client's request."""
        return await self.front(request)
