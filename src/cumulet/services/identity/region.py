"""Regions: GET|POST /v3/regions, GET|PUT|PATCH|DELETE /v3/regions/{id}."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta
from sqlalchemy import Connection, select

from cumulet.api.crud import enveloped
from cumulet.api.http import Endpoint
from cumulet.api.query import Listing
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, once
from cumulet.core import db
from cumulet.core.db import metadata
from cumulet.core.errors import Conflict, Forbidden, Invalid
from cumulet.core.types import Column, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard
from cumulet.services.identity.cascade import forget_regions
from cumulet.services.identity.rules import ANYBODY, system_rules

RegionId = Annotated[str, Meta(max_length=255), Column(255)]
ParentId = Annotated[str, Meta(min_length=1, max_length=255), Column(255)]


class Region(Resource, table="identity_region", path="/v3/regions", extra="extra"):
    """A part of the cloud with endpoints of its own."""

    id: RegionId = once("The ID of the region, which may be chosen.", AUTO, FIND)
    description: Text | None = edit("What it is.", "")
    parent_region_id: ParentId | None = edit("The region that it is a part of.", None, FILTER)
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


RULES = system_rules("region", read=ANYBODY)


async def create_region(ctx: Ctx, body: Any) -> Region:
    region: Region = Region.new(body, id=(body.id or "") if body.id is not UNSET else "")
    region.id = region.id or new_hex_id()
    return await _store(ctx, region)


async def _store(ctx: Ctx, region: Region) -> Region:
    guard(ctx, "create", Region, region)
    region.description = region.description or ""

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
    given = body.given()
    more = {"description": given["description"] or ""} if "description" in given else {}

    def store(tx: Connection) -> Any:
        above = given.get("parent_region_id")
        while above:
            if above == region.id:
                raise Invalid(
                    f"The parent region {given['parent_region_id']} would make region {region.id} be below itself."
                )
            above = db.get(tx, Region, above).parent_region_id
        return change(tx, Region, region.id, body, **more)

    return await ctx.service.write(store)


async def delete_region(ctx: Ctx, region: Region) -> None:
    """Remove a region with those below it, if no endpoint is in any of them. Limits may name one that is gone, as upstream."""

    def remove(tx: Connection) -> None:
        gone = downwards(region.id, region_tree(tx))
        endpoint = metadata.tables["identity_endpoint"].c
        if tx.execute(select(endpoint.id).where(endpoint.region_id.in_(gone)).limit(1)).first() is not None:
            raise Forbidden(
                f"Unable to delete region {region.id} because it or its child regions have associated endpoints."
            )
        forget_regions(tx, gone)
        db.remove_where(tx, Region, Region.table.c.id.in_(gone))

    await ctx.service.write(remove)


# ---- the tree -----------------------------------------------------------------------------------------------------------


def region_tree(tx: Connection) -> dict[str, str | None]:
    """Every region, and the one above it."""
    c = Region.table.c
    return {row[0]: row[1] for row in tx.execute(select(c.id, c.parent_region_id))}


def upwards(region: str | None, above: Mapping[str, str | None]) -> list[str]:
    """The region and those above it, nearest first."""
    way: list[str] = []
    while region and region not in way:
        way.append(region)
        region = above.get(region)
    return way


def downwards(region: str, above: Mapping[str, str | None]) -> list[str]:
    """The region and those below it."""
    return [one for one in above if region in upwards(one, above)]


LISTING = Listing(sort=(("id", "asc"),), refuse_unknown=True)
endpoints = [
    *calls(Region, create=create_region, update=update_region, delete=delete_region, listing=LISTING),
    Endpoint("PUT", "/v3/regions/{id}", create_named, body=Region, status=201, resource=Region),
]
