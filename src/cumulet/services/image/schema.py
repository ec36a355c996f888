"""What clients learn the attributes of things from: GET /v2/schemas/{name}, GET /v2/schemas/metadefs/{name}.

JSON schemas (draft 4), made from the declarations wherever there is one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import msgspec

from cumulet.api.http import Endpoint
from cumulet.api.resource import ResourceMeta
from cumulet.core.context import Context
from cumulet.core.errors import NotFound
from cumulet.services.image.image import Image
from cumulet.services.image.metadef import READ_ONLY, Kind, Namespace
from cumulet.services.image.metadef_object import MetadefObject
from cumulet.services.image.metadef_resource_type import Association
from cumulet.services.image.metadef_tag import MetadefTag

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"
Schema: TypeAlias = dict[str, Any]

TEXT: Schema = {"type": "string"}
DESCRIBED_BY: Schema = {"rel": "describedby", "href": "{schema}"}
MADE_HERE: dict[str, str] = {
    "self": "Its own URL.",
    "schema": "The URL of its schema.",
    "created_at": "When it was made.",
    "updated_at": "When it last changed.",
}


def _described(doc: str, **more: Any) -> Schema:
    return {**more, "description": doc}


def _fields(cls: ResourceMeta) -> Schema:
    """The attributes that are shown, from the declaration."""
    properties = {}
    for field in cls.at("show"):
        properties[field.wire] = _described(field.doc, **_flat(msgspec.json.schema(field.type)))
        if not {"create", "update"} & {*field.modes}:
            properties[field.wire]["readOnly"] = True
    return properties


def _flat(schema: Schema) -> Schema:
    """A choice between null and one thing as clients of draft 4 expect it: a list of types, and null among the values."""
    schema.pop("$defs", None)
    arms = schema.get("anyOf")
    if arms is None:
        return {"type": "string", **schema} if "enum" in schema else schema
    (arm,) = [arm for arm in arms if arm != {"type": "null"}]
    flat = {**arm, "type": ["null", arm.get("type", "string")]}
    if "enum" in arm:
        flat["enum"] = [None, *(value for value in arm["enum"] if value is not None)]
    return flat


def _collection(name: str, item: Schema, *, paged: bool = True) -> Schema:
    definitions = item.get("definitions")
    bare = {key: value for key, value in item.items() if key != "definitions"}
    links = ("first", "next") if paged else ()
    schema = {
        "name": name,
        "properties": {name: {"type": "array", "items": bare}, **dict.fromkeys((*links, "schema"), TEXT)},
        "links": [*({"rel": link, "href": f"{{{link}}}"} for link in links), DESCRIBED_BY],
    }
    return {**schema, "definitions": definitions} if definitions else schema


_IMAGE_STATES = [
    "queued",
    "saving",
    "active",
    "killed",
    "deleted",
    "uploading",
    "importing",
    "pending_delete",
    "deactivated",
]
_LOCATION = {
    "type": "object",
    "required": ["url", "metadata"],
    "properties": {
        "url": {"type": "string", "maxLength": 255},
        "metadata": {"type": "object"},
        "validation_data": _described(
            "What the data has to be; for an image that has data, what it is.",
            type="object",
            writeOnly=True,
            additionalProperties=False,
            required=["os_hash_algo", "os_hash_value"],
            properties={
                "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
                "os_hash_algo": {"type": "string", "maxLength": 64},
                "os_hash_value": {"type": "string", "maxLength": 128},
            },
        ),
    },
}


def _image() -> Schema:
    properties = _fields(Image)
    properties["status"]["enum"] = _IMAGE_STATES
    properties["direct_url"] = _described("Where the data lies.", type="string", readOnly=True)
    properties["stores"] = _described("The stores that hold the data, with commas.", type="string", readOnly=True)
    properties["locations"] = _described("Where the data lies, each place.", type="array", items=_LOCATION)
    return {
        "name": "image",
        "properties": properties,
        "additionalProperties": TEXT,
        "links": [{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, DESCRIBED_BY],
    }


def _member() -> Schema:
    texts = ("member_id", "image_id", "created_at", "updated_at", "schema")
    status = {"type": "string", "enum": ["pending", "accepted", "rejected"]}
    return {"name": "member", "properties": {**dict.fromkeys(texts, TEXT), "status": status}}


def _task(*, whole: bool) -> Schema:
    names = ("id", "type", "status", "owner", "expires_at", "created_at", "updated_at", "self", "schema")
    properties: Schema = dict.fromkeys(names, TEXT)
    properties["type"] = {"type": "string", "enum": ["import", "api_image_import", "location_import"]}
    properties["status"] = {"type": "string", "enum": ["pending", "processing", "success", "failure"]}
    properties["expires_at"] = properties["owner"] = {"type": ["null", "string"]}
    if whole:
        properties |= {"input": {"type": ["null", "object"]}, "result": {"type": ["null", "object"]}}
        properties |= {"message": TEXT, "image_id": TEXT, "request_id": TEXT, "user_id": TEXT}
    return {"name": "task", "properties": properties}


DEFINITIONS: Schema = {
    "positiveInteger": {"type": "integer", "minimum": 0},
    "positiveIntegerDefault0": {"allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}]},
    "stringArray": {"type": "array", "items": TEXT, "uniqueItems": True},
}
_KINDS = [*get_args(Kind), None]
_NATURAL = {"$ref": "#/definitions/positiveInteger"}
_NATURAL_0 = {"$ref": "#/definitions/positiveIntegerDefault0"}
_TEXTS = {"$ref": "#/definitions/stringArray"}
PROPERTY: Schema = {
    "name": {"type": "string", "maxLength": 80},
    "title": TEXT,
    "description": TEXT,
    "operators": {"type": "array", "items": TEXT},
    "type": {"type": "string", "enum": _KINDS},
    "required": _TEXTS,
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "maxLength": _NATURAL,
    "minLength": _NATURAL_0,
    "pattern": {"type": "string", "format": "regex"},
    "enum": {"type": "array"},
    "readonly": {"type": "boolean"},
    "default": {},
    "items": {"type": "object", "properties": {"type": {"type": "string", "enum": _KINDS}, "enum": {"type": "array"}}},
    "maxItems": _NATURAL,
    "minItems": _NATURAL_0,
    "uniqueItems": {"type": "boolean", "default": False},
    "additionalItems": {"type": "boolean"},
}
_PROPERTIES = {
    "type": "object",
    "additionalProperties": {"type": "object", "required": ["title", "type"], "properties": PROPERTY},
}
_OF_PROPERTIES = {"$ref": "#/definitions/property"}


def _part(name: str, cls: ResourceMeta, *required: str, **more: Schema) -> Schema:
    """The schema of something among the metadata definitions."""
    times = {k: _described(MADE_HERE[k], type="string", format="date-time", readOnly=True) for k in READ_ONLY[2:]}
    declared = {k: v for k, v in _fields(cls).items() if k != "id"}
    schema: Schema = {
        "name": name, "properties": {**declared, **times, **more}, "additionalProperties": False, "required": list(required),
    }  # fmt: skip
    if any("$ref" in str(value) for value in more.values()):
        schema["definitions"] = {**DEFINITIONS, "property": _PROPERTIES}
    return schema


_URLS = {k: _described(MADE_HERE[k], type="string", readOnly=True) for k in READ_ONLY[:2]}
_OBJECT_PARTS: Schema = {"description": TEXT, "required": _TEXTS, "properties": _OF_PROPERTIES}
_ASSOCIATION_PARTS: Schema = dict.fromkeys(("name", "prefix", "properties_target"), TEXT)


def _many(**properties: Schema) -> Schema:
    return {"type": "array", "items": {"type": "object", "properties": properties}}


def _property() -> Schema:
    definitions = {**DEFINITIONS, "stringArray": {**DEFINITIONS["stringArray"], "minItems": 1}}
    return {
        "name": "property", "properties": PROPERTY, "additionalProperties": False, "required": ["type", "title", "name"],
        "definitions": definitions,
    }  # fmt: skip


def _property_map() -> Schema:
    """The one collection that is an object, by names, and no array."""
    one = _property()
    item = {**one, "required": ["type", "title"]}
    schema = _collection("properties", one)
    del item["definitions"]
    schema["properties"]["properties"] = {"type": "object", "additionalProperties": item}
    return schema


def _metadefs() -> dict[str, Schema]:
    namespace = _part(
        "namespace", Namespace, "namespace",
        **_URLS,
        resource_type_associations=_many(**_ASSOCIATION_PARTS),
        properties=_OF_PROPERTIES,
        objects=_many(name=TEXT, **_OBJECT_PARTS),
        tags=_many(name=TEXT),
    )  # fmt: skip
    thing = _part("object", MetadefObject, "name", **_URLS, **_OBJECT_PARTS)
    association = _part("resource_type_association", Association, "name")
    tag = _part("tag", MetadefTag, "name")
    return {
        "namespace": namespace,
        "namespaces": _collection("namespaces", namespace),
        "object": thing,
        "objects": _collection("objects", thing),
        "property": _property(),
        "properties": _property_map(),
        "tag": tag,
        "tags": _collection("tags", tag),
        "resource_type": association,
        "resource_types": _collection("resource_type_associations", association),
    }


_MADE: dict[str, Callable[[], Schema]] = {
    "image": _image,
    "images": lambda: _collection("images", _image()),
    "member": _member,
    "members": lambda: _collection("members", _member(), paged=False),
    "task": lambda: _task(whole=True),
    "tasks": lambda: _collection("tasks", _task(whole=False)),
}
SCHEMAS: dict[str, Schema] = {name: make() for name, make in _MADE.items()}
METADEFS = _metadefs()


async def show_schema(ctx: Ctx, name: str) -> Any:
    """The JSON schema of an image, a member, a task, or a list of them."""
    return _found(SCHEMAS, name)


async def show_metadef_schema(ctx: Ctx, name: str) -> Any:
    """The JSON schema of something among the metadata definitions, or a list of them."""
    return _found(METADEFS, name)


def _found(schemas: dict[str, Schema], name: str) -> Schema:
    if name not in schemas:
        raise NotFound(message=f"There is no schema {name}; these are: {', '.join(schemas)}.")
    return schemas[name]


endpoints = [
    Endpoint("GET", "/v2/schemas/{name}", show_schema),
    Endpoint("GET", "/v2/schemas/metadefs/{name}", show_metadef_schema),
]
