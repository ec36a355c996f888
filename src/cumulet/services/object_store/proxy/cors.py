"""What pages of other sites may do with a container (CORS): its X-Container-Meta-Access-Control-Allow-Origin, -Max-Age and
-Expose-Headers say.

Reference: https://docs.openstack.org/swift/latest/cors.html, https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING

from cumulet.services.object_store.message import Request, Response, refuse
from cumulet.services.object_store.proxy.info import Info

if TYPE_CHECKING:
    from cumulet.services.object_store.proxy.core import Core

EXPOSED = (
    "cache-control",
    "content-language",
    "content-type",
    "expires",
    "last-modified",
    "pragma",
    "etag",
    "x-timestamp",
    "x-trans-id",
    "x-openstack-request-id",
)


async def preflight(core: "Core", request: Request, methods: Collection[str]) -> Response:
    """OPTIONS"""
    allowed = ", ".join([*methods, "OPTIONS"])
    origin = request.headers.get("Origin")
    if not origin or not request.container:
        return Response(200, b"", {"Allow": allowed})
    info = await core.container_info(request)
    wanted = request.headers.get("Access-Control-Request-Method", "")
    if not _is_allowed(info, origin) or wanted not in (*methods, "OPTIONS"):
        response = refuse(401)
        response.headers["Allow"] = allowed
        return response
    response = Response(200, b"", {"Allow": allowed, "Access-Control-Allow-Methods": allowed})
    _allow_origin(response, info, origin)
    if (age := info.meta.get("access-control-max-age")) is not None:
        response.headers["Access-Control-Max-Age"] = age
    asked = [
        name.strip() for name in request.headers.get("Access-Control-Request-Headers", "").split(",") if name.strip()
    ]
    if asked:
        response.headers["Access-Control-Allow-Headers"] = ", ".join(dict.fromkeys(asked))
        _vary(response, "Access-Control-Request-Headers")
    return response


async def with_cors(core: "Core", request: Request, answer: Awaitable[Response]) -> Response:
    """The answer to a request of a page of another site, with what its browser needs to hand it on."""
    origin = request.headers["Origin"]
    info = await core.container_info(request)
    response = await answer
    if not _is_allowed(info, origin):
        return response
    headers = response.headers
    if "Access-Control-Expose-Headers" not in headers:
        metadata = [name.lower() for name in headers if name.lower().startswith(("x-container-meta", "x-object-meta"))]
        more = [name.lower() for name in info.meta.get("access-control-expose-headers", "").split()]
        headers["Access-Control-Expose-Headers"] = ", ".join(dict.fromkeys((*EXPOSED, *metadata, *more)))
    if "Access-Control-Allow-Origin" not in headers:
        _allow_origin(response, info, origin)
    return response


def _origins(info: Info) -> str:
    return info.meta.get("access-control-allow-origin", "").strip()


def _is_allowed(info: Info, origin: str) -> bool:
    allowed = _origins(info).split()
    return origin in allowed or "*" in allowed


def _allow_origin(response: Response, info: Info, origin: str) -> None:
    if _origins(info) == "*":
        response.headers["Access-Control-Allow-Origin"] = "*"
    else:
        response.headers["Access-Control-Allow-Origin"] = origin
        _vary(response, "Origin")


def _vary(response: Response, name: str) -> None:
    before = response.headers.get("Vary")
    response.headers["Vary"] = f"{before}, {name}" if before else name
