"""What all resources of networking share: the standard attributes, who sees what, quotas, tags as filters."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta
from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    and_,
    bindparam,
    false,
    func,
    not_,
    or_,
    select,
    true,
    type_coerce,
)

from cumulet.api.crud import Enrich, Scope, crud
from cumulet.api.http import Endpoint
from cumulet.api.query import Filter, Listing
from cumulet.api.resource import AUTO, FIND, SORT, Body, Resource, ResourceMeta, computed, edit, once, read, sent
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import Invalid, QuotaExceeded
from cumulet.core.quota import UNLIMITED
from cumulet.core.quota import table as limits_table
from cumulet.core.types import Column, Id, Str255, Time, new_id, now

if TYPE_CHECKING:
    from cumulet.services.network.runtime import NetworkRuntime

Ctx: TypeAlias = "Context[NetworkRuntime]"

MTU = 1500
"""Bytes of a packet on every network: all bridges are of one host, so nothing is lost to an overlay's header."""

DEFAULTS: Mapping[str, int] = {
    "network": 100,
    "subnet": 100,
    "subnetpool": -1,
    "port": 500,
    "router": 10,
    "floatingip": 50,
    "security_group": 10,
    "security_group_rule": 100,
    "rbac_policy": 10,
}
"""How much of each thing a project may have (-1: without limit)."""


class Standard(Resource):
    """The attributes that every resource of networking has."""

    id: Id = read("The ID of the resource.", use=FIND)
    project_id: Annotated[str, Column(64), Meta(max_length=255)] = once("The owner.", AUTO, FIND, index=True)
    tenant_sent: Str255 = sent("The owner, by its older name.", AUTO, wire="tenant_id")
    tenant_id: Str255 = computed("The owner, by its older name.", lambda row: row.project_id)
    description: Str255 = edit("A description for people.", "", FIND)
    tags: list[str] = read("Words to find it by.", [])
    revision_number: int = read("How often it has changed.", use=FIND)
    created_at: Time = read("When it was made.", use=FIND)
    updated_at: Time = read("When it was last changed.", use=SORT)


R = TypeVar("R", bound=Standard)


def stamps(project_id: str) -> dict[str, Any]:
    """The values of a new resource that nobody sends."""
    moment = now()
    return {
        "id": new_id(),
        "project_id": project_id,
        "revision_number": 0,
        "created_at": moment,
        "updated_at": moment,
    }


def owner(ctx: Ctx, body: Body) -> str:
    """The project a new resource is to belong to; only admins may name another than their own."""
    given = body.given()
    named = given.get("project_id") or given.get("tenant_sent")
    mine = ctx.caller.project_id or ""
    if named and named != mine and not ctx.caller.is_admin:
        raise Invalid(
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin privileges",
            code="HTTPBadRequest",
        )
    if not named and not mine:
        raise Invalid("Running without keystone AuthN requires that tenant_id is specified", code="HTTPBadRequest")
    return named or mine


def empty_for_null(body: Body, *names: str) -> None:
    """Take null for an empty list, as the API does for these fields."""
    for name in names:
        if getattr(body, name) is None:
            setattr(body, name, [])


def change(tx: Connection, row: R, /, **values: Any) -> R:
    """Store new values of a resource, which gives it a new revision; returns it as it is now."""
    values.update(revision_number=row.revision_number + 1, updated_at=now())
    db.update(tx, type(row), row.id, **values)
    return msgspec.structs.replace(row, **values)


def changeable(tx: Connection, ctx: Ctx, cls: type[R], id: str, scope: Scope, rule: str, **more: Any) -> R:
    """The resource, if the caller sees it (NotFound else) and `rule` lets him act on it (Forbidden else)."""
    row = db.get(tx, cls, id, *scope(ctx))
    if not ctx.caller.is_admin:
        ctx.require(rule, {"project_id": row.project_id, "tenant_id": row.project_id, **more})
    return row


# ---- quotas -------------------------------------------------------------------------------------------------------------


@cache
def _usage(resource: str, table: Any) -> Any:
    used = select(func.count()).select_from(table).where(table.c.project_id == bindparam("project")).scalar_subquery()
    limits = limits_table.c
    limit = (
        select(limits.limit)
        .where(limits.project_id == bindparam("project"), limits.service == "network", limits.resource == resource)
        .scalar_subquery()
    )
    return select(used, limit)


def charge(tx: Connection, resource: str, cls: ResourceMeta, project_id: str, amount: int = 1) -> None:
    """Raise QuotaExceeded unless the project may have `amount` more; in the unit of work that adds them."""
    used, limit = tx.execute(_usage(resource, cls.table), {"project": project_id}).one()
    limit = DEFAULTS[resource] if limit is None else limit
    if limit != UNLIMITED and used + amount > limit:
        raise QuotaExceeded(resource, limit=limit, used=used, requested=amount)


# ---- lists --------------------------------------------------------------------------------------------------------------


def _tag_filters(cls: ResourceMeta) -> dict[str, Filter]:
    column = cls.table.c.tags

    def each(values: list[str]) -> list[ColumnElement[bool]]:
        tags = [tag for value in values for tag in value.split(",") if tag]
        return [func.instr(type_coerce(column, String), msgspec.json.encode(tag).decode()) > 0 for tag in tags]

    return {
        "tags": lambda values: and_(true(), *each(values)),
        "tags-any": lambda values: or_(false(), *each(values)),
        "not-tags": lambda values: not_(and_(true(), *each(values))),
        "not-tags-any": lambda values: not_(or_(false(), *each(values))),
    }


def listing(cls: ResourceMeta, **filters: Filter) -> Listing:
    """How a resource of networking is listed: `tenant_id` and tags are filters everywhere."""
    owner_is: Filter = cls.table.c.project_id.in_
    return Listing(filters={"tenant_id": owner_is, **_tag_filters(cls), **filters})


def field_rules(text: str, name: str, verbs: Iterable[str], fields: Iterable[str]) -> dict[str, str]:
    """The same rule for several fields and calls: `create_port:binding:host_id`, ..."""
    return {f"{verb}_{name}:{field}": text for verb in verbs for field in fields}


def calls(
    cls: type[R],
    scope: Scope,
    add: Callable[[Connection, Ctx, Any], R],
    change: Callable[[Connection, Ctx, str, Any], R] | None,
    remove: Callable[[Connection, Ctx, str], None],
    *,
    listed: Listing | None = None,
    enrich: Enrich | None = None,
) -> list[Endpoint]:
    """The endpoints of a resource, from the units of work that make, change and remove one; many are made in one
    transaction."""

    def add_all(tx: Connection, ctx: Ctx, bodies: Sequence[Any]) -> list[R]:
        return [add(tx, ctx, body) for body in bodies]

    async def create(ctx: Ctx, body: Any) -> R:
        return await ctx.service.write(add, ctx, body)

    async def create_many(ctx: Ctx, bodies: Sequence[Any]) -> list[R]:
        return await ctx.service.write(add_all, ctx, bodies)

    async def update(ctx: Ctx, id: str, body: Any) -> R:
        assert change is not None
        return await ctx.service.write(change, ctx, id, body)

    async def delete(ctx: Ctx, id: str) -> None:
        await ctx.service.write(remove, ctx, id)

    return crud(
        cls,
        policy=f"{{verb}}_{cls.options.key}",
        scope=scope,
        listing=listed or listing(cls),
        enrich=enrich,
        create=create,
        create_many=create_many,
        update=update if change is not None else None,
        delete=delete,
    )
