"""The calls of identity's resources. They differ from other services' in one thing: a rule looks at the object itself
(`domain_id:%(target.user.domain_id)s`), so it is read first and the rule asked then, with what it is (or with nothing,
where it does not exist: only who may see all learns that)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
    if cls.options.extra:
        changes["extra"] = {**(item.extra or {}), **changes.get("extra", {})}
    db.update(tx, cls, id, **changes)
    return db.get(tx, cls, id)


_HOW: Mapping[str, tuple[str, str, dict[str, Any], str]] = {
    "list": ("GET", "", {}, "List {plural}."),
    "show": ("GET", "/{id}", {}, "Show a {kind}."),
    "create": ("POST", "", {"status": 201}, "Create a {kind}."),
    "put": ("PUT", "/{id}", {"status": 201}, "Create a {kind} under an id of the caller's choice."),
    "update": ("PATCH", "/{id}", {"mode": "update"}, "Change a {kind}."),
    "delete": ("DELETE", "/{id}", {}, "Delete a {kind}."),
}
"""By what is done: the method, what follows the collection's path, what else the endpoint states, and its sentence."""


def _endpoint(cls: ResourceMeta, verb: str, handler: Callable[..., Awaitable[Any]]) -> Endpoint:
    method, more_path, stated, sentence = _HOW[verb]
    handler.__doc__ = sentence.format(plural=cls.options.plural, kind=cls.kind)
    body = cls if verb in ("create", "put", "update") else None
    return Endpoint(method, cls.options.path + more_path, handler, body=body, resource=cls, **stated)


def calls(
    cls: type[Resource],
    *,
    create: Callable[[Ctx, Any], Awaitable[Any]] | None = None,
    put: Callable[[Ctx, str, Any], Awaitable[Any]] | None = None,
    update: Callable[[Ctx, Any, Any], Awaitable[Any]] | None = None,
    delete: Callable[[Ctx, Any], Awaitable[None]] | None = None,
    scope: Scope = everything,
    listing: Listing | None = None,
    where: Sequence[ColumnElement[bool]] = (),
    reveal: Callable[[Ctx, Any], Any] | None = None,
    finish: Callable[[Ctx, Any, Any], Awaitable[Any]] | None = None,
) -> list[Endpoint]:
    """List, show, create, update (PATCH) and delete of a resource, under `identity:<verb>_<kind>`. `create` asks `guard`
    itself, once it knows what is to be made; `put` creates under an id that the client picks; `update` and `delete` get the
    object. `where` tells it apart in its table, `reveal` turns what is stored into what is shown, `finish`
    adds to the reply about one what is stored elsewhere."""
    listed = listing or Listing(sort=(("id", "asc"),))

    def opened(ctx: Ctx, item: Any) -> Any:
        return item if reveal is None else reveal(ctx, item)

    async def told(ctx: Ctx, item: Any) -> Any:
        reply = enveloped(ctx, cls, opened(ctx, item))
        return reply if finish is None else await finish(ctx, item, reply)

    async def list_all(ctx: Ctx) -> Any:
        ctx.require(f"identity:list_{cls.options.plural}", {"target.domain_id": ctx.caller.domain_id})
        enrich = None if reveal is None else lambda _tx, rows: [reveal(ctx, row) for row in rows]
        return await list_page(ctx, cls, scope, listing=listed, extra=where, enrich=enrich)

    async def show_one(ctx: Ctx, id: str) -> Any:
        return await told(ctx, await look_up(ctx, "get", cls, id, *where))

    async def create_one(ctx: Ctx, body: Body) -> Any:
        assert create is not None
        return await told(ctx, await create(ctx, body))

    async def put_one(ctx: Ctx, id: str, body: Body) -> Any:
        assert put is not None
        return await told(ctx, await put(ctx, id, body))

    async def update_one(ctx: Ctx, id: str, body: Body) -> Any:
        assert update is not None
        return await told(ctx, await update(ctx, await look_up(ctx, "update", cls, id, *where), body))

    async def delete_one(ctx: Ctx, id: str) -> Any:
        assert delete is not None
        await delete(ctx, await look_up(ctx, "delete", cls, id, *where))
        return Response(204)

    offered: dict[str, Callable[..., Awaitable[Any]] | None] = {
        "list": list_all,
        "show": show_one,
        "create": create and create_one,
        "put": put and put_one,
        "update": update and update_one,
        "delete": delete and delete_one,
    }
    return [_endpoint(cls, verb, handler) for verb, handler in offered.items() if handler is not None]


def refuse_delegated(ctx: Ctx, message: str, *, but: str = "") -> None:
    """Forbidden where the caller speaks by a delegation, unless it is of the kind `but`: what he was lent is not his to pass
    on."""
    if ctx.caller.delegation not in ("", but):
        raise Forbidden(message)


def refuse_restricted(ctx: Ctx, what: str) -> None:
    """Forbidden where the caller speaks by an application credential that may not manage `what`."""
    if ctx.caller.restricted:
        raise Forbidden(rule=f"Using method 'application_credential' is not allowed for managing {what}")
