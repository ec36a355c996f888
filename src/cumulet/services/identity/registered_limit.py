"""Registered limits, the defaults of unified limits: GET|POST /v3/registered_limits, GET|PATCH|DELETE
/v3/registered_limits/{id}."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta
from sqlalchemy import Connection, UniqueConstraint, select, tuple_

from cumulet.api.resource import FILTER, Resource, edit, read
from cumulet.core import db
from cumulet.core.db import metadata
from cumulet.core.errors import Conflict, Forbidden, Invalid
from cumulet.core.types import Column, Id, Shown, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, bulk, calls, change
from cumulet.services.identity.fields import Label
from cumulet.services.identity.region import Region
from cumulet.services.identity.rules import ADMIN, ANYBODY, undomained
from cumulet.services.identity.service import Service

Amount = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
"""How much of a resource there may be; -1 is as much as one likes."""
LimitRegion = Annotated[str, Meta(min_length=1, max_length=255), Column(255), Shown(lambda value: value or None)]
"""The region of a limit, kept as "" where it is none (so that limits can be unique), and shown as null then."""


class RegisteredLimit(Resource, table="identity_registered_limit", path="/v3/registered_limits"):
    """How much of a service's resource every project may have that has no limit of its own."""

    id: Id = read("The ID of the registered limit.")
    service_id: Id = edit("The service whose resource it is.", use=FILTER)
    region_id: LimitRegion | None = edit("The region it holds in.", None, FILTER)
    resource_name: Label = edit("The resource, as the service calls it.", use=FILTER)
    default_limit: Amount = edit("How much there may be; -1: unlimited.")
    description: Text | None = edit("What it is.", None)


_c = RegisteredLimit.table.c
_resource = tuple_(_c.service_id, _c.region_id, _c.resource_name)
TWIN = "Conflict occurred attempting to store registered_limit - Duplicate entry."
UniqueConstraint(_c.service_id, _c.region_id, _c.resource_name, name="identity_registered_limit_resource")

RULES = {
    "identity:get_registered_limit": ANYBODY,
    "identity:list_registered_limits": ANYBODY,
    "identity:create_registered_limits": undomained(ADMIN),
    "identity:update_registered_limit": undomained(ADMIN),
    "identity:delete_registered_limit": undomained(ADMIN),
}


async def create_registered_limits(ctx: Ctx, bodies: list[Any]) -> list[RegisteredLimit]:
    made = [RegisteredLimit.new(body, id=new_hex_id(), region_id=body.region_id or "") for body in bodies]

    def store(tx: Connection) -> None:
        check_place(tx, RegisteredLimit.kind, {m.service_id for m in made}, {m.region_id for m in made if m.region_id})
        taken = [(limit.service_id, limit.region_id, limit.resource_name) for limit in made]
        if len(set(taken)) < len(taken) or db.first(tx, RegisteredLimit, _resource.in_(taken)) is not None:
            raise Conflict(TWIN)
        db.insert_many(tx, made)

    await ctx.service.write(store)
    return made


def check_place(tx: Connection, kind: str, services: set[str], regions: set[str | None]) -> None:
    """Invalid unless there are all these services and regions."""
    for name, cls, wanted in (("service_id", Service, services), ("region_id", Region, regions)):
        ids = cls.table.c.id
        missing = wanted - set(tx.execute(select(ids).where(ids.in_(wanted))).scalars()) if wanted else set()
        if missing:
            raise Invalid(f"The {name} of a {kind} must name one that exists; {min(map(str, missing))} does not.")


async def update_registered_limit(ctx: Ctx, limit: RegisteredLimit, body: Any) -> RegisteredLimit:
    """Change it, unless a limit overrides it."""
    given: Mapping[str, Any] = body.given()

    def store(tx: Connection) -> RegisteredLimit:
        regions = {given["region_id"]} if given.get("region_id") else set()
        check_place(tx, RegisteredLimit.kind, {given["service_id"]} if "service_id" in given else set(), regions)
        _check_unused(tx, limit.id)
        more = {"region_id": given["region_id"] or ""} if "region_id" in given else {}
        changed: RegisteredLimit = change(tx, RegisteredLimit, limit.id, body, **more)
        same = _resource == (changed.service_id, changed.region_id, changed.resource_name)
        if db.count(tx, RegisteredLimit, same) > 1:
            raise Conflict(TWIN)
        return changed

    return await ctx.service.write(store)


def _check_unused(tx: Connection, id: str) -> None:
    limit = metadata.tables["identity_limit"]
    if tx.execute(select(limit.c.id).where(limit.c.registered_limit_id == id).limit(1)).first() is not None:
        raise Forbidden(
            f"Unable to update or delete registered limit {id} because there are project limits associated with it."
        )


async def delete_registered_limit(ctx: Ctx, limit: RegisteredLimit) -> None:
    """Remove it, unless a limit overrides it."""

    def remove(tx: Connection) -> None:
        _check_unused(tx, limit.id)
        db.remove(tx, RegisteredLimit, limit.id)

    await ctx.service.write(remove)


endpoints = [
    bulk(RegisteredLimit, create_registered_limits),
    *calls(
        RegisteredLimit,
        update=update_registered_limit,
        delete=delete_registered_limit,
    ),
]
