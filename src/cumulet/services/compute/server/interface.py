"""A server's network cards and the security groups on them.

GET, POST /servers/{id}/os-interface · GET, DELETE .../{port_id} · GET /servers/{id}/os-security-groups
POST /servers/{id}/action: addSecurityGroup, removeSecurityGroup

A machine that runs gets and loses its cards at once; one that is off finds them changed at its next start.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct, field
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.operations import Finish, Operation
from cumulet.core.types import new_id
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.addresses import cache_addresses, queue_detach
from cumulet.services.compute.server.build import load_server, nic
from cumulet.services.compute.server.create import find_network
from cumulet.services.compute.server.instance_action import finished
from cumulet.services.compute.server.resource import NetworkRequest, Server, ServerPort, Tag
from cumulet.services.compute.server.state import ALIVE, begin, check_lock, check_state, get_server, ports_of
from cumulet.services.network.interface import PortInfo

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

PREFIX = "os_compute_api:os-attach-interfaces:"
LIST, SHOW, CREATE, DELETE = (PREFIX + verb for verb in ("list", "show", "create", "delete"))
GROUPS = {verb: f"os_compute_api:os-security-groups:{verb}" for verb in ("list", "add", "remove")}
RULES = {
    LIST: ADMIN_OR_OWNER_READER, SHOW: ADMIN_OR_OWNER_READER, CREATE: ADMIN_OR_OWNER_MEMBER,
    DELETE: ADMIN_OR_OWNER_MEMBER, GROUPS["list"]: ADMIN_OR_OWNER_READER, GROUPS["add"]: ADMIN_OR_OWNER_MEMBER,
    GROUPS["remove"]: ADMIN_OR_OWNER_MEMBER,
}  # fmt: skip


class WantedIp(Struct, forbid_unknown_fields=True):
    ip_address: Annotated[str, Meta(max_length=64)]


class Attachment(Struct, forbid_unknown_fields=True):
    port_id: Annotated[str, Meta(max_length=64)] | None = None
    net_id: Annotated[str, Meta(max_length=64)] | None = None
    fixed_ips: Annotated[list[WantedIp], Meta(max_length=1)] | None = None
    tag: Tag | None = None


class AttachBody(Struct, forbid_unknown_fields=True):
    interface: Attachment | None = field(name="interfaceAttachment", default=None)


class GroupBody(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=255)]


# ---- cards --------------------------------------------------------------------------------------------------------------


async def _cards(ctx: Ctx, id: str) -> list[tuple[ServerPort, PortInfo]]:
    def look(tx: Connection) -> list[ServerPort]:
        get_server(tx, ctx, id)
        return ports_of(tx, id)

    ports = await ctx.service.kernel.db.read(look)
    infos = {info.id: info for info in await ctx.service.builder.port_infos(id, ports)}
    return [(port, infos[port.port_id]) for port in ports if port.port_id in infos]


def _shown(ctx: Ctx, info: PortInfo, tag: str | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "port_state": info.status,
        "port_id": info.id,
        "net_id": info.network_id,
        "mac_addr": info.mac_address,
        "fixed_ips": [{"subnet_id": ip.subnet_id, "ip_address": ip.ip_address} for ip in info.fixed_ips],
    }
    if ctx.version >= (2, 70):
        shown["tag"] = tag
    return shown


async def list_interfaces(ctx: Ctx, id: str) -> Any:
    """List a server's network cards."""
    return {"interfaceAttachments": [_shown(ctx, info, port.tag) for port, info in await _cards(ctx, id)]}


async def show_interface(ctx: Ctx, id: str, port_id: str) -> Any:
    """Show one network card."""
    for port, info in await _cards(ctx, id):
        if info.id == port_id:
            return {"interfaceAttachment": _shown(ctx, info, port.tag)}
    raise NotFound(message=f"Port {port_id} is not attached to instance {id}")


def _changeable(ctx: Ctx, server: Server, verb: str) -> None:
    check_lock(ctx, server)
    check_state(server, verb, ("active", "paused", "stopped"))


