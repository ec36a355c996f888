"""Projects: GET|POST /v3/projects, GET|PATCH /v3/projects/{id}, their tags.

A domain is a project that is its own domain (`is_domain`); both live in one table. Either is deleted in `domain.py`.
"""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

from msgspec import Meta, Struct, json
from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    UniqueConstraint,
    and_,
    bindparam,
    func,
    not_,
    or_,
    select,
    type_coerce,
)
from sqlalchemy import Text as SqlText

from cumulet.api.crud import enveloped, list_page, shown
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Filter
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import (
    Ctx,
    calls,
    change,
    flag,
    guard,
    home_domain,
    look_up,
    own_domain,
    search,
    target,
)
from cumulet.services.identity.cascade import forget_project
from cumulet.services.identity.federation.tables import timed_membership
from cumulet.services.identity.fields import DomainId, Label64
from cumulet.services.identity.options import Options, merged, refuse_change, refuse_loss
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, domain_rules, of_domain
from cumulet.services.identity.tables import assignment, membership

MAX_DEPTH = 5
"""Levels of projects below a domain, one more with the domain: upstream's max_project_tree_depth counts so."""

Tag = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^,/]*$")]


class Project(Resource, table="identity_project", path="/v3/projects", extra="extra"):
    """A tenant: what resources of other services belong to."""

    id: Id = read("The ID of the project.", use=FIND)
    name: Label64 = edit("The name, unique in the domain.", use=FIND)
    domain_id: DomainId | None = edit("The domain of the project.", AUTO, FILTER, index=True)
    parent_id: Id | None = edit("The project (or domain) above it.", None, FILTER, index=True)
    is_domain: bool = edit("Whether the project is a domain, which cannot be changed.", False, FILTER)
    enabled: bool = edit("Whether its users can have tokens for it.", True, FILTER)
    description: Text | None = edit("What it is for.", "")
    tags: Annotated[list[Tag], Meta(max_length=80)] = edit("Simple labels.", [])
    option_values: Options = edit("Options such as `immutable`.", {}, wire="options")
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


UniqueConstraint(Project.table.c.domain_id, Project.table.c.name, name="identity_project_name")

_TAGS_READ = (
    f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.project.domain_id')} or project_id:%(target.project.id)s"
)
_TAGS_WRITE = f"{ADMIN} or {of_domain('manager', 'target.project.domain_id')}"
RULES = {
    **domain_rules("project", own="project_id:%(target.project.id)s"),
    "identity:list_project_tags": _TAGS_READ,
    "identity:get_project_tag": _TAGS_READ,
    "identity:update_project_tags": _TAGS_WRITE,
    "identity:create_project_tag": _TAGS_WRITE,
    "identity:delete_project_tags": _TAGS_WRITE,
    "identity:delete_project_tag": _TAGS_WRITE,
}


async def create_project(ctx: Ctx, body: Any) -> Project:
    """Store the project; without a parent it stands directly under its domain."""
    guard(ctx, "create", Project, body)
    project: Project = Project.new(
        body,
        id=new_hex_id(),
        name=body.name.strip(),
        domain_id="" if body.is_domain else body.given().get("domain_id") or "",
        option_values=merged(None, body.option_values),
        tags=tidy(body.tags),
    )
    if project.is_domain and not ctx.caller.is_admin:
        raise Forbidden(rule="identity:create_domain")
    if not (project.is_domain or project.domain_id or project.parent_id):
        project.domain_id = home_domain(ctx)
    try:
        return await ctx.service.write(insert_project, project, ctx.service.limit_model.depth)
    except NotFound as missing:
        raise Invalid(f"Could not find {missing.kind}: {missing.id}.") from None


