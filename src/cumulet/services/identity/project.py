"""Projects: GET|POST /v3/projects, GET|PATCH|DELETE /v3/projects/{id}, their tags.

A domain is a project that is its own domain (`is_domain`); both live in one table.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, json
from sqlalchemy import ColumnElement, Connection, UniqueConstraint, and_, or_, select, type_coerce
from sqlalchemy import Text as SqlText

from cumulet.api.crud import enveloped, list_page, shown
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import TRUE, Listing
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, once, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard, home_domain, inexact, look_up, own_domain, target
from cumulet.services.identity.cascade import forget_project
from cumulet.services.identity.fields import DomainId, Label64
from cumulet.services.identity.rules import SYSTEM_READER, domain_rules, of_domain
from cumulet.services.identity.tables import assignment, membership

MAX_DEPTH = 5
"""Levels of projects, the domain included, as upstream's max_project_tree_depth."""

Tag = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^,/]*$")]


class Project(Resource, table="identity_project", path="/v3/projects", extra="extra"):
    """A tenant: what resources of other services belong to."""

    id: Id = read("The ID of the project.", use=FIND)
    name: Label64 = edit("The name, unique in the domain.", use=FIND)
    domain_id: DomainId | None = edit("The domain of the project.", AUTO, FILTER, index=True)
    parent_id: Id | None = edit("The project (or domain) above it.", None, FILTER, index=True)
    is_domain: bool = once("Whether the project is a domain.", False, FILTER)
    enabled: bool = edit("Whether its users can have tokens for it.", True, FILTER)
    description: Text | None = edit("What it is for.", "")
    tags: Annotated[list[Tag], Meta(max_length=80)] = edit("Simple labels.", [])
    option_values: dict[str, Any] = edit("Options such as `immutable`.", {}, wire="options")
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


UniqueConstraint(Project.table.c.domain_id, Project.table.c.name, name="identity_project_name")

RULES = {
    **domain_rules("project", own="project_id:%(target.project.id)s"),
    "identity:list_project_tags": (
        f"({SYSTEM_READER}) or {of_domain('reader', 'target.project.domain_id')} or rule:admin_required"
        " or project_id:%(target.project.id)s"
    ),
    "identity:update_project_tags": (
        f"rule:admin_required or {of_domain('manager', 'target.project.domain_id')}"
        " or (role:admin and project_id:%(target.project.id)s)"
    ),
}


async def create_project(ctx: Ctx, body: Any) -> Project:
    """Store the project; without a parent it stands directly under its domain."""
    project: Project = Project.new(
        body, id=new_hex_id(), domain_id="" if body.is_domain else body.given().get("domain_id") or ""
    )
    named = bool(project.domain_id)
    if not (project.is_domain or named or project.parent_id):
        project.domain_id = home_domain(ctx)

    def place(tx: Connection) -> None:
        """Find the domain above, which an unnamed one comes from."""
        above = None if not project.parent_id else db.first(tx, Project, Project.table.c.id == project.parent_id)
        if above is None and project.parent_id:
            raise NotFound("project", project.parent_id)
        if above is not None and not named:
            project.domain_id = above.id if above.is_domain else above.domain_id

    if not project.is_domain:
        await ctx.service.kernel.db.read_inline(place)
    guard(ctx, "create", Project, project)
    if project.is_domain and not ctx.caller.is_admin:
        raise Forbidden(rule="identity:create_domain")
    return await ctx.service.write(insert_project, project)


def insert_project(tx: Connection, project: Project) -> Project:
    """Store a project whose domain and parent are known; checks both."""
    if project.is_domain:
        if project.parent_id:
            raise Invalid("It is not permitted to create a project acting as a domain with a parent.")
        project.domain_id = ""
    else:
        check_domain(tx, project.domain_id or "")
        project.parent_id = project.parent_id or project.domain_id
        _check_ancestors(tx, project)
    _check_name(tx, project)
    db.insert(tx, project)
    if project.is_domain:
        db.note(tx, "domain", "created", project.id)
    return project


def _check_ancestors(tx: Connection, project: Project) -> None:
    above, depth = project.parent_id, 1
    while above:
        parent = db.get(tx, Project, above)
        if not parent.enabled:
            raise Conflict(f"The parent {parent.id} of the project is disabled.")
        if (parent.id if parent.is_domain else parent.domain_id) != project.domain_id:
            raise Invalid(f"The parent project {parent.id} is in another domain than {project.domain_id}.")
        above, depth = parent.parent_id, depth + 1
        if depth > MAX_DEPTH:
            raise Forbidden(rule=f"Max hierarchy depth reached for {project.parent_id} branch")