async def attach_interface(ctx: Ctx, id: str, body: AttachBody) -> Any:
    """Give a server another network card: a port of the caller's, or a new one on a network."""
    wanted = body.interface or Attachment()
    if wanted.port_id and (wanted.net_id or wanted.fixed_ips):
        raise Invalid("Must not input both network_id and port_id, nor fixed_ips with port_id.")
    if wanted.fixed_ips and not wanted.net_id:
        raise Invalid("Must input network_id when request IP address")
    await ctx.service.kernel.db.read_inline(get_server, ctx, id)  # whoever may not see it learns nothing of networks
    address = wanted.fixed_ips[0].ip_address if wanted.fixed_ips else None
    request = NetworkRequest(uuid=wanted.net_id, port=wanted.port_id, fixed_ip=address)
    _, network_id, own = await find_network(ctx, request)
    port_id = request.port or new_id()

    def unit(tx: Connection) -> tuple[Server, ServerPort]:
        server = get_server(tx, ctx, id)
        _changeable(ctx, server, "attach_interface")
        if db.first(tx, ServerPort, ServerPort.table.c.port_id == port_id):
            raise Conflict(f"Port {port_id} is still in use.")
        position = 1 + max((port.position for port in ports_of(tx, id)), default=-1)
        port = ServerPort(
            port_id=port_id, server_id=id, position=position, network_id=network_id, own=own, fixed_ip=address,
            groups=None, tag=wanted.tag,
        )  # fmt: skip
        db.insert(tx, port)
        begin(tx, ctx, server, "server.attach_port", "attach_interface", args={"port_id": port_id})
        return server, port

    server, port = await ctx.service.kernel.db.run(unit)
    info = await ctx.service.builder.ensure_port(server, port, ctx.service.hostname)
    if not await ctx.service.kernel.db.read(_stays, id):
        # Its delete may have looked for ports before this one was made.
        await ctx.service.remover.release_port(port_id, id, own=own)
        raise NotFound(message=f"Instance {id} could not be found.")
    return {"interfaceAttachment": _shown(ctx, info, port.tag)}


def _stays(tx: Connection, id: str) -> bool:
    """Whether a server is there and nobody is deleting it."""
    server = db.first(tx, Server, Server.table.c.id == id, ALIVE)
    return server is not None and server.task_state != "deleting"


async def detach_interface(ctx: Ctx, id: str, port_id: str) -> Response:
    """Take a network card from a server."""

    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        port = next((port for port in ports_of(tx, id) if port.port_id == port_id), None)
        if port is None:
            raise NotFound(message=f"Port {port_id} is not attached to instance {id}")
        _changeable(ctx, server, "detach_interface")
        args = {"port_id": port_id, "own": port.own}
        begin(tx, ctx, server, "server.detach_port", "detach_interface", args=args)

    await ctx.service.kernel.db.run(unit)
    return Response(202)


