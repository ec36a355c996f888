"""The calls of identity's resources. They differ from other services' in one thing: a rule looks at the object itself
(`domain_id:%(target.user.domain_id)s`), so it is read first and the rule asked then, with what it is (or with nothing,
where it does not exist: only who may see all learns that)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, or_
from sqlalchemy.sql.elements import ColumnClause

from cumulet.api.crud import Scope, enveloped, everything, list_page
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Filter, Listing
from cumulet.api.resource import Body, Resource, ResourceMeta
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import Forbidden, Invalid, NotFound

if TYPE_CHECKING:
    from cumulet.services.identity.runtime import IdentityRuntime

Ctx: TypeAlias = "Context[IdentityRuntime]"

TARGET = ("id", "domain_id", "user_id", "project_id", "name")


def target(item: Any, kind: str = "") -> dict[str, Any]:
    """What rules may know of an object: `target.user.id`, `target.user.domain_id`, ..."""
    if item is None:
        return {}
    kind = kind or item.kind
    found = {f"target.{kind}.{n}": getattr(item, n) for n in TARGET if hasattr(item, n)}
    return {**found, "target.domain_id": found.get(f"target.{kind}.domain_id")}


def guard(ctx: Ctx, verb: str, cls: ResourceMeta, item: Any) -> None:
    """Forbidden unless the caller may do this to the object."""
    ctx.require(f"identity:{verb}_{cls.kind}", target(item))


async def look_up(ctx: Ctx, verb: str, cls: type[Resource], id: str, *where: ColumnElement[bool]) -> Any:
    """The object, if the caller may do this to it."""
    key = cls.table.primary_key.columns[0]
    item = await ctx.service.kernel.db.read_inline(db.first, cls, key == id, *where)
    guard(ctx, verb, cls, item)
    if item is None:
        raise NotFound(cls.kind, id)
    return item


def own_domain(cls: ResourceMeta) -> Scope:
    """A token of a domain sees that domain's objects only, whatever its roles."""
    column = cls.table.c.domain_id

    def scope(ctx: Context[Any]) -> Sequence[ColumnElement[bool]]:
        return (column == ctx.caller.domain_id,) if ctx.caller.domain_id else ()

    return scope


def home_domain(ctx: Ctx) -> str:
    """The domain of what is made without naming one: that of the token."""
    domain = ctx.caller.domain_id or ctx.caller.project_domain_id
    if not domain:
        raise Invalid("The request must name a domain_id, or be made with a token scoped to a domain or project.")
    return domain


def inexact(cls: ResourceMeta, *names: str) -> dict[str, Filter]:
    """The filters `name__contains`, `name__startswith`, `name__endswith`, and each with `i` where case is ignored."""
    filters: dict[str, Filter] = {}
    for name in names:
        column = cls.table.c[name]
        for kind in ("contains", "startswith", "endswith"):
            filters[f"{name}__{kind}"] = _matching(column, kind)
            filters[f"{name}__i{kind}"] = _matching(column, f"i{kind}")
    return filters


def _matching(column: ColumnClause[Any], kind: str) -> Filter:
    def condition(values: list[str]) -> ColumnElement[bool]:
        return or_(*(getattr(column, kind)(value, autoescape=True) for value in values))

    return condition


def change(tx: Connection, cls: type[Resource], id: str, body: Body, /, **more: Any) -> Any:
    """Store an update's fields; free attributes are added to those that are there. The changed object."""
    item: Any = db.get(tx, cls, id)
    stored = {f.name for f in cls.fields if f.stored}
    changes = {n: v for n, v in body.given().items() if n in stored} | more
    changes["extra"] = {**(item.extra or {}), **changes.get("extra", {})}
    db.update(tx, cls, id, **changes)
    return db.get(tx, cls, id)


def calls(
    cls: type[Resource],
    *,
    create: Callable[[Ctx, Any], Awaitable[Any]] | None = None,
    update: Callable[[Ctx, Any, Any], Awaitable[Any]] | None = None,
    delete: Callable[[Ctx, Any], Awaitable[None]] | None = None,
    scope: Scope = everything,
    listing: Listing | None = None,
    where: Sequence[ColumnElement[bool]] = (),
    reveal: Callable[[Ctx, Any], Any] | None = None,
) -> list[Endpoint]:
    """List, show, create, update (PATCH) and delete of a resource, under `identity:<verb>_<kind>`. `create` asks `guard`
    itself, once it knows what is to be made; `update` and `delete` get the object. `where` tells it apart in its table,
    `reveal` turns what is stored into what is shown."""
    listed = listing or Listing(sort=(("id", "asc"),))
    list_rule = f"identity:list_{cls.options.plural}"

    def opened(ctx: Ctx, item: Any) -> Any:
        return item if reveal is None else reveal(ctx, item)

    async def list_all(ctx: Ctx) -> Any:
        ctx.require(list_rule, {"target.domain_id": ctx.caller.domain_id})
        enrich = None if reveal is None else lambda _tx, rows: [reveal(ctx, row) for row in rows]
        return await list_page(ctx, cls, scope, listing=listed, extra=where, enrich=enrich)

    async def show_one(ctx: Ctx, id: str) -> Any:
        return enveloped(ctx, cls, opened(ctx, await look_up(ctx, "get", cls, id, *where)))

    async def create_one(ctx: Ctx, body: Body) -> Any:
        assert create is not None
        return enveloped(ctx, cls, opened(ctx, await create(ctx, body)))

    async def update_one(ctx: Ctx, id: str, body: Body) -> Any:
        assert update is not None
        changed = await update(ctx, await look_up(ctx, "update", cls, id, *where), body)
        return enveloped(ctx, cls, opened(ctx, changed))

    async def delete_one(ctx: Ctx, id: str) -> Any:
        assert delete is not None
        await delete(ctx, await look_up(ctx, "delete", cls, id, *where))
        return Response(204)

    list_all.__doc__ = f"List {cls.options.plural}."
    show_one.__doc__ = f"Show a {cls.kind}."
    create_one.__doc__ = f"Create a {cls.kind}."
    update_one.__doc__ = f"Change a {cls.kind}."
    delete_one.__doc__ = f"Delete a {cls.kind}."
    collection, member = cls.options.path, f"{cls.options.path}/{{id}}"
    endpoints = [
        Endpoint("GET", collection, list_all, resource=cls),
        Endpoint("GET", member, show_one, resource=cls),
    ]
    if create is not None:
        endpoints.append(Endpoint("POST", collection, create_one, body=cls, status=201, resource=cls))
    if update is not None:
        endpoints.append(Endpoint("PATCH", member, update_one, body=cls, mode="update", resource=cls))
    if delete is not None:
        endpoints.append(Endpoint("DELETE", member, delete_one, resource=cls))
    return endpoints


def refuse_delegated(ctx: Ctx, message: str, *, but: str = "") -> None:
    """Forbidden where the caller speaks by a delegation, unless it is of the kind `but`: what he was lent is not his to pass
    on."""
    if ctx.caller.delegation not in ("", but):
        raise Forbidden(message)


def refuse_restricted(ctx: Ctx, what: str) -> None:
    """Forbidden where the caller speaks by an application credential that may not manage `what`."""
    if ctx.caller.restricted:
        raise Forbidden(rule=f"Using method 'application_credential' is not allowed for managing {what}")
