"""Who holds which role where: PUT|GET|HEAD|DELETE of grants, their lists, GET /v3/role_assignments.

A grant's path is a target (`/v3/projects/{id}`, `/v3/domains/{id}`, `/v3/system`), an actor (`users/{id}`, `groups/{id}`) and
a role; under `/v3/OS-INHERIT` it holds for the projects below the target.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select

from cumulet.api.http import Endpoint, Query, Response
from cumulet.api.query import FALSE
from cumulet.core import db
from cumulet.core.errors import Invalid, NotFound
from cumulet.services.identity.application_credential import remove_unfounded
from cumulet.services.identity.assignments import imply, named
from cumulet.services.identity.calls import Ctx, target
from cumulet.services.identity.group import Group
from cumulet.services.identity.project import Project, of_user
from cumulet.services.identity.role import Role
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, of_domain
from cumulet.services.identity.tables import SYSTEM, assignment, membership
from cumulet.services.identity.user import User

a = assignment.c

_SAME_DOMAIN = (
    "(domain_id:%(target.user.domain_id)s or domain_id:%(target.group.domain_id)s)"
    " and (domain_id:%(target.project.domain_id)s or domain_id:%(target.domain.id)s)"
)
_READ = f"{ADMIN_OR_SYSTEM_READER} or (role:reader and {_SAME_DOMAIN})"
_WRITE = f"{ADMIN} or (role:manager and {_SAME_DOMAIN} and rule:domain_managed_target_role)"
RULES = {
    "domain_managed_target_role": (
        "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s"
    ),
    "identity:check_grant": _READ,
    "identity:list_grants": _READ,
    "identity:create_grant": _WRITE,
    "identity:revoke_grant": _WRITE,
    **{
        f"identity:{verb}_system_grant{'s' if verb == 'list' else ''}_for_{actor}": rule
        for actor in ("user", "group")
        for verb, rule in (
            ("list", ADMIN_OR_SYSTEM_READER),
            ("check", ADMIN_OR_SYSTEM_READER),
            ("create", ADMIN),
            ("revoke", ADMIN),
        )
    },
    "identity:list_role_assignments": f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.domain_id')}",
    "identity:list_role_assignments_for_tree": f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.domain_id')}",
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
    db.note(
        tx,
        "role_assignment",
        operation,
        ":".join(str(id) for id in about.values()),
        **about,
        inherited_to_projects=grant.inherited,
    )


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
        if role.domain_id and role.domain_id != (place.domain_id or place.id if place else None):
            raise Invalid("A role of a domain can only be assigned within that domain.")
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


# ---- all assignments ----------------------------------------------------------------------------------------------------


class Row(Struct, frozen=True):
    """An assignment as it is listed: stored, or one that follows from a stored one."""

    actor_type: str
    actor_id: str
    target_type: str
    target_id: str
    role_id: str
    inherited: bool
    group_id: str | None = None  # of the group whose assignment this is, for a user in it


async def list_assignments(ctx: Ctx) -> Any:
    """List role assignments; with `effective`, what follows from groups, inheritance and implied roles."""
    query: Query = ctx.request.query
    subtree = _flag(query, "include_subtree")
    rule = "identity:list_role_assignments_for_tree" if subtree else "identity:list_role_assignments"
    ctx.require(rule, {"target.domain_id": ctx.caller.domain_id})
    effective, names = _flag(query, "effective"), _flag(query, "include_names")
    if effective and query.get("group.id"):
        raise Invalid("Combining effective and group filter will always result in an empty list.")
    if subtree and not query.get("scope.project.id"):
        raise Invalid("scope.project.id must be specified if include_subtree is also specified")
    rows, known = await ctx.service.kernel.db.read(_collect, query, effective, subtree, ctx.caller.domain_id, names)
    items = [_shown(ctx, row, known, names) for row in rows]
    return {"role_assignments": items, "links": {"self": ctx.request.url, "previous": None, "next": None}}


def _flag(query: Query, name: str) -> bool:
    """A parameter that counts as true by being there, unless its value denies it."""
    value = query.get(name)
    return value is not None and value.lower() not in FALSE


Known = dict[str, Any]
"""What the rows name, by id."""


def _collect(
    tx: Connection, query: Query, effective: bool, subtree: bool, domain_id: str | None, names: bool
) -> tuple[list[Row], Known]:
    rows = [Row(*row) for row in tx.execute(select(assignment).where(*_wanted(query, effective)))]
    if effective:
        rows = _expand(tx, rows)
    rows = [row for row in rows if _matches(tx, row, query, subtree)]
    known: Known = {}
    if names or domain_id:
        found: tuple[tuple[Any, set[str]], ...] = (
            (User, {r.actor_id for r in rows if r.actor_type == "user"}),
            (Group, {r.actor_id for r in rows if r.actor_type == "group"}),
            (Project, {r.target_id for r in rows}),
            (Role, {r.role_id for r in rows}),
        )
        for cls, ids in found:
            known |= {item.id: item for item in db.find(tx, cls, cls.table.c.id.in_(ids))}
        domains = {getattr(item, "domain_id", None) for item in known.values()} - {None, ""}
        known |= {item.id: item for item in db.find(tx, Project, Project.table.c.id.in_(domains))}
    if domain_id:
        rows = [
            r for r in rows if r.target_id == domain_id or getattr(known.get(r.target_id), "domain_id", "") == domain_id
        ]
    return rows, known


def _wanted(query: Query, effective: bool) -> list[ColumnElement[bool]]:
    """The conditions that hold for stored rows whatever follows from them."""
    where: list[ColumnElement[bool]] = []
    if user := query.get("user.id"):
        where.append(of_user(user) if effective else and_(a.actor_type == "user", a.actor_id == user))
    if group := query.get("group.id"):
        where.append(and_(a.actor_type == "group", a.actor_id == group))
    if not effective:
        if role := query.get("role.id"):
            where.append(a.role_id == role)
        if query.get("scope.OS-INHERIT:inherited_to"):
            where.append(a.inherited)
    if query.get("scope.system"):
        where.append(a.target_type == "system")
    if domain := query.get("scope.domain.id"):
        where.append(and_(a.target_type == "domain", a.target_id == domain))
    elif "scope.project.id" in query:
        where.append(or_(a.target_type == "project", a.inherited))
    return where


def _expand(tx: Connection, rows: list[Row]) -> list[Row]:
    """The assignments that follow: of each user in a group, on each project below, of each implied role."""
    members: dict[str, list[str]] = {}
    for user_id, group_id in tx.execute(select(membership.c.user_id, membership.c.group_id)):
        members.setdefault(group_id, []).append(user_id)
    below: dict[str, list[str]] = {}
    if any(row.inherited for row in rows):
        c = Project.table.c
        for project_id, parent_id in tx.execute(select(c.id, c.parent_id).where(~c.is_domain)):
            below.setdefault(parent_id, []).append(project_id)
    implied = {role: [r.id for r in named(tx, imply(tx, {role}))] for role in {row.role_id for row in rows}}
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        users = members.get(row.actor_id, []) if row.actor_type == "group" else [row.actor_id]
        targets = (
            [("project", child) for child in _tree(below, row.target_id)]
            if row.inherited
            else [(row.target_type, row.target_id)]
        )
        group = row.actor_id if row.actor_type == "group" else None
        for user in users:
            for kind, place in targets:
                for role in implied[row.role_id]:
                    found.setdefault((user, kind, place, role), Row("user", user, kind, place, role, False, group))
    return list(found.values())


def _tree(below: dict[str, list[str]], top: str) -> list[str]:
    found = list(below.get(top, []))
    for child in found:  # which grows meanwhile
        found += below.get(child, [])
    return found


def _matches(tx: Connection, row: Row, query: Query, subtree: bool) -> bool:
    """The conditions that only hold for what follows from the stored rows."""
    if (user := query.get("user.id")) and (row.actor_type != "user" or row.actor_id != user):
        return False
    if (role := query.get("role.id")) and row.role_id != role:
        return False
    project = query.get("scope.project.id")
    if not project:
        return True
    if row.target_type != "project":
        return False
    if row.target_id == project or not subtree:
        return row.target_id == project
    above = tx.execute(select(Project.table.c.parent_id).where(Project.table.c.id == row.target_id)).scalar()
    while above and above != project:
        above = tx.execute(select(Project.table.c.parent_id).where(Project.table.c.id == above)).scalar()
    return above == project


def _shown(ctx: Ctx, row: Row, known: Known, names: bool) -> dict[str, Any]:
    def ref(id: str) -> dict[str, Any]:
        item = known.get(id) if names else None
        if item is None:
            return {"id": id}
        domain = known.get(getattr(item, "domain_id", None) or "")
        return {"id": id, "name": item.name, **({"domain": {"id": domain.id, "name": domain.name}} if domain else {})}

    scope: dict[str, Any] = (
        {"system": {"all": True}} if row.target_type == "system" else {row.target_type: ref(row.target_id)}
    )
    if row.inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
    base = f"{ctx.request.base_url}/v3"
    place = "system" if row.target_type == "system" else f"{row.target_type}s/{row.target_id}"
    holder = f"groups/{row.group_id}" if row.group_id else f"{row.actor_type}s/{row.actor_id}"
    links = {"assignment": f"{base}/{place}/{holder}/roles/{row.role_id}"}
    if row.inherited:
        links["assignment"] = f"{base}/OS-INHERIT/{place}/{holder}/roles/{row.role_id}/inherited_to_projects"
    if row.group_id:
        links["membership"] = f"{base}/groups/{row.group_id}/users/{row.actor_id}"
    return {"role": ref(row.role_id), row.actor_type: ref(row.actor_id), "scope": scope, "links": links}


endpoints = [*_endpoints(), Endpoint("GET", "/v3/role_assignments", list_assignments)]
