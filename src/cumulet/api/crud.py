"""The calls of any resource: list, show, create, update and delete, from its declaration.

    endpoints = crud(Port, policy="{verb}_port", scope=visible, create=create_port, delete=delete_port)

A service gives functions of its own only where a resource has rules:

    async def create(ctx, body) -> stored object      async def update(ctx, id, body) -> stored object
    async def delete(ctx, id) -> None                  `enrich(tx, objects) -> objects` adds what the view needs
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Listing, chosen, fetch, plan
from cumulet.api.resource import AUTO, Body, Resource, ResourceMeta, Version
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import Forbidden

Scope = Callable[[Context[Any]], Sequence[ColumnElement[bool]]]
Enrich = Callable[[Connection, list[Any]], list[Any]]
LISTING = Listing()


def own_project(cls: ResourceMeta) -> Scope:
    """Scope of a project's resources: an admin sees all, others those of their project."""
    column = cls.table.c.project_id

    def scope(ctx: Context[Any]) -> Sequence[ColumnElement[bool]]:
        return () if ctx.caller.is_admin else (column == ctx.caller.project_id,)

    return scope


def everything(ctx: Context[Any]) -> Sequence[ColumnElement[bool]]:
    """Scope of resources that belong to nobody: policy alone decides."""
    return ()


def granted(ctx: Context[Any], cls: ResourceMeta) -> frozenset[str]:
    """The checks of this resource's fields that let the caller in."""
    return ctx.policy.granted(cls.show_rules, ctx.caller)


def check_set(ctx: Context[Any], cls: ResourceMeta, body: Body, verb: str, target: Any = None) -> None:
    """Refuse fields that were sent without the right to send them (a default that was spelt out passes)."""
    for field in cls.fields:
        if not field.set:
            continue
        value = getattr(body, field.name, AUTO)
        if field.name in body.given() and (verb == "update" or value != field.default):
            rule = field.set.format(verb=verb)
            if not ctx.allows(rule, target):
                raise Forbidden(rule=f"rule:{rule}")


def shown(ctx: Context[Any], cls: ResourceMeta, item: Any) -> Any:
    """The reply for one stored object."""
    return viewer(ctx, cls, granted(ctx, cls))(item)


def viewer(ctx: Context[Any], cls: ResourceMeta, may: frozenset[str]) -> Callable[[Any], Any]:
    """A function from a stored object to its reply, with its own URL in it where the family wants that."""
    if ctx.dialect is None or not ctx.dialect.self_links:
        return cls.view(ctx.version, may)
    return cls.linked_view(f"{ctx.request.base_url}{cls.options.path}/", ctx.version, may)


def enveloped(ctx: Context[Any], cls: ResourceMeta, item: Any) -> Any:
    """The reply for one stored object, in its envelope, cut to the fields asked for."""
    view = shown(ctx, cls, item)
    if ctx.request is not None and ctx.dialect.fields_parameter and "fields" in ctx.request.query:
        (view,) = chosen([view], ctx.request.query)
    return {cls.options.key: view} if cls.options.key else view


async def get_visible(
    ctx: Context[Any], cls: type[Resource], key: str, scope: Scope, enrich: Enrich | None = None
) -> Any:
    """The stored object, if it exists and the caller's scope holds it; NotFound else."""

    def look(tx: Connection) -> Any:
        item = db.get(tx, cls, key, *scope(ctx))
        return enrich(tx, [item])[0] if enrich else item

    return await ctx.service.kernel.db.read_inline(look)


async def list_page(
    ctx: Context[Any],
    cls: ResourceMeta,
    scope: Scope,
    *,
    listing: Listing = LISTING,
    enrich: Enrich | None = None,
    view: Callable[[Any], Any] | None = None,
    extra: Sequence[ColumnElement[bool]] = (),
    rename: str = "",
) -> Any:
    """One page of a collection, worded as the family words it. `extra` are further conditions, `rename` another plural."""
    request, dialect = ctx.request, ctx.dialect
    may = granted(ctx, cls)
    ready = plan(cls, request.query, ctx.version, may, [*scope(ctx), *extra], dialect, listing)
    if dialect.peeks and ready.limit:
        ready.limit += 1
    show = view or viewer(ctx, cls, may)

    def look(tx: Connection) -> tuple[list[Any], str | None, str | None]:
        rows = fetch(tx, ready)
        key = cls.table.primary_key.columns[0].name
        full = ready.limit is not None and len(rows) == ready.limit > 0
        if full and dialect.peeks:
            del rows[0 if ready.reverse else -1]
        paged = "limit" in request.query or full
        after = getattr(rows[-1], key) if rows and (full or (ready.reverse and paged)) else None
        before = getattr(rows[0], key) if rows and paged and (ready.marker or ready.reverse) else None
        return [show(row) for row in (enrich(tx, rows) if enrich else rows)], after, before

    items, after, before = await ctx.service.kernel.db.read_page(look)
    if dialect.fields_parameter:
        items = list(chosen(items, request.query))
    return dialect.page(request, rename or cls.options.plural, items, after, before)


