"""GET /crossdomain.xml: which sites' pages may read from here by plug-ins that ask so (Flash, Silverlight).

Reference: https://docs.openstack.org/swift/latest/crossdomain.html
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from cumulet.services.object_store.message import Handler, Request, Response

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

PATH = "/crossdomain.xml"
DOCUMENT = """<?xml version="1.0"?>
<!DOCTYPE cross-domain-policy SYSTEM "http://www.adobe.com/xml/dtds/cross-domain-policy.dtd" >
<cross-domain-policy>
{rules}
</cross-domain-policy>"""


class CrossDomain:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        self.app = app
        self.document = DOCUMENT.format(rules=service.kernel.settings.object_crossdomain).encode()
        service.told["crossdomain"] = {}

    def __call__(self, request: Request) -> Awaitable[Response]:
        return self.app(request) if request.raw_path != PATH or request.method != "GET" else self._answer()

    async def _answer(self) -> Response:
        return Response(200, self.document, {"Content-Type": "application/xml"})
