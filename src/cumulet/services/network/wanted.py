"""What the dataplane should be, read from the database: the driver's specs of a network and of a router."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, String, bindparam, select, type_coerce

from cumulet.core import db
from cumulet.services.network import drivers
from cumulet.services.network.allocate import a, net
from cumulet.services.network.allocate import table as allocations
from cumulet.services.network.floating_ip import FLOATING
from cumulet.services.network.network import NETWORKS, Network
from cumulet.services.network.port import PORTS, Port
from cumulet.services.network.router import GATEWAY, INTERFACE, Router
from cumulet.services.network.security_group import members
from cumulet.services.network.security_group_rule import RULE, normal
from cumulet.services.network.subnet import SUBNETS, Subnet, subnets_of

BATCH = 500
"""Ports that one statement reads."""

Known = dict[str, tuple[int, drivers.Port]]
"""Ports as they were read before: revision and spec, by id."""


class Wanted(Struct, frozen=True):
    """A network as it should be, and the ports of the cloud's own that carry traffic once it is."""

    spec: drivers.Network
    internal_ports: tuple[str, ...]  # those that are not told to be ACTIVE yet
    failed: bool  # it is told to be in ERROR
    known: Known


_revisions = (
    select(PORTS.c.id, PORTS.c.revision_number, PORTS.c.device_owner, PORTS.c.status)
    .where(PORTS.c.network_id == bindparam("network"))
    .order_by(PORTS.c.created_at, PORTS.c.id)
)


def network(tx: Connection, network_id: str, known: Known) -> Wanted | None:
    """What is wanted of a network; None where nothing of it should be on the host (it is gone, or nothing is on it).

    Ports whose revision is in `known` are not read again: one more on a network of thousands costs no more than that one.
    """
    row = db.first(tx, Network, Network.table.c.id == network_id)
    if row is None:
        return None
    subnets = subnets_of(tx, network_id)
    there = tx.execute(_revisions, {"network": network_id}).all()
    if not there and not (row.external and subnets):
        return None
    ports = _guests(tx, [(row[0], row[1]) for row in there if not row[2].startswith("network:")], known)
    groups = sorted({g for _, port in ports.values() for g in port.security_groups})
    spec = drivers.Network(
        id=row.id,
        mtu=row.mtu,
        external=row.external,
        admin_state_up=row.admin_state_up,
        subnets=tuple(_subnet(s) for s in subnets),
        ports=tuple(port for _, port in ports.values()),
        security_groups=_groups(tx, groups),
    )
    waiting = tuple(one for one, _, owner, status in there if owner.startswith("network:") and status == "DOWN")
    return Wanted(spec, waiting, row.status == "ERROR", ports)


def _guests(tx: Connection, there: list[tuple[str, int]], known: Known) -> Known:
    """The ports with these ids at these revisions, in this order."""
    new = [one for one, revision in there if one not in known or known[one][0] != revision]
    read: Known = {}
    for start in range(0, len(new), BATCH):
        for port in db.find(tx, Port, PORTS.c.id.in_(new[start : start + BATCH])):
            read[port.id] = (port.revision_number, _port(port))
    return {one: read.get(one) or known[one] for one, _ in there}


def _subnet(row: Subnet) -> drivers.Subnet:
    return drivers.Subnet(
        id=row.id,
        cidr=row.cidr,
        gateway_ip=row.gateway_ip,
        dhcp_address=row.dhcp_address if row.enable_dhcp else None,
        dns_nameservers=tuple(row.dns_nameservers or ()),
        host_routes=tuple(drivers.Route(r.destination, r.nexthop) for r in row.host_routes or ()),
        ipv6_mode=(row.ipv6_ra_mode or row.ipv6_address_mode) if row.ip_version == 6 else None,
    )


def _port(row: Port) -> drivers.Port:
    return drivers.Port(
        id=row.id,
        mac=row.mac_address,
        fixed_ips=tuple(drivers.FixedIp(str(f.subnet_id), str(f.ip_address)) for f in row.fixed_ips),
        security_groups=tuple(sorted(row.security_groups or ())) if row.port_security_enabled else (),
        allowed_address_pairs=tuple(
            (p.ip_address, p.mac_address or row.mac_address) for p in row.allowed_address_pairs or ()
        ),
        port_security=row.port_security_enabled,
        admin_state_up=row.admin_state_up,
        hostname=row.hostname,
    )


# ---- security groups ----------------------------------------------------------------------------------------------------


