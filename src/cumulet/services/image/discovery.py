"""What clients ask first: GET /, /versions, /v2 (no token needed), /v2/info/usage."""

from typing import TYPE_CHECKING, Any, TypeAlias

from cumulet.api.http import Endpoint, Response
from cumulet.core.context import Context
from cumulet.core.errors import Forbidden
from cumulet.core.quota import UNLIMITED
from cumulet.services.image import quota
from cumulet.services.image.image import Image

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

PLAIN = ("2.17", "2.15", "2.9")
OF_CACHE = ("2.18", "2.17", "2.16", "2.15", "2.14")
OF_STORES = ("2.13", "2.12", "2.11", "2.10", "2.9", "2.8")
OLD = ("2.7", "2.6", "2.5", "2.4", "2.3", "2.2", "2.1", "2.0")
"""The minor versions of every site, and what one with a cache and one with several stores have first. They do not change what a
request means."""


def _document(ctx: Ctx) -> dict[str, Any]:
    def version(number: str, status: str) -> dict[str, Any]:
        link = {"rel": "self", "href": f"{ctx.request.base_url}/v2/"}
        return {"id": f"v{number}", "status": status, "links": [link]}

    stores, cache = ctx.service.stores.several, ctx.service.cache.room
    newest = OF_CACHE if cache else PLAIN[:2]
    shown = (*newest, *(OF_STORES if stores else PLAIN[2:]), *OLD)
    return {"versions": [version(number, "SUPPORTED" if place else "CURRENT") for place, number in enumerate(shown)]}


async def choices(ctx: Ctx) -> Response:
    """The API versions, where none was named."""
    return Response(300, _document(ctx))


async def versions(ctx: Ctx) -> Any:
    """The API versions."""
    return _document(ctx)


async def show_usage(ctx: Ctx) -> Any:
    """What the caller's project has of what is limited, and the limits; -1 is unlimited. Sizes are in MiB."""
    project_id = ctx.caller.project_id
    if project_id is None:
        raise Forbidden("Usage is a project's: it takes a token of one.")
    limits = await ctx.service.limits(project_id)
    have = await ctx.service.kernel.db.read_inline(quota.used, Image.table, project_id)
    return {"usage": {name: {"usage": have[name], "limit": limits.get(name, UNLIMITED)} for name in quota.RESOURCES}}


endpoints = [
    Endpoint("GET", "/", choices, auth=False, status=300),
    Endpoint("GET", "/versions", versions, auth=False),
    Endpoint("GET", "/v2", choices, auth=False, status=300),
    Endpoint("GET", "/v2/info/usage", show_usage),
]
