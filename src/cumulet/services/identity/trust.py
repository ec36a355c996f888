"""Trusts: GET|POST /v3/OS-TRUST/trusts, GET|DELETE of one, its roles.

A trustor lets a trustee act for him on one project, with some of his roles. A trustee who may redelegate makes a further trust
with a token of the first; the trusts of such a chain end with the one they come from.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct
from sqlalchemy import Connection, UniqueConstraint, insert, or_, select

from cumulet.api.crud import enveloped, list_page, viewer
from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import FILTER, Resource, constant, hidden, once, read, sent
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, MicroTime, Str64, new_hex_id
from cumulet.services.identity.assignments import role_ids_on
from cumulet.services.identity.calls import Ctx, refuse_delegated
from cumulet.services.identity.cascade import remove_trusts
from cumulet.services.identity.claims import APPLICATION_CREDENTIAL, TRUST
from cumulet.services.identity.fields import future, has_ended
from cumulet.services.identity.project import Project
from cumulet.services.identity.role import Role
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, undomained
from cumulet.services.identity.tables import trust_role
from cumulet.services.identity.user import User

MAX_COUNT = 2**31 - 1


class RoleName(Struct, forbid_unknown_fields=True):
    """A role to pass on, by its id or by its name."""

    id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


RoleNames = Annotated[list[RoleName], Meta(max_length=1000)]


class Trust(Resource, table="identity_trust", path="/v3/OS-TRUST/trusts", extra="extra"):
    """Leave that one user gives another to act for him on a project."""

    id: Id = read("The ID of the trust.")
    trustor_user_id: Id = once("Who gives the leave.", use=FILTER, index=True)
    trustee_user_id: Id = once("Who has it.", use=FILTER, index=True)
    project_id: Str64 | None = once("The project that it is for.", None, index=True)
    impersonation: bool = once("Whether the trustee's tokens show the trustor as their user.")
    expires_at: MicroTime | None = once("When it ends; null is never.", None)
    remaining_uses: Annotated[int, Meta(ge=1, le=MAX_COUNT)] | None = once(
        "How many tokens can still be had by it; null is any number.", None
    )
    redelegation_count: Annotated[int, Meta(ge=0, le=MAX_COUNT)] | None = once("How often it may be passed on.", None)
    redelegated_trust_id: Str64 | None = read("The trust that it was made by.", None, index=True)
    deleted_at: str | None = constant("Always null: a trust that was deleted is not shown.", None)
    allow_redelegation: bool | None = sent("Whether the trustee may pass it on.", False)
    roles: RoleNames = sent("The roles that it gives.", [])
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


_ONCE = ("trustor_user_id", "trustee_user_id", "project_id", "impersonation", "expires_at")
UniqueConstraint(*(Trust.table.c[n] for n in _ONCE), name="identity_trust_once")

_TRUSTOR = "user_id:%(target.trust.trustor_user_id)s"
_TRUSTEE = "user_id:%(target.trust.trustee_user_id)s"
_READ = undomained(f"{ADMIN_OR_SYSTEM_READER} or {_TRUSTOR} or {_TRUSTEE}")
RULES = {
    "identity:create_trust": f"domain_id:None and not system_scope:all and {_TRUSTOR}",
    "identity:list_trusts": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:list_trusts_for_trustor": undomained(f"{ADMIN_OR_SYSTEM_READER} or {_TRUSTOR}"),
    "identity:list_trusts_for_trustee": undomained(f"{ADMIN_OR_SYSTEM_READER} or {_TRUSTEE}"),
    "identity:get_trust": _READ,
    "identity:list_roles_for_trust": _READ,
    "identity:get_role_for_trust": _READ,
    "identity:delete_trust": undomained(f"{ADMIN} or {_TRUSTOR}"),
}


def refuse_application_credential(ctx: Ctx) -> None:
    """Forbidden for who speaks by an application credential, unrestricted or not: it is for one project, and a trust may
    be for another."""
    if ctx.caller.delegation == APPLICATION_CREDENTIAL:
        raise Forbidden(rule="Using method 'application_credential' is not allowed for managing trusts")


# ---- what trusts give ---------------------------------------------------------------------------------------------------


def usable(tx: Connection, id: str) -> Trust:
    """The trust; NotFound where it has ended or no use of it is left, too."""
    trust = db.get(tx, Trust, id)
    if has_ended(trust.expires_at) or trust.remaining_uses == 0:
        raise NotFound("trust", id)
    return trust


def pedigree(tx: Connection, trust: Trust) -> list[Trust]:
    """The trust and those it comes from, the first of the chain last."""
    chain = [trust]
    while chain[-1].redelegated_trust_id:
        chain.append(db.get(tx, Trust, chain[-1].redelegated_trust_id))
    return chain


def role_ids(tx: Connection, trust_id: str) -> list[str]:
    """The ids of the roles that a trust names."""
    return list(tx.execute(select(trust_role.c.role_id).where(trust_role.c.trust_id == trust_id)).scalars())


def roles_of(tx: Connection, trust_id: str) -> list[Role]:
    """The roles that a trust names."""
    mine = select(trust_role.c.role_id).where(trust_role.c.trust_id == trust_id)
    return db.find(tx, Role, Role.table.c.id.in_(mine), order=[Role.table.c.name])


def chosen_roles(tx: Connection, wanted: Sequence[RoleName]) -> list[str]:
    """The ids of the roles that a body names, each once; NotFound of one that is not there, Invalid where a name is one of
    several roles'."""
    if any((role.id is None) == (role.name is None) for role in wanted):
        raise Invalid("A role is named by exactly one of id and name.")
    c = Role.table.c
    keys = [role.id or role.name for role in wanted]
    rows = tx.execute(select(c.id, c.name).where(or_(c.id.in_(keys), c.name.in_(keys)))).all()
    found: dict[str, None] = {}
    for role in wanted:
        ids = [id for id, name in rows if id == role.id or name == role.name]
        if not ids:
            raise NotFound("role", role.id or role.name)
        if len(ids) > 1:
            raise Invalid(f"There are several roles with the name {role.name}; name it by its ID.")
        found[ids[0]] = None
    return list(found)


