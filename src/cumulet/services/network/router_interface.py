"""A router's legs on the networks it joins.

PUT /v2.0/routers/{id}/add_router_interface · PUT /v2.0/routers/{id}/remove_router_interface
"""

from ipaddress import ip_address
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.types import Uuid
from cumulet.services.network.allocate import FixedIp, net
from cumulet.services.network.floating_ip import FLOATING
from cumulet.services.network.network import Network
from cumulet.services.network.plumbing import add_port, drop_ports
from cumulet.services.network.port import PORTS, Port
from cumulet.services.network.port import visible as port_visible
from cumulet.services.network.router import INTERFACE, Router, bad, check_apart, connected, ports_of, visible
from cumulet.services.network.standard import Ctx, change, changeable
from cumulet.services.network.subnet import SUBNETS, Subnet
from cumulet.services.network.subnet import visible as subnet_visible


class InterfaceBody(Struct, forbid_unknown_fields=True):
    """Which subnet to join, or which port to do it with."""

    subnet_id: Uuid | None = None
    port_id: Uuid | None = None


class Interface(Struct):
    """One leg of a router, in replies."""

    id: str
    tenant_id: str
    project_id: str
    port_id: str
    network_id: str
    subnet_id: str
    subnet_ids: list[str]


def _reply(router: Router, port: Port) -> Interface:
    ids = [str(f.subnet_id) for f in port.fixed_ips]
    return Interface(
        router.id, router.project_id, router.project_id, port.id, port.network_id, ids[0] if ids else "", ids
    )


def _add(tx: Connection, ctx: Ctx, id: str, body: InterfaceBody) -> Interface:
    router = changeable(tx, ctx, Router, id, visible, "add_router_interface")
    if (body.subnet_id is None) == (body.port_id is None):
        what = (
            "Cannot specify both subnet-id and port-id"
            if body.port_id
            else "Either subnet_id or port_id must be specified"
        )
        raise bad(id, what)
    if body.port_id is not None:
        port = _take_port(tx, ctx, router, body.port_id)
    else:
        port = _new_port(tx, ctx, router, str(body.subnet_id))
    ctx.service.realiser.touch(tx, [port.network_id])
    ctx.service.realiser.touch_routers(tx, [id])
    return _reply(router, port)


def _new_port(tx: Connection, ctx: Ctx, router: Router, subnet_id: str) -> Port:
    """A port with the subnet's gateway address."""
    subnet = db.get(tx, Subnet, subnet_id, *subnet_visible(ctx))
    if not subnet.gateway_ip:
        raise bad(router.id, "Subnet for router interface must have a gateway IP")
    _check_subnets(tx, router, [subnet])
    return add_port(
        tx,
        ctx.service,
        db.get(tx, Network, subnet.network_id),
        router.project_id,
        fixed_ips=[FixedIp(subnet.id, subnet.gateway_ip)],
        device_id=router.id,
        device_owner=INTERFACE,
        port_security_enabled=False,
    )


def _take_port(tx: Connection, ctx: Ctx, router: Router, port_id: str) -> Port:
    port = db.get(tx, Port, port_id, *port_visible(ctx))
    if port.device_id:
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. Port already has an attached "
            f"device {port.device_id}.",
            code="PortInUse",
        )
    if not port.fixed_ips:
        raise bad(router.id, "Router port must have at least one fixed IP")
    subnets = db.find(tx, Subnet, SUBNETS.c.id.in_([f.subnet_id for f in port.fixed_ips]))
    if sum(s.ip_version == 4 for s in subnets) > 1:
        raise bad(router.id, "Cannot have multiple IPv4 subnets on router port")
    _check_subnets(tx, router, subnets)
    return change(tx, port, device_id=router.id, device_owner=INTERFACE)


def _check_subnets(tx: Connection, router: Router, subnets: list[Subnet]) -> None:
    present = connected(tx, router.id)
    for subnet in subnets:
        if any(subnet.id == other.id for other in present):
            raise bad(router.id, f"Router already has a port on subnet {subnet.id}")
    check_apart(router.id, subnets, present)


def _remove(tx: Connection, ctx: Ctx, id: str, body: InterfaceBody) -> Interface:
    router = changeable(tx, ctx, Router, id, visible, "remove_router_interface")
    if body.subnet_id is None and body.port_id is None:
        raise Invalid("Either subnet_id or port_id must be specified", code="BadRequest")
    port = _find(tx, router, body)
    _check_unused(tx, router, port)
    reply = _reply(router, port)
    if body.subnet_id is not None:
        reply.subnet_id = body.subnet_id
    drop_ports(tx, ctx.service, PORTS.c.id == port.id)
    ctx.service.realiser.touch_routers(tx, [id])
    return reply


def _find(tx: Connection, router: Router, body: InterfaceBody) -> Port:
    """The leg that is meant."""
    for port in ports_of(tx, router.id):
        subnets = [f.subnet_id for f in port.fixed_ips]
        if body.port_id is not None and port.id != body.port_id:
            continue
        if body.subnet_id is not None and body.subnet_id not in subnets:
            if body.port_id is None:
                continue
            raise Conflict(f"Subnet {body.subnet_id} is not connected to port {port.id}.", code="SubnetMismatchForPort")
        return port
    if body.port_id is not None:
        raise NotFound(
            message=f"Router {router.id} does not have an interface with id {body.port_id}",
            code="RouterInterfaceNotFound",
        )
    raise NotFound(
        message=f"Router {router.id} has no interface on subnet {body.subnet_id}",
        code="RouterInterfaceNotFoundForSubnet",
    )


def _check_unused(tx: Connection, router: Router, port: Port) -> None:
    """Refuse to take away a leg that a floating IP or a route needs."""
    subnets = db.find(tx, Subnet, SUBNETS.c.id.in_([f.subnet_id for f in port.fixed_ips]))
    ranges = [net(s.cidr) for s in subnets]
    if any(ip_address(route.nexthop) in whole for route in router.routes or () for whole in ranges):
        raise Conflict(
            f"Router interface for subnet {subnets[0].id} on router {router.id} cannot be deleted, as it is required by one "
            "or more routes.",
            code="RouterInterfaceInUseByRoute",
        )
    behind = select(FLOATING.c.fixed_ip_address, PORTS.c.network_id).where(
        FLOATING.c.router_id == router.id, PORTS.c.id == FLOATING.c.port_id
    )
    for fixed_ip, network_id in tx.execute(behind):
        if network_id == port.network_id and any(ip_address(fixed_ip) in whole for whole in ranges):
            raise Conflict(
                f"Router interface for subnet {subnets[0].id} on router {router.id} cannot be deleted, as it is required by "
                "one or more floating IPs.",
                code="RouterInterfaceInUseByFloatingIP",
            )


async def add_interface(ctx: Ctx, id: str, body: InterfaceBody) -> Any:
    """Give a router a leg on a subnet."""
    return await ctx.service.write(_add, ctx, id, body)


async def remove_interface(ctx: Ctx, id: str, body: InterfaceBody) -> Any:
    """Take a router's leg away."""
    return await ctx.service.write(_remove, ctx, id, body)


endpoints = [
    Endpoint("PUT", "/v2.0/routers/{id}/add_router_interface", add_interface, "add_router_interface", InterfaceBody),
    Endpoint(
        "PUT", "/v2.0/routers/{id}/remove_router_interface", remove_interface, "remove_router_interface", InterfaceBody
    ),
]
