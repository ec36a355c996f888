"""Routers: they join networks, and lead out of the cloud through an external one.

GET, POST /v2.0/routers · GET, PUT, DELETE /v2.0/routers/{id}
PUT /v2.0/routers/{id}/add_router_interface, remove_router_interface: see `router_interface.py`
"""

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, Struct
from sqlalchemy import Connection, select

from cumulet.api.crud import own_project
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.resource import FIND, computed, edit, once, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.types import Str64, Str255
from cumulet.services.network.allocate import FixedIp, net
from cumulet.services.network.floating_ip import FLOATING, FloatingIp
from cumulet.services.network.network import Network
from cumulet.services.network.network import visible as network_visible
from cumulet.services.network.port import PORTS, Port
from cumulet.services.network.standard import (
    Ctx,
    Standard,
    calls,
    change,
    changeable,
    charge,
    empty_for_null,
    field_rules,
    owner,
    stamps,
)
from cumulet.services.network.subnet import SUBNETS, HostRoute, Subnet, parse_destination, parse_ip

GATEWAY = "network:router_gateway"
INTERFACE = "network:router_interface"
MAX_ROUTES = 30


class Gateway(Struct, forbid_unknown_fields=True):
    """A router's way out."""

    network_id: str | None = None
    enable_snat: bool | None = None
    external_fixed_ips: list[FixedIp] | None = None


class Router(Standard, table="network_routers", path="/v2.0/routers", lax=True):
    """It forwards between the networks it has interfaces on."""

    name: Str255 = edit("A name, which need not be unique.", "", FIND)
    admin_state_up: bool = edit("Whether it forwards.", True, FIND)
    status: Str64 = read("ACTIVE.", "ACTIVE", FIND)
    external_gateway_info: Gateway | None = edit("Its way out.", None)
    routes: list[HostRoute] | None = edit("Further routes.", [])
    distributed: bool = computed("Whether it is on every host.", lambda row: False, show="get_router:distributed")
    ha: bool = computed("Whether it has a stand-in.", lambda row: False, show="get_router:ha")
    flavor_id: str | None = computed("Its flavor.", lambda row: None)
    availability_zone_hints: list[str] = once("Where to place it: there is one zone.", [])
    availability_zones: list[str] = computed("Where it is.", lambda row: ["nova"])


ROUTERS = Router.table
RULES = {
    "get_router": ADMIN_OR_OWNER_READER,
    "create_router": ADMIN_OR_OWNER_MEMBER,
    "update_router": ADMIN_OR_OWNER_MEMBER,
    "delete_router": ADMIN_OR_OWNER_MEMBER,
    "add_router_interface": ADMIN_OR_OWNER_MEMBER,
    "remove_router_interface": ADMIN_OR_OWNER_MEMBER,
    "get_router:distributed": ADMIN,
    "get_router:ha": ADMIN,
    **field_rules(
        ADMIN,
        "router",
        ("create", "update"),
        ("external_gateway_info:enable_snat", "external_gateway_info:external_fixed_ips"),
    ),
}

visible = own_project(Router)


def bad(router_id: str, why: str) -> Invalid:
    return Invalid(f"Bad router request: {why}.", code="BadRequest")


def ports_of(tx: Connection, router_id: str, device_owner: str = INTERFACE) -> list[Port]:
    """The router's ports of one kind, oldest first."""
    return db.find(
        tx, Port, PORTS.c.device_id == router_id, PORTS.c.device_owner == device_owner, order=[PORTS.c.created_at]
    )


def connected(tx: Connection, router_id: str) -> list[Subnet]:
    """Every subnet that the router has a leg on."""
    ids = {f.subnet_id for p in [*ports_of(tx, router_id), *ports_of(tx, router_id, GATEWAY)] for f in p.fixed_ips}
    return db.find(tx, Subnet, SUBNETS.c.id.in_(ids)) if ids else []


def check_apart(router_id: str, new: Sequence[Subnet], present: Sequence[Subnet]) -> None:
    """Refuse subnets that overlap with one the router is on already."""
    for subnet in new:
        for other in present:
            if other.id != subnet.id and net(subnet.cidr).overlaps(net(other.cidr)):
                raise bad(
                    router_id,
                    f"Cidr {subnet.cidr} of subnet {subnet.id} overlaps with cidr {other.cidr} of subnet {other.id}",
                )


def check_routes(tx: Connection, router_id: str, routes: Sequence[HostRoute]) -> None:
    """Each next hop must be on a subnet that the router is on, and none of its own addresses."""
    if len(routes) > MAX_ROUTES:
        raise Invalid(
            f"Unable to add more routes to router {router_id}: the limit is {MAX_ROUTES}.", code="RoutesExhausted"
        )
    if len({(r.destination, r.nexthop) for r in routes}) < len(routes):
        raise Invalid("Invalid input for routes. Reason: Duplicate items in the list.")
    if not routes:
        return
    subnets = connected(tx, router_id)
    ports = [*ports_of(tx, router_id), *ports_of(tx, router_id, GATEWAY)]
    own = {f.ip_address for p in ports for f in p.fixed_ips}
    for route in routes:
        destination = parse_destination(route.destination)
        hop = parse_ip(route.nexthop, "routes", destination.version)
        if not any(hop in net(s.cidr) for s in subnets):
            raise Invalid(
                f"Invalid format for routes: the nexthop is not connected with router: {route.nexthop}",
                code="InvalidRoutes",
            )
        if str(hop) in own:
            raise Invalid(
                f"Invalid format for routes: the nexthop is used by router: {route.nexthop}", code="InvalidRoutes"
            )


