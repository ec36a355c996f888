"""The tags of an image: PUT|DELETE /v2/images/{image_id}/tags/{tag}."""

from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import Invalid, NotFound
from cumulet.core.types import now
from cumulet.services.image.image import Image, check_amounts, find, require
from cumulet.services.image.search import save_labels

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"


async def add_tag(ctx: Ctx, image_id: str, tag: str) -> Response:
    """Put a tag on an image."""
    if len(tag) > 255:
        raise Invalid("A tag has at most 255 characters.")
    await ctx.service.kernel.db.run(_set, ctx, image_id, tag, True)
    return Response(204)


async def remove_tag(ctx: Ctx, image_id: str, tag: str) -> Response:
    """Take a tag off an image."""
    await ctx.service.kernel.db.run(_set, ctx, image_id, tag, False)
    return Response(204)


def _set(tx: Connection, ctx: Ctx, image_id: str, tag: str, wanted: bool) -> None:
    image = find(tx, ctx.caller, image_id)
    require(ctx, image, "modify_image")
    if tag not in image.tags and not wanted:
        raise NotFound(message=f"Image {image_id} has no tag {tag}.")
    tags = [t for t in image.tags if t != tag] + ([tag] if wanted else [])
    check_amounts(tags, {})
    db.update(tx, Image, image.id, tags=tags, updated_at=now())
    save_labels(tx, image.id, tags, image.properties)


_ONE = "/v2/images/{image_id}/tags/{tag}"
endpoints = [
    Endpoint("PUT", _ONE, add_tag, status=204),
    Endpoint("DELETE", _ONE, remove_tag, status=204),
]
