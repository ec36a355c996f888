"""Quotas of containers: X-Container-Meta-Quota-Bytes and X-Container-Meta-Quota-Count, which their owners set. An upload that
would exceed one is refused with 413.

Reference: https://docs.openstack.org/swift/latest/middleware.html#container-quotas
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from cumulet.services.object_store.message import Handler, Request, Response, refuse
from cumulet.services.object_store.proxy.info import container_info

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

BYTES, COUNT = "X-Container-Meta-Quota-Bytes", "X-Container-Meta-Quota-Count"


class ContainerQuotas:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        self.app = app
        service.told["container_quotas"] = {}

    def __call__(self, request: Request) -> Awaitable[Response]:
        return self._write(request) if request.method in ("PUT", "POST") else self.app(request)

    async def _write(self, request: Request) -> Response:
        if request.object:
            if request.method == "PUT" and await self._is_full(request):
                return await self._refused(request)
        elif request.container:
            for name, what in ((BYTES, "bytes"), (COUNT, "count")):
                if (value := request.headers.get(name)) and not is_number(value):
                    return refuse(400, f"Invalid {what} quota.")
        return await self.app(request)

    async def _is_full(self, request: Request) -> bool:
        info = await container_info(self.app, request)
        most_bytes, most = info.meta.get("quota-bytes", ""), info.meta.get("quota-count", "")
        if not info.ok or not (is_number(most_bytes) or is_number(most)):
            return False
        info = await container_info(self.app, request, fresh=True)
        size = info.number("X-Container-Bytes-Used") + (request.length or 0)
        if is_number(most_bytes) and size > int(most_bytes):
            return True
        return is_number(most) and info.number("X-Container-Object-Count") + 1 > int(most)

    async def _refused(self, request: Request) -> Response:
        """Who may not write here learns no more than that."""
        if request.authorize is not None:
            info = await container_info(self.app, request)
            request.acl = info.headers.get("X-Container-Write", "")
            refusal = await request.authorize(request)
            if refusal is not None:
                return refusal
        return refuse(413, "Upload exceeds quota.")


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
