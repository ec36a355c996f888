"""The proxy's core: finds who answers a request, asks whether it may be made, and has it done by the nodes.

Whether a request may be made is asked twice at most: at once, for whoever may do anything in the account, and again when the
ACL of its container is known, for all others.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cumulet.services.object_store.message import Headers, Request, Response, refuse
from cumulet.services.object_store.names import Timestamp, partition
from cumulet.services.object_store.node import BackendRequest, Kind, Ring
from cumulet.services.object_store.proxy import account, container, limits
from cumulet.services.object_store.proxy import object as object_
from cumulet.services.object_store.proxy.backends import Backends
from cumulet.services.object_store.proxy.cors import preflight, with_cors
from cumulet.services.object_store.proxy.discovery import show_info
from cumulet.services.object_store.proxy.info import Info, container_info

Serve = Callable[["Core", Request, Response | None], Awaitable[Response]]
"""Serves a request; the response is the refusal, where it has been refused so far."""

SERVED: Mapping[Kind, Mapping[str, Serve]] = {
    "account": account.METHODS,
    "container": container.METHODS,
    "object": object_.METHODS,
}


class Core:
    """The innermost handler. `service` is the runtime."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.backends = Backends(service.nodes)
        self.settings = service.kernel.settings
        service.told["swift"] = {
            **limits.TOLD,
            "policies": service.policies.told,
            "strict_cors_mode": True,
            "allow_account_management": True,
            "account_autocreate": True,
            "allow_open_expired": self.settings.object_open_expired,
            "valid_api_versions": list(limits.VERSIONS),
            "auto_create_account_prefix": ".",
        }

    async def __call__(self, request: Request) -> Response:
        if not request.account or not request.version or (request.object and not request.container):
            return await self._elsewhere(request)
        if request.version not in limits.VERSIONS:
            return refuse(400, f"Invalid path: the API's version is {' or '.join(limits.VERSIONS)}.")
        headers = request.headers
        reads = request.method in ("GET", "HEAD")
        if not reads and "X-Timestamp" not in headers:  # of a read the nodes know themselves what time it is
            headers["X-Timestamp"] = Timestamp.now().internal
        kind: Kind = "object" if request.object else "container" if request.container else "account"
        methods = SERVED[kind]
        if request.method == "OPTIONS":
            return await preflight(self, request, methods)
        serve = methods.get(request.method)
        if request.method == "UPDATE" and kind == "container" and request.source and request.authorize is None:
            serve = container.merge
        if serve is None:
            return refuse(405, Allow=", ".join([*methods, "OPTIONS"]))
        refusal = None
        if request.authorize is not None:
            request.acl = None
            refusal = await request.authorize(request)
            if refusal is not None and kind != "object" and (kind == "account" or not reads):
                return refusal
        if kind != "account" and "Origin" in headers:
            return await with_cors(self, request, serve(self, request, refusal))
        return await serve(self, request, refusal)

    async def _elsewhere(self, request: Request) -> Response:
        """What is no account."""
        if request.version == "info" and not request.container:
            return show_info(self, request)
        if request.container or request.object or not request.version:
            return refuse(404)
        return refuse(412, "Bad URL")

    def container_info(self, request: Request) -> Awaitable[Info]:
        """What is known of the container that a request is about, or in."""
        return container_info(self, request)

    def name_policy(self, response: Response) -> None:
        """Tell a client the name of a storage policy."""
        index = response.headers.get("X-Backend-Storage-Policy-Index")
        if index is not None and response.ok and (policy := self.service.policies.get(int(index))) is not None:
            response.headers["X-Storage-Policy"] = policy.name

    def partition(self, ring: Ring, *path: str) -> int:
        return partition(self.service.salt.digest(*path), ring.power)

    def backend(
        self, kind: Kind, request: Request, part: int, headers: Headers, method: str = "", **more: Any
    ) -> BackendRequest:
        """A client's request as one to a node."""
        names = (
            request.account,
            request.container if kind != "account" else "",
            request.object if kind == "object" else "",
        )
        return BackendRequest(kind, method or request.method, "", part, *names, headers=headers, **more)
