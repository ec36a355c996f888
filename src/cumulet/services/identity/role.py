"""Roles: GET|POST /v3/roles, GET|PATCH|DELETE /v3/roles/{id}, what they imply, GET /v3/role_inferences."""

from typing import Any

from sqlalchemy import Connection, UniqueConstraint, delete, insert, select

from cumulet.api.crud import everything, list_page
from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import FILTER, FIND, Resource, ResourceMeta, edit, hidden, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, search, target
from cumulet.services.identity.cascade import forget_role
from cumulet.services.identity.fields import DomainId, Label
from cumulet.services.identity.options import Options, merged, refuse_change, refuse_loss
from cumulet.services.identity.project import check_domain
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, system_rules, undomained
from cumulet.services.identity.tables import implied_role


class Role(Resource, table="identity_role", path="/v3/roles", extra="extra"):
    """What somebody may do, as policy rules name it."""

    id: Id = read("The ID of the role.", use=FIND)
    name: Label = edit("The name, unique among the cloud's roles or in the domain.", use=FIND)
    domain_id: DomainId | None = edit("The domain, of a role that is one domain's own.", "", FILTER)
    description: Text | None = edit("What it allows.", None)
    option_values: Options = edit("Options such as `immutable`.", {}, wire="options")
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


LISTING = search(Role)
PROHIBITED = frozenset({"admin"})
"""Roles that no other may imply."""

UniqueConstraint(Role.table.c.domain_id, Role.table.c.name, name="identity_role_name")

RULES = {
    **system_rules("role"),
    **system_rules("domain_role"),
    "identity:get_role": f"{ADMIN_OR_SYSTEM_READER} or (role:manager and rule:domain_managed_target_role)",
    "identity:list_roles": f"{ADMIN_OR_SYSTEM_READER} or (role:manager and not domain_id:None)",
    **{f"identity:{verb}_implied_role": undomained(ADMIN_OR_SYSTEM_READER) for verb in ("get", "check")},
    "identity:list_implied_roles": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:list_role_inference_rules": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:create_implied_role": undomained(ADMIN),
    "identity:delete_implied_role": undomained(ADMIN),
}


def ask(ctx: Ctx, verb: str, cls: ResourceMeta, item: Any) -> None:
    """Forbidden unless the caller may do this to the role; those of a domain have rules of their own."""
    kind = "domain_role" if getattr(item, "domain_id", None) else "role"
    ctx.require(f"identity:{verb}_{kind}", target(item, "role"))


async def list_roles(ctx: Ctx) -> Any:
    """List the cloud's own roles, or with `domain_id` those of a domain."""
    of_domain = bool(ctx.request.query.get("domain_id"))
    ctx.require("identity:list_domain_roles" if of_domain else "identity:list_roles", {})
    own = [] if of_domain else [Role.table.c.domain_id == ""]
    return await list_page(ctx, Role, everything, listing=LISTING, extra=own)


async def create_role(ctx: Ctx, body: Any) -> Role:
    ask(ctx, "create", Role, body)
    role: Role = Role.new(
        body, id=new_hex_id(), domain_id=body.domain_id or "", option_values=merged(None, body.option_values)
    )

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
    given = body.given()
    refuse_change(role, given)
    if (given.get("domain_id", role.domain_id) or "") != role.domain_id:
        raise Invalid("Update of `domain_id` is not allowed.")

    def store(tx: Connection) -> Any:
        changed = change(tx, Role, role.id, body, domain_id=role.domain_id)
        _check_name(tx, changed)
        return changed

    return await ctx.service.write(store)


async def delete_role(ctx: Ctx, role: Role) -> None:
    refuse_loss(role)
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


async def _named(ctx: Ctx, verb: str, *ids: str) -> list[Role]:
    """The roles of a path. Everybody learns which of them is not there; the rule is asked then."""

    def look(tx: Connection) -> list[Role]:
        return [db.get(tx, Role, id) for id in ids]

    roles = await ctx.service.kernel.db.read_inline(look)
    ctx.require(f"identity:{verb}", dict(zip(("target.prior_role.id", "target.implied_role.id"), ids, strict=False)))
    return roles


