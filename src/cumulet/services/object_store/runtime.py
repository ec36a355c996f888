"""Object storage, running: the rings, the nodes, the salt, and the proxy's handler with its layers."""

from typing import Any

from cumulet.core.kernel import Kernel
from cumulet.services.identity.interface import Identity
from cumulet.services.object_store.message import Handler
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.node import Nodes, Rings


class ObjectStoreRuntime:
    """What layers and the core find as `service`. `told` is what GET /info says: each layer adds its own part."""

    rings: Rings
    nodes: Nodes
    salt: HashSalt
    proxy: Handler

    def __init__(self, kernel: Kernel, identity: Identity) -> None:
        self.kernel = kernel
        self.identity = identity
        self.told: dict[str, Any] = {}
        self.told_admin: dict[str, Any] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
