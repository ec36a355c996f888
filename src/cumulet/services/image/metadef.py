"""What all metadata definitions share: who sees a namespace, how its parts are found, what a property looks like.

A namespace holds objects, properties, tags and associations with types of resources, each under a name of its own. Who may
see a namespace sees all that is in it; who may not is told that it is not there.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy import ColumnElement, Connection, or_, select

from cumulet.api.http import Endpoint, Query, Request, Response
from cumulet.api.resource import AUTO, SORT, Resource, ResourceMeta, edit, hidden, read, sent
from cumulet.core import db
from cumulet.core.context import Caller, Context
from cumulet.core.db.store import load_all
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Column, Str255, Time, now
from cumulet.services.image.rules import ADMIN, OWNER, READER, in_project

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"
Str80 = Annotated[str, Meta(max_length=80), Column(80)]
Str500 = Annotated[str, Meta(max_length=500), Column(500)]
Label = Annotated[str, Meta(min_length=1, max_length=80), Column(80)]
Kind = Literal["array", "boolean", "integer", "number", "object", "string"]
Natural = Annotated[int, Meta(ge=0)]

PATH = "/v2/metadefs/namespaces"
ONE = PATH + "/{namespace}"
READ_ONLY = ("self", "schema", "created_at", "updated_at")

_SEEN = f"{ADMIN} or (role:reader and ({OWNER} or 'public':%(visibility)s))"
_READS = (
    "get_metadef_namespace", "get_metadef_object", "get_metadef_objects", "list_metadef_resource_types",
    "get_metadef_resource_type", "get_metadef_property", "get_metadef_properties", "get_metadef_tag", "get_metadef_tags",
)  # fmt: skip
_WRITES = (
    "modify_metadef_namespace", "add_metadef_namespace", "delete_metadef_namespace", "modify_metadef_object",
    "add_metadef_object", "delete_metadef_object", "add_metadef_resource_type_association",
    "remove_metadef_resource_type_association", "modify_metadef_property", "add_metadef_property", "remove_metadef_property",
    "modify_metadef_tag", "add_metadef_tag", "add_metadef_tags", "delete_metadef_tag", "delete_metadef_tags",
)  # fmt: skip
RULES = {
    "metadef_default": "@",
    "metadef_admin": ADMIN,
    **in_project(
        {
            "get_metadef_namespaces": READER,
            **dict.fromkeys(_READS, _SEEN),
            **dict.fromkeys(_WRITES, "rule:metadef_admin"),
        }
    ),
}


class Items(Struct, forbid_unknown_fields=True):
    """What the elements of an array are."""

    type: Kind
    enum: list[Any] | UnsetType = UNSET


class Property(Struct, forbid_unknown_fields=True, rename={"unique": "uniqueItems", "additional": "additionalItems"}):
    """The JSON schema of one property (draft 4, cut down), as far as metadata definitions take it."""

    title: str
    type: Kind
    description: str | UnsetType = UNSET
    operators: list[str] | UnsetType = UNSET
    default: Any = UNSET
    readonly: bool | UnsetType = UNSET
    confidential: bool | UnsetType = UNSET
    minimum: int | float | UnsetType = UNSET
    maximum: int | float | UnsetType = UNSET
    enum: list[Any] | UnsetType = UNSET
    pattern: str | UnsetType = UNSET
    minLength: Natural | UnsetType = UNSET  # noqa: N815 - JSON schema's own word
    maxLength: Natural | UnsetType = UNSET  # noqa: N815
    items: Items | UnsetType = UNSET
    unique: bool | UnsetType = UNSET
    minItems: Natural | UnsetType = UNSET  # noqa: N815
    maxItems: Natural | UnsetType = UNSET  # noqa: N815
    additional: bool | UnsetType = UNSET


Properties = dict[Label, Property]


class Tag(Struct, forbid_unknown_fields=True):
    """A tag among others."""

    name: Label


class NewAssociation(Struct, forbid_unknown_fields=True):
    """A type of resources that a new namespace is for."""

    name: Label
    prefix: Str80 | None = None
    properties_target: Str80 | None = None


class NewObject(Struct, forbid_unknown_fields=True):
    """An object that a new namespace has."""

    name: Label
    description: str | None = None
    required: list[str] = []
    properties: Properties = {}


class Namespace(
    Resource, table="image_metadef_namespace", path="/v2/metadefs/namespaces", primary_key=("namespace",), key="",
    plural="namespaces", ignore_unknown=True,
):  # fmt: skip
    """A set of definitions of metadata."""

    namespace: Label = edit("Its name, of which the cloud has one.", use=SORT)
    display_name: Str80 | None = edit("A name for people.", None, SORT)
    description: Str500 | None = edit("What it is for.", None, SORT)
    visibility: Literal["public", "private"] = edit("Whether every project sees it.", "private", SORT)
    protected: bool = edit("Whether neither it nor what is in it may be deleted.", False, SORT)
    owner: Str255 | None = edit("The project it belongs to.", AUTO, SORT, index=True)
    created_at: Time = read("When it was made.", use=SORT)
    updated_at: Time = read("When it last changed.", use=SORT)
    resource_type_associations: list[NewAssociation] = sent("The types of resources that it is for.", [])
    objects: list[NewObject] = sent("Its objects.", [])
    properties: Properties = sent("Its properties, by name.", {})
    tags: list[Tag] = sent("Its tags.", [])


class Part(Resource):
    """What every part of a namespace has."""

    namespace: Str80 = hidden("The namespace it is in.")
    name: Label = edit("Its name, of which the namespace has one.")
    created_at: Time = read("When it was made.")
    updated_at: Time = read("When it last changed.")


def missing(name: str) -> NotFound:
    """What who may not see a namespace is told, and who asks for one that is not there."""
    return NotFound(message=f"Metadata definition namespace {name} was not found.")


def visible(caller: Caller) -> list[ColumnElement[bool]]:
    """The namespaces that a caller may see."""
    if caller.is_admin:
        return []
    c = Namespace.table.c
    return [or_(c.owner == (caller.project_id or ""), c.visibility == "public", c.owner.is_(None))]


def find(tx: Connection, caller: Caller, name: str) -> Namespace:
    """The namespace, if the caller may see it; NotFound else."""
    try:
        return db.get(tx, Namespace, name, *visible(caller))
    except NotFound:
        raise missing(name) from None


def target(namespace: Namespace) -> dict[str, Any]:
    """What policy rules look at."""
    return {"project_id": namespace.owner, "visibility": namespace.visibility}


def require(ctx: Ctx, namespace: Namespace, *rules: str) -> None:
    """Refuse what policy refuses: NotFound where the caller may not see the namespace either, Forbidden else."""
    where = target(namespace)
    for rule in rules:
        if not ctx.allows(rule, where):
            if not ctx.allows("get_metadef_namespace", where):
                raise missing(namespace.namespace)
            raise Forbidden(rule=rule)


def refuse_protected(namespace: Namespace, what: str) -> None:
    if namespace.protected:
        raise Forbidden(f"The namespace {namespace.namespace} is protected: {what} cannot be deleted.")


async def writable(request: Request, model: Any) -> None:
    """Refuse a body that sends what only the service says, or what `model` does not have."""
    try:
        given = msgspec.json.decode(await request.read(), type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise Invalid(f"The body is no JSON object: {error}") from None
    for name in given:
        if name in READ_ONLY:
            raise Forbidden(f"Attribute '{name}' is read-only.")
    known = _names(model)
    if unknown := [name for name in given if name not in known]:
        raise Invalid(f"Attribute {', '.join(unknown)} is not known here; these are: {', '.join(known)}.")


@cache
def _names(model: Any) -> tuple[str, ...]:
    """The attributes of a body."""
    if isinstance(model, ResourceMeta):
        return tuple(field.wire for field in model.at("create"))
    return tuple(model.__struct_encode_fields__)


def one(tx: Connection, cls: Any, namespace: str, name: str) -> Any:
    """The part with this name; NotFound where there is none."""
    part = db.first(tx, cls, cls.table.c.namespace == namespace, cls.table.c.name == name)
    if part is None:
        raise NotFound(message=f"The namespace {namespace} has no {cls.kind.replace('_', ' ')} {name}.")
    return part


def refuse_taken(tx: Connection, cls: Any, namespace: str, name: str) -> None:
    if db.first(tx, cls, cls.table.c.namespace == namespace, cls.table.c.name == name) is not None:
        raise Conflict(f"The namespace {namespace} already has a {cls.kind.replace('_', ' ')} {name}.")


def change(tx: Connection, cls: Any, part: Any, **new: Any) -> Any:
    """Store new values of a part, whose name may be among them; returns it as it is then."""
    c = cls.table.c
    if new["name"] != part.name:
        refuse_taken(tx, cls, part.namespace, new["name"])
    db.update_where(tx, cls, [c.namespace == part.namespace, c.name == part.name], **new)
    return one(tx, cls, part.namespace, new["name"])


def page(tx: Connection, cls: Any, namespace: str, query: Query) -> list[Any]:
    """The parts of a namespace, sorted and cut as the query string says; newest first, and all, if it says nothing."""
    key, direction = query.get("sort_key", "created_at"), query.get("sort_dir", "desc")
    columns = {name: cls.table.c[name] for name in ("name", "created_at", "updated_at")}
    if key not in columns:
        raise Invalid(f"Invalid sort key: {key}. It must be one of: {', '.join(columns)}.")
    if direction not in ("asc", "desc"):
        raise Invalid(f"Invalid sort direction: {direction}. It is asc or desc.")
    limit = query.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdigit() and int(limit) > 0):
        raise Invalid("limit param must be a positive integer")
    order = [columns[str(key)], cls.table.c.name]
    rows = db.find(
        tx, cls, cls.table.c.namespace == namespace, order=[c.desc() if direction == "desc" else c.asc() for c in order]
    )
    marker = query.get("marker")
    if marker is not None:
        names = [row.name for row in rows]
        if marker not in names:
            raise NotFound(message=f"The marker {marker} is not in the namespace {namespace}.")
        rows = rows[names.index(marker) + 1 :]
    return rows[: int(limit)] if limit is not None else rows


def of_namespaces(tx: Connection, cls: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """The parts of many namespaces at once, oldest first."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    table = cls.table
    rows = tx.execute(select(table).where(table.c.namespace.in_(names)).order_by(table.c.created_at, table.c.name))
    for part in load_all(cls, rows.all()):
        found[part.namespace].append(part)
    return found


