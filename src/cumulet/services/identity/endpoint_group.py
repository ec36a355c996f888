"""Endpoint groups, which hold all endpoints that a filter matches: GET|POST /v3/OS-EP-FILTER/endpoint_groups,
GET|PATCH|DELETE /v3/OS-EP-FILTER/endpoint_groups/{id}."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import ColumnElement, Connection, delete, true

from cumulet.api.resource import FIND, Resource, edit, read
from cumulet.core import db
from cumulet.core.errors import Invalid
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard
from cumulet.services.identity.endpoint import Endpoint
from cumulet.services.identity.fields import Label
from cumulet.services.identity.rules import system_rules
from cumulet.services.identity.tables import endpoint_group_of_project


class Filters(Struct, frozen=True, forbid_unknown_fields=True):
    """What the endpoints of a group have in common; what is not said does not matter."""

    interface: Literal["public", "internal", "admin"] | UnsetType = UNSET
    service_id: str | UnsetType = UNSET
    region_id: str | UnsetType | None = UNSET

    def given(self) -> dict[str, Any]:
        return {n: value for n in self.__struct_fields__ if (value := getattr(self, n)) is not UNSET}

    def match(self, endpoint: Any) -> bool:
        """Whether an endpoint (or a row of one) is of the group."""
        return all(getattr(endpoint, name) == value for name, value in self.given().items())

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same for the database."""
        return [true(), *(Endpoint.table.c[name] == value for name, value in self.given().items())]


class EndpointGroup(Resource, table="identity_endpoint_group", path="/v3/OS-EP-FILTER/endpoint_groups"):
    """Endpoints by what they have in common."""

    id: Id = read("The ID of the group.")
    name: Label = edit("The name.", use=FIND)
    description: Text | None = edit("What it is for.", None)
    filters: Filters = edit("What its endpoints have in common: any of `interface`, `service_id`, `region_id`.")


RULES = system_rules("endpoint_group")


async def create_group(ctx: Ctx, body: Any) -> EndpointGroup:
    group: EndpointGroup = EndpointGroup.new(body, id=new_hex_id())
    guard(ctx, "create", EndpointGroup, group)
    if not body.filters.given():
        raise Invalid("The filters of an endpoint group cannot be empty: name an interface, service_id or region_id.")
    await ctx.service.write(db.insert, group)
    return group


async def update_group(ctx: Ctx, group: EndpointGroup, body: Any) -> Any:
    """Change a group. Empty filters, which the command line sends when it is told none, match every endpoint."""
    return await ctx.service.write(change, EndpointGroup, group.id, body)


async def delete_group(ctx: Ctx, group: EndpointGroup) -> None:
    """Remove a group; projects that had it lose its endpoints."""

    def remove(tx: Connection) -> None:
        c = endpoint_group_of_project.c
        tx.execute(delete(endpoint_group_of_project).where(c.endpoint_group_id == group.id))
        db.remove(tx, EndpointGroup, group.id)

    await ctx.service.write(remove)


endpoints = calls(
    EndpointGroup,
    create=create_group,
    update=update_group,
    delete=delete_group,
)
