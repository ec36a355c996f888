"""Ports as rows, whoever asks for them: adding one with its addresses and groups, and dropping some with all they hold."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select

from cumulet.core import db
from cumulet.core.db import after_commit
from cumulet.core.errors import Conflict
from cumulet.services.network import allocate
from cumulet.services.network.allocate import FixedIp
from cumulet.services.network.floating_ip import let_go
from cumulet.services.network.network import Network
from cumulet.services.network.port import PORTS, Port
from cumulet.services.network.security_group import default_group, members
from cumulet.services.network.standard import change, stamps
from cumulet.services.network.subnet import Subnet, subnets_of

if TYPE_CHECKING:
    from cumulet.services.network.runtime import NetworkRuntime

DHCP = "network:dhcp"


def add_port(
    tx: Connection,
    runtime: "NetworkRuntime",
    network: Network,
    project_id: str,
    *,
    fixed_ips: Sequence[FixedIp] | None = None,
    groups: Sequence[str] | None = None,
    mac: str | None = None,
    body: Any = None,
    **values: Any,
) -> Port:
    """Make a port. `fixed_ips` None: one address of each version; `groups` None: the project's default group.

    `values` are further columns. Conflict where the MAC or an address is taken, or no address is left.
    """
    subnets = subnets_of(tx, network.id)
    if mac is not None:
        check_mac_free(tx, network.id, mac)
    mac = mac or allocate.new_mac()
    chosen = allocate.choose(tx, network.id, mac, subnets, fixed_ips)
    device_owner = values.get("device_owner", "")
    filtered = values.setdefault("port_security_enabled", network.port_security_enabled)
    if groups is None:
        inside = device_owner.startswith("network:") or not filtered
        groups = () if inside else (default_group(tx, project_id),)
    port = Port.new(
        body,
        **{
            **stamps(project_id),
            "network_id": network.id,
            "mac_address": mac,
            "fixed_ips": chosen,
            "security_groups": list(groups),
            **values,
        },
    )
    db.insert(tx, port)
    allocate.hold(tx, network.id, port.id, chosen)
    join(tx, port)
    if device_owner != DHCP:
        used = {fixed.subnet_id for fixed in chosen}
        for subnet in subnets:
            if subnet.id in used and subnet.enable_dhcp and subnet.dhcp_port_id is None:
                add_dhcp_port(tx, runtime, network, subnet)
    runtime.realiser.touch(tx, [network.id], groups)
    return port


_same_mac = select(PORTS.c.id).where(
    PORTS.c.network_id == bindparam("network"), PORTS.c.mac_address == bindparam("mac")
)


def check_mac_free(tx: Connection, network_id: str, mac: str) -> None:
    if tx.execute(_same_mac, {"network": network_id, "mac": mac}).first() is not None:
        raise Conflict(
            f"Unable to complete operation for network {network_id}. The mac address {mac} is in use.",
            code="MacAddressInUse",
        )


def add_dhcp_port(tx: Connection, runtime: "NetworkRuntime", network: Network, subnet: Subnet) -> None:
    """Give the subnet's DHCP server an address. None left: the subnet goes without, until the next port is made there."""
    try:
        port = add_port(
            tx,
            runtime,
            network,
            network.project_id,
            fixed_ips=[FixedIp(subnet.id)],
            device_id=f"dhcp-{subnet.id}",
            device_owner=DHCP,
            port_security_enabled=False,
        )
    except Conflict:
        return
    db.update(tx, Subnet, subnet.id, dhcp_port_id=port.id, dhcp_address=port.fixed_ips[0].ip_address)


def join(tx: Connection, port: Port) -> None:
    """Store the groups that a port is in."""
    rows = [
        {"port_id": port.id, "security_group_id": group, "network_id": port.network_id}
        for group in port.security_groups or ()
    ]
    if rows:
        tx.execute(members.insert(), rows)


_leave = delete(members).where(members.c.port_id == bindparam("port"))


def leave(tx: Connection, port_id: str) -> None:
    tx.execute(_leave, {"port": port_id})


_addresses_of = delete(allocate.table).where(allocate.a.port_id == bindparam("port"))


def drop_ports(tx: Connection, runtime: "NetworkRuntime", *where: ColumnElement[bool]) -> None:
    """Delete these ports with their addresses and memberships; their floating IPs are let go of."""
    for port in db.find(tx, Port, *where):
        let_go(tx, runtime, port.id)
        leave(tx, port.id)
        tx.execute(_addresses_of, {"port": port.id})
        db.remove(tx, Port, port.id)
        runtime.realiser.touch(tx, [port.network_id], port.security_groups)
        if port.device_id and not port.device_owner.startswith("network:"):
            publish(tx, runtime, "port.deleted", {"device_id": port.device_id, "port_id": port.id})


def tell_addresses(tx: Connection, runtime: "NetworkRuntime", ports: Iterable[Port]) -> None:
    """Publish, once this is committed, that devices have other addresses or groups than before."""
    devices = sorted({p.device_id for p in ports if p.device_id and not p.device_owner.startswith("network:")})
    if devices:
        publish(tx, runtime, "port.addresses", {"device_ids": devices})


def publish(tx: Connection, runtime: "NetworkRuntime", event: str, payload: Any) -> None:
    kernel = runtime.kernel

    def send() -> None:
        kernel.tasks.spawn(f"publish {event}", kernel.bus.publish("network", event, payload))

    after_commit(tx, send)


def set_fixed_ips(tx: Connection, port: Port, wanted: Sequence[FixedIp], subnets: Sequence[Subnet]) -> list[FixedIp]:
    """Store other addresses for a port: what stays stays, what is new is allocated. Returns them."""
    mine = {f.ip_address: f for f in port.fixed_ips}
    spare = list(port.fixed_ips)
    kept: list[FixedIp] = []
    new: list[FixedIp] = []
    for wish in wanted:
        old = mine.get(allocate.plain(wish.ip_address)) if wish.ip_address else None
        if wish.ip_address is None:
            old = next((f for f in spare if f.subnet_id == wish.subnet_id), None)
        if old is not None and old in spare and wish.subnet_id in (None, old.subnet_id):
            spare.remove(old)
            kept.append(old)
        else:
            new.append(wish)
    allocate.release(tx, port.id, [str(f.ip_address) for f in spare])
    chosen = allocate.choose(tx, port.network_id, port.mac_address, subnets, new)
    allocate.hold(tx, port.network_id, port.id, chosen)
    return [*kept, *chosen]


def replace_port(tx: Connection, runtime: "NetworkRuntime", port: Port, given: dict[str, Any]) -> Port:
    """Store a port's new values (its new addresses are allocated already), and tell who must know."""
    if "security_groups" in given:
        leave(tx, port.id)
    changed = change(tx, port, **given)
    if "security_groups" in given:
        join(tx, changed)
    if "fixed_ips" in given:
        still = {f.ip_address for f in changed.fixed_ips}
        let_go(tx, runtime, port.id, keep=still)
    groups = {*(port.security_groups or ()), *(changed.security_groups or ())}
    runtime.realiser.touch(tx, [port.network_id], groups)
    if changed.device_owner == "network:router_interface":
        runtime.realiser.touch_routers(tx, [changed.device_id])
    if {"fixed_ips", "security_groups", "device_id"} & given.keys():
        tell_addresses(tx, runtime, [port, changed])
    return changed
