"""Read only: a cluster, or single accounts, in which nothing may be changed. An account's own word counts more than the
cluster's: X-Account-Sysmeta-Read-Only, which only whoever reaches the account's server itself can set.

Reference: https://docs.openstack.org/swift/latest/middleware.html#read-only
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from cumulet.services.object_store.message import Handler, Request, Response, refuse
from cumulet.services.object_store.proxy.info import account_info
from cumulet.services.object_store.proxy.limits import VERSIONS
from cumulet.services.object_store.values import is_true

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

WRITES = frozenset({"COPY", "POST", "PUT"})


class ReadOnly:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        settings = service.kernel.settings
        self.app = app
        self.cluster = settings.object_read_only
        self.writes = WRITES if settings.object_read_only_deletes else WRITES | {"DELETE"}
        if self.cluster:
            service.told["read_only"] = {}

    def __call__(self, request: Request) -> Awaitable[Response]:
        return self._write(request) if request.method in self.writes else self.app(request)

    async def _write(self, request: Request) -> Response:
        if await self._is_read_only(request):
            return refuse(405, "Writes are disabled for this account.")
        return await self.app(request)

    async def _is_read_only(self, request: Request) -> bool:
        if request.version not in VERSIONS or not request.account:
            return self.cluster  # a call of S3's: whose account it is about is not known yet
        account = request.account
        if request.method == "COPY":
            account = request.headers.get("Destination-Account") or account
        said = (await account_info(self.app, request, account)).sysmeta.get("read-only", "")
        return is_true(said) if said else self.cluster
