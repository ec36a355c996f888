"""Limits of projects and domains that override registered ones: GET|POST /v3/limits, GET|PATCH|DELETE /v3/limits/{id};
GET /v3/limits/model."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, UniqueConstraint, and_, func, or_, select, tuple_

from cumulet.api.crud import enveloped
from cumulet.api.http import Endpoint
from cumulet.api.resource import AUTO, FILTER, Resource, edit, hidden, once, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, bulk, calls, change
from cumulet.services.identity.fields import Label
from cumulet.services.identity.limit_model import LimitModel, check_limits
from cumulet.services.identity.project import Project
from cumulet.services.identity.registered_limit import Amount, LimitRegion, RegisteredLimit, check_place
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, ANYBODY, undomained
from cumulet.services.identity.service import Service


class Limit(Resource, table="identity_limit", path="/v3/limits"):
    """How much of a service's resource one project or domain may have. Service, region and resource are those of a
    registered limit, which cannot change while this is there."""

    id: Id = read("The ID of the limit.")
    project_id: Id | None = once("The project it is for; exactly one of it and `domain_id` is sent.", AUTO, FILTER)
    domain_id: Id | None = once("The domain it is for.", AUTO, FILTER, index=True)
    service_id: Id = once("The service whose resource it is.", use=FILTER)
    region_id: LimitRegion | None = once("The region it holds in.", None, FILTER)
    resource_name: Label = once("The resource, as the service calls it.", use=FILTER)
    resource_limit: Amount = edit("How much there may be; -1: unlimited.")
    description: Text | None = edit("What it is.", None)
    registered_limit_id: Id = hidden("The registered limit that it overrides.")
    owner_id: Id = hidden("The project or domain.", index=True)


UniqueConstraint(Limit.table.c.registered_limit_id, Limit.table.c.owner_id, name="identity_limit_owner")

RULES = {
    "identity:get_limit_model": ANYBODY,
    "identity:get_limit": (
        f"{ADMIN_OR_SYSTEM_READER} or domain_id:%(target.limit.domain.id)s"
        " or domain_id:%(target.limit.project.domain_id)s"
        " or (project_id:%(target.limit.project_id)s and not None:%(target.limit.project_id)s)"
    ),
    "identity:list_limits": ANYBODY,
    "identity:create_limits": undomained(ADMIN),
    "identity:update_limit": undomained(ADMIN),
    "identity:delete_limit": undomained(ADMIN),
}


async def create_limits(ctx: Ctx, bodies: list[Any]) -> list[Limit]:
    return await ctx.service.write(_store, ctx.service.limit_model, bodies)


def _store(tx: Connection, model: LimitModel, bodies: list[Any]) -> list[Limit]:
    check_place(tx, Limit.kind, {body.service_id for body in bodies}, {b.region_id for b in bodies if b.region_id})
    owners = _owners(tx, bodies)
    registered = _registered(tx, bodies)
    made = []
    for body in bodies:
        owner = owners[_owner_id(body)]
        key = body.service_id, body.region_id or "", body.resource_name
        if key not in registered:
            raise Forbidden("Unable to create a limit that has no corresponding registered limit.")
        limit = Limit.new(
            body,
            id=new_hex_id(),
            region_id=key[1],
            registered_limit_id=registered[key].id,
            owner_id=owner.id,
            project_id=None if owner.is_domain else owner.id,
            domain_id=owner.id if owner.is_domain else None,
        )
        made.append(limit)
    parents = {owner.id: owner.parent_id for owner in owners.values()}
    check_limits(tx, model, made, {r.id: r for r in registered.values()}, parents)
    taken = [(limit.registered_limit_id, limit.owner_id) for limit in made]
    c = Limit.table.c
    pairs = tuple_(c.registered_limit_id, c.owner_id).in_(taken)
    if len(set(taken)) < len(taken) or db.first(tx, Limit, pairs) is not None:
        raise Conflict("Conflict occurred attempting to store limit - Duplicate entry.")
    db.insert_many(tx, made)
    return made


def _owner_id(body: Any) -> str:
    given = body.given()
    found = [given[name] for name in ("project_id", "domain_id") if name in given]
    if len(found) != 1 or found[0] is None:
        raise Invalid("A limit is for one project or one domain: send exactly one of project_id and domain_id.")
    owner: str = found[0]
    return owner


def _owners(tx: Connection, bodies: list[Any]) -> dict[str, Project]:
    """The projects and domains that limits are for. A project that is a domain may be named as either."""
    found = {p.id: p for p in db.find(tx, Project, Project.table.c.id.in_({_owner_id(body) for body in bodies}))}
    for body in bodies:
        kind = "domain_id" if "domain_id" in body.given() else "project_id"
        owner = found.get(_owner_id(body))
        if owner is None or (kind == "domain_id" and not owner.is_domain):
            raise Invalid(f"The {kind} of a limit must name one that exists; {_owner_id(body)} does not.")
    return found


def _registered(tx: Connection, bodies: list[Any]) -> dict[tuple[str, str, str], RegisteredLimit]:
    c = RegisteredLimit.table.c
    found = db.find(
        tx,
        RegisteredLimit,
        c.service_id.in_({body.service_id for body in bodies}),
        c.resource_name.in_({body.resource_name for body in bodies}),
    )
    return {(r.service_id, r.region_id or "", r.resource_name): r for r in found}


async def update_limit(ctx: Ctx, limit: Limit, body: Any) -> Limit:
    def store(tx: Connection) -> Limit:
        changed: Limit = change(tx, Limit, limit.id, body)
        default = db.get(tx, RegisteredLimit, changed.registered_limit_id)
        parents = {changed.owner_id: db.get(tx, Project, changed.owner_id).parent_id}
        check_limits(tx, ctx.service.limit_model, [changed], {default.id: default}, parents)
        return changed

    return await ctx.service.write(store)


async def delete_limit(ctx: Ctx, limit: Limit) -> None:
    await ctx.service.write(db.remove, Limit, limit.id)


async def show_limit(ctx: Ctx, id: str) -> Any:
    """Show a limit."""

    def look(tx: Connection) -> tuple[Limit | None, Project | None]:
        limit = db.first(tx, Limit, Limit.table.c.id == id)
        return limit, None if limit is None else db.first(tx, Project, Project.table.c.id == limit.owner_id)

    limit, owner = await ctx.service.kernel.db.read_inline(look)
    target = {}
    if limit is not None and owner is not None:
        target = {
            "target.limit.project_id": limit.project_id,
            "target.limit.domain.id": limit.domain_id,
            "target.limit.project.domain_id": owner.domain_id or None,
        }
    ctx.require("identity:get_limit", target)
    if limit is None:
        raise NotFound("limit", id)
    return enveloped(ctx, Limit, limit)


async def show_model(ctx: Ctx) -> Any:
    """Show the enforcement model of limits."""
    model = ctx.service.limit_model
    return {"model": {"name": model.name, "description": model.description}}


def visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """Admins, services and the system's callers see all, a domain's its own and its projects', a project's its own."""
    caller, c = ctx.caller, Limit.table.c
    if caller.system or {"admin", "service"} & caller.roles:
        return ()
    if caller.domain_id:
        projects = select(Project.table.c.id).where(Project.table.c.domain_id == caller.domain_id)
        return (or_(c.domain_id == caller.domain_id, c.project_id.in_(projects)),)
    return (c.project_id == (caller.project_id or ""),)


def limits_of(tx: Connection, service_type: str, project_id: str, region: str) -> dict[str, int]:
    """How much of each resource of a service a project may have: its own limit, or else the registered default; what is
    registered for the region goes before what is registered for all."""
    r, own, s = RegisteredLimit.table.c, Limit.table.c, Service.table.c
    chosen = (
        select(r.resource_name, func.coalesce(own.resource_limit, r.default_limit))
        .join_from(RegisteredLimit.table, Service.table, s.id == r.service_id)
        .outerjoin(Limit.table, and_(own.registered_limit_id == r.id, own.project_id == project_id))
        .where(s.type == service_type, r.region_id.in_(("", region)))
        .order_by(r.region_id, r.id)
    )
    return {row[0]: row[1] for row in tx.execute(chosen)}


_plain = calls(
    Limit,
    update=update_limit,
    delete=delete_limit,
    scope=visible,
)
endpoints = [
    bulk(Limit, create_limits),
    *(call for call in _plain if (call.method, call.path) != ("GET", "/v3/limits/{id}")),
    Endpoint("GET", "/v3/limits/model", show_model, "identity:get_limit_model"),
    Endpoint("GET", "/v3/limits/{id}", show_limit, resource=Limit),
]
