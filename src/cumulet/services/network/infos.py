"""Networks and ports as other services see them (`interface.py`)."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, select

from cumulet.core.db.store import load
from cumulet.services.network.floating_ip import FLOATING
from cumulet.services.network.interface import FixedIp, NetworkInfo, PortInfo
from cumulet.services.network.network import NETWORKS, Network
from cumulet.services.network.port import Port
from cumulet.services.network.security_group import GROUPS
from cumulet.services.network.subnet import SUBNETS, Subnet

_ids: BindParameter[Any] = bindparam("ids", expanding=True)
_networks = select(NETWORKS).where(NETWORKS.c.id.in_(_ids))
_subnets = select(SUBNETS).where(SUBNETS.c.network_id.in_(_ids))
_floating = select(FLOATING.c.port_id, FLOATING.c.fixed_ip_address, FLOATING.c.floating_ip_address).where(
    FLOATING.c.port_id.in_(_ids)
)
_groups = select(GROUPS.c.id, GROUPS.c.name).where(GROUPS.c.id.in_(_ids))


def of_network(row: Network) -> NetworkInfo:
    return NetworkInfo(row.id, row.name, row.project_id, row.shared, row.external, bool(row.subnets))


def of_ports(tx: Connection, ports: Sequence[Port]) -> list[PortInfo]:
    """These ports with all that others want to know, in four statements however many there are."""
    if not ports:
        return []
    networks = {
        row.id: load(Network, row) for row in tx.execute(_networks, {"ids": list({p.network_id for p in ports})})
    }
    subnets = {row.id: load(Subnet, row) for row in tx.execute(_subnets, {"ids": list(networks)})}
    floating: dict[tuple[str, str], list[str]] = {}
    for port_id, fixed, address in tx.execute(_floating, {"ids": [p.id for p in ports]}):
        floating.setdefault((port_id, fixed), []).append(address)
    groups = {g for p in ports for g in p.security_groups or ()}
    names: dict[str, str] = {row.id: row.name for row in tx.execute(_groups, {"ids": list(groups)})}
    return [_of_port(port, networks[port.network_id], subnets, floating, names) for port in ports]


def _of_port(
    port: Port,
    network: Network,
    subnets: dict[str, Subnet],
    floating: dict[tuple[str, str], list[str]],
    names: dict[str, str],
) -> PortInfo:
    fixed_ips = []
    for fixed in port.fixed_ips:
        subnet, address = subnets[str(fixed.subnet_id)], str(fixed.ip_address)
        fixed_ips.append(
            FixedIp(
                ip_address=address,
                subnet_id=subnet.id,
                cidr=subnet.cidr,
                version=subnet.ip_version,
                gateway_ip=subnet.gateway_ip,
                dns_nameservers=tuple(subnet.dns_nameservers or ()),
                floating_ips=tuple(floating.get((port.id, address), ())),
            )
        )
    groups = tuple(port.security_groups or ())
    return PortInfo(
        id=port.id,
        name=port.name,
        network_id=port.network_id,
        network_name=network.name,
        project_id=port.project_id,
        device_id=port.device_id,
        device_owner=port.device_owner,
        mac_address=port.mac_address,
        mtu=network.mtu,
        fixed_ips=tuple(fixed_ips),
        security_group_ids=groups,
        security_group_names=tuple(names[g] for g in groups if g in names),
        status=port.status,
        dhcp=any(subnets[str(f.subnet_id)].enable_dhcp for f in port.fixed_ips),
    )
