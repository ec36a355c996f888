"""Reading and changing servers.

GET /servers · GET /servers/detail · GET, PUT /servers/{id} · GET /servers/{id}/ips[/{network}]
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET
from sqlalchemy import ColumnElement, Connection, Text, and_, cast, or_

from cumulet.api.crud import granted, list_page, shown, viewer
from cumulet.api.http import Endpoint
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.query import TRUE, Listing
from cumulet.core import db
from cumulet.core.errors import Forbidden, Invalid, NotFound
from cumulet.core.types import now
from cumulet.services.compute.context import Ctx, base_url
from cumulet.services.compute.server.instance_action import plain_time
from cumulet.services.compute.server.resource import (
    EVERY_STATUS,
    STATUS,
    TASK_STATUS,
    Server,
    access_addresses,
    fit,
    links,
    prepare,
)
from cumulet.services.compute.server.state import ALIVE, get_server

PREFIX = "os_compute_api:servers:"
INDEX, DETAIL, SHOW, UPDATE = (PREFIX + verb for verb in ("index", "detail", "show", "update"))
ALL_TENANTS, DETAIL_ALL_TENANTS = PREFIX + "index:get_all_tenants", PREFIX + "detail:get_all_tenants"
IPS, IPS_SHOW = "os_compute_api:ips:index", "os_compute_api:ips:show"
RULES = {
    INDEX: ADMIN_OR_OWNER_READER, DETAIL: ADMIN_OR_OWNER_READER, SHOW: ADMIN_OR_OWNER_READER,
    UPDATE: ADMIN_OR_OWNER_MEMBER, ALL_TENANTS: ADMIN, DETAIL_ALL_TENANTS: ADMIN, IPS: ADMIN_OR_OWNER_READER,
    IPS_SHOW: ADMIN_OR_OWNER_READER,
}  # fmt: skip

C = Server.table.c


# ---- filters ------------------------------------------------------------------------------------------------------------

_GROUP_REPEATED = re.compile(r"\)[*+{]")
_UNBOUNDED = re.compile(r"[*+{]")
MAX_REPEATS = 3


def _pattern(name: str, column: Any) -> Callable[[list[str]], ColumnElement[bool]]:
    """A filter by regular expression, as upstream has it. Patterns whose matching could take for ever are refused."""

    def condition(given: list[str]) -> ColumnElement[bool]:
        text = given[-1]
        if not re.search(r"[\\^$.|?*+()\[\]{}]", text):
            return column.contains(text, autoescape=True)  # type: ignore[no-any-return]
        try:
            re.compile(text)
        except re.error as error:
            raise Invalid(f"Invalid filter {name}: {error}") from None
        if len(text) > 255 or _GROUP_REPEATED.search(text) or len(_UNBOUNDED.findall(text)) > MAX_REPEATS:
            raise Invalid(f"Invalid filter {name}: the pattern is too complex")
        return column.regexp_match(text)  # type: ignore[no-any-return]

    return condition


def _by_status(given: list[str]) -> ColumnElement[bool]:
    """Servers in any of these states; a state nobody knows finds none."""
    arms: list[ColumnElement[bool]] = []
    for name in {text.upper() for text in given} & EVERY_STATUS:
        tasks = [task for task, word in TASK_STATUS.items() if word == name]
        if tasks:
            arms.append(C.task_state.in_(tasks))
        for state, word in STATUS.items():
            if word == name:
                arms.append(and_(C.vm_state == state, or_(C.task_state.is_(None), C.task_state.not_in(TASK_STATUS))))
    return or_(*arms) if arms else C.id.is_(None)


def _has_tag(tag: str) -> ColumnElement[bool]:
    import msgspec

    return cast(C.tags, Text).contains(msgspec.json.encode(tag).decode(), autoescape=True)


def _tags(given: list[str]) -> list[ColumnElement[bool]]:
    return [_has_tag(tag) for tag in given[-1].split(",")]


def _address(version: int) -> Callable[[list[str]], ColumnElement[bool]]:
    """Servers with an address that begins as asked (the pattern's plain part is looked for)."""

    def condition(given: list[str]) -> ColumnElement[bool]:
        text = given[-1].lstrip("^").replace("\\.", ".")
        anchored = text.endswith("$")
        plain = text.rstrip("$")
        if not re.fullmatch(r"[0-9a-fA-F:.]*", plain):
            raise Invalid(f"Invalid filter ip{'6' if version == 6 else ''}: '{given[-1]}' is no part of an address")
        wanted = f'"addr":"{plain}' + ('"' if anchored else "")
        return cast(C.addresses, Text).contains(wanted, autoescape=True)

    return condition


def _reference(column: Any) -> Callable[[list[str]], ColumnElement[bool]]:
    return lambda given: column.in_([text.rstrip("/").rpartition("/")[2] for text in given])


def _exactly(column: Any) -> Callable[[list[str]], ColumnElement[bool]]:
    return lambda given: column.in_(given)


def _flag(column: Any) -> Callable[[list[str]], ColumnElement[bool]]:
    return lambda given: column.is_(given[-1].lower() in TRUE)


def _small(text: str) -> int:
    """A number that a column can hold; what is none finds nothing."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1


FILTERS: dict[str, Callable[[list[str]], ColumnElement[bool]]] = {
    "name": _pattern("name", C.name),
    "status": _by_status,
    "image": _reference(C.image_id),
    "flavor": _reference(C.flavor_id),
    "ip": _address(4),
    "ip6": _address(6),
    "reservation_id": _exactly(C.reservation_id),
    "uuid": _exactly(C.id),
    "tags": lambda given: and_(*_tags(given)),
    "tags-any": lambda given: or_(*_tags(given)),
    "not-tags": lambda given: ~and_(*_tags(given)),
    "not-tags-any": lambda given: ~or_(*_tags(given)),
    "availability_zone": _exactly(C.availability_zone),
    "key_name": _exactly(C.key_name),
    "user_id": _exactly(C.user_id),
    "description": lambda given: C.description.contains(given[-1], autoescape=True),
    "config_drive": lambda given: C.config_drive == ("True" if given[-1].lower() in TRUE else ""),
    "locked": _flag(C.locked),
    "vm_state": _exactly(C.vm_state),
    "task_state": _exactly(C.task_state),
    "power_state": lambda given: C.power_state == _small(given[-1]),
    "hostname": _pattern("hostname", C.hostname),
    "launch_index": lambda given: C.launch_index == _small(given[-1]),
}
"""What everybody may filter by."""
ADMIN_FILTERS = {
    "host": _exactly(C.host),
    "node": _exactly(C.node),
    "hypervisor_hostname": _exactly(C.node),
    "project_id": _exactly(C.project_id),
    "tenant_id": _exactly(C.project_id),
    "instance_name": _exactly(C.instance_name),
}
ELSEWHERE = frozenset({"all_tenants", "deleted", "changes-since", "changes-before", "soft_deleted"})
SILENT = frozenset(
    f.wire for f in Server.fields
)  # declared names are no filters but for those above: upstream ignores the others

SORT_NAMES = {
    "display_name": "name",
    "created_at": "created",
    "updated_at": "updated",
    "uuid": "id",
    "project_id": "tenant_id",
    "vm_state": "OS-EXT-STS:vm_state",
    "task_state": "OS-EXT-STS:task_state",
    "power_state": "OS-EXT-STS:power_state",
    "launched_at": "OS-SRV-USG:launched_at",
    "terminated_at": "OS-SRV-USG:terminated_at",
    "availability_zone": "OS-EXT-AZ:availability_zone",
    "host": "OS-EXT-SRV-ATTR:host",
    "node": "OS-EXT-SRV-ATTR:hypervisor_hostname",
    "image_ref": "image_id",
    "instance_type_id": "flavor_id",
    "memory_mb": "memory_mb",
    "vcpus": "vcpus",
}
"""Upstream's sort keys, which are names of its database."""


def _listing(ctx: Ctx) -> Listing:
    filters = {**FILTERS, **ADMIN_FILTERS} if ctx.caller.is_admin else FILTERS
    if "all_tenants" not in ctx.request.query:  # without it an owner is no question: the caller's project it is
        filters = {name: make for name, make in filters.items() if name not in ("project_id", "tenant_id")}
    ignore = ELSEWHERE | (frozenset(ADMIN_FILTERS) - frozenset(filters)) | (SILENT - frozenset(filters))
    return Listing(
        sort=(("created_at", "desc"),), filters=filters, ignore=ignore, refuse_unknown=ctx.version >= (2, 75),
        sort_names=SORT_NAMES,
    )  # fmt: skip


def _scope(ctx: Ctx, rule: str) -> list[ColumnElement[bool]]:
    """Whose servers are listed, and whether deleted ones are."""
    query, where = ctx.request.query, []
    everyone = "all_tenants" in query and _truth(query.get("all_tenants") or "1", "all_tenants")
    if everyone:
        ctx.require(rule)
    else:
        where.append(C.project_id == ctx.caller.project_id)
    if since := query.get("changes-since"):
        where.append(C.updated_at >= plain_time(since))
    if (before := query.get("changes-before")) and ctx.version >= (2, 66):
        where.append(C.updated_at <= plain_time(before))
    if ctx.caller.is_admin and "deleted" in query:
        gone = _truth(query.get("deleted") or "", "deleted")
        where.append(C.deleted_at.is_not(None) if gone else ALIVE)
    elif "changes-since" not in query and "changes-before" not in query:
        asked = [text.upper() for text in query.all("status")]
        if "DELETED" in asked:
            if not ctx.caller.is_admin:
                raise Forbidden("Only administrators may list deleted instances")
            where.append(C.deleted_at.is_not(None))
        else:
            where.append(ALIVE)
    return where


def _truth(text: str, name: str) -> bool:
    if text.lower() in ("true", "1", "t", "yes", "on", "y"):
        return True
    if text.lower() in ("false", "0", "f", "no", "off", "n"):
        return False
    raise Invalid(f"Invalid value '{text}' for {name}: it is no boolean")


# ---- the calls ----------------------------------------------------------------------------------------------------------


async def _list(ctx: Ctx, rule: str, view: Callable[[Any], Any] | None) -> Any:
    scope: Sequence[ColumnElement[bool]] = _scope(ctx, rule)
    return await list_page(ctx, Server, lambda _: scope, listing=_listing(ctx), enrich=prepare(ctx), view=view)


def _brief(server: Server) -> dict[str, Any]:
    return {"id": server.id, "name": server.name, "links": links(server.base_url, "servers", server.id)}


async def list_servers(ctx: Ctx) -> Any:
    """List servers: ids, names and links."""
    return await _list(ctx, ALL_TENANTS, _brief)


async def list_details(ctx: Ctx) -> Any:
    """List servers with all that they say."""
    show = viewer(ctx, Server, granted(ctx, Server))

    def detailed(row: Any) -> Any:
        item = show(row)
        if ctx.version >= (2, 71):
            item.server_groups = UNSET
        return item

    return await _list(ctx, DETAIL_ALL_TENANTS, detailed)


def view(ctx: Ctx, server: Server) -> Any:
    """The reply that shows a server."""
    fit(server, base_url(ctx), ctx.caller.is_admin)
    return {"server": shown(ctx, Server, server)}


async def show_server(ctx: Ctx, id: str) -> Any:
    """Show one server."""
    return view(ctx, await ctx.service.kernel.db.read_inline(get_server, ctx, id))


SAID_OF_CHANGED_SINCE_275 = (
    "availability_zone", "config_drive", "key_name", "launched_at", "terminated_at", "security_groups", "task_state",
    "vm_state", "power_state", "volumes", "host", "node", "instance_name", "reservation_id", "launch_index",
    "hostname_admin", "kernel_id", "ramdisk_id", "root_device", "user_data", "host_status",
)  # fmt: skip
"""What the reply to a change did not have before."""


def changed_view(ctx: Ctx, server: Server) -> Any:
    """The reply that shows a server that was changed."""
    reply = view(ctx, server)
    if ctx.version < (2, 75):
        for name in SAID_OF_CHANGED_SINCE_275:
            if hasattr(reply["server"], name):
                setattr(reply["server"], name, UNSET)
        reply["server"].addresses = _plain(server)
    return reply


async def update_server(ctx: Ctx, id: str, body: Any) -> Any:
    """Change a server's name, description, host name or access addresses."""
    changes = body.given()
    changes |= access_addresses(changes)
    for name in {"new_hostname", "new_fqdn"} & {*changes}:
        changes["hostname"] = changes.pop(name)

    def unit(tx: Connection) -> Server:
        get_server(tx, ctx, id)
        db.update(tx, Server, id, **changes, updated_at=now())
        return get_server(tx, ctx, id)

    return changed_view(ctx, await ctx.service.kernel.db.run(unit))


def _plain(server: Server) -> dict[str, Any]:
    return {
        name: [{"version": a.version, "addr": a.addr} for a in addresses]
        for name, addresses in server.addresses.items()
    }


async def list_ips(ctx: Ctx, id: str) -> Any:
    """List a server's addresses."""
    return {"addresses": _plain(await ctx.service.kernel.db.read_inline(get_server, ctx, id))}


async def show_ips(ctx: Ctx, id: str, network: str) -> Any:
    """List a server's addresses on one network."""
    addresses = _plain(await ctx.service.kernel.db.read_inline(get_server, ctx, id))
    if network not in addresses:
        raise NotFound(message="Instance is not a member of specified network")
    return {network: addresses[network]}


ONE = "/v2.1/servers/{id}"
endpoints = [
    Endpoint("GET", "/v2.1/servers", list_servers, INDEX, resource=Server),
    Endpoint("GET", "/v2.1/servers/detail", list_details, DETAIL, resource=Server),
    Endpoint("GET", ONE, show_server, SHOW, resource=Server),
    Endpoint("PUT", ONE, update_server, UPDATE, Server, "update", resource=Server),
    Endpoint("GET", ONE + "/ips", list_ips, IPS),
    Endpoint("GET", ONE + "/ips/{network}", show_ips, IPS_SHOW),
]
