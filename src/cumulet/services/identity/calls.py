"""The calls of identity's resources. They differ from other services' in one thing: a rule looks at the object itself
(`domain_id:%(target.user.domain_id)s`), so it is read first and the rule asked then, with what it is (or with nothing,
where it does not exist: only who may see all learns that)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import UNSET
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, or_
from sqlalchemy.sql.elements import ColumnClause

from cumulet.api.crud import Scope, enveloped, everything, list_page, shown
from cumulet.api.http import Endpoint, Query, Response
from cumulet.api.query import FALSE, TRUE, Filter, Listing
from cumulet.api.resource import FILTER, Body, Resource, ResourceMeta, list_type
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.db.table import split
from cumulet.core.errors import Forbidden, Invalid, NotFound
from cumulet.services.identity.options import merged

if TYPE_CHECKING:
    from cumulet.services.identity.runtime import IdentityRuntime

Ctx: TypeAlias = "Context[IdentityRuntime]"

TARGET = ("id", "domain_id", "user_id", "project_id", "name")
DEFAULT_DOMAIN = "default"
"""The id of the domain that is there from the first start."""


def target(item: Any, kind: str = "") -> dict[str, Any]:
    """What rules may know of an object (or of the body that it is to be made from): `target.user.id`,
    `target.user.domain_id`, ..."""
    if item is None:
        return {}
    kind = kind or item.kind
    given = ((n, getattr(item, n, UNSET)) for n in TARGET)
    found = {f"target.{kind}.{n}": value or None for n, value in given if value is not UNSET}
    return {**found, "target.domain_id": found.get(f"target.{kind}.domain_id")}


def guard(ctx: Ctx, verb: str, cls: ResourceMeta, item: Any) -> None:
    """Forbidden unless the caller may do this to the object, or make one of this body."""
    ctx.require(f"identity:{verb}_{cls.kind}", target(item, cls.kind))


Guard = Callable[[Ctx, str, ResourceMeta, Any], None]


async def look_up(
    ctx: Ctx,
    verb: str,
    cls: type[Resource],
    id: str,
    *where: ColumnElement[bool],
    ask: Guard = guard,
    told: bool = False,
) -> Any:
    """The object, if the caller may do this to it. With `told` everybody learns that there is none."""
    key = cls.table.primary_key.columns[0]
    item = await ctx.service.kernel.db.read_inline(db.first, cls, key == id, *where)
    if item is not None or not told:
        ask(ctx, verb, cls, item)
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
    """The domain of what is made without naming one: that of a domain's token, else the default one."""
    return ctx.caller.domain_id or DEFAULT_DOMAIN


def flag(query: Query, name: str) -> bool:
    """A parameter that counts as true by being there, unless it is 0."""
    return name in query and (query.get(name) or "").lower() not in FALSE


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


def search(cls: ResourceMeta, **more: Filter) -> Listing:
    """How a resource is listed: by id; every filter that is declared, text in part as well, and `enabled` without a value."""
    filters: dict[str, Filter] = {}
    for field in cls.fields:
        if FILTER not in field.use or not field.stored:
            continue
        kind, _, _ = split(field.type)
        if kind is str:
            filters |= inexact(cls, field.name)
        elif kind is bool:
            filters[field.wire] = _truth(cls.table.c[field.name], field.wire)
    return Listing(sort=(("id", "asc"),), filters={**filters, **more})


def _truth(column: ColumnClause[Any], name: str) -> Filter:
    def condition(values: list[str]) -> ColumnElement[bool]:
        text = values[-1].lower()
        if text in FALSE:
            return ~column
        if text not in TRUE and text:
            raise Invalid(f"Invalid input for {name}: '{text}' is not a boolean; true or false would be.")
        return column.is_(True)

    return condition


def change(tx: Connection, cls: type[Resource], id: str, body: Body, /, **more: Any) -> Any:
    """Store an update's fields; free attributes are added to those that are there. The changed object."""
    item: Any = db.get(tx, cls, id)
    stored = {f.name for f in cls.fields if f.stored}
    changes = {n: v for n, v in body.given().items() if n in stored} | more
    if cls.options.extra:
        changes["extra"] = {**(item.extra or {}), **changes.get("extra", {})}
    if "option_values" in changes:
        changes["option_values"] = merged(item.option_values, changes["option_values"])
    db.update(tx, cls, id, **changes)
    return db.get(tx, cls, id)


def bulk(cls: type[Resource], create: Callable[[Ctx, list[Any]], Awaitable[list[Any]]]) -> Endpoint:
    """The call that makes many of a resource, all or none, under `identity:create_<plural>`."""
    plural = cls.options.plural

    async def create_many(ctx: Ctx, body: Any) -> Any:
        return {plural: [shown(ctx, cls, item) for item in await create(ctx, body.several)]}

    create_many.__doc__ = f"Create {plural}, all or none."
    body = list_type(cls, "create")
    return Endpoint("POST", cls.options.path, create_many, f"identity:create_{plural}", body, status=201, resource=cls)


