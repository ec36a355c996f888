"""Changes of images: PATCH /v2/images/{image_id}, a JSON patch in either of two media types."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from cumulet.api.http import Endpoint
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden
from cumulet.core.types import now
from cumulet.services.image.image import (
    Ctx,
    Image,
    check_amounts,
    check_visibility,
    checked_properties,
    distinct,
    find,
    may,
    readable,
    require,
    views,
)  # fmt: skip
from cumulet.services.image.location import LOCATIONS, change_locations, look_at
from cumulet.services.image.patch import MEDIA_TYPES, Change, read_changes
from cumulet.services.image.search import save_labels


async def update_image(ctx: Ctx, image_id: str) -> Any:
    """Change an image by a JSON patch."""
    media_type = (ctx.request.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    changes = read_changes(media_type, await ctx.request.read() if media_type in MEDIA_TYPES else b"")

    sizes = await look_at(ctx, image_id, [change for change in changes if change.name == LOCATIONS])

    def change(tx: Connection) -> Image:
        image = find(tx, ctx.caller, image_id)
        if not changes:
            return image
        new, properties = apply(ctx, image, changes, sizes)
        db.update(tx, Image, image.id, **new, properties=properties, updated_at=now())
        image = db.get(tx, Image, image.id)
        save_labels(tx, image.id, image.tags, image.properties)
        return image

    return views(ctx)(await ctx.service.kernel.db.run(change))


def apply(
    ctx: Ctx, image: Image, changes: list[Change], sizes: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The new values of declared attributes, and all custom properties, after `changes` in order. `sizes` are those of the
    data at places that are new."""
    editable = {f.wire for f in Image.fields if "update" in f.modes}
    new: dict[str, Any] = {}
    properties = readable(ctx, image.properties)
    concealed = {name: value for name, value in image.properties.items() if name not in properties}
    for change in changes:
        if change.name == LOCATIONS:
            new |= change_locations(ctx, replace(image, **new), change, sizes)
            continue
        if change.name == "visibility":
            check_visibility(ctx, image, change.value)
        require(ctx, image, "modify_image")
        if change.name in editable:
            new[change.name] = _attribute(ctx, image, change)
        else:
            _change_property(ctx, properties, change)
    properties.update(concealed)
    if "tags" in new:
        new["tags"] = distinct(new["tags"])
    grew = len(properties) > len(image.properties)
    check_amounts(new.get("tags", []), properties if grew else {})
    return new, properties


def _attribute(ctx: Ctx, image: Image, change: Change) -> Any:
    """The new value of a declared attribute."""
    name = change.name
    if change.op == "remove":
        raise Forbidden(f"Property {name} may not be removed.")
    if change.op == "add" and change.strict:
        raise Conflict(f"Property {name} already present.")
    if name == "owner" and not ctx.caller.is_admin:
        raise Forbidden("Owner can't be updated by non admin.")
    if name in ("container_format", "disk_format") and image.status != "queued":
        raise Forbidden(f"Attribute {name} can be only replaced for a queued image.")
    return getattr(Image.decode("update", msgspec.json.encode({name: change.value})), name)


def _change_property(ctx: Ctx, properties: dict[str, str], change: Change) -> None:
    """Carry out a change of a custom property in `properties`, of which the caller sees these."""
    name, there = change.name, change.name in properties
    if there and change.op == "add" and change.strict:
        raise Conflict(f"Property {name} already present.")
    if not there and change.op != "add":
        raise Conflict(f"Property {name} does not exist.")
    if not may(ctx, "delete" if change.op == "remove" else "update" if there else "create", name):
        raise Forbidden(f"Attribute '{name}' is reserved.")
    if change.op == "remove":
        del properties[name]
    else:
        properties.update(checked_properties({name: change.value}))


endpoints = [Endpoint("PATCH", "/v2/images/{image_id}", update_image, resource=Image)]
