"""What is told of the stores: GET /v2/info/stores, GET /v2/info/stores/detail; and an image's data taken out of one of them:
DELETE /v2/stores/{store_id}/{image_id}."""

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import Conflict, Forbidden, NotFound
from cumulet.core.types import now
from cumulet.services.image.drivers import Store
from cumulet.services.image.image import Image, find, require
from cumulet.services.image.importing import LOCK
from cumulet.services.image.rules import ADMIN, SERVICE, in_project
from cumulet.services.image.stores import discard

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

RULES = in_project({"stores_info_detail": f"{ADMIN} or {SERVICE}"})


def _told(ctx: Ctx, store: Store) -> dict[str, Any]:
    told = {"id": store.name}
    if store is ctx.service.stores.default:
        told["default"] = "true"
    if store.read_only:
        told["read-only"] = "true"
    return told


def _several(ctx: Ctx) -> None:
    if not ctx.service.stores.several:
        raise NotFound(message="Multi backend is not supported at this site.")


async def list_stores(ctx: Ctx) -> Any:
    """List the stores, where there are several."""
    _several(ctx)
    return {"stores": [_told(ctx, store) for store in ctx.service.stores.all.values()]}


async def list_stores_detail(ctx: Ctx) -> Any:
    """List the stores with where they keep data, where there are several."""
    _several(ctx)
    return {
        "stores": [
            {**_told(ctx, store), "type": store.kind, "weight": 0, "properties": store.properties()}
            for store in ctx.service.stores.all.values()
        ]
    }


async def delete_from_store(ctx: Ctx, store_id: str, image_id: str) -> Response:
    """Remove the data of an image from one of the stores that hold it."""
    stores = ctx.service.stores
    _several(ctx)

    def change(tx: Connection) -> Image:
        image = find(tx, ctx.caller, image_id)
        require(ctx, image, "get_image_location")
        require(ctx, image, "delete_image_location")
        if store_id not in stores.all:
            raise Conflict(f"The selected store {store_id} is not available on this node.")
        if image.status != "active":
            raise Conflict("It's not allowed to remove image data from store if image status is not 'active'")
        if LOCK in image.properties:
            raise Conflict(f"Image {image_id} is being copied; that has to end first.")
        shown = stores.locations(image)
        rest = [place for place, held in zip(shown, stores.holding(image), strict=True) if held.store.name != store_id]
        if len(rest) == len(shown):
            raise NotFound(message=f"Image {image_id} is not stored in store {store_id}.")
        if not rest:
            raise Forbidden(
                "Cannot delete image data from the only store containing it. Consider deleting the image instead."
            )
        db.update(tx, Image, image.id, places=stores.kept(image.id, rest), updated_at=now())
        return image

    image = await ctx.service.kernel.db.run(change)
    await discard(stores.all[store_id], image.id)
    return Response(204)


endpoints = [
    Endpoint("GET", "/v2/info/stores", list_stores),
    Endpoint("GET", "/v2/info/stores/detail", list_stores_detail, "stores_info_detail"),
    Endpoint("DELETE", "/v2/stores/{store_id}/{image_id}", delete_from_store, status=204),
]