def _check_name(tx: Connection, project: Any) -> None:
    c = Project.table.c
    twin = select(c.id).where(c.domain_id == project.domain_id, c.name == project.name, c.id != project.id)
    if tx.execute(twin).first() is not None:
        kind = "domain" if project.is_domain else "project"
        raise Conflict(
            f"Conflict occurred attempting to store {kind} - it is not permitted to have two {kind}s"
            f" {'' if project.is_domain else 'in the same domain '}with the same name: {project.name}."
        )


def check_domain(tx: Connection, id: str) -> None:
    """NotFound unless there is a domain of this id."""
    if db.first(tx, Project, Project.table.c.id == id, Project.table.c.is_domain) is None:
        raise NotFound("domain", id)


async def update_project(ctx: Ctx, project: Project, body: Any) -> Project:
    given = body.given()
    if given.get("parent_id", project.parent_id) != project.parent_id:
        raise Forbidden(rule="Update of `parent_id` is not allowed")
    if (given.get("domain_id", project.domain_id) or "") != project.domain_id:
        raise Invalid("Cannot change Domain ID")
    return await ctx.service.write(store_change, ctx.service, Project, project.id, body)


def store_change(tx: Connection, service: Any, cls: type[Resource], id: str, body: Any) -> Any:
    """Change a project or domain; disabling it voids the tokens that speak for it."""
    changed = change(tx, cls, id, body)
    _check_name(tx, changed)
    if not changed.enabled:
        service.revocations.add(tx, "domain" if changed.is_domain else "project", id)
    return changed


async def delete_project(ctx: Ctx, project: Project) -> None:
    if project.is_domain and project.enabled:
        raise Forbidden(rule="Cannot delete a project that is acting as a domain and enabled; disable it first")
    await ctx.service.write(remove_project, ctx.service, project.id)


def remove_project(tx: Connection, service: Any, id: str) -> None:
    """Remove a project that has none below it, the roles held on it and what else names it."""
    if db.count(tx, Project, Project.table.c.parent_id == id):
        raise Forbidden(rule=f"Cannot delete the project {id} since it is not a leaf in the hierarchy")
    forget_project(tx, id)
    service.revocations.add(tx, "project", id)
    db.remove(tx, Project, id)


# ---- lists --------------------------------------------------------------------------------------------------------------


def _with_tags(values: list[str]) -> ColumnElement[bool]:
    """Those that carry all of the tags (tags hold neither commas nor slashes, and are kept as JSON text)."""
    column = type_coerce(Project.table.c.tags, SqlText)
    wanted = [tag for value in values for tag in value.split(",")]
    return and_(*(column.contains(json.encode(tag).decode(), autoescape=True) for tag in wanted))


LISTING = Listing(
    sort=(("id", "asc"),),
    filters={**inexact(Project, "name"), "tags": _with_tags},
)


async def list_projects(ctx: Ctx) -> Any:
    """List projects; those that are domains only where `is_domain=true` asks for them."""
    ctx.require("identity:list_projects", {"target.domain_id": ctx.caller.domain_id})
    wanted = (ctx.request.query.get("is_domain") or "").lower() in TRUE
    return await list_page(
        ctx, Project, own_domain(Project), listing=LISTING, extra=[Project.table.c.is_domain == wanted]
    )


def of_user(user_id: Any) -> ColumnElement[bool]:
    """The condition for assignments that a user has himself or through a group."""
    groups = select(membership.c.group_id).where(membership.c.user_id == user_id)
    return or_(
        and_(assignment.c.actor_type == "user", assignment.c.actor_id == user_id),
        and_(assignment.c.actor_type == "group", assignment.c.actor_id.in_(groups)),
    )


def held_by(user_id: str) -> list[ColumnElement[bool]]:
    """The condition for projects on which a user holds a role: directly, through a group, or inherited from above."""
    c, a = Project.table.c, assignment.c
    mine = of_user(user_id)
    direct = select(a.target_id).where(mine, a.target_type == "project", ~a.inherited)
    above = select(a.target_id).where(mine, a.inherited)
    return [~c.is_domain, or_(c.id.in_(direct), c.domain_id.in_(above), c.parent_id.in_(above))]


