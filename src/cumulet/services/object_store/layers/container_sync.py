"""Container sync, the side that is synchronised to: a request of another cluster (or of another container's daemon) that is
signed with the realm's and the container's keys may do what it says, with the time at which it was done there.

X-Container-Sync-To and X-Container-Sync-Key of a container say where it is synchronised to (`container_sync.py` does that).
Reference: https://docs.openstack.org/swift/latest/overview_container_sync.html
"""

import hmac
from collections.abc import Awaitable
from typing import TYPE_CHECKING
from urllib.parse import quote

from cumulet.services.object_store.message import Handler, Request, Response, refuse
from cumulet.services.object_store.proxy.info import Info, container_info
from cumulet.services.object_store.sync_realms import SyncError, signature
from cumulet.services.object_store.words import requested_path, unauthorized

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

TO, KEY, AUTH = "X-Container-Sync-To", "X-Container-Sync-Key", "X-Container-Sync-Auth"
TIMESTAMP, INBOUND = "X-Timestamp", "X-Backend-Inbound-X-Timestamp"
NAME = "container_sync"


class ContainerSync:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        settings = service.kernel.settings
        self.app = app
        self.realms = service.realms
        self.current = settings.object_sync_current
        self.full_urls = settings.object_sync_full_urls
        self.told = service.told
        self._tell()

    def _tell(self) -> None:
        self.told[NAME] = {"realms": self.realms.told(self.current)}

    def __call__(self, request: Request) -> Awaitable[Response]:
        headers = request.headers
        concerned = AUTH in headers or KEY in headers or TO in headers or request.raw_path == "/info"
        return self._look(request) if concerned else self.app(request)

    async def _look(self, request: Request) -> Response:
        headers = request.headers
        if request.container:
            target = headers.get(TO)
            if target and not request.object and request.method in ("PUT", "POST"):
                refusal = await self._check(request, target)
                if refusal is not None:
                    return refusal
            if AUTH in headers:
                refusal = await self._signed(request, headers[AUTH])
                if refusal is not None:
                    return refusal
            elif request.object and KEY in headers and INBOUND in headers:
                await self._by_key(request)
        elif request.raw_path == "/info":
            self._tell()
        return await self.app(request)

    async def _check(self, request: Request, target: str) -> Response | None:
        if not self.full_urls and not target.startswith("//"):
            wanted = "Only realm values of the format //realm/cluster/account/container are allowed.\n"
            return refuse(400, f"Full URLs are not allowed for {TO} values. {wanted}")
        try:
            self.realms.target(target)
        except SyncError as error:
            return refuse(400, str(error))
        if (await container_info(self.app, request)).sysmeta.get("versions-container"):
            return refuse(400, "Cannot configure container sync on a container with object versioning configured.")
        return None

    async def _signed(self, request: Request, told: str) -> Response | None:
        words = told.split()
        info = await container_info(self.app, request)
        if len(words) != 3 or not self._is_good(request, info, *words):
            text = f"{AUTH} header not valid; contact cluster operator for support."
            return unauthorized(request, text, "SwiftContainerSync")
        _as_done_there(request)
        request.authorize, request.settled = None, True
        request.memo["slo_override"] = request.memo["symlink_override"] = True
        return None

    def _is_good(self, request: Request, info: Info, realm: str, nonce: str, told: str) -> bool:
        key = info.headers.get(KEY)
        if not key:
            return False
        path, at = quote(requested_path(request)), request.headers.get(INBOUND, "0")
        return any(
            hmac.compare_digest(signature(request.method, path, at, nonce, realm_key, key).encode(), told.encode())
            for realm_key in self.realms.realm(realm).keys
        )

    async def _by_key(self, request: Request) -> None:
        """Where clusters share no realm the container's own key is enough; who holds it is let in where ACLs are asked."""
        key = (await container_info(self.app, request)).headers.get(KEY)
        if key and hmac.compare_digest(key.encode(), request.headers[KEY].encode()):
            request.memo["sync key"] = key
            _as_done_there(request)


def _as_done_there(request: Request) -> None:
    at = request.headers.pop(INBOUND, None)
    if at is not None:
        request.headers[TIMESTAMP] = at