def shown(item: Any, *names: str, **more: Any) -> dict[str, Any]:
    """The named attributes of a part that have a value, and its times."""
    view = {name: value for name in names if (value := getattr(item, name)) is not None}
    view |= {"created_at": f"{item.created_at[:19]}Z", "updated_at": f"{item.updated_at[:19]}Z"}
    return view | more


class Parts(Struct, frozen=True):
    """How one kind of part is served: its name in paths, its policy rules, and how it is read, stored and sent."""

    cls: Any
    plural: str
    show: str  # the rules of policy
    index: str
    add: str
    change: str
    remove: str
    clear: tuple[str, ...]
    body: Any  # what makes one, and says anew what one is
    columns: Callable[[Any], dict[str, Any]]  # what such a body says, by column
    view: Callable[[Any], dict[str, Any]]
    listed: Callable[[list[Any]], dict[str, Any]]

    def new(self, namespace: str, columns: Mapping[str, Any]) -> Any:
        """A new part of a namespace."""
        moment = now()
        return self.cls.new(None, namespace=namespace, created_at=moment, updated_at=moment, **columns)


def _reading(kind: Parts) -> dict[str, Callable[..., Any]]:
    """The functions that show a kind of part, by what they do in words."""
    cls = kind.cls

    async def index(ctx: Ctx, namespace: str) -> Any:
        def look(tx: Connection) -> Any:
            require(ctx, find(tx, ctx.caller, namespace), kind.index, kind.show)
            return page(tx, cls, namespace, ctx.request.query)

        return kind.listed(await ctx.service.kernel.db.read(look))

    async def show(ctx: Ctx, namespace: str, name: str) -> Any:
        def look(tx: Connection) -> Any:
            require(ctx, find(tx, ctx.caller, namespace), kind.show)
            return kind.view(one(tx, cls, namespace, name))

        return await ctx.service.kernel.db.read_inline(look)

    return {"List the {} of": index, "Show one of the {} of": show}


