"""Services of the catalogue: GET|POST /v3/services, GET|PATCH|DELETE /v3/services/{id}."""

from typing import Any

from sqlalchemy import Connection, delete

from cumulet.api.resource import FILTER, FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.db import metadata
from cumulet.core.types import Id, Str255, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard
from cumulet.services.identity.fields import Label
from cumulet.services.identity.rules import system_rules


class Service(Resource, table="identity_service", path="/v3/services", extra="extra"):
    """An API of the cloud, as clients find it."""

    id: Id = read("The ID of the service.", use=FIND)
    type: Label = edit("What it serves, such as `compute`.", use=FIND)
    name: Str255 | None = edit("What it is called, such as `nova`.", "", FIND)
    description: Text | None = edit("What it is.", "")
    enabled: bool = edit("Whether it is in the catalogue.", True, FILTER)
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


RULES = system_rules("service")


async def create_service(ctx: Ctx, body: Any) -> Service:
    service: Service = Service.new(body, id=new_hex_id())
    guard(ctx, "create", Service, service)
    await ctx.service.write(db.insert, service)
    return service


async def update_service(ctx: Ctx, service: Service, body: Any) -> Any:
    return await ctx.service.write(change, Service, service.id, body)


async def delete_service(ctx: Ctx, service: Service) -> None:
    """Remove a service with its endpoints."""

    def remove(tx: Connection) -> None:
        endpoint = metadata.tables["identity_endpoint"]
        tx.execute(delete(endpoint).where(endpoint.c.service_id == service.id))
        db.remove(tx, Service, service.id)

    await ctx.service.write(remove)


endpoints = calls(Service, create=create_service, update=update_service, delete=delete_service)