async def show_project(ctx: Ctx, id: str) -> Any:
    """Show a project; with `parents_as_list`, `subtree_as_list`, `parents_as_ids` or `subtree_as_ids` its relatives too."""
    project = await look_up(ctx, "get", Project, id)
    reply = enveloped(ctx, Project, project)
    query = ctx.request.query
    asked = {n for n in ("parents_as_list", "parents_as_ids", "subtree_as_list", "subtree_as_ids") if n in query}
    if not asked:
        return reply
    parents, tree = await ctx.service.kernel.db.read(_relatives, project)
    inner = reply["project"]
    if "parents_as_list" in asked:
        inner["parents"] = [{"project": shown(ctx, Project, p)} for p in parents if not p.is_domain]
    elif "parents_as_ids" in asked:
        ids: dict[str, Any] | None = None
        for parent in reversed(parents):
            ids = {parent.id: ids}
        inner["parents"] = ids
    if "subtree_as_list" in asked:
        inner["subtree"] = [{"project": shown(ctx, Project, p)} for p in tree]
    elif "subtree_as_ids" in asked:
        inner["subtree"] = _nested(tree, id)
    return reply


def _relatives(tx: Connection, project: Project) -> tuple[list[Project], list[Project]]:
    """(those above, nearest first; those below, level by level)"""
    parents: list[Project] = []
    above = project.parent_id
    while above:
        parents.append(db.get(tx, Project, above))
        above = parents[-1].parent_id
    tree: list[Project] = []
    level = [project.id]
    while level:
        children = db.find(tx, Project, Project.table.c.parent_id.in_(level))
        tree += children
        level = [child.id for child in children]
    return parents, tree


def _nested(tree: list[Project], top: str) -> dict[str, Any] | None:
    return {p.id: _nested(tree, p.id) for p in tree if p.parent_id == top} or None


# ---- tags ---------------------------------------------------------------------------------------------------------------


class Tags(Struct, forbid_unknown_fields=True):
    tags: Annotated[list[Tag], Meta(max_length=80)]


async def _tagged(ctx: Ctx, id: str, rule: str) -> Project:
    project = await ctx.service.kernel.db.read_inline(db.first, Project, Project.table.c.id == id)
    ctx.require(rule, target(project))
    if project is None:
        raise NotFound("project", id)
    return project


async def list_tags(ctx: Ctx, id: str) -> Any:
    """List a project's tags."""
    return {"tags": (await _tagged(ctx, id, "identity:list_project_tags")).tags, "links": {"self": ctx.request.url}}


async def check_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Tell whether a project has a tag."""
    project = await _tagged(ctx, id, "identity:list_project_tags")
    if tag not in project.tags:
        raise NotFound("project tag", tag)
    return Response(204)


async def replace_tags(ctx: Ctx, id: str, body: Tags) -> Any:
    """Replace all tags of a project."""
    await _tagged(ctx, id, "identity:update_project_tags")
    tags = sorted(set(body.tags))
    await ctx.service.write(db.update, Project, id, tags=tags)
    return {"tags": tags, "links": {"self": ctx.request.url}}


async def add_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Add a tag to a project."""
    if "," in tag or len(tag) > 255:
        raise Invalid("A tag has at most 255 characters and no comma.")
    await _tagged(ctx, id, "identity:update_project_tags")

    def add(tx: Connection) -> None:
        tags = db.get(tx, Project, id).tags
        if tag not in tags and len(tags) >= 80:
            raise Invalid("A project has at most 80 tags.")
        db.update(tx, Project, id, tags=sorted({*tags, tag}))

    await ctx.service.write(add)
    return Response(201)


async def remove_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Remove a tag from a project."""
    project = await _tagged(ctx, id, "identity:update_project_tags")
    if tag not in project.tags:
        raise NotFound("project tag", tag)
    await ctx.service.write(
        lambda tx: db.update(tx, Project, id, tags=[t for t in db.get(tx, Project, id).tags if t != tag])
    )
    return Response(204)


async def remove_tags(ctx: Ctx, id: str) -> Response:
    """Remove all tags of a project."""
    await _tagged(ctx, id, "identity:update_project_tags")
    await ctx.service.write(db.update, Project, id, tags=[])
    return Response(204)


_plain = calls(Project, create=create_project, update=update_project, delete=delete_project)
endpoints = [
    Endpoint("GET", "/v3/projects", list_projects, resource=Project),
    Endpoint("GET", "/v3/projects/{id}", show_project, resource=Project),
    *(e for e in _plain if e.method != "GET"),
    Endpoint("GET", "/v3/projects/{id}/tags", list_tags),
    Endpoint("PUT", "/v3/projects/{id}/tags", replace_tags, body=Tags),
    Endpoint("DELETE", "/v3/projects/{id}/tags", remove_tags),
    Endpoint("GET", "/v3/projects/{id}/tags/{tag}", check_tag),
    Endpoint("PUT", "/v3/projects/{id}/tags/{tag}", add_tag),
    Endpoint("DELETE", "/v3/projects/{id}/tags/{tag}", remove_tag),
]
