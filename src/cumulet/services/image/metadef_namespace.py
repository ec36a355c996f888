"""Namespaces of metadata definitions: GET|POST /v2/metadefs/namespaces, GET|PUT|DELETE /v2/metadefs/namespaces/{namespace}.

A namespace may be made with all that is in it, and shows it. Names are what refers to things here, so changing a namespace's
name changes it in its parts.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint, Query, Response
from cumulet.api.query import Listing
from cumulet.core import db
from cumulet.core.db.store import values
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import now
from cumulet.services.image import metadef
from cumulet.services.image.metadef import (
    ONE,
    PATH,
    Ctx,
    Namespace,
    find,
    of_namespaces,
    refuse_protected,
    require,
    visible,
)  # fmt: skip
from cumulet.services.image.metadef_object import OBJECTS, MetadefObject
from cumulet.services.image.metadef_property import PROPERTIES, MetadefProperty
from cumulet.services.image.metadef_resource_type import Association, associate
from cumulet.services.image.metadef_resource_type import view as association_view
from cumulet.services.image.metadef_tag import TAGS, MetadefTag

LISTING = Listing(sort=(("created_at", "desc"),))
PARTS = (MetadefObject, MetadefProperty, MetadefTag, Association)


def view(item: Namespace, **more: Any) -> dict[str, Any]:
    """A namespace as it is sent, with those of `more` that hold something."""
    names = ("namespace", "display_name", "description", "visibility", "protected", "owner")
    full = {name: value for name, value in more.items() if value}
    return metadef.shown(item, *names, self=f"{PATH}/{item.namespace}", schema="/v2/schemas/metadefs/namespace", **full)


def _filters(query: Query) -> list[Any]:
    found: list[Any] = []
    visibility = query.get("visibility")
    if visibility:
        if visibility not in ("public", "private"):
            raise Invalid(f"Invalid visibility value: {visibility}. It is public or private.")
        found.append(Namespace.table.c.visibility == visibility)
    if kinds := query.get("resource_types"):
        c = Association.table.c
        found.append(
            Namespace.table.c.namespace.in_(
                select(c.namespace).where(c.name.in_([kind.strip() for kind in kinds.split(",")]))
            )
        )
    if query.get("sort_dir") not in (None, "asc", "desc"):
        raise Invalid(f"Invalid sort direction: {query.get('sort_dir')}. It is asc or desc.")
    return found


async def list_namespaces(ctx: Ctx) -> Any:
    """List the namespaces of metadata definitions that the caller may see, newest first."""
    ctx.require("list_metadef_resource_types")
    query, caller = ctx.request.query, ctx.caller
    extra = _filters(query)
    marker = query.get("marker")
    if marker:
        await ctx.service.kernel.db.read_inline(find, caller, marker)

    def add(tx: Connection, rows: list[Any]) -> list[Any]:
        kinds = of_namespaces(tx, Association, [row.namespace for row in rows])
        return [
            view(row, resource_type_associations=[association_view(a) for a in kinds[row.namespace]])
            for row in rows
            if ctx.allows("get_metadef_namespace", metadef.target(row))
        ]

    page: dict[str, Any] = await list_page(
        ctx, Namespace, lambda _ctx: visible(caller), listing=LISTING, extra=extra, enrich=add, view=lambda made: made
    )
    return {**page, "schema": "/v2/schemas/metadefs/namespaces"}


async def show_namespace(ctx: Ctx, namespace: str) -> Any:
    """Show a namespace of metadata definitions and all that is in it."""
    kind = ctx.request.query.get("resource_type")

    def look(tx: Connection) -> Any:
        found = find(tx, ctx.caller, namespace)
        require(
            ctx, found, "get_metadef_namespace", "list_metadef_resource_types", "get_metadef_objects", "get_metadef_properties",
            "get_metadef_tags",
        )  # fmt: skip
        parts = {cls: of_namespaces(tx, cls, [namespace])[namespace] for cls in PARTS}
        prefix = next((a.prefix for a in parts[Association] if a.name == kind), None) or ""
        objects = [OBJECTS.view(item) for item in parts[MetadefObject]]
        for item in objects:
            item["properties"] = {prefix + name: value for name, value in item["properties"].items()}
            item["required"] = [prefix + name for name in item["required"]]
        return view(
            found,
            resource_type_associations=[association_view(a) for a in parts[Association]],
            properties={prefix + item.name: item.content for item in parts[MetadefProperty]},
            objects=objects,
            tags=[{"name": tag.name} for tag in parts[MetadefTag]],
        )

    return await ctx.service.kernel.db.read(look)


class Whole(Struct):
    """A namespace and all that is in it, ready to be stored."""

    namespace: Namespace
    associations: Sequence[Association]
    objects: Sequence[MetadefObject]
    properties: Sequence[MetadefProperty]
    tags: Sequence[MetadefTag]


def read_whole(body: Any, owner: str | None) -> Whole:
    """What a body that makes a namespace says; Conflict if a name comes twice."""
    moment = now()
    times = {"created_at": moment, "updated_at": moment}
    namespace = Namespace.new(body, owner=body.given().get("owner", owner), **times)
    name = namespace.namespace
    for what, names in (
        ("resource type", [a.name for a in body.resource_type_associations]),
        ("object", [o.name for o in body.objects]),
        ("tag", [t.name for t in body.tags]),
    ):
        if len({*names}) < len(names):
            raise Conflict(f"A {what} is named twice.")
    return Whole(
        namespace,
        [Association(namespace=name, **msgspec.structs.asdict(a), **times) for a in body.resource_type_associations],
        [OBJECTS.new(name, msgspec.structs.asdict(o)) for o in body.objects],
        [PROPERTIES.new(name, {"name": key, "content": value}) for key, value in body.properties.items()],
        [TAGS.new(name, {"name": tag.name}) for tag in body.tags],
    )


def store(tx: Connection, whole: Whole) -> None:
    """Store a new namespace with all that is in it; Conflict if there is one of that name."""
    name = whole.namespace.namespace
    if db.first(tx, Namespace, Namespace.table.c.namespace == name):
        raise Conflict(f"The namespace {name} already exists.")
    db.insert(tx, whole.namespace)
    associate(tx, whole.associations)
    for parts in (whole.objects, whole.properties, whole.tags):
        db.insert_many(tx, parts)


async def create_namespace(ctx: Ctx, body: Any) -> Response:
    """Make a namespace of metadata definitions, with all that it is to hold."""
    await metadef.writable(ctx.request, Namespace)
    whole = read_whole(body, ctx.caller.project_id)
    needed = {
        "add_metadef_resource_type_association": whole.associations,
        "add_metadef_object": whole.objects,
        "add_metadef_property": whole.properties,
        "add_metadef_tag": whole.tags,
    }
    for rule, parts in needed.items():
        if parts:
            ctx.require(rule)
    await ctx.service.kernel.db.run(store, whole)
    made = view(
        whole.namespace,
        resource_type_associations=[association_view(a) for a in whole.associations],
        properties={item.name: item.content for item in whole.properties},
        objects=[OBJECTS.view(item) for item in whole.objects],
        tags=[{"name": tag.name} for tag in whole.tags],
    )
    return Response(201, made, {"Location": made["self"]})


async def update_namespace(ctx: Ctx, namespace: str, body: Any) -> Any:
    """Say anew what a namespace of metadata definitions is; what is in it stays."""
    await metadef.writable(ctx.request, Namespace)
    new = read_whole(body, ctx.caller.project_id).namespace

    def change(tx: Connection) -> Any:
        old = find(tx, ctx.caller, namespace)
        require(ctx, old, "modify_metadef_namespace")
        c = Namespace.table.c
        if new.namespace != namespace:
            if db.first(tx, Namespace, c.namespace == new.namespace):
                raise Conflict(f"The namespace {new.namespace} already exists.")
            for cls in PARTS:
                db.update_where(tx, cls, [cls.table.c.namespace == namespace], namespace=new.namespace)
        stored = {**values(new), "created_at": old.created_at}
        db.update_where(tx, Namespace, [c.namespace == namespace], **stored)
        return view(db.get(tx, Namespace, new.namespace))

    return await ctx.service.kernel.db.run(change)


async def delete_namespace(ctx: Ctx, namespace: str) -> Response:
    """Delete a namespace of metadata definitions and all that is in it."""

    def drop(tx: Connection) -> None:
        found = find(tx, ctx.caller, namespace)
        require(ctx, found, "delete_metadef_namespace")
        refuse_protected(found, "it")
        for cls in PARTS:
            db.remove_where(tx, cls, cls.table.c.namespace == namespace)
        db.remove(tx, Namespace, namespace)

    await ctx.service.kernel.db.run(drop)
    return Response(204)


endpoints = [
    Endpoint("GET", PATH, list_namespaces, "get_metadef_namespaces", resource=Namespace),
    Endpoint("POST", PATH, create_namespace, "add_metadef_namespace", Namespace, status=201, resource=Namespace),
    Endpoint("GET", ONE, show_namespace, resource=Namespace),
    Endpoint("PUT", ONE, update_namespace, body=Namespace, resource=Namespace),
    Endpoint("DELETE", ONE, delete_namespace, status=204, resource=Namespace),
]