class Cards:
    """Carries out changes of network cards."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def attach(self, operation: Operation) -> Finish:
        """A port, a network that carries it, a card in the machine."""
        compute, port_id = self.compute, operation.args["port_id"]
        server, ports = await compute.kernel.db.read(load_server, operation.resource_id)
        for port in ports:
            if port.port_id == port_id:
                info = await compute.builder.ensure_port(server, port, server.host or compute.hostname)
                await compute.network.realise([info.network_id])
                await compute.hypervisor.attach_nic(server.id, nic(info))
                if server.vm_state != "stopped":
                    await compute.network.set_port_status([port_id], "ACTIVE")
        return await self._settled(operation, ports)

    async def detach(self, operation: Operation) -> Finish:
        """The card out of the machine, then the port back to whom it belongs."""
        compute, server_id, gone = self.compute, operation.resource_id, operation.args["port_id"]
        await compute.hypervisor.detach_nic(server_id, gone)
        # Forgotten last: a delete of the server that comes in between must still find it.
        await compute.remover.release_port(gone, server_id, own=operation.args["own"])
        await compute.kernel.db.run(_forget, gone)
        _, ports = await compute.kernel.db.read(load_server, server_id)
        return await self._settled(operation, ports)

    async def _settled(self, operation: Operation, ports: list[ServerPort]) -> Finish:
        infos = await self.compute.builder.port_infos(operation.resource_id, ports)

        def finish(tx: Connection) -> None:
            cache_addresses(tx, operation.resource_id, infos)
            finished(tx, operation, None)

        return finish

    def attach_failed(self, tx: Connection, operation: Operation, error: BaseException) -> None:
        """The card could not be had: what there is of it is taken back."""
        finished(tx, operation, None, str(error))
        port = db.first(tx, ServerPort, ServerPort.table.c.port_id == operation.args["port_id"])
        if port is not None:
            queue_detach(tx, self.compute.kernel.operations, port)

    def detach_failed(self, tx: Connection, operation: Operation, error: BaseException) -> None:
        """The guest keeps the card: the server is as it was."""
        finished(tx, operation, None, str(error))


def _forget(tx: Connection, port_id: str) -> None:
    db.remove_where(tx, ServerPort, ServerPort.table.c.port_id == port_id)


# ---- security groups ----------------------------------------------------------------------------------------------------


async def list_groups(ctx: Ctx, id: str) -> Any:
    """List the security groups on a server's ports."""
    found: dict[str, dict[str, Any]] = {}
    for _, info in await _cards(ctx, id):
        for group_id, name in zip(info.security_group_ids, info.security_group_names, strict=True):
            found[group_id] = {
                "id": group_id, "name": name, "description": "", "tenant_id": info.project_id, "rules": [],
            }  # fmt: skip
    return {"security_groups": list(found.values())}


async def _change_groups(ctx: Ctx, id: str, name: str, change: Callable[[list[str], str], list[str]]) -> None:
    def look(tx: Connection) -> Server:
        server = get_server(tx, ctx, id)
        check_state(server, "add security group to", ("active", "paused", "stopped"), (server.task_state,))
        return server

    server = await ctx.service.kernel.db.read(look)
    (group,) = await ctx.service.network.security_group_ids(ctx.caller, server.project_id, [name])
    infos = [info for _, info in await _cards(ctx, id)]
    if not infos:
        raise Invalid(f"Instance {id} has no network card to put a security group on.")
    for info in infos:
        await ctx.service.network.set_security_groups([info.id], change(list(info.security_group_ids), group))
    await ctx.service.addresses.refresh([id])


async def add_group(ctx: Ctx, id: str, body: GroupBody) -> Response:
    """Put a security group on every port of a server."""
    await _change_groups(ctx, id, body.name, lambda ids, group: [*ids, *([] if group in ids else [group])])
    return Response(202)


async def remove_group(ctx: Ctx, id: str, body: GroupBody) -> Response:
    """Take a security group from every port of a server."""

    def without(ids: list[str], group: str) -> list[str]:
        if group not in ids:
            raise Conflict(f"Security group {body.name} not associated with the instance {id}")
        return [other for other in ids if other != group]

    await _change_groups(ctx, id, body.name, without)
    return Response(202)


CARDS, ACTION = "/v2.1/servers/{id}/os-interface", "/v2.1/servers/{id}/action"
endpoints = [
    Endpoint("GET", CARDS, list_interfaces, LIST),
    Endpoint("POST", CARDS, attach_interface, CREATE, AttachBody),
    Endpoint("GET", CARDS + "/{port_id}", show_interface, SHOW),
    Endpoint("DELETE", CARDS + "/{port_id}", detach_interface, DELETE),
    Endpoint("GET", "/v2.1/servers/{id}/os-security-groups", list_groups, GROUPS["list"]),
    Endpoint("POST", ACTION, add_group, GROUPS["add"], GroupBody, action="addSecurityGroup"),
    Endpoint("POST", ACTION, remove_group, GROUPS["remove"], GroupBody, action="removeSecurityGroup"),
]
