"""Roles: GET|POST /v3/roles, GET|PATCH|DELETE /v3/roles/{id}, what they imply, GET /v3/role_inferences."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, UniqueConstraint, delete, insert, select

from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Listing
from cumulet.api.resource import FILTER, FIND, Resource, edit, hidden, once, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard, inexact
from cumulet.services.identity.cascade import forget_role
from cumulet.services.identity.fields import DomainId, Label
from cumulet.services.identity.project import check_domain
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, system_rules
from cumulet.services.identity.tables import implied_role


class Role(Resource, table="identity_role", path="/v3/roles", extra="extra"):
    """What somebody may do, as policy rules name it."""

    id: Id = read("The ID of the role.", use=FIND)
    name: Label = edit("The name, unique among the cloud's roles or in the domain.", use=FIND)
    domain_id: DomainId | None = once("The domain, of a role that is one domain's own.", "", FILTER)
    description: Text | None = edit("What it allows.", None)
    option_values: dict[str, Any] = edit("Options such as `immutable`.", {}, wire="options")
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


UniqueConstraint(Role.table.c.domain_id, Role.table.c.name, name="identity_role_name")

_READ = f"{ADMIN_OR_SYSTEM_READER} or (role:manager and not domain_id:None)"
RULES = {
    **system_rules("role"),
    "identity:get_role": _READ,
    "identity:list_roles": _READ,
    **{f"identity:{verb}_implied_role": ADMIN_OR_SYSTEM_READER for verb in ("get", "check")},
    "identity:list_implied_roles": ADMIN_OR_SYSTEM_READER,
    "identity:list_role_inference_rules": ADMIN_OR_SYSTEM_READER,
    "identity:create_implied_role": ADMIN,
    "identity:delete_implied_role": ADMIN,
}


def of_cloud(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """A list holds the cloud's own roles unless it asks for a domain's."""
    return () if "domain_id" in ctx.request.query else (Role.table.c.domain_id == "",)


async def create_role(ctx: Ctx, body: Any) -> Role:
    role: Role = Role.new(body, id=new_hex_id(), domain_id=body.domain_id or "")
    guard(ctx, "create", Role, role)

    def store(tx: Connection) -> None:
        if role.domain_id:
            check_domain(tx, role.domain_id)
        _check_name(tx, role)
        db.insert(tx, role)

    await ctx.service.write(store)
    return role


def _check_name(tx: Connection, role: Role) -> None:
    c = Role.table.c
    twin = select(c.id).where(c.domain_id == role.domain_id, c.name == role.name, c.id != role.id)
    if tx.execute(twin).first() is not None:
        raise Conflict(f"Conflict occurred attempting to store role - Duplicate entry found with name {role.name}.")


async def update_role(ctx: Ctx, role: Role, body: Any) -> Any:
    def store(tx: Connection) -> Any:
        changed = change(tx, Role, role.id, body)
        _check_name(tx, changed)
        return changed

    return await ctx.service.write(store)


async def delete_role(ctx: Ctx, role: Role) -> None:
    await ctx.service.write(remove_role, ctx.service, role.id)


def remove_role(tx: Connection, service: Any, id: str) -> None:
    """Remove a role from everybody who holds it, and what it implies."""
    forget_role(tx, id)
    db.remove(tx, Role, id)


# ---- implied roles ------------------------------------------------------------------------------------------------------


def _brief(ctx: Ctx, role: Role) -> dict[str, Any]:
    link = f"{ctx.request.base_url}/v3/roles/{role.id}"
    return {"id": role.id, "name": role.name, "links": {"self": link}}


def _inferences(tx: Connection, prior: str | None = None) -> list[tuple[Role, Role]]:
    """(role, role it implies), of all roles or of one."""
    statement = select(implied_role)
    if prior is not None:
        statement = statement.where(implied_role.c.prior_role_id == prior)
    pairs = tx.execute(statement).all()
    roles = {r.id: r for r in db.find(tx, Role, Role.table.c.id.in_({i for pair in pairs for i in pair}))}
    return [(roles[a], roles[b]) for a, b in pairs]


async def list_implied(ctx: Ctx, id: str) -> Any:
    """List the roles that a role implies."""

    def look(tx: Connection) -> tuple[Role, list[tuple[Role, Role]]]:
        return db.get(tx, Role, id), _inferences(tx, id)

    prior, pairs = await ctx.service.kernel.db.read(look)
    rule = {"prior_role": _brief(ctx, prior), "implies": [_brief(ctx, role) for _, role in pairs]}
    return {"role_inference": rule, "links": {"self": ctx.request.url}}


async def list_inferences(ctx: Ctx) -> Any:
    """List every role with those that it implies."""
    grouped: dict[str, dict[str, Any]] = {}
    for prior, role in await ctx.service.kernel.db.read(_inferences):
        rule = grouped.setdefault(prior.id, {"prior_role": _brief(ctx, prior), "implies": []})
        rule["implies"].append(_brief(ctx, role))
    return {"role_inferences": list(grouped.values()), "links": {"self": ctx.request.url}}


async def show_implied(ctx: Ctx, id: str, implied_id: str) -> Any:
    """Show that a role implies another."""
    pairs = await ctx.service.kernel.db.read(_inferences, id)
    for prior, role in pairs:
        if role.id == implied_id:
            rule = {"prior_role": _brief(ctx, prior), "implies": _brief(ctx, role)}
            return {"role_inference": rule, "links": {"self": ctx.request.url}}
    raise NotFound(message=f"{id} does not imply {implied_id}.")


async def check_implied(ctx: Ctx, id: str, implied_id: str) -> Response:
    """Tell whether a role implies another."""
    await show_implied(ctx, id, implied_id)
    return Response(204)


async def create_implied(ctx: Ctx, id: str, implied_id: str) -> Any:
    """Let a role imply another."""

    def store(tx: Connection) -> None:
        prior, implied = db.get(tx, Role, id), db.get(tx, Role, implied_id)
        if implied.name == "admin" or (implied.domain_id and not prior.domain_id):
            raise Forbidden(f"{implied_id} cannot be an implied role of {id}.")
        if id == implied_id:
            raise Invalid("A role cannot imply itself.")
        row = {"prior_role_id": id, "implied_role_id": implied_id}
        if tx.execute(select(implied_role).filter_by(**row)).first() is None:
            tx.execute(insert(implied_role).values(row))

    await ctx.service.write(store)
    return await show_implied(ctx, id, implied_id)


async def delete_implied(ctx: Ctx, id: str, implied_id: str) -> Response:
    """Let a role no longer imply another."""
    c = implied_role.c
    statement = delete(implied_role).where(c.prior_role_id == id, c.implied_role_id == implied_id)
    if not await ctx.service.write(lambda tx: tx.execute(statement).rowcount):
        raise NotFound(message=f"{id} does not imply {implied_id}.")
    return Response(204)


endpoints = [
    *calls(
        Role,
        create=create_role,
        update=update_role,
        delete=delete_role,
        scope=of_cloud,
        listing=Listing(sort=(("id", "asc"),), filters=inexact(Role, "name")),
    ),
    Endpoint("GET", "/v3/roles/{id}/implies", list_implied, "identity:list_implied_roles"),
    Endpoint("GET", "/v3/roles/{id}/implies/{implied_id}", show_implied, "identity:get_implied_role"),
    Endpoint("HEAD", "/v3/roles/{id}/implies/{implied_id}", check_implied, "identity:check_implied_role"),
    Endpoint("PUT", "/v3/roles/{id}/implies/{implied_id}", create_implied, "identity:create_implied_role", status=201),
    Endpoint("DELETE", "/v3/roles/{id}/implies/{implied_id}", delete_implied, "identity:delete_implied_role"),
    Endpoint("GET", "/v3/role_inferences", list_inferences, "identity:list_role_inference_rules"),
]