# ---- the way out --------------------------------------------------------------------------------------------------------


def _allow_gateway(ctx: Ctx, verb: str, wanted: Gateway | None) -> None:
    if wanted is None or ctx.caller.is_admin:
        return
    for field in ("enable_snat", "external_fixed_ips"):
        if getattr(wanted, field) is not None:
            ctx.require(f"{verb}_router:external_gateway_info:{field}")


def set_gateway(tx: Connection, ctx: Ctx, router: Router, wanted: Gateway | None) -> Gateway | None:
    """Make the router's way out what is wanted; returns it as it is stored."""
    from cumulet.services.network.plumbing import drop_ports, set_fixed_ips
    from cumulet.services.network.subnet import subnets_of

    present = next(iter(ports_of(tx, router.id, GATEWAY)), None)
    if wanted is None or wanted.network_id is None:
        if present is not None:
            _check_unused(tx, router.id, present.network_id)
            drop_ports(tx, ctx.service, PORTS.c.id == present.id)
        return None
    network = db.get(tx, Network, wanted.network_id, *network_visible(ctx))
    if not network.external:
        raise bad(router.id, f"Network {network.id} is not an external network")
    if present is not None and present.network_id != network.id:
        _check_unused(tx, router.id, present.network_id)
        drop_ports(tx, ctx.service, PORTS.c.id == present.id)
        present = None
    if present is None:
        present = _add_gateway_port(tx, ctx, router, network, wanted.external_fixed_ips)
    elif wanted.external_fixed_ips is not None:
        fixed = set_fixed_ips(tx, present, wanted.external_fixed_ips, subnets_of(tx, network.id))
        present = change(tx, present, fixed_ips=fixed)
        ctx.service.realiser.touch(tx, [network.id])
    snat = wanted.enable_snat
    if snat is None:
        old = router.external_gateway_info
        snat = True if old is None or old.enable_snat is None else old.enable_snat
    return Gateway(network.id, snat, present.fixed_ips)


def _add_gateway_port(tx: Connection, ctx: Ctx, router: Router, network: Network, wanted: list[FixedIp] | None) -> Port:
    from cumulet.services.network.plumbing import add_port
    from cumulet.services.network.subnet import subnets_of

    check_apart(router.id, subnets_of(tx, network.id), connected(tx, router.id))
    return add_port(
        tx,
        ctx.service,
        network,
        "",
        fixed_ips=wanted,
        device_id=router.id,
        device_owner=GATEWAY,
        port_security_enabled=False,
    )


def _check_unused(tx: Connection, router_id: str, network_id: str) -> None:
    used = db.first(tx, FloatingIp, FLOATING.c.router_id == router_id, FLOATING.c.floating_network_id == network_id)
    if used is not None:
        raise Conflict(
            f"Gateway cannot be updated for router {router_id}, since a gateway to external network {network_id} is "
            "required by one or more floating IPs.",
            code="RouterExternalGatewayInUseByFloatingIp",
        )


# ---- the calls ----------------------------------------------------------------------------------------------------------


def add_router(tx: Connection, ctx: Ctx, body: Any) -> Router:
    empty_for_null(body, "routes")
    project_id = owner(ctx, body)
    _allow_gateway(ctx, "create", body.external_gateway_info)
    charge(tx, "router", Router, project_id)
    zones = [zone for zone in body.availability_zone_hints if zone != "nova"]
    if zones:
        raise NotFound(message=f"AvailabilityZone {zones[0]} could not be found.", code="AvailabilityZoneNotFound")
    router = Router.new(body, **stamps(project_id), external_gateway_info=None)
    router.external_gateway_info = set_gateway(tx, ctx, router, body.external_gateway_info)
    check_routes(tx, router.id, router.routes or ())
    db.insert(tx, router)
    ctx.service.realiser.touch_routers(tx, [router.id])
    return router


def _change(tx: Connection, ctx: Ctx, id: str, body: Any) -> Router:
    router = changeable(tx, ctx, Router, id, visible, "update_router")
    empty_for_null(body, "routes")
    given = body.given()
    gateway = given.get("external_gateway_info", UNSET)
    if gateway is not UNSET:
        _allow_gateway(ctx, "update", gateway)
        given["external_gateway_info"] = set_gateway(tx, ctx, router, gateway)
    if "routes" in given:
        check_routes(tx, id, given["routes"])
    router = change(tx, router, **given)
    ctx.service.realiser.touch_routers(tx, [id])
    return router


def _remove(tx: Connection, ctx: Ctx, id: str) -> None:
    from cumulet.services.network.plumbing import drop_ports

    changeable(tx, ctx, Router, id, visible, "delete_router")
    used = tx.execute(select(FLOATING.c.id).where(FLOATING.c.router_id == id).limit(1)).first()
    if ports_of(tx, id) or used is not None:
        raise Conflict(f"Router {id} still has ports", code="RouterInUse")
    drop_ports(tx, ctx.service, PORTS.c.device_id == id, PORTS.c.device_owner == GATEWAY)
    db.remove(tx, Router, id)
    ctx.service.realiser.touch_routers(tx, [id])


endpoints = calls(Router, visible, add_router, _change, _remove)
