"""All role assignments: GET /v3/role_assignments.

What is stored is a grant of a role to a user or a group on a project, a domain or the system (`grant.py`). With `effective`
the list holds what follows from that: for each user of a group, for each project below where a role is inherited, for each
role that is implied.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, and_, false, or_, select

from cumulet.api.http import Endpoint, Query
from cumulet.core import db
from cumulet.core.errors import Invalid, NotFound
from cumulet.services.identity.assignments import ancestors
from cumulet.services.identity.calls import Ctx, flag
from cumulet.services.identity.group import Group
from cumulet.services.identity.project import Project, below, of_user
from cumulet.services.identity.role import Role
from cumulet.services.identity.rules import ADMIN_OR_SYSTEM_READER, of_domain
from cumulet.services.identity.tables import SYSTEM, assignment, implied_role, membership
from cumulet.services.identity.user import User

a = assignment.c

_READ = f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.domain_id')}"
RULES = {"identity:list_role_assignments": _READ, "identity:list_role_assignments_for_tree": _READ}


class Row(Struct, frozen=True):
    """An assignment as it is listed: stored, or one that follows from a stored one, and from what it follows."""

    actor_type: str
    actor_id: str
    target_type: str
    target_id: str
    role_id: str
    inherited: bool
    group_id: str = ""  # the group whose assignment it is, for a user in it
    source_type: str = ""  # the project or domain from which it is inherited
    source_id: str = ""
    prior_id: str = ""  # the role that implies this one


class Wanted(Struct, frozen=True):
    """What a query asks for."""

    user: str
    group: str
    role: str
    project: str
    domain: str
    system: bool
    inherited: bool | None  # None: both
    effective: bool
    subtree: bool
    names: bool


def _wanted(query: Query) -> Wanted:
    """The query, read; Invalid where its parts exclude one another."""
    user, group, role = (query.get(f"{name}.id") or "" for name in ("user", "group", "role"))
    project, domain = query.get("scope.project.id") or "", query.get("scope.domain.id") or ""
    system, effective = query.get("scope.system") or "", flag(query, "effective")
    inherited = None
    if "scope.OS-INHERIT:inherited_to" in query:
        inherited = query.get("scope.OS-INHERIT:inherited_to") == "projects"
    if domain and project:
        raise Invalid("Specify a domain or project, not both.")
    if system and domain:
        raise Invalid("Specify system or domain, not both.")
    if system and project:
        raise Invalid("Specify system or project, not both.")
    if user and group:
        raise Invalid("Specify a user or group, not both.")
    if effective and group:
        raise Invalid("Combining effective and group filter will always result in an empty list.")
    if effective and inherited and domain:
        raise Invalid("Combining effective, domain and inherited filters will always result in an empty list.")
    subtree, names = flag(query, "include_subtree"), flag(query, "include_names")
    return Wanted(user, group, role, project, domain, system == "all", inherited, effective, subtree, names)


async def list_assignments(ctx: Ctx) -> Any:
    """List role assignments; with `effective`, what follows from groups, inheritance and implied roles."""
    subtree = flag(ctx.request.query, "include_subtree")
    within = None
    if subtree:
        await _ask_for_tree(ctx)
    else:
        within = ctx.caller.domain_id
        ctx.require("identity:list_role_assignments", {"target.domain_id": within})
    wanted = _wanted(ctx.request.query)
    rows, known = await ctx.service.kernel.db.read(_collect, wanted, within)
    items = [_shown(ctx, row, known, wanted.names) for row in rows]
    return {"role_assignments": items, "links": {"self": ctx.request.url, "previous": None, "next": None}}


async def _ask_for_tree(ctx: Ctx) -> None:
    """Forbidden unless the caller may see the assignments of the project's domain."""
    project_id = ctx.request.query.get("scope.project.id")
    project = None
    if project_id:
        project = await ctx.service.kernel.db.read_inline(db.first, Project, Project.table.c.id == project_id)
        if project is None:
            raise NotFound("project", project_id)
    about = {"target.domain_id": project.domain_id, "target.project.id": project.id} if project else {}
    ctx.require("identity:list_role_assignments_for_tree", about)
    if project is None:
        raise Invalid("scope.project.id must be specified if include_subtree is also specified.")


