"""GET /endpoints/[v1/|v2/]account[/container[/object]]: on which nodes data lies, for programs inside the cluster that want to
be near it. It is told to anybody, so it is off by default.

Reference: https://docs.openstack.org/swift/latest/middleware.html#list-endpoints
"""

import re
from typing import TYPE_CHECKING

from cumulet.api.http import encode_json
from cumulet.services.object_store.message import Handler, Request, Response, encoded, parts_of, refuse
from cumulet.services.object_store.names import partition
from cumulet.services.object_store.node import Ring
from cumulet.services.object_store.proxy.info import container_info
from cumulet.services.object_store.words import requested_path

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

PREFIX = "/endpoints/"
LOOKS_LIKE_VERSION = re.compile(r"v[^_]*")


def list_endpoints(service: "ObjectStoreRuntime", app: Handler) -> Handler:
    return ListEndpoints(service, app) if service.kernel.settings.object_list_endpoints else app


class ListEndpoints:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        self.service = service
        self.app = app

    async def __call__(self, request: Request) -> Response:
        path = requested_path(request)
        if not path.startswith(PREFIX):
            return await self.app(request)
        if request.method != "GET":
            return refuse(405, Allow="GET")
        version, account, container, object = parts_of(path.removeprefix(PREFIX.rstrip("/")))
        if version not in ("v1", "v2", "v1.0", "v2.0"):
            if LOOKS_LIKE_VERSION.fullmatch(version):
                return refuse(400, f"Unsupported version '{version}'")
            _, account, container, object = parts_of(path.replace(PREFIX, "/v1/", 1))
            version = "v1"
        if not account:
            return refuse(400, "No account specified")
        headers = {}
        ring: Ring = self.service.rings.container if container else self.service.rings.account
        if object:
            asked = request.sub("HEAD", source="list_endpoints", trusted=True)
            info = await container_info(self.app, asked, container, account)
            index = info.number("X-Backend-Storage-Policy-Index")
            headers = {"X-Backend-Storage-Policy-Index": str(index)}
            ring = self.service.rings.objects[index]
        found = self._urls(ring, account, container, object)
        return Response(
            200,
            encode_json(found if version.startswith("v1") else {"endpoints": found, "headers": headers}),
            {"Content-Type": "application/json"},
        )

    def _urls(self, ring: Ring, account: str, container: str, object: str) -> list[str]:
        number = partition(self.service.salt.digest(account, container, object), ring.power)
        path = "/".join(encoded(name) for name in (account, container, object) if name)
        return [
            f"http://{f'[{device.address}]' if ':' in device.address else device.address}:{device.port}"
            f"/{device.name}/{number}/{path}"
            for device in ring.devices(number)
        ]