async def list_implied(ctx: Ctx, id: str) -> Any:
    """List the roles that a role implies."""
    (prior,) = await _named(ctx, "list_implied_roles", id)
    pairs = await ctx.service.kernel.db.read(_inferences, id)
    rule = {"prior_role": _brief(ctx, prior), "implies": [_brief(ctx, role) for _, role in pairs]}
    return {"role_inference": rule, "links": {"self": ctx.request.url}}


async def list_inferences(ctx: Ctx) -> Any:
    """List every role with those that it implies."""
    grouped: dict[str, dict[str, Any]] = {}
    for prior, role in await ctx.service.kernel.db.read(_inferences):
        rule = grouped.setdefault(prior.id, {"prior_role": _brief(ctx, prior), "implies": []})
        rule["implies"].append(_brief(ctx, role))
    return {"role_inferences": list(grouped.values()), "links": {"self": ctx.request.url}}


def _implies(tx: Connection, prior: str, implied: str) -> bool:
    c = implied_role.c
    return (
        tx.execute(select(implied_role).where(c.prior_role_id == prior, c.implied_role_id == implied)).first()
        is not None
    )


async def _inference(ctx: Ctx, prior: Role, implied: Role) -> Any:
    if not await ctx.service.kernel.db.read_inline(_implies, prior.id, implied.id):
        raise NotFound(message=f"{prior.id} does not imply {implied.id}.")
    rule = {"prior_role": _brief(ctx, prior), "implies": _brief(ctx, implied)}
    return {"role_inference": rule, "links": {"self": ctx.request.url}}


async def show_implied(ctx: Ctx, id: str, implied_id: str) -> Any:
    """Show that a role implies another."""
    return await _inference(ctx, *await _named(ctx, "get_implied_role", id, implied_id))


async def check_implied(ctx: Ctx, id: str, implied_id: str) -> Response:
    """Tell whether a role implies another."""
    await _inference(ctx, *await _named(ctx, "check_implied_role", id, implied_id))
    return Response(204)


async def create_implied(ctx: Ctx, id: str, implied_id: str) -> Any:
    """Let a role imply another."""
    prior, implied = await _named(ctx, "create_implied_role", id, implied_id)
    if implied.name in PROHIBITED:
        raise Forbidden(f"{implied_id} cannot be an implied role: {implied.name} may only be given by itself.")
    if implied.domain_id and not prior.domain_id:
        raise Forbidden(f"{implied_id} cannot be an implied role of {id}: it is one domain's own, and {id} is not.")
    if id == implied_id:
        raise Invalid("A role cannot imply itself.")

    def store(tx: Connection) -> None:
        db.get(tx, Role, id)
        db.get(tx, Role, implied_id)
        if _implies(tx, id, implied_id):
            raise Conflict(f"Conflict occurred attempting to store implied_role - {id} implies {implied_id} already.")
        tx.execute(insert(implied_role).values(prior_role_id=id, implied_role_id=implied_id))

    await ctx.service.write(store)
    return await _inference(ctx, prior, implied)


async def delete_implied(ctx: Ctx, id: str, implied_id: str) -> Response:
    """Let a role no longer imply another."""
    await _named(ctx, "delete_implied_role", id, implied_id)
    c = implied_role.c
    statement = delete(implied_role).where(c.prior_role_id == id, c.implied_role_id == implied_id)
    if not await ctx.service.write(lambda tx: tx.execute(statement).rowcount):
        raise NotFound(message=f"{id} does not imply {implied_id}.")
    return Response(204)


_IMPLIED = "/v3/roles/{id}/implies/{implied_id}"
_plain = calls(
    Role, create=create_role, update=update_role, delete=delete_role, ask=ask, told=("get", "update", "delete")
)
endpoints = [
    Endpoint("GET", "/v3/roles", list_roles, resource=Role),
    *(e for e in _plain if (e.method, e.path) != ("GET", "/v3/roles")),
    Endpoint("GET", "/v3/roles/{id}/implies", list_implied),
    Endpoint("GET", _IMPLIED, show_implied),
    Endpoint("HEAD", _IMPLIED, check_implied),
    Endpoint("PUT", _IMPLIED, create_implied, status=201),
    Endpoint("DELETE", _IMPLIED, delete_implied),
    Endpoint("GET", "/v3/role_inferences", list_inferences, "identity:list_role_inference_rules"),
]