# ---- which there are ----------------------------------------------------------------------------------------------------

Known = dict[str, Any]
"""What the rows name, by id."""


def _collect(tx: Connection, wanted: Wanted, within: str | None) -> tuple[list[Row], Known]:
    """The rows, those in the domain `within` only where it is given, and what they name where that is to be shown."""
    places = _places(tx, wanted)
    above = ancestors(tx, wanted.project) if wanted.project and wanted.effective else []
    statement = select(assignment).where(*_conditions(wanted, places, above))
    rows = [Row(**row._mapping) for row in tx.execute(statement)]
    if wanted.effective:
        rows = _expand(tx, rows, wanted, places)
        rows = [row for row in rows if not wanted.role or row.role_id == wanted.role]
    if within:
        here = {within, *_named(tx, Project, {row.target_id for row in rows}, Project.table.c.domain_id == within)}
        rows = [row for row in rows if row.target_id in here]
    return rows, _known(tx, rows) if wanted.names else {}


def _places(tx: Connection, wanted: Wanted) -> set[str]:
    """The projects asked for: one, or it and those below it."""
    if not wanted.project:
        return set()
    lower = tx.execute(select(below([wanted.project]).c.id)).scalars() if wanted.subtree else ()
    return {wanted.project, *lower}


def _conditions(wanted: Wanted, places: set[str], above: list[str]) -> list[ColumnElement[bool]]:
    """The conditions on what is stored."""
    where: list[ColumnElement[bool]] = []
    if wanted.user:
        own = and_(a.actor_type == "user", a.actor_id == wanted.user)
        where.append(of_user(wanted.user) if wanted.effective else own)
    if wanted.group:
        where.append(and_(a.actor_type == "group", a.actor_id == wanted.group))
    if wanted.role and not wanted.effective:
        where.append(a.role_id == wanted.role)
    if wanted.inherited is not None:
        where.append(a.inherited if wanted.inherited else ~a.inherited)
    if wanted.system:
        where.append(a.target_type == "system")
    if wanted.domain:
        where.append(and_(a.target_type == "domain", a.target_id == wanted.domain))
        if wanted.effective:  # a domain does not inherit what is given on it
            where.append(~a.inherited)
    if places and not wanted.effective:
        where.append(and_(a.target_type == "project", a.target_id.in_(places)))
    elif places:
        sources = [*above, *(places if wanted.subtree else ())]
        here = and_(a.target_type == "project", a.target_id.in_(places), ~a.inherited)
        where.append(or_(here, and_(a.inherited, a.target_id.in_(sources)) if sources else false()))
    return where


def _expand(tx: Connection, rows: list[Row], wanted: Wanted, places: set[str]) -> list[Row]:
    """The assignments that follow: of each user in a group, on each project below, of each implied role."""
    members = _members(tx, {row.actor_id for row in rows if row.actor_type == "group"}, wanted.user)
    children = _children(tx) if any(row.inherited for row in rows) else {}
    lower = {row.target_id: _tree(children, row.target_id) for row in rows if row.inherited}
    follow = _implications(tx, {row.role_id for row in rows})
    found: dict[Row, None] = {}
    for row in rows:
        for one in _on_users(row, members):
            for placed in _on_places(one, lower, places):
                for role, prior in follow[row.role_id]:
                    found[replace(placed, role_id=role, prior_id=prior)] = None
    own = _named(tx, Role, {row.role_id for row in found}, Role.table.c.domain_id == "")
    return [row for row in found if row.role_id in own]


def _on_users(row: Row, members: dict[str, list[str]]) -> list[Row]:
    if row.actor_type == "user":
        return [row]
    return [
        replace(row, actor_type="user", actor_id=user, group_id=row.actor_id) for user in members.get(row.actor_id, [])
    ]


def _on_places(row: Row, lower: dict[str, list[str]], places: set[str]) -> list[Row]:
    if not row.inherited:
        return [row]
    source = {"source_type": row.target_type, "source_id": row.target_id}
    return [
        replace(row, target_type="project", target_id=place, **source)
        for place in lower[row.target_id]
        if not places or place in places
    ]


