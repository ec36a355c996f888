"""Subnets: a range of addresses on a network, with its gateway, pools and DHCP options.

GET, POST /v2.0/subnets · GET, PUT, DELETE /v2.0/subnets/{id}
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import pairwise
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct
from sqlalchemy import ColumnElement, Connection, bindparam, or_, select

from cumulet.api.policy import ADMIN
from cumulet.api.resource import AUTO, FILTER, FIND, computed, edit, hidden, once, sent
from cumulet.core import db
from cumulet.core.db.store import load
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import Id, Str64, Str255, Uuid
from cumulet.services.network import allocate
from cumulet.services.network.network import NETWORKS, Network
from cumulet.services.network.network import visible as network_visible
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

Ip = IPv4Address | IPv6Address
Net = IPv4Network | IPv6Network
Ipv6Mode = Literal["slaac", "dhcpv6-stateful", "dhcpv6-stateless"]

MAX_NAMESERVERS = 5
MAX_HOST_ROUTES = 20


class Pool(Struct, forbid_unknown_fields=True):
    """Addresses from `start` to `end`, both included."""

    start: str
    end: str


class HostRoute(Struct, forbid_unknown_fields=True):
    destination: str
    nexthop: str


class Subnet(Standard, table="network_subnets", path="/v2.0/subnets", lax=True):
    """A range of addresses on a network."""

    name: Str255 = edit("A name, which need not be unique.", "", FIND)
    network_id: Uuid = once("The network it is on.", use=FIND, index=True)
    ip_version: Annotated[int, Meta(ge=4, le=6)] = once("4 or 6.", AUTO, FIND)
    cidr: Str64 = once("Its range.", AUTO, FIND)
    prefixlen: int | None = sent("The length of the prefix taken from a subnet pool.", AUTO)
    use_default_subnetpool: bool = sent("Whether to take a prefix of the default pool.", False)
    gateway_ip: Str64 | None = edit("The way out; null for none.", AUTO, FIND)
    allocation_pools: list[Pool] = edit("What addresses are given out from.", AUTO)
    enable_dhcp: bool = edit("Whether guests are told their addresses.", True, FIND)
    dns_nameservers: list[str] | None = edit("Name servers for the guests.", [])
    host_routes: list[HostRoute] | None = edit("Routes for the guests.", [])
    ipv6_ra_mode: Ipv6Mode | None = once("What routers advertise.", None, FILTER)
    ipv6_address_mode: Ipv6Mode | None = once("How guests get their addresses.", None, FILTER)
    subnetpool_id: Str64 | None = once("The pool it was taken from.", None, FILTER)
    service_types: list[str] = edit("Owners of ports it is kept for.", [], set="{verb}_subnet:service_types")
    segment_id: str | None = computed("The segment it belongs to.", lambda row: None)
    dns_publish_fixed_ip: bool = computed("Whether its addresses are published.", lambda row: False)
    dhcp_port_id: Id | None = hidden("The port of its DHCP server.", None)
    dhcp_address: Str64 | None = hidden("The address of its DHCP server.", None)


SUBNETS = Subnet.table

_OWNER = "role:admin or (role:member and project_id:%(project_id)s)"
RULES = {
    "get_subnet": "role:admin or (role:reader and project_id:%(project_id)s)",
    "create_subnet": _OWNER,
    "update_subnet": _OWNER,
    "delete_subnet": _OWNER,
    **field_rules(ADMIN, "subnet", ("create", "update"), ("segment_id", "service_types")),
}


def visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """A project sees its own subnets and those of shared networks."""
    if ctx.caller.is_admin:
        return ()
    shared = select(NETWORKS.c.id).where(NETWORKS.c.shared)
    return (or_(SUBNETS.c.project_id == ctx.caller.project_id, SUBNETS.c.network_id.in_(shared)),)


_of_network = select(SUBNETS).where(SUBNETS.c.network_id == bindparam("network")).order_by(SUBNETS.c.created_at)


def subnets_of(tx: Connection, network_id: str) -> list[Subnet]:
    """The subnets of a network, oldest first."""
    return [load(Subnet, row) for row in tx.execute(_of_network, {"network": network_id})]


# ---- what is valid ------------------------------------------------------------------------------------------------------


def parse_cidr(cidr: str) -> Net:
    """The network of "10.0.0.0/24"; host bits are cut off, as upstream does."""
    try:
        if "/" not in cidr or "%" in cidr:
            raise ValueError(cidr)
        found = ip_network(cidr, strict=False)
    except ValueError:
        raise Invalid(f"Invalid input for cidr. Reason: '{cidr}' is not a valid IP subnet.") from None
    if found.prefixlen == 0 or found.is_multicast or found.is_loopback:
        raise Invalid(f"Invalid input for operation: Invalid CIDR {cidr} for subnet.", code="InvalidInput")
    return found


def parse_ip(address: str, name: str, version: int = 0) -> Ip:
    try:
        found = ip_address(address if "%" not in address else "")
    except ValueError:
        raise Invalid(f"Invalid input for {name}. Reason: '{address}' is not a valid IP address.") from None
    if version and found.version != version:
        raise Invalid(f"Invalid input for {name}. Reason: '{address}' is not an IPv{version} address.")
    return found


def check_nameservers(servers: Sequence[str]) -> None:
    if len(servers) > MAX_NAMESERVERS:
        raise Invalid("The number of DNS nameservers exceeds the limit 5.", code="DNSNameServersExhausted")
    if len(set(servers)) < len(servers):
        raise Invalid(f"Invalid input for dns_nameservers. Reason: Duplicate nameserver in {list(servers)}.")
    for server in servers:
        parse_ip(server, "dns_nameservers")


def check_routes(routes: Sequence[HostRoute], version: int) -> None:
    if len(routes) > MAX_HOST_ROUTES:
        raise Invalid("The number of host routes exceeds the limit 20.", code="HostRoutesExhausted")
    for route in routes:
        destination = parse_destination(route.destination)
        parse_ip(route.nexthop, "host_routes", version)
        if destination.version != version:
            raise Invalid(f"Invalid input for host_routes. Reason: {route.destination} is not IPv{version}.")


def parse_destination(destination: str) -> Net:
    try:
        return ip_network(destination if "%" not in destination else "")
    except ValueError:
        raise Invalid(f"Invalid input for routes. Reason: '{destination}' is not a valid IP subnet.") from None


def default_pools(whole: Net, gateway: Ip | None) -> list[Pool]:
    """All usable addresses save the gateway's."""
    first, last = int(whole.network_address), int(whole.broadcast_address)
    if whole.num_addresses > 2:
        first += 1
        last -= whole.version == 4
    pools = []
    middle = int(gateway) if gateway is not None and gateway in whole else None
    for low, high in ((first, last),) if middle is None else ((first, middle - 1), (middle + 1, last)):
        low, high = max(low, first), min(high, last)
        if low <= high:
            make = IPv4Address if whole.version == 4 else IPv6Address
            pools.append(Pool(str(make(low)), str(make(high))))
    return pools


