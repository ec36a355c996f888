"""What clients ask first: GET /, /versions, /v2 (no token needed), /v2/schemas/*, /v2/info/import, /v2/info/stores."""

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import ResourceMeta
from cumulet.core.context import Context
from cumulet.core.errors import NotFound
from cumulet.services.image.image import Image

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

CURRENT = "2.17"
SUPPORTED = ("2.15", "2.9", "2.7", "2.6", "2.5", "2.4", "2.3", "2.2", "2.1", "2.0")
"""The minor versions of a site with one store and no cache. They do not change what a request means."""


def _document(ctx: Ctx) -> dict[str, Any]:
    def version(number: str, status: str) -> dict[str, Any]:
        link = {"rel": "self", "href": f"{ctx.request.base_url}/v2/"}
        return {"id": f"v{number}", "status": status, "links": [link]}

    return {"versions": [version(CURRENT, "CURRENT"), *(version(number, "SUPPORTED") for number in SUPPORTED)]}


async def choices(ctx: Ctx) -> Response:
    """The API versions, where none was named."""
    return Response(300, _document(ctx))


async def versions(ctx: Ctx) -> Any:
    """The API versions."""
    return _document(ctx)


def _schema(cls: ResourceMeta) -> dict[str, Any]:
    """The JSON schema of what is shown, from the declaration."""
    properties = {}
    for field in cls.at("show"):
        described = msgspec.json.schema(field.type)
        properties[field.wire] = {**described, "description": field.doc}
        if not {"create", "update"} & {*field.modes}:
            properties[field.wire]["readOnly"] = True
    return properties


def _collection(name: str, item: dict[str, Any]) -> dict[str, Any]:
    texts = {key: {"type": "string"} for key in ("first", "next", "schema")}
    links = [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}]
    described = {"rel": "describedby", "href": "{schema}"}
    return {
        "name": name,
        "properties": {name: {"type": "array", "items": item}, **texts},
        "links": [*links, described],
    }


IMAGE = {
    "name": "image",
    "properties": _schema(Image),
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
_TEXTS = ("member_id", "image_id", "created_at", "updated_at", "schema")
MEMBER = {
    "name": "member",
    "properties": {
        **{name: {"type": "string"} for name in _TEXTS},
        "status": {"type": "string", "enum": ["pending", "accepted", "rejected"]},
    },
}
SCHEMAS = {
    "image": IMAGE,
    "images": _collection("images", IMAGE),
    "member": MEMBER,
    "members": {
        "name": "members",
        "properties": {"members": {"type": "array", "items": MEMBER}, "schema": {"type": "string"}},
        "links": [{"rel": "describedby", "href": "{schema}"}],
    },
}


async def show_schema(ctx: Ctx, name: str) -> Any:
    """The JSON schema of an image, a member, or a list of them."""
    if name not in SCHEMAS:
        raise NotFound(message="The resource could not be found.")
    return SCHEMAS[name]


async def show_import(ctx: Ctx) -> Any:
    """The import methods of this site: none, data is uploaded."""
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": []}}


async def show_stores(ctx: Ctx) -> Any:
    """The stores of a site that has several; this one has one."""
    raise NotFound(message="Multi backend is not supported at this site.")


endpoints = [
    Endpoint("GET", "/", choices, auth=False, status=300),
    Endpoint("GET", "/versions", versions, auth=False),
    Endpoint("GET", "/v2", choices, auth=False, status=300),
    Endpoint("GET", "/v2/schemas/{name}", show_schema),
    Endpoint("GET", "/v2/info/import", show_import),
    Endpoint("GET", "/v2/info/stores", show_stores),
]