# ---- calls --------------------------------------------------------------------------------------------------------------


async def create_trust(ctx: Ctx, body: Any) -> Any:
    """Create a trust, as its trustor; with a token of a trust, one that passes that on."""
    ctx.require("identity:create_trust", {"target.trust.trustor_user_id": body.trustor_user_id})
    refuse_application_credential(ctx)
    refuse_delegated(ctx, "Redelegation allowed for delegated by trust only", but=TRUST)
    if body.project_id and not body.roles:
        raise Forbidden(rule="At least one role should be specified")
    if ctx.caller.user_id != body.trustor_user_id:
        raise Forbidden(rule="The authenticated user should match the trustor")
    most = ctx.service.kernel.settings.max_redelegation_count
    trust: Trust = Trust.new(
        body,
        id=new_hex_id(),
        project_id=body.project_id or None,
        expires_at=None if body.expires_at is None else future(body.expires_at),
        redelegation_count=_count(body, most),
    )
    roles = await ctx.service.write(_store, trust, body.roles, ctx.caller.delegation_id, most)
    return _whole(ctx, trust, roles)


def _count(body: Any, most: int) -> int | None:
    """How often a trust may be passed on: None where it is up to the trust that it comes from."""
    if not body.allow_redelegation or body.redelegation_count == 0:
        return 0
    if (body.redelegation_count or 0) > most:
        raise Forbidden(f"Requested redelegation depth of {body.redelegation_count} is greater than allowed {most}")
    if body.remaining_uses is not None:
        raise Invalid("remaining_uses must not be set if redelegation is allowed")
    count: int | None = body.redelegation_count
    return count


def _store(tx: Connection, trust: Trust, roles: Sequence[RoleName], source: str, most: int) -> list[Role]:
    """Store a trust, if its trustor has what he gives. `source` is the trust that it is made by the leave of."""
    if db.first(tx, User, User.table.c.id == trust.trustee_user_id) is None:
        raise NotFound("user", trust.trustee_user_id)
    wanted = chosen_roles(tx, roles)
    held: set[str] = set()
    if trust.project_id:
        if db.first(tx, Project, Project.table.c.id == trust.project_id) is None:
            raise NotFound("project", trust.project_id)
        held = role_ids_on(tx, trust.trustor_user_id, "project", trust.project_id)
    for role_id in wanted:
        if role_id not in held:
            raise NotFound("role", role_id)
    if source:
        _derive(tx, trust, usable(tx, source), wanted, most)
    elif trust.redelegation_count is None:
        trust.redelegation_count = most
    c = Trust.table.c
    same = [c[n] == getattr(trust, n) for n in _ONCE]
    if trust.expires_at is not None and db.first(tx, Trust, *same) is not None:
        raise Conflict("Conflict occurred attempting to store trust - there is one that gives the same and ends then.")
    db.insert(tx, trust)
    if wanted:
        tx.execute(insert(trust_role), [{"trust_id": trust.id, "role_id": role_id} for role_id in wanted])
    return roles_of(tx, trust.id)