def insert_project(tx: Connection, project: Project, depth: int = MAX_DEPTH) -> Project:
    """Store a project whose domain or parent is known; checks both, and that there are at most `depth` levels of projects."""
    if project.is_domain:
        if project.parent_id:
            raise Invalid("It is not permitted to create a project acting as a domain with a parent.")
        project.domain_id = ""
    else:
        if not project.domain_id:
            above = db.get(tx, Project, project.parent_id)
            project.domain_id = above.id if above.is_domain else above.domain_id
        check_domain(tx, project.domain_id or "")
        project.parent_id = project.parent_id or project.domain_id
        _check_ancestors(tx, project, depth)
    _check_name(tx, project)
    db.insert(tx, project)
    if project.is_domain:
        db.note(tx, "domain", "created", project.id)
    return project


def _check_ancestors(tx: Connection, project: Project, deepest: int) -> None:
    above, depth = project.parent_id, 1
    while above:
        parent = db.get(tx, Project, above)
        if not parent.enabled:
            raise Invalid(f"A project cannot be created below {parent.id}, which is disabled.")
        if (parent.id if parent.is_domain else parent.domain_id) != project.domain_id:
            raise Invalid(f"The parent project {parent.id} is in another domain than {project.domain_id}.")
        above, depth = parent.parent_id, depth + 1
        if depth > deepest + 1:
            raise Forbidden(f"Max hierarchy depth reached for {project.parent_id} branch.")


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
    if (given.get("domain_id", project.domain_id) or "") != project.domain_id:
        raise Invalid("Cannot change Domain ID")
    refuse_change(project, given)
    if (given.get("parent_id", project.parent_id) or None) != project.parent_id:
        raise Forbidden("Update of `parent_id` is not allowed.")
    if given.get("is_domain", project.is_domain) != project.is_domain:
        raise Invalid("Update of `is_domain` is not allowed.")
    return await ctx.service.write(store_change, ctx.service, Project, project.id, body)


def store_change(tx: Connection, service: Any, cls: type[Resource], id: str, body: Any) -> Any:
    """Change a project or domain; disabling it voids the tokens that speak for it."""
    before: Any = db.get(tx, cls, id)
    given = body.given()
    more: dict[str, Any] = {"name": given["name"].strip()} if "name" in given else {}
    more |= {"tags": tidy(given["tags"])} if "tags" in given else {}
    more |= {"domain_id": ""} if before.is_domain and "domain_id" in given else {}
    changed = change(tx, cls, id, body, **more)
    _check_name(tx, changed)
    if changed.enabled and not before.enabled and any(not parent.enabled for parent in _parents(tx, changed)):
        raise Forbidden(f"The project {id} cannot be enabled: one above it is disabled.")
    if before.enabled and not changed.enabled:
        if not changed.is_domain and any(child.enabled for child in _below(tx, id)):
            raise Forbidden(f"The project {id} cannot be disabled: there are enabled ones below it.")
        service.revocations.add(tx, "domain" if changed.is_domain else "project", id)
    return changed


def remove_project(tx: Connection, service: Any, id: str) -> None:
    """Remove a project that has none below it, the roles held on it and what else names it."""
    if db.count(tx, Project, Project.table.c.parent_id == id):
        raise Forbidden(f"Cannot delete the project {id} since it is not a leaf in the hierarchy.")
    forget_project(tx, id)
    service.revocations.add(tx, "project", id)
    db.remove(tx, Project, id)


# ---- lists --------------------------------------------------------------------------------------------------------------


def _tags(*, every: bool, wanted: bool) -> Filter:
    """Those that carry all (or any) of the tags given, or those that do not. Tags hold neither commas nor slashes, and are
    kept as JSON text."""

    def condition(values: list[str]) -> ColumnElement[bool]:
        column = type_coerce(Project.table.c.tags, SqlText)
        tags = [tag for value in values for tag in value.split(",")]
        each = [func.instr(column, json.encode(tag).decode()) > 0 for tag in tags]  # LIKE would not tell a from A
        found = and_(*each) if every else or_(*each)
        return found if wanted else not_(found)

    return condition


