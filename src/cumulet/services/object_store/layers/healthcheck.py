"""GET /healthcheck: whether this process answers, for load balancers.

A file that an operator makes (`object_healthcheck_disable`) takes the node out of service without stopping it.
Reference: https://docs.openstack.org/swift/latest/middleware.html#healthcheck
"""

from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING

from cumulet.core.tasks import in_thread
from cumulet.services.object_store.message import Handler, Request, Response

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

PATH = "/healthcheck"
PLAIN = {"Content-Type": "text/plain"}


class HealthCheck:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        self.app = app
        self.disable: Path | None = service.kernel.settings.object_healthcheck_disable

    def __call__(self, request: Request) -> Awaitable[Response]:
        return self.app(request) if request.raw_path != PATH else self._answer()

    async def _answer(self) -> Response:
        if self.disable is not None and await in_thread(self.disable.exists):
            return Response(503, b"DISABLED BY FILE", PLAIN)
        return Response(200, b"OK", PLAIN)
