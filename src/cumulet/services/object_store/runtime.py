"""Object storage, running: the rings, the nodes, the salt, and the proxy's handler with its layers."""

from typing import Any

from cumulet.api.http import Request as HttpRequest
from cumulet.api.http import Response as HttpResponse
from cumulet.core.kernel import Kernel
from cumulet.services.identity.interface import Identity
from cumulet.services.object_store.cluster import Cluster
from cumulet.services.object_store.message import Handler, Request, Response, refuse
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.node import Device, Kind, Nodes, Rings, StorageServer
from cumulet.services.object_store.nodes import ClusterNodes
from cumulet.services.object_store.pipeline import assemble
from cumulet.services.object_store.policies import Policies
from cumulet.services.object_store.proxy.front import Front
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.object_server import ObjectServer

KINDS: tuple[Kind, ...] = ("account", "container", "object")


class ObjectStoreRuntime:
    """What layers, the core and the storage servers find as `service`. `told` is what GET /info says: each layer adds its own
    part. `devices` is the directory that holds the devices, `policies` the storage policies."""

    rings: Rings
    nodes: Nodes
    salt: HashSalt
    policies: Policies
    proxy: Handler
    front: Front

    def __init__(self, kernel: Kernel, identity: Identity) -> None:
        self.kernel = kernel
        self.identity = identity
        self.told: dict[str, Any] = {}
        self.told_admin: dict[str, Any] = {}
        self.directory = kernel.settings.data.absolute() / "object-store"
        self.devices = self.directory / "devices"
        self.cluster = Cluster(self.directory / "rings", kernel.settings)
        self.servers: dict[Kind, StorageServer] = {}
        self.disks: Devices | None = None

    async def start(self) -> None:
        """Make what a first start finds missing, read the rings, serve."""
        await self.cluster.start(self.devices)
        self.salt, self.policies, self.rings = self.cluster.salt, self.cluster.policies, self.cluster.rings
        self.nodes = ClusterNodes(self.servers, self._is_here)
        self.disks = Devices(self.devices)
        self.servers["object"] = ObjectServer(self.disks, self.salt, self.nodes)
        self.proxy = assemble(self, _core(self))
        self.front = Front(self)
        self.kernel.tasks.every("rings of object storage", 5, self.cluster.reload)

    async def stop(self) -> None:
        if self.disks is not None:
            self.disks.close()

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a client's request."""
        return await self.front(request)

    def _is_here(self, kind: Kind, device: Device) -> bool:
        return self.cluster.is_here(kind, device)


def _core(service: ObjectStoreRuntime) -> Handler:
    async def core(request: Request) -> Response:
        return refuse(503, "Object storage is not served yet.")

    return core