def crud(
    cls: type[Resource],
    *,
    policy: str,
    policy_list: str = "",
    scope: Scope = everything,
    listing: Listing = LISTING,
    enrich: Enrich | None = None,
    create: Callable[..., Awaitable[Any]] | None = None,
    update: Callable[..., Awaitable[Any]] | None = None,
    delete: Callable[..., Awaitable[Any]] | None = None,
    update_method: str = "PUT",
    statuses: tuple[int, int, int] = (201, 200, 204),  # of create, update, delete
    create_many: Callable[..., Awaitable[list[Any]]] | None = None,  # bulk creation in one unit of work
    path: str = "",
    since: Version = (0, 0),
) -> list[Endpoint]:
    """The endpoints of a resource. `policy` names its rules, with `{verb}` for get, create, update, delete
    (`policy_list` where a list has a rule of its own name). Calls without a function are not offered, save list and show."""
    collection = path or cls.options.path
    member = f"{collection}/{{id}}"

    def rule(verb: str) -> str:
        return policy.format(verb=verb)

    async def list_all(ctx: Context[Any]) -> Any:
        return await list_page(ctx, cls, scope, listing=listing, enrich=enrich)

    async def show_one(ctx: Context[Any], id: str) -> Any:
        return enveloped(ctx, cls, await get_visible(ctx, cls, id, scope, enrich))

    async def create_one(ctx: Context[Any], body: Body) -> Any:
        assert create is not None
        check_set(ctx, cls, body, "create")
        return enveloped(ctx, cls, await create(ctx, body))

    async def create_some(ctx: Context[Any]) -> Any:
        """One object, or many of them at once (all or none)."""
        assert create_many is not None
        data = await ctx.request.read()
        many = cls.decode_many("create", data, ctx.version)
        if many is None:
            return await create_one(ctx, cls.decode("create", data, ctx.version))
        for body in many:
            check_set(ctx, cls, body, "create")
        made = await create_many(ctx, many)
        return {cls.options.plural: [shown(ctx, cls, item) for item in made]}

    async def update_one(ctx: Context[Any], id: str, body: Body) -> Any:
        assert update is not None
        check_set(ctx, cls, body, "update")
        return enveloped(ctx, cls, await update(ctx, id, body))

    async def delete_one(ctx: Context[Any], id: str) -> Any:
        assert delete is not None
        return await delete(ctx, id) or Response(statuses[2])

    for function, verb in (
        (list_all, "List"),
        (show_one, "Show"),
        (create_one, "Create"),
        (update_one, "Change"),
        (delete_one, "Delete"),
    ):
        function.__doc__ = f"{verb} {cls.options.plural if verb == 'List' else cls.kind}."
    endpoints = [
        Endpoint("GET", collection, list_all, policy_list or rule("get"), since=since, resource=cls),
        Endpoint("GET", member, show_one, rule("get"), since=since, resource=cls),
    ]
    if create is not None:
        endpoint = Endpoint(
            "POST", collection, create_one, rule("create"), cls, status=statuses[0], since=since, resource=cls
        )
        if create_many is not None:
            endpoint = Endpoint(
                "POST", collection, create_some, rule("create"), status=statuses[0], since=since, resource=cls
            )
        endpoints.append(endpoint)
    if update is not None:
        endpoints.append(
            Endpoint(
                update_method, member, update_one, rule("update"), cls, "update", statuses[1], since=since, resource=cls
            )
        )
    if delete is not None:
        endpoints.append(
            Endpoint("DELETE", member, delete_one, rule("delete"), status=statuses[2], since=since, resource=cls)
        )
    return endpoints
