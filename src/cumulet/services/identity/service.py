"""Services of the catalogue: GET|POST /v3/services, GET|PATCH|DELETE /v3/services/{id}."""

from typing import Any

from sqlalchemy import Connection

from cumulet.api.resource import FILTER, FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.db import metadata
from cumulet.core.errors import Invalid
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard
from cumulet.services.identity.cascade import forget_endpoints, forget_service
from cumulet.services.identity.fields import Label, ServiceName
from cumulet.services.identity.rules import system_rules


class Service(Resource, table="identity_service", path="/v3/services", extra="extra"):
    """An API of the cloud, as clients find it."""

    id: Id = read("The ID of the service.", use=FIND)
    type: Label = edit("What it serves, such as `compute`.", use=FIND)
    name: ServiceName | None = edit("What it is called, such as `nova`.", "", FIND)
    description: Text | None = edit("What it is.", "")
    enabled: bool = edit("Whether it is in the catalogue.", True, FILTER)
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


RULES = system_rules("service")


async def create_service(ctx: Ctx, body: Any) -> Service:
    service: Service = Service.new(body, id=new_hex_id())
    guard(ctx, "create", Service, service)
    _check_name(body)
    await ctx.service.write(db.insert, service)
    return service


def _check_name(body: Any) -> None:
    if body.given().get("name", "") is None:
        raise Invalid("The name of a service is text of 1 to 255 characters; leave it out to give none.")


async def update_service(ctx: Ctx, service: Service, body: Any) -> Any:
    _check_name(body)
    return await ctx.service.write(change, Service, service.id, body)


async def delete_service(ctx: Ctx, service: Service) -> None:
    """Remove a service with its endpoints; limits may name a service that is gone, as they may a region."""

    def remove(tx: Connection) -> None:
        endpoint = metadata.tables["identity_endpoint"]
        forget_endpoints(tx, endpoint.c.service_id == service.id)
        forget_service(tx, service.id)
        db.remove(tx, Service, service.id)

    await ctx.service.write(remove)


endpoints = calls(
    Service,
    create=create_service,
    update=update_service,
    delete=delete_service,
)