def _members(tx: Connection, groups: set[str], user: str) -> dict[str, list[str]]:
    c = membership.c
    statement = select(c.group_id, c.user_id).where(c.group_id.in_(groups)).order_by(c.user_id)
    members: dict[str, list[str]] = {}
    for group_id, user_id in tx.execute(statement.where(c.user_id == user) if user else statement):
        members.setdefault(group_id, []).append(user_id)
    return members


def _children(tx: Connection) -> dict[str, list[str]]:
    c = Project.table.c
    children: dict[str, list[str]] = {}
    for project_id, parent_id in tx.execute(select(c.id, c.parent_id).where(~c.is_domain).order_by(c.id)):
        children.setdefault(parent_id, []).append(project_id)
    return children


def _tree(children: dict[str, list[str]], top: str) -> list[str]:
    found = list(children.get(top, []))
    for child in found:  # which grows meanwhile
        found += children.get(child, [])
    return found


def _implications(tx: Connection, roles: set[str]) -> dict[str, list[tuple[str, str]]]:
    """For each role: (itself, ""), then each role that follows with the one that implies it."""
    edges: dict[str, list[str]] = {}
    for prior, implied in tx.execute(select(implied_role)):
        edges.setdefault(prior, []).append(implied)
    follow = {}
    for role in roles:
        pairs = {(role, ""): None}
        reached = [role]
        for prior in reached:  # which grows meanwhile
            for implied in edges.get(prior, []):
                pairs[implied, prior] = None
                if implied not in reached:
                    reached.append(implied)
        follow[role] = list(pairs)
    return follow


def _named(tx: Connection, cls: Any, ids: set[str], *where: ColumnElement[bool]) -> set[str]:
    """Those of the ids for which `where` holds."""
    return set(tx.execute(select(cls.table.c.id).where(cls.table.c.id.in_(ids), *where)).scalars())


def _known(tx: Connection, rows: list[Row]) -> Known:
    known: Known = {}
    for cls, ids in (
        (User, {row.actor_id for row in rows if row.actor_type == "user"}),
        (Group, {row.actor_id for row in rows if row.actor_type == "group"}),
        (Project, {row.target_id for row in rows if row.target_id != SYSTEM}),
        (Role, {row.role_id for row in rows}),
    ):
        c: Any = cls.table.c
        known |= {item.id: item for item in tx.execute(select(c.id, c.name, c.domain_id).where(c.id.in_(ids)))}
    domains = {item.domain_id for item in known.values()} - {"", *known}
    c = Project.table.c
    return known | {item.id: item for item in tx.execute(select(c.id, c.name, c.domain_id).where(c.id.in_(domains)))}


# ---- how they are told --------------------------------------------------------------------------------------------------


def _shown(ctx: Ctx, row: Row, known: Known, names: bool) -> dict[str, Any]:
    def ref(id: str) -> dict[str, Any]:
        item = known.get(id)
        if item is None:
            return {"id": id, "name": "", "domain": {"id": "", "name": ""}} if names else {"id": id}
        domain = known.get(item.domain_id)
        return {"id": id, "name": item.name, **({"domain": {"id": domain.id, "name": domain.name}} if domain else {})}

    scope: dict[str, Any] = (
        {"system": {"all": True}} if row.target_type == "system" else {row.target_type: ref(row.target_id)}
    )
    if row.inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
    kind, place_id = row.source_type or row.target_type, row.source_id or row.target_id
    place = "system" if kind == "system" else f"{kind}s/{place_id}"
    holder = f"groups/{row.group_id}" if row.group_id else f"{row.actor_type}s/{row.actor_id}"
    base, grant = f"{ctx.request.base_url}/v3", f"{place}/{holder}/roles/{row.prior_id or row.role_id}"
    links = {"assignment": f"{base}/OS-INHERIT/{grant}/inherited_to_projects" if row.inherited else f"{base}/{grant}"}
    if row.group_id:
        links["membership"] = f"{base}/groups/{row.group_id}/users/{row.actor_id}"
    if row.prior_id:  # in the order in which upstream writes it
        links["prior_role"] = f"{base}/prior_role/{row.role_id}/implies/{row.prior_id}"
    return {"role": ref(row.role_id), row.actor_type: ref(row.actor_id), "scope": scope, "links": links}


endpoints = [Endpoint("GET", "/v3/role_assignments", list_assignments)]
