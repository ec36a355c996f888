"""The registry's old port, to look at only: GET /, /versions, /v1/images, /v1/images/detail, /v1/images/{image_id}, and the
same without /v1.

Upstream's registry was the inner half of the first image API: services asked it for rows. It is gone upstream; what is here
tells administrators who still look there what images there are, in its words, and refuses to change anything.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import ColumnElement

from cumulet.api.crud import everything, list_page
from cumulet.api.http import Endpoint, Query
from cumulet.api.query import FALSE, TRUE
from cumulet.core.context import Context
from cumulet.core.errors import Gone, Invalid
from cumulet.services.image.image import LISTING, Image, find
from cumulet.services.image.rules import PARTS
from cumulet.services.image.search import conditions

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

RULES = {"registry:get_images": f"{PARTS['context_is_admin']} and {PARTS['project_scope']}"}
GONE = (
    "The image registry is read-only: upstream removed it, with version 1 of the image API. "
    "Images are made and changed by version 2, at the catalogue's endpoint of type `image`."
)


def _document(ctx: Ctx) -> dict[str, Any]:
    link = {"rel": "self", "href": f"{ctx.request.base_url}/v1/"}
    return {"versions": [{"id": "v1.0", "status": "DEPRECATED", "links": [link]}]}


async def versions(ctx: Ctx) -> Any:
    """The version of the registry's API."""
    return _document(ctx)


def brief(image: Image) -> dict[str, Any]:
    """An image in a short list."""
    names = ("id", "name", "disk_format", "container_format", "size", "checksum")
    return {name: getattr(image, name) for name in names}


def detailed(image: Image) -> dict[str, Any]:
    """All of an image, in the words of version 1."""
    return {
        **brief(image),
        "status": image.status,
        "is_public": image.visibility == "public",
        "protected": image.protected,
        "owner": image.owner,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "virtual_size": image.virtual_size,
        "properties": image.properties,
        "created_at": f"{image.created_at[:19]}Z",
        "updated_at": f"{image.updated_at[:19]}Z",
        "deleted": False,
        "deleted_at": None,
    }


FILTERS = frozenset({"name", "status", "container_format", "disk_format", "size_min", "size_max", "protected", "owner"})


def _where(query: Query) -> list[ColumnElement[bool]]:
    """The conditions of a list: attributes by their names, custom properties by `property-NAME`."""
    c = Image.table.c
    pairs = [(name, value) for name, value in query.pairs if name in FILTERS]
    pairs += [(name.removeprefix("property-"), value) for name, value in query.pairs if name.startswith("property-")]
    asked = Query("")
    asked.pairs = [*pairs, ("os_hidden", "false")]
    where = conditions(asked, Image.table, lambda name: True)
    public = (query.get("is_public") or "none").lower()
    if public in TRUE:
        where.append(c.visibility == "public")
    elif public in FALSE:
        where.append(c.visibility != "public")
    elif public != "none":
        raise Invalid(f"is_public is true, false or none, not '{public}'.")
    return where


async def _list(ctx: Ctx, view: Callable[[Image], dict[str, Any]]) -> Any:
    extra = _where(ctx.request.query)
    return await list_page(ctx, Image, everything, listing=LISTING, extra=extra, view=view)


async def list_images(ctx: Ctx) -> Any:
    """List all images, in brief."""
    return await _list(ctx, brief)


async def list_details(ctx: Ctx) -> Any:
    """List all images with all their attributes."""
    return await _list(ctx, detailed)


async def show_image(ctx: Ctx, image_id: str) -> Any:
    """Show an image."""
    image = await ctx.service.kernel.db.read_inline(find, ctx.caller, image_id)
    return {"image": detailed(image)}


async def refuse(ctx: Ctx, **_path: str) -> Any:
    """Refused: the registry is only to be looked at."""
    raise Gone(GONE)


def _calls(base: str) -> list[Endpoint]:
    one = f"{base}/images/{{image_id}}"
    rule = "registry:get_images"
    return [
        Endpoint("GET", f"{base}/images", list_images, rule, resource=Image),
        Endpoint("GET", f"{base}/images/detail", list_details, rule, resource=Image),
        Endpoint("GET", one, show_image, rule, resource=Image),
        Endpoint("POST", f"{base}/images", refuse),
        *[Endpoint(method, one, refuse) for method in ("PUT", "POST", "DELETE")],
        Endpoint("GET", f"{one}/members", refuse),
        Endpoint("PUT", f"{one}/members", refuse),
        *[Endpoint(method, f"{one}/members/{{member_id}}", refuse) for method in ("PUT", "DELETE")],
    ]


endpoints = [
    Endpoint("GET", "/", versions, auth=False),
    Endpoint("GET", "/versions", versions, auth=False),
    *_calls("/v1"),
    *_calls(""),
]
