"""Regions: GET|POST /v3/regions, GET|PUT|PATCH|DELETE /v3/regions/{id}."""

from typing import Annotated, Any

from msgspec import UNSET, Meta
from sqlalchemy import Connection, select

from cumulet.api.crud import enveloped
from cumulet.api.http import Endpoint
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, once
from cumulet.core import db
from cumulet.core.db import metadata
from cumulet.core.errors import Conflict, Forbidden, Invalid
from cumulet.core.types import Column, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard
from cumulet.services.identity.rules import ANYBODY, system_rules

RegionId = Annotated[str, Meta(max_length=255), Column(255)]


class Region(Resource, table="identity_region", path="/v3/regions", extra="extra"):
    """A part of the cloud with endpoints of its own."""

    id: RegionId = once("The ID of the region, which may be chosen.", AUTO, FIND)
    description: Text | None = edit("What it is.", "")
    parent_region_id: RegionId | None = edit("The region that it is a part of.", None, FILTER)
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


RULES = system_rules("region", read=ANYBODY)


async def create_region(ctx: Ctx, body: Any) -> Region:
    region: Region = Region.new(body, id=(body.id or "") if body.id is not UNSET else "")
    region.id = region.id or new_hex_id()
    return await _store(ctx, region)


async def _store(ctx: Ctx, region: Region) -> Region:
    guard(ctx, "create", Region, region)

    def store(tx: Connection) -> None:
        if db.first(tx, Region, Region.table.c.id == region.id) is not None:
            raise Conflict(f"Conflict occurred attempting to store region - Duplicate ID, {region.id}.")
        if region.parent_region_id:
            db.get(tx, Region, region.parent_region_id)
        db.insert(tx, region)

    await ctx.service.write(store)
    return region


async def create_named(ctx: Ctx, id: str, body: Any) -> Any:
    """Create a region with the ID of the path."""
    if body.given().get("id", id) != id:
        raise Invalid(f'The region ID "{body.id}" is not that of the URL, "{id}".')
    if len(id) > 255:
        raise Invalid("A region ID has at most 255 characters.")
    return enveloped(ctx, Region, await _store(ctx, Region.new(body, id=id)))


async def update_region(ctx: Ctx, region: Region, body: Any) -> Any:
    def store(tx: Connection) -> Any:
        above = body.given().get("parent_region_id")
        while above:
            if above == region.id:
                raise Invalid("A region cannot be below itself.")
            above = db.get(tx, Region, above).parent_region_id
        return change(tx, Region, region.id, body)

    return await ctx.service.write(store)


async def delete_region(ctx: Ctx, region: Region) -> None:
    """Remove a region that nothing is in."""

    def remove(tx: Connection) -> None:
        endpoint = metadata.tables["identity_endpoint"]
        used = tx.execute(select(endpoint.c.id).where(endpoint.c.region_id == region.id).limit(1)).first()
        if used is not None or db.count(tx, Region, Region.table.c.parent_region_id == region.id):
            raise Forbidden(
                f"Unable to delete region {region.id} because it or its child regions have associated endpoints."
            )
        db.remove(tx, Region, region.id)

    await ctx.service.write(remove)


endpoints = [
    *calls(Region, create=create_region, update=update_region, delete=delete_region),
    Endpoint("PUT", "/v3/regions/{id}", create_named, body=Region, status=201, resource=Region),
]
