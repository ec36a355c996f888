"""Keys and values, and tags, of a server.

GET, POST, PUT /servers/{id}/metadata · GET, PUT, DELETE /servers/{id}/metadata/{key}
GET, PUT, DELETE /servers/{id}/tags · GET, PUT, DELETE /servers/{id}/tags/{tag}
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.core import db, quota
from cumulet.core.errors import Forbidden, Invalid, NotFound
from cumulet.core.types import now
from cumulet.services.compute.context import Ctx, base_url
from cumulet.services.compute.quota import DEFAULTS
from cumulet.services.compute.server.resource import Key255, Server, Tag, Value255
from cumulet.services.compute.server.state import check_lock, check_state, get_server

META = {
    verb: f"os_compute_api:server-metadata:{verb}"
    for verb in ("index", "show", "create", "update", "update_all", "delete")
}
TAGS = {
    verb: f"os_compute_api:os-server-tags:{verb}"
    for verb in ("index", "show", "update", "update_all", "delete", "delete_all")
}
RULES = {
    rule: ADMIN_OR_OWNER_READER if verb in ("index", "show") else ADMIN_OR_OWNER_MEMBER
    for rules in (META, TAGS)
    for verb, rule in rules.items()
}
MAX_TAGS = 50

Items = dict[Key255, Value255]


class MetadataBody(Struct, forbid_unknown_fields=True):
    metadata: Items


class ItemBody(Struct, forbid_unknown_fields=True):
    meta: Items


class TagsBody(Struct, forbid_unknown_fields=True):
    tags: Annotated[list[Tag], Meta(max_length=MAX_TAGS)]


# ---- keys and values ----------------------------------------------------------------------------------------------------


async def list_metadata(ctx: Ctx, id: str) -> Any:
    """List a server's keys and values."""
    return {"metadata": (await ctx.service.kernel.db.read_inline(get_server, ctx, id)).metadata}


async def show_item(ctx: Ctx, id: str, key: str) -> Any:
    """Show the value of one key."""
    metadata = (await ctx.service.kernel.db.read_inline(get_server, ctx, id)).metadata
    if key not in metadata:
        raise NotFound(message="Metadata item was not found")
    return {"meta": {key: metadata[key]}}


async def _change(ctx: Ctx, id: str, change: Callable[[dict[str, str]], dict[str, str]]) -> dict[str, str]:
    def unit(tx: Connection) -> dict[str, str]:
        server = get_server(tx, ctx, id)
        check_lock(ctx, server)
        check_state(server, "update metadata", ("active", "paused", "stopped"))
        new = change(dict(server.metadata))
        limit = quota.limits(tx, "compute", server.project_id, DEFAULTS)["metadata_items"]
        if limit != quota.UNLIMITED and len(new) > max(limit, len(server.metadata)):
            raise Forbidden("Maximum number of metadata items exceeds the quota")
        db.update(tx, Server, id, metadata=new, updated_at=now())
        return new

    return await ctx.service.kernel.db.run(unit)


async def add_metadata(ctx: Ctx, id: str, body: MetadataBody) -> Any:
    """Add keys and values to a server's."""
    return {"metadata": await _change(ctx, id, lambda old: {**old, **body.metadata})}


async def replace_metadata(ctx: Ctx, id: str, body: MetadataBody) -> Any:
    """Set all keys and values of a server."""
    return {"metadata": await _change(ctx, id, lambda _: body.metadata)}


async def set_item(ctx: Ctx, id: str, key: str, body: ItemBody) -> Any:
    """Set the value of one key."""
    if list(body.meta) != [key]:
        raise Invalid("Request body and URI mismatch")
    await _change(ctx, id, lambda old: {**old, **body.meta})
    return {"meta": body.meta}


async def delete_item(ctx: Ctx, id: str, key: str) -> Response:
    """Remove one key."""

    def remove(old: dict[str, str]) -> dict[str, str]:
        if key not in old:
            raise NotFound(message="Metadata item was not found")
        return {name: value for name, value in old.items() if name != key}

    await _change(ctx, id, remove)
    return Response(204)