LISTING = search(
    Project,
    **{
        "tags": _tags(every=True, wanted=True),
        "tags-any": _tags(every=False, wanted=True),
        "not-tags": _tags(every=True, wanted=False),
        "not-tags-any": _tags(every=False, wanted=False),
    },
)


async def list_projects(ctx: Ctx) -> Any:
    """List projects; those that are domains only where `is_domain=true` asks for them."""
    ctx.require("identity:list_projects", {"target.domain_id": ctx.caller.domain_id})
    only = [] if "is_domain" in ctx.request.query else [~Project.table.c.is_domain]
    return await list_page(ctx, Project, own_domain(Project), listing=LISTING, extra=only)


def of_user(user_id: Any, groups: Any = ()) -> ColumnElement[bool]:
    """The condition for assignments that a user has himself or through a group; `groups` are further ones, for now."""
    t = timed_membership.c
    lasting = select(membership.c.group_id).where(membership.c.user_id == user_id)
    for_now = select(t.group_id).where(t.user_id == user_id, t.expires_at > bindparam("now", callable_=microseconds))
    return or_(
        and_(assignment.c.actor_type == "user", assignment.c.actor_id == user_id),
        and_(
            assignment.c.actor_type == "group",
            or_(
                assignment.c.actor_id.in_(lasting),
                assignment.c.actor_id.in_(for_now),
                *([assignment.c.actor_id.in_(groups)] if groups else []),
            ),
        ),
    )


def held_by(user_id: str, groups: Sequence[str] = ()) -> list[ColumnElement[bool]]:
    """The condition for projects on which a user holds a role: directly, through a group, or inherited from above."""
    c, a = Project.table.c, assignment.c
    mine = of_user(user_id, groups)
    direct = select(a.target_id).where(mine, a.target_type == "project", ~a.inherited)
    return [
        ~c.is_domain,
        or_(c.id.in_(direct), c.id.in_(select(below(select(a.target_id).where(mine, a.inherited)).c.id))),
    ]


def below(tops: Any) -> CTE:
    """The ids of all projects below the ones (or the domains) that a SELECT names, however deep."""
    c, child = Project.table.c, Project.table.alias("child")
    tree = select(c.id.label("id")).where(c.parent_id.in_(tops)).cte("tree", recursive=True)
    return tree.union(select(child.c.id).where(child.c.parent_id == tree.c.id))


async def show_project(ctx: Ctx, id: str) -> Any:
    """Show a project; with `parents_as_list`, `subtree_as_list`, `parents_as_ids` or `subtree_as_ids` its relatives too."""
    project = await look_up(ctx, "get", Project, id)
    reply = enveloped(ctx, Project, project)
    asked = {
        n
        for n in ("parents_as_list", "parents_as_ids", "subtree_as_list", "subtree_as_ids")
        if flag(ctx.request.query, n)
    }
    if not asked:
        return reply
    for kind in ("parents", "subtree"):
        if {f"{kind}_as_list", f"{kind}_as_ids"} <= asked:
            raise Invalid(f"Cannot use {kind}_as_list and {kind}_as_ids query params at the same time.")

    def look(tx: Connection) -> tuple[list[Project], list[Project], set[str]]:
        held = select(Project.table.c.id).where(*held_by(ctx.caller.user_id))
        return _parents(tx, project), _below(tx, id), set(tx.execute(held).scalars())

    parents, tree, held = await ctx.service.kernel.db.read(look)
    inner = reply["project"]
    if "parents_as_list" in asked:
        inner["parents"] = [{"project": shown(ctx, Project, p)} for p in parents if p.id in held]
    elif "parents_as_ids" in asked:
        ids: dict[str, Any] | None = None
        for parent in reversed(parents):
            ids = {parent.id: ids}
        inner["parents"] = ids
    if "subtree_as_list" in asked:
        inner["subtree"] = [{"project": shown(ctx, Project, p)} for p in tree if p.id in held]
    elif "subtree_as_ids" in asked:
        inner["subtree"] = _nested(tree, id)
    return reply


