"""Tags: words on any resource, to find it by.

GET, PUT, POST, DELETE /v2.0/{collection}/{id}/tags · GET, PUT, DELETE /v2.0/{collection}/{id}/tags/{tag}
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial, update_wrapper
from typing import Annotated, Any

from msgspec import Meta, Struct
from sqlalchemy import Connection

from cumulet.api.crud import Scope
from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import NotFound
from cumulet.services.network import (
    floating_ip,
    network,
    port,
    router,
    security_group,
    security_group_rule,
    subnet,
    subnetpool,
)
from cumulet.services.network.standard import Ctx, Standard, change, changeable

Tag = Annotated[str, Meta(min_length=1, max_length=255)]
MAX_TAGS = 50


class Tags(Struct, forbid_unknown_fields=True):
    tags: Annotated[list[Tag], Meta(max_length=MAX_TAGS)]


class Kind(Struct, frozen=True):
    """A kind of resource that has tags."""

    path: str
    cls: type[Standard]
    scope: Scope
    read: str
    write: str


KINDS = (
    Kind("networks", network.Network, network.visible, "get_network", "update_network"),
    Kind("subnets", subnet.Subnet, subnet.visible, "get_subnet", "update_subnet"),
    Kind("subnetpools", subnetpool.SubnetPool, subnetpool.visible, "get_subnetpool", "update_subnetpool"),
    Kind("ports", port.Port, port.visible, "get_port", "update_port"),
    Kind("routers", router.Router, router.visible, "get_router", "update_router"),
    Kind("floatingips", floating_ip.FloatingIp, floating_ip.visible, "get_floatingip", "update_floatingip"),
    Kind("security-groups", security_group.SecurityGroup, security_group.visible, "get_security_group",
         "update_security_group"),
    Kind("security-group-rules", security_group_rule.SecurityGroupRule, security_group_rule.visible,
         "get_security_group_rule", "create_security_group_rule"),
)  # fmt: skip


async def _read(ctx: Ctx, kind: Kind, id: str) -> list[str]:
    found = await ctx.service.kernel.db.read(db.get, kind.cls, id, *kind.scope(ctx))
    return found.tags


async def _write(ctx: Ctx, kind: Kind, id: str, make: Callable[[list[str]], Sequence[str]]) -> list[str]:
    def store(tx: Connection) -> list[str]:
        row = changeable(tx, ctx, kind.cls, id, kind.scope, kind.write)
        tags = list(dict.fromkeys(make(row.tags)))
        if tags != row.tags:
            change(tx, row, tags=tags)
        return tags

    return await ctx.service.write(store)


async def list_tags(kind: Kind, ctx: Ctx, id: str) -> Any:
    """List the tags of a resource."""
    return {"tags": await _read(ctx, kind, id)}


async def replace_tags(kind: Kind, ctx: Ctx, id: str, body: Tags) -> Any:
    """Give a resource exactly these tags."""
    return {"tags": await _write(ctx, kind, id, lambda old: body.tags)}


async def add_tags(kind: Kind, ctx: Ctx, id: str, body: Tags) -> Any:
    """Give a resource these tags too."""
    return {"tags": await _write(ctx, kind, id, lambda old: [*old, *body.tags])}


async def remove_tags(kind: Kind, ctx: Ctx, id: str) -> Response:
    """Take all tags from a resource."""
    await _write(ctx, kind, id, lambda old: [])
    return Response(204)


async def check_tag(kind: Kind, ctx: Ctx, id: str, tag: str) -> Response:
    """Ask whether a resource has a tag."""
    if tag not in await _read(ctx, kind, id):
        raise _missing(tag)
    return Response(204)


async def add_tag(kind: Kind, ctx: Ctx, id: str, tag: str) -> Response:
    """Give a resource one more tag."""
    await _write(ctx, kind, id, lambda old: [*old, tag[:255]])
    return Response(201)


async def remove_tag(kind: Kind, ctx: Ctx, id: str, tag: str) -> Response:
    """Take a tag from a resource."""

    def without(old: list[str]) -> list[str]:
        if tag not in old:
            raise _missing(tag)
        return [t for t in old if t != tag]

    await _write(ctx, kind, id, without)
    return Response(204)


def _missing(tag: str) -> NotFound:
    return NotFound(message=f"Tag {tag} could not be found.", code="TagNotFound")


def _calls(kind: Kind) -> list[Endpoint]:
    many, one = f"/v2.0/{kind.path}/{{id}}/tags", f"/v2.0/{kind.path}/{{id}}/tags/{{tag}}"
    rows: list[tuple[str, str, Callable[..., Awaitable[Any]], str, Any]] = [
        ("GET", many, list_tags, kind.read, None),
        ("PUT", many, replace_tags, kind.write, Tags),
        ("POST", many, add_tags, kind.write, Tags),
        ("DELETE", many, remove_tags, kind.write, None),
        ("GET", one, check_tag, kind.read, None),
        ("PUT", one, add_tag, kind.write, None),
        ("DELETE", one, remove_tag, kind.write, None),
    ]
    return [
        Endpoint(method, path, update_wrapper(partial(handler, kind), handler), rule, body, resource=kind.cls)
        for method, path, handler, rule, body in rows
    ]


endpoints = [endpoint for kind in KINDS for endpoint in _calls(kind)]