def check_pools(pools: Sequence[Pool], whole: Net, gateway: Ip | None) -> list[Pool]:
    """The pools in their usual form; Invalid or Conflict where they are out of range, overlap or hold the gateway."""
    ranges = []
    for pool in pools:
        start = parse_ip(pool.start, "allocation_pools", whole.version)
        end = parse_ip(pool.end, "allocation_pools", whole.version)
        if int(start) > int(end):
            raise Invalid(f"The allocation pool {start}-{end} is not valid.", code="InvalidAllocationPool")
        if start not in whole or end not in whole:
            raise Invalid(
                f"The allocation pool {start}-{end} spans beyond the subnet cidr {whole}.",
                code="OutOfBoundsAllocationPool",
            )
        if gateway is not None and int(start) <= int(gateway) <= int(end) and gateway.version == whole.version:
            raise Conflict(
                f"Gateway ip {gateway} conflicts with allocation pool {start}-{end}.",
                code="GatewayConflictWithAllocationPools",
            )
        ranges.append((int(start), int(end), str(start), str(end)))
    ranges.sort()
    for (_, last, *_), (first, *_) in pairwise(ranges):
        if first <= last:
            raise Conflict(f"Found overlapping allocation pools for subnet {whole}.", code="OverlappingAllocationPools")
    return [Pool(low, high) for _, _, low, high in ranges]


def check_overlap(whole: Net, others: Iterable[Subnet]) -> None:
    for other in others:
        if whole.version == other.ip_version and whole.overlaps(allocate.net(other.cidr)):
            raise Invalid(
                f"Invalid input for operation: Requested subnet with cidr: {whole} for network: {other.network_id} "
                f"overlaps with another subnet.",
                code="InvalidInput",
            )