def _parents(tx: Connection, project: Any) -> list[Project]:
    """Those above a project, nearest first."""
    parents: list[Project] = []
    above = project.parent_id
    while above:
        parents.append(db.get(tx, Project, above))
        above = parents[-1].parent_id
    return parents


def _below(tx: Connection, id: str) -> list[Project]:
    """Those below a project, level by level."""
    tree: list[Project] = []
    level = [id]
    while level:
        children = db.find(tx, Project, Project.table.c.parent_id.in_(level))
        tree += children
        level = [child.id for child in children]
    return tree


def _nested(tree: list[Project], top: str) -> dict[str, Any] | None:
    return {p.id: _nested(tree, p.id) for p in tree if p.parent_id == top} or None


# ---- tags ---------------------------------------------------------------------------------------------------------------

MAX_TAGS = 80


class Tags(Struct, forbid_unknown_fields=True):
    tags: list[Tag]


def tidy(tags: list[str]) -> list[str]:
    """The tags as they are kept; Invalid where there are too many, or one twice."""
    kept = sorted(tag.strip() for tag in tags)
    if len(kept) > MAX_TAGS:
        raise Invalid(f"A project has at most {MAX_TAGS} tags.")
    if len(set(kept)) < len(kept):
        raise Invalid("A project has each tag only once.")
    return kept


async def _tagged(ctx: Ctx, id: str, rule: str) -> Project:
    """The project, if the caller may do this to its tags, and the project lets its tags be changed."""
    project = await ctx.service.kernel.db.read_inline(db.first, Project, Project.table.c.id == id)
    ctx.require(rule, target(project))
    if project is None:
        raise NotFound("project", id)
    if ctx.request.method not in ("GET", "HEAD"):
        refuse_loss(project)
    return project


async def list_tags(ctx: Ctx, id: str) -> Any:
    """List a project's tags."""
    return {"tags": (await _tagged(ctx, id, "identity:list_project_tags")).tags, "links": {"self": ctx.request.url}}


async def check_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Tell whether a project has a tag."""
    project = await _tagged(ctx, id, "identity:get_project_tag")
    if tag not in project.tags:
        raise NotFound("project tag", tag)
    return Response(204)


async def replace_tags(ctx: Ctx, id: str, body: Tags) -> Any:
    """Replace all tags of a project."""
    await _tagged(ctx, id, "identity:update_project_tags")
    tags = tidy(body.tags)
    await ctx.service.write(db.update, Project, id, tags=tags)
    return {"tags": tags, "links": {"self": ctx.request.url}}


async def add_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Add a tag to a project."""
    await _tagged(ctx, id, "identity:create_project_tag")
    if "," in tag or not 0 < len(tag) <= 255:
        raise Invalid("A tag has 1 to 255 characters and no comma.")

    def add(tx: Connection) -> None:
        db.update(tx, Project, id, tags=tidy([*db.get(tx, Project, id).tags, tag]))

    await ctx.service.write(add)
    return Response(201, headers={"Location": f"{ctx.request.base_url}/v3/projects/{id}/tags/{quote(tag)}"})


async def remove_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Remove a tag from a project."""
    project = await _tagged(ctx, id, "identity:delete_project_tag")
    if tag not in project.tags:
        raise NotFound("project tag", tag)
    await ctx.service.write(
        lambda tx: db.update(tx, Project, id, tags=[t for t in db.get(tx, Project, id).tags if t != tag])
    )
    return Response(204)


async def remove_tags(ctx: Ctx, id: str) -> Response:
    """Remove all tags of a project."""
    await _tagged(ctx, id, "identity:delete_project_tags")
    await ctx.service.write(db.update, Project, id, tags=[])
    return Response(204)


_plain = calls(Project, create=create_project, update=update_project)
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