def _groups(tx: Connection, ids: Sequence[str]) -> tuple[drivers.SecurityGroup, ...]:
    if not ids:
        return ()
    rows = list(
        tx.execute(select(RULE).where(RULE.c.security_group_id.in_(ids)).order_by(RULE.c.created_at, RULE.c.id))
    )
    addresses = _addresses(tx, {row.remote_group_id for row in rows if row.remote_group_id})
    rules: dict[str, list[drivers.Rule]] = {one: [] for one in ids}
    for row in rows:
        rules[row.security_group_id].append(_rule(row, addresses))
    return tuple(drivers.SecurityGroup(one, tuple(rules[one])) for one in ids)


def _rule(row: Any, addresses: dict[str, list[str]]) -> drivers.Rule:
    remote: tuple[str, ...] = ()
    if row.remote_group_id:
        v6 = row.ethertype == "IPv6"
        remote = tuple(address for address in addresses[row.remote_group_id] if (":" in address) == v6)
    elif row.remote_ip_prefix:
        remote = (str(normal(row.remote_ip_prefix)),)
    return drivers.Rule(
        direction=row.direction,
        ethertype=row.ethertype,
        protocol=row.protocol,
        port_min=row.port_range_min,
        port_max=row.port_range_max,
        remote=remote,
        remote_given=bool(row.remote_group_id or row.remote_ip_prefix),
    )


def _addresses(tx: Connection, groups: Iterable[str]) -> dict[str, list[str]]:
    """The addresses of each group's members, allowed ones included."""
    ids = sorted(groups)
    found: dict[str, set[str]] = {one: set() for one in ids}
    if not ids:
        return {}
    member = members.c.security_group_id
    fixed = select(member, a.ip_address).join(allocations, a.port_id == members.c.port_id).where(member.in_(ids))
    for group, address in tx.execute(fixed):
        found[group].add(address)
    pairs = (
        select(member, PORTS.c.allowed_address_pairs)
        .join(PORTS, PORTS.c.id == members.c.port_id)
        .where(member.in_(ids), type_coerce(PORTS.c.allowed_address_pairs, String) != "[]")
    )
    for group, allowed in tx.execute(pairs):
        found[group].update(pair.ip_address for pair in allowed)
    return {group: sorted(addresses) for group, addresses in found.items()}


# ---- routers ------------------------------------------------------------------------------------------------------------


def router(tx: Connection, router_id: str) -> drivers.Router | None:
    """What is wanted of a router; None where it is gone."""
    row = db.first(tx, Router, Router.table.c.id == router_id)
    if row is None:
        return None
    legs = db.find(
        tx, Port, PORTS.c.device_id == router_id, PORTS.c.device_owner.in_([INTERFACE, GATEWAY]),
        order=[PORTS.c.created_at, PORTS.c.id],
    )  # fmt: skip
    subnet_ids = {f.subnet_id for leg in legs for f in leg.fixed_ips}
    subnets = {s.id: s for s in db.find(tx, Subnet, SUBNETS.c.id.in_(subnet_ids))} if subnet_ids else {}
    sizes = select(NETWORKS.c.id, NETWORKS.c.mtu).where(NETWORKS.c.id.in_({leg.network_id for leg in legs}))
    mtu: dict[str, int] = {found.id: found.mtu for found in tx.execute(sizes)}
    out = next((leg for leg in legs if leg.device_owner == GATEWAY), None)
    floating = tx.execute(
        select(FLOATING.c.id, FLOATING.c.floating_ip_address, FLOATING.c.fixed_ip_address)
        .where(FLOATING.c.router_id == router_id)
        .order_by(FLOATING.c.id)
    )
    info = row.external_gateway_info
    return drivers.Router(
        id=row.id,
        interfaces=tuple(_leg(leg, subnets, mtu) for leg in legs if leg is not out),
        gateway=None if out is None else _leg(out, subnets, mtu),
        gateway_nexthops=() if out is None else _nexthops(out, subnets),
        enable_snat=bool(info and info.enable_snat),
        floating_ips=tuple(drivers.FloatingIp(*f) for f in floating) if out is not None else (),
        routes=tuple(drivers.Route(r.destination, r.nexthop) for r in row.routes or ()),
        admin_state_up=row.admin_state_up,
    )


def _leg(port: Port, subnets: dict[str, Subnet], mtu: dict[str, int]) -> drivers.RouterInterface:
    addresses = tuple(f"{f.ip_address}/{net(subnets[str(f.subnet_id)].cidr).prefixlen}" for f in port.fixed_ips)
    return drivers.RouterInterface(port.id, port.network_id, port.mac_address, addresses, mtu[port.network_id])


def _nexthops(port: Port, subnets: dict[str, Subnet]) -> tuple[str, ...]:
    hops = [subnets[str(f.subnet_id)].gateway_ip for f in port.fixed_ips]
    return tuple(dict.fromkeys(hop for hop in hops if hop))