def _as_stored(ctx: Ctx, item: Any) -> Any:
    return item


_HOW: Mapping[str, tuple[str, str, dict[str, Any], str]] = {
    "list": ("GET", "", {}, "List {plural}."),
    "show": ("GET", "/{id}", {}, "Show a {kind}."),
    "create": ("POST", "", {"status": 201}, "Create a {kind}."),
    "put": ("PUT", "/{id}", {"status": 201}, "Create a {kind} under an id of the caller's choice."),
    "update": ("PATCH", "/{id}", {"mode": "update"}, "Change a {kind}."),
    "delete": ("DELETE", "/{id}", {}, "Delete a {kind}."),
}
"""By what is done: the method, what follows the collection's path, what else the endpoint states, and its sentence."""


def _endpoints(cls: ResourceMeta, **handlers: Callable[..., Awaitable[Any]] | None) -> list[Endpoint]:
    """The endpoints of the handlers that there are."""
    offered = {verb: handler for verb, handler in handlers.items() if handler is not None}
    endpoints = []
    for verb, handler in offered.items():
        method, more_path, stated, sentence = _HOW[verb]
        handler.__doc__ = sentence.format(plural=cls.options.plural, kind=cls.kind)
        body = cls if verb in ("create", "put", "update") else None
        path = cls.options.path + more_path
        endpoints.append(Endpoint(method, path, handler, body=body, resource=cls, **stated))
    return endpoints


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
    reveal: Callable[[Ctx, Any], Any] = _as_stored,
    finish: Callable[[Ctx, Any, Any], Awaitable[Any]] | None = None,
    ask: Guard = guard,
    told: Sequence[str] = (),
) -> list[Endpoint]:
    """List, show, create, update (PATCH) and delete of a resource, under `identity:<verb>_<kind>`. `create` asks `guard`
    itself, once it knows what is to be made; `put` creates under an id that the client picks; `update` and `delete` get the
    object. `where` tells it apart in its table, `reveal` turns what is stored into what is shown, `finish` adds to the reply
    about one what is stored elsewhere. `ask` is the question to policy where it is another than `guard`; `told` are the verbs
    (get, update, delete) for which a missing object is a 404 to everybody, as upstream has it."""
    listed = replace(listing or search(cls), where=tuple(where))

    async def found(ctx: Ctx, verb: str, id: str) -> Any:
        return await look_up(ctx, verb, cls, id, *where, ask=ask, told=verb in told)

    async def answer(ctx: Ctx, item: Any) -> Any:
        reply = enveloped(ctx, cls, reveal(ctx, item))
        return reply if finish is None else await finish(ctx, item, reply)

    async def list_all(ctx: Ctx) -> Any:
        ctx.require(f"identity:list_{cls.options.plural}", {"target.domain_id": ctx.caller.domain_id})
        enrich = None if reveal is _as_stored else lambda _tx, rows: [reveal(ctx, row) for row in rows]
        return await list_page(ctx, cls, scope, listing=listed, enrich=enrich)

    async def show_one(ctx: Ctx, id: str) -> Any:
        return await answer(ctx, await found(ctx, "get", id))

    async def make_one(make: Callable[..., Awaitable[Any]], ctx: Ctx, body: Body, **path: str) -> Any:
        return await answer(ctx, await make(ctx, *path.values(), body))

    async def update_one(ctx: Ctx, id: str, body: Body) -> Any:
        assert update is not None
        item = await found(ctx, "update", id)
        await _same_id(ctx, cls, id)
        return await answer(ctx, await update(ctx, item, body))

    async def delete_one(ctx: Ctx, id: str) -> Any:
        assert delete is not None
        await delete(ctx, await found(ctx, "delete", id))
        return Response(204)

    return _endpoints(
        cls,
        list=list_all,
        show=show_one,
        create=create and partial(make_one, create),
        put=put and partial(make_one, put),
        update=update and update_one,
        delete=delete and delete_one,
    )


async def _same_id(ctx: Ctx, cls: ResourceMeta, id: str) -> None:
    """Invalid if the body of an update names another object than its path does, or nothing to change."""
    sent = msgspec.json.decode(await ctx.request.read(), type=dict[str, Any]).get(cls.options.key, {})
    if isinstance(sent, dict) and sent.get("id") not in (None, id):
        raise Invalid("Cannot change ID: it is not the one of the path.")
    if not sent:
        raise Invalid(f"An update of a {cls.kind} must name at least one attribute.")


def refuse_delegated(ctx: Ctx, message: str, *, but: str = "") -> None:
    """Forbidden where the caller speaks by a delegation, unless it is of the kind `but`: what he was lent is not his to pass
    on."""
    if ctx.caller.delegation not in ("", but):
        raise Forbidden(message)


def refuse_restricted(ctx: Ctx, what: str) -> None:
    """Forbidden where the caller speaks by an application credential that may not manage `what`."""
    if ctx.caller.restricted:
        raise Forbidden(rule=f"Using method 'application_credential' is not allowed for managing {what}")