def _derive(tx: Connection, trust: Trust, parent: Trust, roles: Sequence[str], most: int) -> None:
    """Make a trust one that passes on what `parent` gives; Forbidden where that is more than it does."""
    left = parent.redelegation_count or 0
    if trust.redelegation_count and trust.redelegation_count != left - 1:
        raise Forbidden("The redelegation_count of a trust that is passed on is set by the first one; leave it out.")
    if not 0 < left <= most:
        raise Forbidden(f"Remaining redelegation depth of {left} out of allowed range of [0..{most}]")
    if trust.remaining_uses is not None:
        raise Forbidden("The remaining_uses must not be set for a trust that passes on another.")
    if trust.project_id != parent.project_id:
        raise Forbidden("The trust that is passed on is for another project.")
    if trust.impersonation and not parent.impersonation:
        raise Forbidden("The trust that is passed on gives no impersonation.")
    if not {*roles} <= {*role_ids(tx, parent.id)}:
        raise Forbidden("Some of the requested roles are not in the trust that is passed on.")
    if trust.expires_at is None:
        trust.expires_at = parent.expires_at
    elif parent.expires_at is not None and trust.expires_at > parent.expires_at:
        raise Forbidden("The requested expiration is later than that of the trust that is passed on.")
    trust.redelegated_trust_id = parent.id
    if trust.redelegation_count is None:
        trust.redelegation_count = left - 1


async def list_trusts(ctx: Ctx) -> Any:
    """List trusts: all, or those of one trustor or trustee."""
    query = ctx.request.query
    rule = "identity:list_trusts"
    about = {f"target.trust.{name}": query.get(name) for name in ("trustor_user_id", "trustee_user_id")}
    if about["target.trust.trustor_user_id"]:
        rule = "identity:list_trusts_for_trustor"
    elif about["target.trust.trustee_user_id"]:
        rule = "identity:list_trusts_for_trustee"
    ctx.require(rule, about)
    refuse_application_credential(ctx)
    return await list_page(ctx, Trust, lambda _: ())


async def _asked(ctx: Ctx, id: str, rule: str) -> tuple[Trust, list[Role]]:
    """The trust that a call is about, and its roles. That there is none is told to anybody, as upstream has it."""

    def look(tx: Connection) -> tuple[Trust, list[Role]]:
        return usable(tx, id), roles_of(tx, id)

    trust, roles = await ctx.service.kernel.db.read_inline(look)
    about = {f"target.trust.{name}": getattr(trust, name) for name in ("trustor_user_id", "trustee_user_id")}
    ctx.require(rule, about)
    refuse_application_credential(ctx)
    return trust, roles


def _whole(ctx: Ctx, trust: Trust, roles: list[Role]) -> Any:
    """The reply for one trust, with its roles."""
    reply = enveloped(ctx, Trust, trust)
    view = viewer(ctx, Role, frozenset())
    links = {"self": f"{ctx.request.base_url}{Trust.options.path}/{trust.id}/roles", "next": None, "previous": None}
    reply["trust"] |= {"roles": [view(role) for role in roles], "roles_links": links}
    return reply


async def show_trust(ctx: Ctx, id: str) -> Any:
    """Show a trust with its roles."""
    return _whole(ctx, *await _asked(ctx, id, "identity:get_trust"))


async def delete_trust(ctx: Ctx, id: str) -> Response:
    """Delete a trust with those that were made by it; their tokens are void at once."""
    await _asked(ctx, id, "identity:delete_trust")
    if not await ctx.service.write(remove_trusts, Trust.table.c.id == id):
        raise NotFound("trust", id)
    return Response(204)


async def list_trust_roles(ctx: Ctx, id: str) -> Any:
    """List the roles that a trust gives."""
    reply = _whole(ctx, *await _asked(ctx, id, "identity:list_roles_for_trust"))["trust"]
    return {"roles": reply["roles"], "links": reply["roles_links"]}


async def show_trust_role(ctx: Ctx, id: str, role_id: str) -> Any:
    """Show a role that a trust gives."""
    _, roles = await _asked(ctx, id, "identity:get_role_for_trust")
    for role in roles:
        if role.id == role_id:
            return enveloped(ctx, Role, role)
    raise NotFound("role", role_id)


endpoints = [
    Endpoint("GET", "/v3/OS-TRUST/trusts", list_trusts, resource=Trust),
    Endpoint("POST", "/v3/OS-TRUST/trusts", create_trust, body=Trust, status=201, resource=Trust),
    Endpoint("GET", "/v3/OS-TRUST/trusts/{id}", show_trust, resource=Trust),
    Endpoint("DELETE", "/v3/OS-TRUST/trusts/{id}", delete_trust, resource=Trust),
    Endpoint("GET", "/v3/OS-TRUST/trusts/{id}/roles", list_trust_roles, resource=Role),
    Endpoint("GET", "/v3/OS-TRUST/trusts/{id}/roles/{role_id}", show_trust_role, resource=Role),
]
