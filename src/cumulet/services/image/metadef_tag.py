"""Tags of metadata definitions: GET|POST|DELETE /v2/metadefs/namespaces/{namespace}/tags,
GET|POST|PUT|DELETE /v2/metadefs/namespaces/{namespace}/tags/{name}."""

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.query import TRUE
from cumulet.core import db
from cumulet.core.errors import Conflict
from cumulet.services.image import metadef
from cumulet.services.image.metadef import ONE, Ctx, Part, Parts, Tag, find, refuse_taken, require


class MetadefTag(
    Part, table="image_metadef_tag", primary_key=("namespace", "name"), path=ONE + "/tags", key="", ignore_unknown=True
):
    """A word that things may be marked with."""


class Tags(Struct, forbid_unknown_fields=True):
    """The tags that a namespace is to have, or to have too."""

    tags: list[Tag]


def view(item: MetadefTag) -> dict[str, Any]:
    """A tag as it is sent."""
    return metadef.shown(item, "name")


def _listed(items: list[MetadefTag]) -> dict[str, Any]:
    return {"tags": [{"name": item.name} for item in items]}


TAGS = Parts(
    MetadefTag, "tags", show="get_metadef_tag", index="get_metadef_tags", add="add_metadef_tag",
    change="modify_metadef_tag", remove="delete_metadef_tag", clear=("delete_metadef_namespace", "delete_metadef_tags"),
    body=MetadefTag, columns=lambda body: dict(body.given()), view=view, listed=_listed,
)  # fmt: skip


async def create_tag(ctx: Ctx, namespace: str, name: str) -> Response:
    """Add a tag to a namespace of metadata definitions."""
    made = TAGS.new(namespace, MetadefTag.decode("create", msgspec.json.encode({"name": name})).given())

    def add(tx: Connection) -> None:
        require(ctx, find(tx, ctx.caller, namespace), "add_metadef_tag")
        refuse_taken(tx, MetadefTag, namespace, name)
        db.insert(tx, made)

    await ctx.service.kernel.db.run(add)
    return Response(201, view(made))


async def create_tags(ctx: Ctx, namespace: str, body: Tags) -> Response:
    """Set the tags of a namespace of metadata definitions; with `X-Openstack-Append: true`, add to them."""
    append = (ctx.request.headers.get("X-Openstack-Append") or "").lower() in TRUE
    names = [tag.name for tag in body.tags]
    if len({*names}) < len(names):
        raise Conflict("A tag is named twice.")
    made = [TAGS.new(namespace, {"name": name}) for name in names]

    def put(tx: Connection) -> None:
        require(ctx, find(tx, ctx.caller, namespace), "add_metadef_tags")
        c = MetadefTag.table.c
        if not append:
            db.remove_where(tx, MetadefTag, c.namespace == namespace)
        taken = db.find(tx, MetadefTag, c.namespace == namespace, c.name.in_(names))
        if taken:
            raise Conflict(f"The namespace {namespace} already has a tag {taken[0].name}.")
        db.insert_many(tx, made)

    await ctx.service.kernel.db.run(put)
    return Response(201, _listed(made))


endpoints = [
    *[e for e in metadef.endpoints_of(TAGS) if (e.method, e.path) != ("POST", f"{ONE}/tags")],
    Endpoint("POST", ONE + "/tags", create_tags, body=Tags, status=201, resource=MetadefTag),
    Endpoint("POST", ONE + "/tags/{name}", create_tag, status=201),
]
