"""Object storage, running: the proxy's handler with its layers around what is inside (`inside.py`)."""

from cumulet.api.http import Request as HttpRequest
from cumulet.api.http import Response as HttpResponse
from cumulet.core.kernel import Kernel
from cumulet.services.identity.interface import Identity
from cumulet.services.object_store.inside import Inside
from cumulet.services.object_store.message import Handler
from cumulet.services.object_store.pipeline import assemble
from cumulet.services.object_store.proxy.front import Front


class ObjectStoreRuntime(Inside):
    """What layers find as `service` where clients are served; `proxy` answers them."""

    kernel: Kernel
    proxy: Handler
    front: Front

    def __init__(self, kernel: Kernel, identity: Identity) -> None:
        super().__init__(kernel)
        self.identity = identity

    async def start(self) -> None:
        await super().start()
        self.proxy = assemble(self, self.core)
        self.front = Front(self)

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a client's request."""
        return await self.front(request)