def _changing(kind: Parts) -> dict[str, Callable[..., Any]]:
    """The functions that make and change a kind of part, likewise."""
    cls = kind.cls

    async def create(ctx: Ctx, namespace: str, body: Any) -> Response:
        await writable(ctx.request, kind.body)
        made = kind.new(namespace, kind.columns(body))

        def add(tx: Connection) -> None:
            require(ctx, find(tx, ctx.caller, namespace), kind.add)
            refuse_taken(tx, cls, namespace, made.name)
            db.insert(tx, made)

        await ctx.service.kernel.db.run(add)
        return Response(201, kind.view(made))

    async def update(ctx: Ctx, namespace: str, name: str, body: Any) -> Any:
        await writable(ctx.request, kind.body)
        new = kind.columns(body)

        def store(tx: Connection) -> Any:
            require(ctx, find(tx, ctx.caller, namespace), kind.change)
            return kind.view(change(tx, cls, one(tx, cls, namespace, name), **new, updated_at=now()))

        return await ctx.service.kernel.db.run(store)

    return {"Add one to the {} of": create, "Say anew what one of the {} is, of": update}


def _removing(kind: Parts) -> dict[str, Callable[..., Any]]:
    """The functions that delete a kind of part, likewise."""
    cls = kind.cls

    async def delete(ctx: Ctx, namespace: str, name: str) -> Response:
        def drop(tx: Connection) -> None:
            found = find(tx, ctx.caller, namespace)
            require(ctx, found, kind.remove)
            part = one(tx, cls, namespace, name)
            refuse_protected(found, name)
            db.remove_where(tx, cls, cls.table.c.namespace == namespace, cls.table.c.name == part.name)

        await ctx.service.kernel.db.run(drop)
        return Response(204)

    async def clear(ctx: Ctx, namespace: str) -> Response:
        def drop(tx: Connection) -> None:
            found = find(tx, ctx.caller, namespace)
            require(ctx, found, *kind.clear)
            refuse_protected(found, f"its {kind.plural}")
            db.remove_where(tx, cls, cls.table.c.namespace == namespace)

        await ctx.service.kernel.db.run(drop)
        return Response(204)

    return {"Delete one of the {} of": delete, "Delete all {} of": clear}


def endpoints_of(kind: Parts, **own: Callable[..., Any]) -> list[Endpoint]:
    """The endpoints of a kind of part; `own` are functions that serve instead of the usual ones."""
    made = {**_reading(kind), **_changing(kind), **_removing(kind)}
    for words, function in made.items():
        function.__doc__ = f"{words.format(kind.plural)} a namespace of metadata definitions."
    serve = {**{function.__name__: function for function in made.values()}, **own}
    path, resource = f"{ONE}/{kind.plural}", kind.cls
    return [
        Endpoint("GET", path, serve["index"], resource=resource),
        Endpoint("POST", path, serve["create"], body=kind.body, status=201, resource=resource),
        Endpoint("DELETE", path, serve["clear"], status=204, resource=resource),
        Endpoint("GET", path + "/{name}", serve["show"], resource=resource),
        Endpoint("PUT", path + "/{name}", serve["update"], body=kind.body, resource=resource),
        Endpoint("DELETE", path + "/{name}", serve["delete"], status=204, resource=resource),
    ]