# ---- tags ---------------------------------------------------------------------------------------------------------------


async def _change_tags(ctx: Ctx, id: str, change: Callable[[list[str]], list[str]]) -> tuple[list[str], list[str]]:
    """(the tags before, the tags now)."""

    def unit(tx: Connection) -> tuple[list[str], list[str]]:
        server = get_server(tx, ctx, id)
        check_lock(ctx, server)
        new = change(list(server.tags))
        if len(new) > MAX_TAGS:
            raise Invalid(f"The number of tags exceeded the per-server limit {MAX_TAGS}")
        db.update(tx, Server, id, tags=new, updated_at=now())
        return list(server.tags), new

    return await ctx.service.kernel.db.run(unit)


async def list_tags(ctx: Ctx, id: str) -> Any:
    """List a server's tags."""
    return {"tags": (await ctx.service.kernel.db.read_inline(get_server, ctx, id)).tags}


async def check_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Answer whether a server has a tag."""
    _absent((await ctx.service.kernel.db.read_inline(get_server, ctx, id)).tags, id, tag)
    return Response(204)


def _absent(tags: list[str], id: str, tag: str) -> None:
    if tag not in tags:
        raise NotFound(message=f"Server {id} has no tag '{tag}'")


async def replace_tags(ctx: Ctx, id: str, body: TagsBody) -> Any:
    """Set all tags of a server."""
    _, new = await _change_tags(ctx, id, lambda _: list(dict.fromkeys(body.tags)))
    return {"tags": new}


async def add_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Give a server a tag: 201 if it is new, 204 if it was there."""
    try:
        msgspec.convert(tag, Tag)
    except msgspec.ValidationError:
        raise Invalid(f"Invalid tag '{tag}': 1 to 60 characters, without '/' and ','.") from None
    old, _ = await _change_tags(ctx, id, lambda tags: tags if tag in tags else [*tags, tag])
    if tag in old:
        return Response(204)
    return Response(201, headers={"Location": f"{base_url(ctx)}/v2.1/servers/{id}/tags/{tag}"})


async def delete_tag(ctx: Ctx, id: str, tag: str) -> Response:
    """Remove a tag."""

    def remove(tags: list[str]) -> list[str]:
        _absent(tags, id, tag)
        return [other for other in tags if other != tag]

    await _change_tags(ctx, id, remove)
    return Response(204)


async def delete_tags(ctx: Ctx, id: str) -> Response:
    """Remove all tags."""
    await _change_tags(ctx, id, lambda _: [])
    return Response(204)


ITEMS, TAGGED = "/v2.1/servers/{id}/metadata", "/v2.1/servers/{id}/tags"
SINCE = (2, 26)
endpoints = [
    Endpoint("GET", ITEMS, list_metadata, META["index"]),
    Endpoint("POST", ITEMS, add_metadata, META["create"], MetadataBody),
    Endpoint("PUT", ITEMS, replace_metadata, META["update_all"], MetadataBody),
    Endpoint("GET", ITEMS + "/{key}", show_item, META["show"]),
    Endpoint("PUT", ITEMS + "/{key}", set_item, META["update"], ItemBody),
    Endpoint("DELETE", ITEMS + "/{key}", delete_item, META["delete"]),
    Endpoint("GET", TAGGED, list_tags, TAGS["index"], since=SINCE),
    Endpoint("PUT", TAGGED, replace_tags, TAGS["update_all"], TagsBody, since=SINCE),
    Endpoint("DELETE", TAGGED, delete_tags, TAGS["delete_all"], since=SINCE),
    Endpoint("GET", TAGGED + "/{tag}", check_tag, TAGS["show"], since=SINCE),
    Endpoint("PUT", TAGGED + "/{tag}", add_tag, TAGS["update"], since=SINCE),
    Endpoint("DELETE", TAGGED + "/{tag}", delete_tag, TAGS["delete"], since=SINCE),
]
