"""Versions of objects: a container with X-Versions-Enabled: true keeps all that was ever uploaded to it. The versions lie in a
hidden container beside it, as swift's do (versions_names.py); objects are in versions_objects.py, listings in
versions_listing.py.

X-Versions-Enabled: false suspends it: what is there stays. Such a container can be deleted once all versions are.
Reference: https://docs.openstack.org/swift/latest/middleware.html (Object Versioning)
"""

from collections.abc import Awaitable
from typing import Any
from urllib.parse import unquote

from cumulet.services.object_store.layers import versions_listing
from cumulet.services.object_store.layers import versions_names as names
from cumulet.services.object_store.layers.versions_objects import VersionedObject
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    close,
    encoded,
    refuse,
)
from cumulet.services.object_store.proxy.info import container_info, forget
from cumulet.services.object_store.values import RESERVED, is_true

CLIENT = "X-Versions-Enabled"
BYTES = "X-Container-Bytes-Used"


class Versions:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app
        self.service = service
        service.told["object_versioning"] = {}

    def __call__(self, request: Request) -> Awaitable[Response]:
        method = request.method
        if not request.container:
            if method == "GET" and request.account and not request.object:
                return versions_listing.account(self.app, request)
        elif not request.container.startswith(RESERVED):
            if request.object:
                return self._object(request)
            if method in ("PUT", "POST") and CLIENT in request.headers:
                return self._enable(request)
            return self._delete(request) if method == "DELETE" else self._show(request)
        return self.app(request)

    async def _object(self, request: Request) -> Response:
        sysmeta = (await container_info(self.app, request)).sysmeta
        hidden = sysmeta.get("versions-container", "")
        if not hidden and not request.query.raw:  # as in most containers
            return await self.app(request)
        hidden, enabled = unquote(hidden).split("/")[0], is_true(sysmeta.get("versions-enabled"))
        return await VersionedObject(self.app, request, hidden, enabled).answer()

    async def _show(self, request: Request) -> Response:
        """A container with its versions' bytes, and what its listing tells of them."""
        response = await self.app(request)
        headers = response.headers
        if names.ENABLED in headers:
            headers[CLIENT] = headers[names.ENABLED]
        hidden = unquote(headers.get(names.VERSIONS, ""))
        if hidden and BYTES in headers:
            head = await ask(self.app, self._of_hidden(request, "HEAD", hidden))
            if head.ok:
                headers[BYTES] = str(int(headers[BYTES]) + int(head.headers.get(BYTES, "0")))
        if response.ok and request.method == "GET":
            return await versions_listing.container(
                self.app, request, response, hidden or names.hidden_container(request.container)
            )
        return response

    async def _enable(self, request: Request) -> Response:
        """PUT or POST of a container that turns versions on or off."""
        headers = request.headers
        info = await container_info(self.app, request)
        if info.sysmeta.get("versions-location") or info.headers.get("X-Versions-Location"):
            raise Refusal(
                refuse(
                    400,
                    "Cannot enable object versioning on a container that is already using the legacy versioned writes "
                    "feature.",
                )
            )
        if info.headers.get("X-Container-Sync-To"):
            raise Refusal(
                refuse(400, "Cannot enable object versioning on a container configured as source of container syncing.")
            )
        enable = is_true(headers[CLIENT])
        headers[names.ENABLED] = str(enable)
        if not enable:
            return _translated(await self.app(request))
        hidden = names.hidden_container(request.container)
        policy = info.headers.get("X-Storage-Policy") if info.ok else headers.get("X-Storage-Policy")
        if info.ok and policy and self._is_deprecated(policy):
            raise Refusal(
                refuse(400, "Cannot enable object versioning on a container that uses a deprecated storage policy.")
            )
        more = {"X-Storage-Policy": policy} if policy else {}
        made = await ask(self.app, self._of_hidden(request, "PUT", hidden, **more))
        await close(made)
        if not made.ok and made.status != 409:
            raise Refusal(refuse(500, "Error enabling object versioning"))
        headers[names.VERSIONS] = encoded(hidden)
        response = await ask(self.app, request)
        if not response.ok and made.status == 201:  # there was none, and none is wanted now
            await close(await ask(self.app, self._of_hidden(request, "DELETE", hidden)))
        forget(request, request.account, hidden)
        return _translated(response)

    def _is_deprecated(self, policy: str) -> bool:
        found = self.service.policies.named(policy)
        return found is not None and found.deprecated

    async def _delete(self, request: Request) -> Response:
        """DELETE of a container; the hidden one goes with it, if nothing is left in there."""
        info = await container_info(self.app, request)
        if hidden := unquote(info.sysmeta.get("versions-container", "")):
            head = await ask(self.app, self._of_hidden(request, "HEAD", hidden))
            if head.ok and int(head.headers.get("X-Container-Object-Count", "0")) > 0:
                raise Refusal(refuse(409, "Delete all versions before deleting container."))
            if not head.ok and head.status != 404:
                raise Refusal(refuse(500, "Error deleting versioned container"))
            deleted = await ask(self.app, self._of_hidden(request, "DELETE", hidden))
            await close(deleted)
            if not deleted.ok and deleted.status != 404:
                raise Refusal(refuse(500, "Error deleting versioned container"))
        return await self.app(request)

    def _of_hidden(self, request: Request, method: str, hidden: str, **headers: str) -> Request:
        told = Headers({"X-Backend-Allow-Reserved-Names": "true"})
        told.update(headers)
        return request.sub(method, source="versions", trusted=True, container=hidden, object="", headers=told)


def _translated(response: Response) -> Response:
    if names.ENABLED in response.headers:
        response.headers[CLIENT] = response.headers[names.ENABLED]
    return response