def _check_gateway(gateway: str | None, whole: Net) -> Ip | None:
    if gateway is None:
        return None
    found = parse_ip(gateway, "gateway_ip", whole.version)
    edges = (whole.network_address, whole.broadcast_address) if whole.version == 4 else (whole.network_address,)
    if found in edges and whole.num_addresses > 2:
        raise Invalid("Invalid input for operation: Gateway is not valid on subnet.", code="InvalidInput")
    return found


def _check_modes(body: Any, whole: Net) -> None:
    ra, address = body.ipv6_ra_mode, body.ipv6_address_mode
    if not (ra or address):
        return
    if whole.version == 4:
        raise Invalid(
            "Invalid input for operation: ipv6_ra_mode or ipv6_address_mode cannot be set when ip_version is set to 4.",
            code="InvalidInput",
        )
    if not body.enable_dhcp:
        raise Invalid(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False.", code="BadRequest"
        )
    if ra and address and ra != address:
        raise Invalid(
            f"Invalid input for operation: ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid. "
            "If both attributes are set, they must be the same value.",
            code="InvalidInput",
        )
    if {ra, address} & allocate.AUTO_MODES and whole.prefixlen != 64:
        raise Invalid(
            "Invalid CIDR for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be "
            "/64",
            code="InvalidInput",
        )


# ---- the calls ----------------------------------------------------------------------------------------------------------


def add_subnet(tx: Connection, ctx: Ctx, body: Any) -> Subnet:
    from cumulet.services.network.subnetpool import default_pool

    empty_for_null(body, "dns_nameservers", "host_routes")
    project_id = owner(ctx, body)
    network = db.get(tx, Network, body.network_id, *network_visible(ctx))
    if not ctx.caller.is_admin:
        ctx.require("create_subnet", {"project_id": network.project_id})
    charge(tx, "subnet", Subnet, project_id)
    given = body.given()
    pool_id = given.get("subnetpool_id")
    if body.use_default_subnetpool and pool_id is None:
        pool_id = default_pool(tx, ctx, given.get("ip_version", 4))
    whole = _cidr(tx, ctx, given, pool_id)
    version = given.get("ip_version", whole.version)
    if version != whole.version:
        raise Invalid(
            f"Invalid input for operation: cidr {whole} does not match ip_version {version}.", code="InvalidInput"
        )
    check_overlap(whole, subnets_of(tx, network.id))
    _check_modes(body, whole)
    check_nameservers(body.dns_nameservers)
    check_routes(body.host_routes, whole.version)
    asked = given.get("gateway_ip", UNSET)
    gateway = _check_gateway(asked, whole) if asked is not UNSET else _default_gateway(whole)
    asked_pools = given.get("allocation_pools")
    pools = default_pools(whole, gateway) if asked_pools is None else check_pools(asked_pools, whole, gateway)
    subnet = Subnet.new(
        body,
        **stamps(project_id),
        cidr=str(whole),
        ip_version=whole.version,
        gateway_ip=None if gateway is None else str(gateway),
        allocation_pools=pools,
        subnetpool_id=pool_id,
    )
    db.insert(tx, subnet)
    change(tx, network, subnets=[*network.subnets, subnet.id])
    ctx.service.realiser.touch(tx, [network.id])
    return subnet


def _default_gateway(whole: Net) -> Ip | None:
    return whole.network_address + 1 if whole.num_addresses > 2 else None


def _cidr(tx: Connection, ctx: Ctx, given: dict[str, Any], pool_id: str | None) -> Net:
    """The range asked for: a CIDR, or a prefix from a subnet pool."""
    from cumulet.services.network.subnetpool import take

    if pool_id is not None:
        return take(tx, ctx, pool_id, given.get("cidr"), given.get("prefixlen"), given.get("ip_version"))
    if not given.get("cidr"):
        raise Invalid(
            "Bad subnets request: a subnetpool must be specified in the absence of a cidr.", code="BadRequest"
        )
    return parse_cidr(given["cidr"])


