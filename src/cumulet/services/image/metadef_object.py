"""Objects of metadata definitions, groups of properties: GET|POST|DELETE /v2/metadefs/namespaces/{namespace}/objects,
GET|PUT|DELETE /v2/metadefs/namespaces/{namespace}/objects/{name}."""

from typing import Any

from cumulet.api.resource import edit
from cumulet.core.types import Text
from cumulet.services.image import metadef
from cumulet.services.image.metadef import ONE, PATH, Part, Parts, Properties


class MetadefObject(
    Part,
    table="image_metadef_object",
    primary_key=("namespace", "name"),
    path=ONE + "/objects",
    key="",
    ignore_unknown=True,
):
    """A group of properties that belong together."""

    description: Text | None = edit("What it is for.", None)
    required: list[str] = edit("The names of the properties that must be given.", [])
    properties: Properties = edit("Its properties, by name.", {})


def view(item: MetadefObject) -> dict[str, Any]:
    """An object as it is sent."""
    return metadef.shown(
        item, "name", "description", "required", "properties",
        self=f"{PATH}/{item.namespace}/objects/{item.name}", schema="/v2/schemas/metadefs/object",
    )  # fmt: skip


OBJECTS = Parts(
    MetadefObject, "objects",
    show="get_metadef_object", index="get_metadef_objects", add="add_metadef_object", change="modify_metadef_object",
    remove="delete_metadef_object", clear=("delete_metadef_namespace",), body=MetadefObject,
    columns=lambda body: dict(body.given()), view=view,
    listed=lambda items: {"objects": [view(item) for item in items], "schema": "v2/schemas/metadefs/objects"},
)  # fmt: skip

endpoints = metadef.endpoints_of(OBJECTS)
