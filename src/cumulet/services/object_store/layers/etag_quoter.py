"""Entity tags of objects in quotation marks, as RFC 9110 wants them and swift of old does not have them: where the container,
else the account, else the cloud says so.

X-Account-Rfc-Compliant-Etags, X-Container-Rfc-Compliant-Etags: true or false; empty, or X-Remove-..., for neither.
Reference: https://docs.openstack.org/swift/latest/middleware.html#etag-quoter
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from cumulet.services.object_store.message import Handler, Request, Response
from cumulet.services.object_store.proxy.info import account_info, container_info
from cumulet.services.object_store.proxy.limits import VERSIONS
from cumulet.services.object_store.values import is_true

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

NAME = "Rfc-Compliant-Etags"
FLAG = NAME.lower()


class EtagQuoter:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        self.app = app
        self.default = service.kernel.settings.object_etag_quoted
        service.told["etag_quoter"] = {"enable_by_default": self.default}

    def __call__(self, request: Request) -> Awaitable[Response]:
        if not request.account or request.version not in VERSIONS:
            return self.app(request)
        return self._object(request) if request.object else self._setting(request)

    async def _object(self, request: Request) -> Response:
        response = await self.app(request)
        etag = response.headers.get("Etag")
        if etag is None or (etag.startswith(('"', 'W/"')) and etag.endswith('"')) or not await self._quoted(request):
            return response
        response.headers["Etag"] = f'"{etag}"'
        return response

    async def _setting(self, request: Request) -> Response:
        """Accounts and containers keep what they say."""
        level = "Container" if request.container else "Account"
        told, kept = f"X-{level}-{NAME}", f"X-{level}-Sysmeta-{NAME}"
        said = request.headers.get(told)
        if said is not None:
            request.headers[kept] = str(is_true(said)) if said else ""
        if request.headers.get(f"X-Remove-{level}-{NAME}"):
            request.headers[kept] = ""
        response = await self.app(request)
        if value := response.headers.get(kept):
            response.headers[told] = value
        return response

    async def _quoted(self, request: Request) -> bool:
        container = await container_info(self.app, request)
        if not container.ok:
            return False
        flag = container.sysmeta.get(FLAG)
        if flag is None:
            account = await account_info(self.app, request)
            if not account.ok:
                return False
            flag = account.sysmeta.get(FLAG)
        return self.default if flag is None else is_true(flag)
