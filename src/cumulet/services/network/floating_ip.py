"""Floating IPs: addresses of an external network that lead to a port.

GET, POST /v2.0/floatingips · GET, PUT, DELETE /v2.0/floatingips/{id}
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from sqlalchemy import Connection, Index, bindparam, select

from cumulet.api.crud import own_project
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.resource import AUTO, FIND, edit, hidden, once, read, sent
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.types import Id, Str64, Uuid
from cumulet.services.network import allocate
from cumulet.services.network.allocate import FixedIp
from cumulet.services.network.network import Network
from cumulet.services.network.network import visible as network_visible
from cumulet.services.network.port import PORTS, Port
from cumulet.services.network.port import visible as port_visible
from cumulet.services.network.standard import (
    Ctx,
    Standard,
    calls,
    change,
    changeable,
    charge,
    field_rules,
    owner,
    stamps,
)
from cumulet.services.network.subnet import SUBNETS, subnets_of

if TYPE_CHECKING:
    from cumulet.services.network.runtime import NetworkRuntime

OWNER = "network:floatingip"


class FloatingIp(
    Standard, table="network_floating_ips", path="/v2.0/floatingips", key="floatingip", plural="floatingips", lax=True
):
    """An address of an external network that leads to a port."""

    floating_network_id: Uuid = once("The external network.", use=FIND)
    floating_ip_address: Str64 = once("The address.", AUTO, FIND, set="{verb}_floatingip:floating_ip_address")
    subnet_sent: Uuid | None = sent("The subnet to take the address from.", None, wire="subnet_id")
    port_id: Uuid | None = edit("The port it leads to.", None, FIND)
    fixed_ip_address: Str64 | None = edit("That port's address.", None, FIND)
    router_id: Id | None = read("The router that translates.", None, FIND, index=True)
    status: Str64 = read("ACTIVE while it leads somewhere, DOWN else.", "DOWN", FIND)
    floating_port_id: Id = hidden("The port that holds the address.")


FLOATING = FloatingIp.table
Index("network_floating_ips_port", FLOATING.c.port_id, FLOATING.c.fixed_ip_address, unique=True)
RULES = {
    "get_floatingip": ADMIN_OR_OWNER_READER,
    "create_floatingip": ADMIN_OR_OWNER_MEMBER,
    "update_floatingip": ADMIN_OR_OWNER_MEMBER,
    "delete_floatingip": ADMIN_OR_OWNER_MEMBER,
    **field_rules(ADMIN, "floatingip", ("create", "update"), ("floating_ip_address",)),
}

visible = own_project(FloatingIp)


def _target(tx: Connection, ctx: Ctx, project_id: str, port_id: str, wanted: str | None) -> tuple[Port, FixedIp]:
    """The port and its address to lead to."""
    port = db.get(tx, Port, port_id, *port_visible(ctx))
    if not ctx.caller.is_admin and port.project_id != project_id:
        raise NotFound("port", port_id)
    four = [f for f in port.fixed_ips if ":" not in str(f.ip_address)]
    if wanted is not None:
        for fixed in port.fixed_ips:
            if fixed.ip_address == allocate.plain(wanted):
                if fixed not in four:
                    raise Invalid("Bad floatingip request: cannot process an IPv6 address.", code="BadRequest")
                return port, fixed
        raise Invalid(f"Bad floatingip request: Port {port_id} does not have fixed ip {wanted}.", code="BadRequest")
    if not four:
        raise Invalid(
            f"Bad floatingip request: Cannot add floating IP to port {port_id} that has no fixed IPv4 addresses.",
            code="BadRequest",
        )
    if len(four) > 1:
        raise Invalid(
            f"Bad floatingip request: Port {port_id} has multiple fixed IPv4 addresses. Must provide a specific IPv4 "
            "address when assigning a floating IP.",
            code="BadRequest",
        )
    return port, four[0]


def _router_between(tx: Connection, network_id: str, subnet_id: str, port_id: str) -> str:
    """The router from the external network to the subnet: the one on the subnet's own gateway address, if several lead."""
    legs, out = PORTS.alias("legs"), PORTS.alias("way_out")
    query = (
        select(legs.c.device_id, allocate.a.ip_address == SUBNETS.c.gateway_ip)
        .join(allocate.table, allocate.a.port_id == legs.c.id)
        .join(SUBNETS, SUBNETS.c.id == allocate.a.subnet_id)
        .join(out, out.c.device_id == legs.c.device_id)
        .where(
            allocate.a.subnet_id == subnet_id,
            legs.c.device_owner == "network:router_interface",
            out.c.device_owner == "network:router_gateway",
            out.c.network_id == network_id,
        )
    )
    routers = sorted(tx.execute(query), key=lambda row: not row[1])
    if not routers:
        raise NotFound(
            message=f"External network {network_id} is not reachable from subnet {subnet_id}. Therefore, cannot associate "
            f"Port {port_id} with a Floating IP.",
            code="ExternalGatewayForFloatingIPNotFound",
        )
    return str(routers[0][0])


