"""Mappings: PUT|GET|PATCH|DELETE /v3/OS-FEDERATION/mappings/{id}, and their list. What rules mean is in `rules.py`."""

from typing import Any

from msgspec import UNSET
from sqlalchemy import Connection, select

from cumulet.api.resource import FIND, Resource, edit, read
from cumulet.core import db
from cumulet.core.errors import Conflict
from cumulet.core.types import Id, Str64
from cumulet.services.identity.calls import Ctx, calls, change
from cumulet.services.identity.federation.identity_provider import check_id
from cumulet.services.identity.federation.rules import parsed
from cumulet.services.identity.rules import system_rules

OLDEST = "1.0"


class Mapping(Resource, table="identity_mapping", path="/v3/OS-FEDERATION/mappings", ignore_unknown=True):
    """Rules that make local users, groups and projects of a provider's assertions."""

    id: Id = read("The ID of the mapping.", use=FIND)
    rules: list[Any] = edit("The rules, each with what is asked of an assertion and what is made of it.")
    schema_version: Str64 | None = edit("The version of the rules' language: 1.0, 2.0 or 3.0.", None)


RULES = system_rules("mapping")


async def create_mapping(ctx: Ctx, id: str, body: Any) -> Mapping:
    """Store rules that make sense."""
    ctx.require("identity:create_mapping")
    check_id(id)
    mapping: Mapping = Mapping.new(body, id=id, schema_version=body.schema_version or OLDEST)
    parsed(mapping.rules, mapping.schema_version or OLDEST)

    def store(tx: Connection) -> None:
        c = Mapping.table.c
        if tx.execute(select(c.id).where(c.id == id)).first() is not None:
            raise Conflict(f"Conflict occurred attempting to store mapping - Duplicate entry found with ID {id}.")
        db.insert(tx, mapping)

    await ctx.service.write(store)
    return mapping


async def update_mapping(ctx: Ctx, mapping: Mapping, body: Any) -> Any:
    """Replace the rules: as a whole, since it is as a whole that they make sense."""
    version = OLDEST if body.schema_version is UNSET else body.schema_version or OLDEST
    parsed(None if body.rules is UNSET else body.rules, version)
    return await ctx.service.write(change, Mapping, mapping.id, body, schema_version=version)


async def delete_mapping(ctx: Ctx, mapping: Mapping) -> None:
    await ctx.service.write(db.remove, Mapping, mapping.id)


endpoints = calls(Mapping, put=create_mapping, update=update_mapping, delete=delete_mapping)
