"""Types of resources that metadata definitions are for: GET /v2/metadefs/resource_types,
GET|POST /v2/metadefs/namespaces/{namespace}/resource_types, DELETE .../resource_types/{name}."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import Resource, edit, read
from cumulet.core import db
from cumulet.core.types import Time, now
from cumulet.services.image import metadef
from cumulet.services.image.metadef import (
    ONE,
    Ctx,
    Label,
    Part,
    Str80,
    find,
    of_namespaces,
    one,
    refuse_protected,
    refuse_taken,
    require,
)  # fmt: skip


class ResourceType(
    Resource, table="image_metadef_resource_type", primary_key=("name",), path="/v2/metadefs/resource_types", key="",
    plural="resource_types",
):  # fmt: skip
    """A type of resources, known since a namespace was first associated with it."""

    name: Label = read("Its name, as orchestration writes it.")
    created_at: Time = read("When it became known.")
    updated_at: Time = read("The same.")


class Association(
    Part, table="image_metadef_association", primary_key=("namespace", "name"), path=ONE + "/resource_types", key="",
    plural="resource_type_associations", ignore_unknown=True,
):  # fmt: skip
    """That a namespace is for resources of a type."""

    prefix: Str80 | None = edit("What its properties' names begin with on these resources.", None)
    properties_target: Str80 | None = edit("Which of the resource's sets of metadata is meant.", None)


def view(item: Association) -> dict[str, Any]:
    """An association as it is sent."""
    return metadef.shown(item, "name", "prefix", "properties_target")


def associate(tx: Connection, made: Iterable[Association]) -> None:
    """Store associations, and types that were not known yet."""
    new = {item.name: item for item in made}
    known = {kind.name for kind in db.find(tx, ResourceType, ResourceType.table.c.name.in_(list(new)))}
    db.insert_many(
        tx,
        [
            ResourceType(name=n, created_at=a.created_at, updated_at=a.updated_at)
            for n, a in new.items()
            if n not in known
        ],
    )
    db.insert_many(tx, list(new.values()))


async def list_resource_types(ctx: Ctx) -> Any:
    """List the types of resources that are known."""

    def look(tx: Connection) -> Any:
        kinds = db.find(tx, ResourceType, order=[ResourceType.table.c.name])
        return [metadef.shown(kind, "name") for kind in kinds]

    return {"resource_types": await ctx.service.kernel.db.read(look)}


async def list_associations(ctx: Ctx, namespace: str) -> Any:
    """List the types of resources that a namespace of metadata definitions is for."""

    def look(tx: Connection) -> Any:
        require(ctx, find(tx, ctx.caller, namespace), "list_metadef_resource_types", "get_metadef_resource_type")
        return [view(item) for item in of_namespaces(tx, Association, [namespace])[namespace]]

    return {"resource_type_associations": await ctx.service.kernel.db.read(look)}


async def create_association(ctx: Ctx, namespace: str, body: Any) -> Response:
    """Say that a namespace of metadata definitions is for resources of a type."""
    await metadef.writable(ctx.request, Association)
    moment = now()
    made = Association.new(body, namespace=namespace, created_at=moment, updated_at=moment)

    def add(tx: Connection) -> None:
        require(ctx, find(tx, ctx.caller, namespace), "add_metadef_resource_type_association")
        refuse_taken(tx, Association, namespace, made.name)
        associate(tx, [made])

    await ctx.service.kernel.db.run(add)
    return Response(201, view(made))


async def delete_association(ctx: Ctx, namespace: str, name: str) -> Response:
    """Say that a namespace of metadata definitions is no longer for resources of a type."""

    def drop(tx: Connection) -> None:
        found = find(tx, ctx.caller, namespace)
        require(ctx, found, "remove_metadef_resource_type_association")
        item = one(tx, Association, namespace, name)
        refuse_protected(found, f"the association with {name}")
        c = Association.table.c
        db.remove_where(tx, Association, c.namespace == namespace, c.name == item.name)

    await ctx.service.kernel.db.run(drop)
    return Response(204)


_ALL = ONE + "/resource_types"
endpoints = [
    Endpoint(
        "GET", "/v2/metadefs/resource_types", list_resource_types, "list_metadef_resource_types", resource=ResourceType
    ),
    Endpoint("GET", _ALL, list_associations, resource=Association),
    Endpoint("POST", _ALL, create_association, body=Association, status=201, resource=Association),
    Endpoint("DELETE", _ALL + "/{name}", delete_association, status=204, resource=Association),
]