def _associate(tx: Connection, ctx: Ctx, floating: FloatingIp, port_id: str, wanted: str | None) -> dict[str, Any]:
    """The values of a floating IP that leads to this port from now on."""
    from cumulet.services.network.plumbing import tell_addresses

    port, fixed = _target(tx, ctx, floating.project_id, port_id, wanted)
    router_id = _router_between(tx, floating.floating_network_id, str(fixed.subnet_id), port_id)
    other = db.first(
        tx,
        FloatingIp,
        FLOATING.c.port_id == port.id,
        FLOATING.c.fixed_ip_address == fixed.ip_address,
        FLOATING.c.id != floating.id,
    )
    if other is not None:
        raise Conflict(
            f"Cannot associate floating IP {floating.floating_ip_address} ({floating.id}) with port {port.id} using fixed IP "
            f"{fixed.ip_address}, as that fixed IP already has a floating IP on external network "
            f"{other.floating_network_id}.",
            code="FloatingIPPortAlreadyAssociated",
        )
    ctx.service.realiser.touch_routers(tx, [router_id])
    tell_addresses(tx, ctx.service, [port])
    same = (floating.port_id, floating.fixed_ip_address) == (port.id, fixed.ip_address)
    return {
        "port_id": port.id,
        "fixed_ip_address": fixed.ip_address,
        "router_id": router_id,
        "status": floating.status if same else "DOWN",
    }


FREE = {"port_id": None, "fixed_ip_address": None, "router_id": None, "status": "DOWN"}

_of_port = select(FLOATING).where(FLOATING.c.port_id == bindparam("port"))


def let_go(tx: Connection, runtime: "NetworkRuntime", port_id: str, *, keep: Collection[str | None] = ()) -> None:
    """Have the floating IPs of a port lead nowhere, save those of the addresses to `keep`."""
    for row in tx.execute(_of_port, {"port": port_id}).all():
        if row.fixed_ip_address not in keep:
            floating = FloatingIp(**row._asdict())
            change(tx, floating, **FREE)
            runtime.realiser.touch_routers(tx, [floating.router_id])


def drop_unused(tx: Connection, runtime: "NetworkRuntime", network_id: str) -> None:
    """Delete the floating IPs of a network that lead nowhere (the network is being deleted)."""
    from cumulet.services.network.plumbing import drop_ports

    unused = (FLOATING.c.floating_network_id == network_id, FLOATING.c.port_id.is_(None))
    for floating in db.find(tx, FloatingIp, *unused):
        db.remove(tx, FloatingIp, floating.id)
        drop_ports(tx, runtime, PORTS.c.id == floating.floating_port_id)


