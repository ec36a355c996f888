"""Endpoints of the catalogue: GET|POST /v3/endpoints, GET|PATCH|DELETE /v3/endpoints/{id}; and the catalogue itself."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct
from sqlalchemy import Connection, select

from cumulet.api.resource import AUTO, FILTER, FIND, Resource, computed, edit, hidden, read, sent_always
from cumulet.core import db
from cumulet.core.errors import Invalid
from cumulet.core.types import Id, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard, search
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
    db.get(tx, Service, endpoint.service_id)
    if given.get("region_id"):
        if db.first(tx, Region, Region.table.c.id == given["region_id"]) is None:
            raise Invalid(f"Could not find region: {given['region_id']}.")
    elif endpoint.region_id and db.first(tx, Region, Region.table.c.id == endpoint.region_id) is None:
        db.insert(tx, Region.new(None, id=endpoint.region_id))
    unknown = set(PLACE.findall(endpoint.url)) - KNOWN
    if unknown:
        raise Invalid(f"The URL of an endpoint cannot hold {', '.join(sorted(unknown))}.")


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
    await ctx.service.write(db.remove, Endpoint, endpoint.id)


endpoints = calls(Endpoint, create=create_endpoint, update=update_endpoint, delete=delete_endpoint, listing=LISTING)


# ---- the catalogue ------------------------------------------------------------------------------------------------------


class CatalogRow(Struct, frozen=True):
    """An endpoint with what the catalogue says of its service."""

    service_id: str
    service_type: str
    service_name: str | None
    id: str
    interface: str
    region_id: str | None
    url: str


_s, _e = Service.table.c, Endpoint.table.c
_catalog = (
    select(_s.id, _s.type, _s.name, _e.id, _e.interface, _e.region_id, _e.url)
    .join_from(Service.table, Endpoint.table, _e.service_id == _s.id)
    .where(_s.enabled, _e.enabled)
    .order_by(_s.type, _s.id, _e.interface)
)


def read_catalog(tx: Connection) -> list[CatalogRow]:
    return [CatalogRow(*row) for row in tx.execute(_catalog)]


def catalog_for(rows: Sequence[CatalogRow], project_id: str | None, user_id: str) -> list[dict[str, Any]]:
    """The catalogue of one token; endpoints that need a project are left out of a token without one."""
    known = {"project_id": project_id, "tenant_id": project_id, "user_id": user_id}
    services: dict[str, dict[str, Any]] = {}
    for row in rows:
        service = services.setdefault(
            row.service_id,
            {"endpoints": [], "id": row.service_id, "type": row.service_type, "name": row.service_name or ""},
        )
        if all(known.get(name) for name in PLACE.findall(row.url)):
            service["endpoints"].append({
                "id": row.id,
                "interface": row.interface,
                "region_id": row.region_id,
                "region": row.region_id,
                "url": PLACE.sub(lambda match: known[match[1]] or "", row.url),
            })  # fmt: skip
    return list(services.values())
