"""Properties of metadata definitions: GET|POST|DELETE /v2/metadefs/namespaces/{namespace}/properties,
GET|PUT|DELETE /v2/metadefs/namespaces/{namespace}/properties/{name}.

A property is a JSON schema with a name. With `?resource_type=`, it is asked for by the name it has on resources of that type.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection

from cumulet.api.resource import hidden
from cumulet.core.errors import NotFound
from cumulet.services.image import metadef
from cumulet.services.image.metadef import ONE, Ctx, Label, Part, Parts, Property, find, one, require
from cumulet.services.image.metadef_resource_type import Association


class MetadefProperty(
    Part, table="image_metadef_property", primary_key=("namespace", "name"), path=ONE + "/properties", key="",
    plural="properties",
):  # fmt: skip
    """A property that things may have, and what may stand in it."""

    content: Property = hidden("The JSON schema.")


class Named(Property, kw_only=True, forbid_unknown_fields=False):
    """A property as it is sent alone."""

    name: Label


def _columns(body: Named) -> dict[str, Any]:
    content = msgspec.to_builtins(body)
    return {"name": content.pop("name"), "content": msgspec.convert(content, Property)}


def view(item: MetadefProperty) -> dict[str, Any]:
    """A property as it is sent."""
    return {"name": item.name, **msgspec.to_builtins(item.content)}


PROPERTIES = Parts(
    MetadefProperty, "properties",
    show="get_metadef_property", index="get_metadef_properties", add="add_metadef_property",
    change="modify_metadef_property", remove="remove_metadef_property", clear=("delete_metadef_namespace",),
    body=Named, columns=_columns, view=view, listed=lambda items: {"properties": {item.name: item.content for item in items}},
)  # fmt: skip


async def show_property(ctx: Ctx, namespace: str, name: str) -> Any:
    """Show one of the properties of a namespace of metadata definitions."""
    kind = ctx.request.query.get("resource_type")

    def look(tx: Connection) -> Any:
        found = find(tx, ctx.caller, namespace)
        require(ctx, found, "get_metadef_property")
        bare = name
        if kind:
            require(ctx, found, "get_metadef_resource_type")
            prefix = one(tx, Association, namespace, kind).prefix or ""
            if not prefix or not name.startswith(prefix):
                raise NotFound(message=f"The property {name} does not begin with {prefix!r}, the prefix for {kind}.")
            bare = name.removeprefix(prefix)
        return view(one(tx, MetadefProperty, namespace, bare))

    return await ctx.service.kernel.db.read_inline(look)


endpoints = metadef.endpoints_of(PROPERTIES, show=show_property)