def _change(tx: Connection, ctx: Ctx, id: str, body: Any) -> Subnet:
    subnet = changeable(tx, ctx, Subnet, id, visible, "update_subnet")
    empty_for_null(body, "dns_nameservers", "host_routes")
    given = body.given()
    whole = allocate.net(subnet.cidr)
    gateway = ip_address(subnet.gateway_ip) if subnet.gateway_ip else None
    if "gateway_ip" in given:
        gateway = _check_gateway(given["gateway_ip"], whole)
        given["gateway_ip"] = None if gateway is None else str(gateway)
        if subnet.gateway_ip and given["gateway_ip"] != subnet.gateway_ip:
            _check_gateway_unused(tx, subnet)
    if "allocation_pools" in given or "gateway_ip" in given:
        given["allocation_pools"] = check_pools(given.get("allocation_pools", subnet.allocation_pools), whole, gateway)
    check_nameservers(given.get("dns_nameservers", ()))
    check_routes(given.get("host_routes", ()), whole.version)
    if given.get("enable_dhcp") is False and (subnet.ipv6_ra_mode or subnet.ipv6_address_mode):
        raise Invalid("Bad request: DHCP must be enabled on a subnet with IPv6 modes.", code="BadRequest")
    if given.get("enable_dhcp") is False:
        subnet = _without_dhcp(tx, ctx, subnet)
    subnet = change(tx, subnet, **given)
    if given.get("enable_dhcp") and subnet.dhcp_port_id is None:
        _with_dhcp(tx, ctx, subnet)
    ctx.service.realiser.touch(tx, [subnet.network_id])
    if "gateway_ip" in given:
        ctx.service.realiser.touch_routers_of(tx, subnet.network_id)
    return subnet


def _without_dhcp(tx: Connection, ctx: Ctx, subnet: Subnet) -> Subnet:
    from cumulet.services.network.plumbing import drop_ports
    from cumulet.services.network.port import PORTS

    if subnet.dhcp_port_id:
        drop_ports(tx, ctx.service, PORTS.c.id == subnet.dhcp_port_id)
        subnet.dhcp_port_id = subnet.dhcp_address = None
        db.update(tx, Subnet, subnet.id, dhcp_port_id=None, dhcp_address=None)
    return subnet


def _with_dhcp(tx: Connection, ctx: Ctx, subnet: Subnet) -> None:
    """Give a subnet that is in use its DHCP server; one that is not gets it with its first port."""
    from cumulet.services.network.plumbing import add_dhcp_port

    if tx.execute(select(allocate.a.port_id).where(allocate.a.subnet_id == subnet.id).limit(1)).first() is not None:
        add_dhcp_port(tx, ctx.service, db.get(tx, Network, subnet.network_id), subnet)


def _check_gateway_unused(tx: Connection, subnet: Subnet) -> None:
    from cumulet.services.network.port import PORTS

    query = select(PORTS.c.id).where(
        PORTS.c.id == allocate.a.port_id,
        allocate.a.network_id == subnet.network_id,
        allocate.a.ip_address == subnet.gateway_ip,
        PORTS.c.device_owner == "network:router_interface",
    )
    port_id = tx.execute(query).scalar()
    if port_id:
        raise Conflict(
            f"Current gateway ip {subnet.gateway_ip} already in use by port {port_id}. Unable to update.",
            code="GatewayIpInUse",
        )


def _remove(tx: Connection, ctx: Ctx, id: str) -> None:
    from cumulet.services.network.plumbing import drop_ports
    from cumulet.services.network.port import PORTS

    subnet = changeable(tx, ctx, Subnet, id, visible, "delete_subnet")
    holders = select(PORTS.c.id, PORTS.c.device_owner).where(
        PORTS.c.id == allocate.a.port_id, allocate.a.subnet_id == id
    )
    auto = allocate.is_auto(subnet)
    for port_id, device_owner in tx.execute(holders):
        if device_owner == "network:dhcp" or (auto and not device_owner.startswith("network:")):
            continue
        raise Conflict(
            f"Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet "
            f"(port {port_id}).",
            code="SubnetInUse",
        )
    if subnet.dhcp_port_id:
        drop_ports(tx, ctx.service, PORTS.c.id == subnet.dhcp_port_id)
    if auto:
        _take_back(tx, id)
    db.remove(tx, Subnet, id)
    network = db.get(tx, Network, subnet.network_id)
    change(tx, network, subnets=[s for s in network.subnets if s != id])
    ctx.service.realiser.touch(tx, [network.id])


def _take_back(tx: Connection, subnet_id: str) -> None:
    """Take the addresses that guests made up for themselves from their ports."""
    from cumulet.services.network.port import Port

    held = select(allocate.a.port_id).where(allocate.a.subnet_id == subnet_id)
    for port in db.find(tx, Port, Port.table.c.id.in_(held)):
        change(tx, port, fixed_ips=[f for f in port.fixed_ips if f.subnet_id != subnet_id])
    tx.execute(allocate.table.delete().where(allocate.a.subnet_id == subnet_id))


endpoints = calls(Subnet, visible, add_subnet, _change, _remove)
