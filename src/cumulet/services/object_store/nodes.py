"""The storage nodes of the cluster: servers in this process are called as functions, all others over HTTP."""

import logging
from collections.abc import Callable, Mapping

from cumulet.services.object_store.message import Response, refuse
from cumulet.services.object_store.node import BackendRequest, Device, Kind, StorageServer
from cumulet.services.object_store.remote import RemoteNodes

log = logging.getLogger("cumulet.object_store")

IsHere = Callable[[Kind, Device], bool]


class ClusterNodes:
    """All nodes (`node.Nodes`). `is_here` tells of a device whether this process serves it."""

    def __init__(self, servers: Mapping[Kind, StorageServer], is_here: IsHere) -> None:
        self.servers = servers
        self.is_here = is_here
        self.remote = RemoteNodes()

    async def call(self, device: Device, request: BackendRequest) -> Response:
        server = self.servers.get(request.kind)
        if server is None or not self.is_here(request.kind, device):
            return await self.remote.call(device, request)
        try:
            return await server.handle(request)
        except Exception:
            log.exception("%s of %s on %s failed", request.method, request.account, device.name)
            return refuse(500)

    async def stop(self) -> None:
        await self.remote.stop()
