"""Grants, who is given which role where: PUT|GET|HEAD|DELETE of one, and their lists.

A grant's path is a target (`/v3/projects/{id}`, `/v3/domains/{id}`, `/v3/system`), an actor (`users/{id}`, `groups/{id}`) and
a role; under `/v3/OS-INHERIT` it holds for the projects below the target.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, delete, insert, select

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import Forbidden, Invalid, NotFound
from cumulet.services.identity.application_credential import remove_unfounded
from cumulet.services.identity.calls import Ctx, target
from cumulet.services.identity.group import Group
from cumulet.services.identity.project import Project
from cumulet.services.identity.role import Role
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, undomained
from cumulet.services.identity.tables import SYSTEM, assignment, membership
from cumulet.services.identity.user import User

a = assignment.c

_SAME_DOMAIN = (
    "(domain_id:%(target.user.domain_id)s or domain_id:%(target.group.domain_id)s)"
    " and (domain_id:%(target.project.domain_id)s or domain_id:%(target.domain.id)s)"
)
_SAME_ROLE = "(domain_id:%(target.role.domain_id)s or None:%(target.role.domain_id)s)"
_WRITE = f"{ADMIN} or (role:manager and {_SAME_DOMAIN} and rule:domain_managed_target_role)"
RULES = {
    "identity:check_grant": f"{ADMIN_OR_SYSTEM_READER} or (role:reader and {_SAME_DOMAIN} and {_SAME_ROLE})",
    "identity:list_grants": f"{ADMIN_OR_SYSTEM_READER} or (role:reader and {_SAME_DOMAIN})",
    "identity:create_grant": _WRITE,
    "identity:revoke_grant": _WRITE,
    **{
        f"identity:{verb}_system_grant{'s' if verb == 'list' else ''}_for_{actor}": rule
        for actor in ("user", "group")
        for verb, rule in (
            ("list", undomained(ADMIN_OR_SYSTEM_READER)),
            ("check", undomained(ADMIN_OR_SYSTEM_READER)),
            ("create", undomained(ADMIN)),
            ("revoke", undomained(ADMIN)),
        )
    },
}


class Grant(Struct, frozen=True):
    """One place in the table of assignments; without `role_id` all roles of an actor on a target."""

    target_type: str
    target_id: str
    actor_type: str
    actor_id: str
    inherited: bool
    role_id: str | None = None

    def where(self) -> list[ColumnElement[bool]]:
        values = ((n, getattr(self, n)) for n in self.__struct_fields__)
        return [a[name] == value for name, value in values if value is not None]


ACTORS: dict[str, Any] = {"user": User, "group": Group}


def _read(tx: Connection, grant: Grant) -> tuple[Any, Any, Role | None]:
    """(actor, target, role) of a grant, each None where it does not exist."""
    cls = ACTORS[grant.actor_type]
    actor = db.first(tx, cls, cls.table.c.id == grant.actor_id)
    is_domain = Project.table.c.is_domain
    kind = is_domain if grant.target_type == "domain" else ~is_domain
    place = (
        None if grant.target_type == "system" else db.first(tx, Project, Project.table.c.id == grant.target_id, kind)
    )
    role = None if grant.role_id is None else db.first(tx, Role, Role.table.c.id == grant.role_id)
    return actor, place, role


def _rule(grant: Grant, verb: str) -> str:
    if grant.target_type == "system":
        return f"identity:{verb}_system_grant{'s' if verb == 'list' else ''}_for_{grant.actor_type}"
    return f"identity:{verb}_grant{'s' if verb == 'list' else ''}"


async def _checked(ctx: Ctx, grant: Grant, verb: str) -> None:
    """Forbidden, or NotFound of what the grant names. A revocation may name an actor who is gone."""
    actor, place, role = await ctx.service.kernel.db.read_inline(_read, grant)
    about = {**target(actor), **target(place, grant.target_type), **target(role)}
    ctx.require(_rule(grant, verb), about)
    if grant.role_id is not None and role is None:
        raise NotFound("role", grant.role_id)
    if actor is None and verb != "revoke":
        raise NotFound(grant.actor_type, grant.actor_id)
    if place is None and grant.target_type != "system":
        raise NotFound(grant.target_type, grant.target_id)


def _exists(tx: Connection, grant: Grant) -> bool:
    return tx.execute(select(assignment).where(*grant.where())).first() is not None


def _missing(grant: Grant) -> NotFound:
    return NotFound(
        message=f"Could not find role assignment with role: {grant.role_id}, user or group: {grant.actor_id},"
        f" project, domain, or system: {grant.target_id}."
    )


def _note(tx: Connection, grant: Grant, operation: str) -> None:
    """Have it told that a role was given or taken."""
    about = {grant.actor_type: grant.actor_id, grant.target_type: grant.target_id, "role": grant.role_id}
    id = ":".join(str(part) for part in about.values())
    db.note(tx, "role_assignment", operation, id, **about, inherited_to_projects=grant.inherited)


async def list_grants(ctx: Ctx, grant: Grant) -> Any:
    """List the roles that a user or group was given on a target."""
    await _checked(ctx, grant, "list")

    def look(tx: Connection) -> list[Role]:
        given = select(a.role_id).where(*grant.where())
        return db.find(tx, Role, Role.table.c.id.in_(given), order=[Role.table.c.name])

    view, base = Role.view(), f"{ctx.request.base_url}/v3/roles/"
    roles = [{**view(r), "links": {"self": base + r.id}} for r in await ctx.service.kernel.db.read(look)]
    return {"roles": roles, "links": {"self": ctx.request.url, "previous": None, "next": None}}


async def check_grant(ctx: Ctx, grant: Grant) -> Response:
    """Tell whether a user or group was given a role on a target."""
    await _checked(ctx, grant, "check")
    if not await ctx.service.kernel.db.read_inline(_exists, grant):
        raise _missing(grant)
    return Response(204)


async def create_grant(ctx: Ctx, grant: Grant) -> Response:
    """Give a user or group a role on a target."""
    await _checked(ctx, grant, "create")

    def store(tx: Connection) -> None:
        actor, place, role = _read(tx, grant)
        if actor is None or role is None or (place is None and grant.target_type != "system"):
            raise NotFound(message="What the grant names was removed while it was made.")
        if role.domain_id and place is None:
            raise Invalid(f"The role {role.id} is one domain's own and cannot be given on the system.")
        if role.domain_id and not place.is_domain and role.domain_id != place.domain_id:
            raise Forbidden(f"The role {role.id} is the own of another domain than that of the project {place.id}.")
        if not _exists(tx, grant):
            tx.execute(insert(assignment).values(**{n: getattr(grant, n) for n in grant.__struct_fields__}))
            _note(tx, grant, "created")

    await ctx.service.write(store)
    return Response(204)


async def revoke_grant(ctx: Ctx, grant: Grant) -> Response:
    """Take a role on a target from a user or group; tokens lose it at once."""
    await _checked(ctx, grant, "revoke")

    def remove(tx: Connection) -> None:
        if not tx.execute(delete(assignment).where(*grant.where())).rowcount:
            raise _missing(grant)
        _note(tx, grant, "deleted")
        if grant.target_type == "project" and not grant.inherited:
            members = select(membership.c.user_id).where(membership.c.group_id == grant.actor_id)
            remove_unfounded(tx, grant.target_id, [grant.actor_id] if grant.actor_type == "user" else members)

    await ctx.service.write(remove)
    return Response(204)


def _endpoint(
    method: str,
    path: str,
    serve: Callable[[Ctx, Grant], Awaitable[Any]],
    target_type: str,
    actor_type: str,
    inherited: bool,
) -> Endpoint:
    """One call on grants of this kind; the ids come from the path."""

    async def call(ctx: Ctx, actor_id: str, target_id: str = SYSTEM, role_id: str | None = None) -> Any:
        return await serve(ctx, Grant(target_type, target_id, actor_type, actor_id, inherited, role_id))

    call.__doc__ = serve.__doc__
    return Endpoint(method, path, call)


def _endpoints() -> list[Endpoint]:
    found = []
    for target_type in ("project", "domain", "system"):
        place = "/v3/system" if target_type == "system" else f"/v3/{target_type}s/{{target_id}}"
        for actor_type in ACTORS:
            for inherited in (False, True) if target_type != "system" else (False,):
                start = place.replace("/v3/", "/v3/OS-INHERIT/") if inherited else place
                end = "/inherited_to_projects" if inherited else ""
                roles = f"{start}/{actor_type}s/{{actor_id}}/roles"
                one = f"{roles}/{{role_id}}{end}"
                rest = (target_type, actor_type, inherited)
                found += [
                    _endpoint("GET", f"{roles}{end}", list_grants, *rest),
                    _endpoint("GET", one, check_grant, *rest),
                    _endpoint("PUT", one, create_grant, *rest),
                    _endpoint("DELETE", one, revoke_grant, *rest),
                ]
    return found


endpoints = _endpoints()