def add_floating_ip(tx: Connection, ctx: Ctx, body: Any) -> FloatingIp:
    from cumulet.services.network.plumbing import add_port

    project_id = owner(ctx, body)
    network = db.get(tx, Network, body.floating_network_id, *network_visible(ctx))
    if not network.external:
        raise Invalid(
            f"Bad floatingip request: Network {network.id} is not a valid external network.", code="BadRequest"
        )
    charge(tx, "floatingip", FloatingIp, project_id)
    values = stamps(project_id)
    port = add_port(
        tx,
        ctx.service,
        network,
        "",
        fixed_ips=_external_address(tx, network, body),
        device_id=values["id"],
        device_owner=OWNER,
        port_security_enabled=False,
        status="N/A",
    )
    floating = FloatingIp.new(
        body,
        **{**values, **FREE, "floating_ip_address": port.fixed_ips[0].ip_address, "floating_port_id": port.id},
    )
    if body.port_id is None and body.fixed_ip_address is not None:
        raise Invalid(
            "Bad floatingip request: fixed_ip_address cannot be specified without a port_id.", code="BadRequest"
        )
    if body.port_id is not None:
        for name, value in _associate(tx, ctx, floating, body.port_id, body.fixed_ip_address).items():
            setattr(floating, name, value)
    db.insert(tx, floating)
    return floating


def _external_address(tx: Connection, network: Network, body: Any) -> list[FixedIp]:
    """Which address of the external network: the one asked for, one of a subnet, or any IPv4 one."""
    asked = body.given().get("floating_ip_address")
    if asked is not None or body.subnet_sent is not None:
        return [FixedIp(body.subnet_sent, asked)]
    subnets = [s for s in subnets_of(tx, network.id) if s.ip_version == 4]
    if not subnets:
        raise Invalid(
            f"Bad floatingip request: Network {network.id} does not contain any IPv4 subnet.", code="BadRequest"
        )
    for subnet in subnets[:-1]:
        if allocate.next_free(tx, subnet) is not None:
            return [FixedIp(subnet.id)]
    return [FixedIp(subnets[-1].id)]


def _change(tx: Connection, ctx: Ctx, id: str, body: Any) -> FloatingIp:
    from cumulet.services.network.plumbing import tell_addresses

    floating = changeable(tx, ctx, FloatingIp, id, visible, "update_floatingip")
    given = body.given()
    port_id = given.pop("port_id", UNSET)
    wanted = given.pop("fixed_ip_address", None)
    if port_id is UNSET and wanted is not None:
        port_id = floating.port_id
        if port_id is None:
            raise Invalid(
                "Bad floatingip request: fixed_ip_address cannot be specified without a port_id.", code="BadRequest"
            )
    if port_id is None and wanted is not None:
        raise Invalid(
            "Bad floatingip request: fixed_ip_address cannot be specified without a port_id.", code="BadRequest"
        )
    if port_id is not UNSET:
        if floating.port_id is not None:
            ctx.service.realiser.touch_routers(tx, [floating.router_id])
            tell_addresses(tx, ctx.service, db.find(tx, Port, PORTS.c.id == floating.port_id))
        given.update(FREE if port_id is None else _associate(tx, ctx, floating, port_id, wanted))
    return change(tx, floating, **given)


def _remove(tx: Connection, ctx: Ctx, id: str) -> None:
    from cumulet.services.network.plumbing import drop_ports, tell_addresses

    floating = changeable(tx, ctx, FloatingIp, id, visible, "delete_floatingip")
    if floating.port_id is not None:
        tell_addresses(tx, ctx.service, db.find(tx, Port, PORTS.c.id == floating.port_id))
        ctx.service.realiser.touch_routers(tx, [floating.router_id])
    db.remove(tx, FloatingIp, id)
    drop_ports(tx, ctx.service, PORTS.c.id == floating.floating_port_id)


endpoints = calls(FloatingIp, visible, add_floating_ip, _change, _remove)
