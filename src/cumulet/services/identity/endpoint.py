"""Endpoints of services: GET|POST /v3/endpoints, GET|PATCH|DELETE /v3/endpoints/{id}. `catalog.py` is what tokens carry."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import UNSET
from sqlalchemy import Connection

from cumulet.api.resource import AUTO, FILTER, FIND, Resource, computed, edit, hidden, read, sent_always
from cumulet.core import db
from cumulet.core.errors import Invalid
from cumulet.core.types import Id, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard, search
from cumulet.services.identity.cascade import forget_endpoints
from cumulet.services.identity.fields import Url
from cumulet.services.identity.region import Region, RegionId
from cumulet.services.identity.rules import system_rules
from cumulet.services.identity.service import Service

PLACE = re.compile(r"[$%]\((\w+)\)s")
KNOWN = frozenset({"project_id", "tenant_id", "user_id"})


class Endpoint(Resource, table="identity_endpoint", path="/v3/endpoints", extra="extra"):
    """Where a service answers."""

    id: Id = read("The ID of the endpoint.", use=FIND)
    service_id: Id = edit("The service that answers.", use=FILTER, index=True)
    interface: Literal["public", "internal", "admin"] = edit("For whom.", use=FILTER)
    url: Url = edit("The URL; `$(project_id)s` and `$(user_id)s` stand for the token's.")
    region_id: RegionId | None = edit("The region.", None, FILTER)
    region: RegionId | None = sent_always("The region, by its older name.", AUTO)
    shown_region: str | None = computed("The same as `region_id`.", lambda row: row.region_id, wire="region")
    enabled: bool = edit("Whether it is in the catalogue.", True, FILTER)
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


RULES = system_rules("endpoint")
LISTING = search(Endpoint, region=lambda values: Endpoint.table.c.region_id.in_(values))


def _check(tx: Connection, endpoint: Any, given: Mapping[str, Any]) -> None:
    """The service must exist; a region that was given by its older name is made."""
    if db.first(tx, Service, Service.table.c.id == endpoint.service_id) is None:
        raise Invalid(f"The service_id of an endpoint must name a service; there is no {endpoint.service_id}.")
    if given.get("region_id"):
        if db.first(tx, Region, Region.table.c.id == given["region_id"]) is None:
            raise Invalid(f"The region_id of an endpoint must name a region; there is no {given['region_id']}.")
    elif endpoint.region_id and db.first(tx, Region, Region.table.c.id == endpoint.region_id) is None:
        db.insert(tx, Region.new(None, id=endpoint.region_id))
    try:
        endpoint.url.replace("$(", "%(") % dict.fromkeys(KNOWN, "")
    except (KeyError, TypeError, ValueError):
        known = ", ".join(f"$({name})s" for name in sorted(KNOWN))
        raise Invalid(f"{endpoint.url} is no URL of an endpoint: what it may hold of a token is {known}.") from None


def _region(body: Any) -> dict[str, Any]:
    older = body.region
    return {} if older is UNSET or body.given().get("region_id") else {"region_id": older}


async def create_endpoint(ctx: Ctx, body: Any) -> Endpoint:
    endpoint: Endpoint = Endpoint.new(body, id=new_hex_id(), **_region(body))
    guard(ctx, "create", Endpoint, endpoint)

    def store(tx: Connection) -> None:
        _check(tx, endpoint, body.given())
        db.insert(tx, endpoint)

    await ctx.service.write(store)
    return endpoint


async def update_endpoint(ctx: Ctx, endpoint: Endpoint, body: Any) -> Any:
    def store(tx: Connection) -> Any:
        changed = change(tx, Endpoint, endpoint.id, body, **_region(body))
        _check(tx, changed, body.given())
        return changed

    return await ctx.service.write(store)


async def delete_endpoint(ctx: Ctx, endpoint: Endpoint) -> None:
    await ctx.service.write(forget_endpoints, Endpoint.table.c.id == endpoint.id)


endpoints = calls(Endpoint, create=create_endpoint, update=update_endpoint, delete=delete_endpoint, listing=LISTING)
