"""A router: a namespace with a leg on the bridge of each network, and one on the external bridge.

All functions run in a thread of `namespace.in_thread`, which starts in the program's own namespace. A pair of devices
is made by one call with each end where it belongs, so a crash leaves whole pairs or none, and a pair goes as one.
"""

import hashlib
import ipaddress
import json
import socket
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from cumulet.services.network.drivers import DataplaneError, Router, RouterInterface
from cumulet.services.network.drivers.linux import nat
from cumulet.services.network.drivers.linux.address import address_changes, announce, route_changes
from cumulet.services.network.drivers.linux.bridge import BRIDGE, METADATA_ADDRESS, has_device, remove_device
from cumulet.services.network.drivers.linux.command import forget_flows, ip_batch, nft, run
from cumulet.services.network.drivers.linux.namespace import inside, write_sysctl

SYSCTLS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    # Each device answers for its own addresses only.
    "ipv4/conf/all/arp_ignore": "1",
    "ipv4/conf/all/arp_announce": "2",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/accept_ra": "0",
}


@dataclass(frozen=True)
class Leg:
    """A device of the router with what it holds. `network` is the namespace of its other end, None for the external
    bridge, `peer` the other end's name; a leg without `gateway` also leads to its network's metadata address."""

    device: str
    peer: str
    network: str | None
    spec: RouterInterface
    addresses: tuple[str, ...]


def external_peer(prefix: str, port_id: str) -> str:
    """The name of a gateway leg's end in the program's namespace: at most 15 characters, its cloud's alone."""
    return "g" + hashlib.sha256(prefix.encode()).hexdigest()[:3] + port_id[:11]


def legs(router: Router, prefix: str, network_name: dict[str, str]) -> list[Leg]:
    """The legs a router has, the external one last, with the floating addresses it answers for."""
    found = [
        Leg(
            nat.leg_device(spec.port_id), "leg" + spec.port_id[:11], network_name[spec.network_id], spec, spec.addresses
        )
        for spec in router.interfaces
    ]
    gateway = router.gateway
    if gateway is not None:
        held = (*gateway.addresses, *(f"{address}/32" for address in nat.floating(router)))
        found.append(Leg(nat.gateway_device(router), external_peer(prefix, gateway.port_id), None, gateway, held))
    return found


def ensure(router: Router, name: str, wanted: list[Leg], external_bridge: str) -> None:
    """Make a router's namespace hold exactly the wanted legs, addresses, routes and rules."""
    with inside(name):
        present = {device for _, device in socket.if_nameindex()}
        write_sysctl(SYSCTLS)
        for device in sorted(present):
            if device.startswith(("qr-", "qg-")) and device not in {leg.device for leg in wanted}:
                remove_device(device)
        # Rules first: no packet leaves untranslated by a leg that is new.
        nft(nat.ruleset(router))
    for leg in wanted:
        _plug(leg, name, leg.device in present, external_bridge)
    with inside(name):
        # A floating IP that has moved is believed at once.
        write_sysctl({f"ipv4/neigh/{leg.device}/locktime": "0" for leg in wanted})
        fresh = _address(wanted)
        ip_batch(route_changes(_routes(router)))
        _metadata_routes(wanted)
        for leg, addresses in fresh:
            announce(leg.device, leg.spec.mac, addresses)
    # The program's own namespace, too, may remember them elsewhere.
    ip_batch(
        [f"neigh flush to {one} dev {external_bridge}" for leg, new in fresh if leg.network is None for one in new]
    )


def _outside(leg: Leg) -> AbstractContextManager[None]:
    """Where the outer end of a leg is."""
    return nullcontext() if leg.network is None else inside(leg.network)


def _plug(leg: Leg, name: str, present: bool, external_bridge: str) -> None:
    """Make the pair of devices of a leg unless it is whole, and plug it into the bridge."""
    master = external_bridge if leg.network is None else BRIDGE
    with _outside(leg):
        if not has_device(master):
            raise DataplaneError(f"network {leg.spec.network_id} was not ensured before the router that joins it")
        whole = present and has_device(leg.peer)
        if not whole:
            # One end may be left for a moment while the kernel takes down the namespace of the other.
            remove_device(leg.peer)
    if not whole:
        with inside(name):
            remove_device(leg.device)
    with _outside(leg):
        if not whole:
            ends = f"{leg.peer} mtu {leg.spec.mtu} type veth peer name {leg.device} address {leg.spec.mac} netns {name}"
            ip_batch([f"link add {ends}"])
        # The outer end is a plug, not a host of its own.
        write_sysctl({f"ipv6/conf/{leg.peer}/disable_ipv6": "1"})
        ip_batch([f"link set {leg.peer} mtu {leg.spec.mtu} master {master} up"])


def _address(wanted: list[Leg]) -> list[tuple[Leg, list[str]]]:
    """Give each leg its addresses; returns the new IPv4 addresses by leg."""
    held = {
        link["ifname"]: {
            f"{info['local']}/{info['prefixlen']}"
            for info in link.get("addr_info", [])
            if not (info["family"] == "inet6" and info["scope"] == "link")
        }
        for link in json.loads(run(("ip", "-j", "addr", "show")) or "[]")
    }
    commands, fresh = ["link set lo up"], []
    for leg in wanted:
        present = held.get(leg.device, set())
        commands.append(f"link set {leg.device} address {leg.spec.mac} mtu {leg.spec.mtu} up")
        commands += address_changes(leg.device, leg.addresses, present)
        new = {str(ipaddress.ip_interface(address)) for address in leg.addresses} - present
        fresh.append((leg, sorted(address.split("/")[0] for address in new if ":" not in address)))
    ip_batch(commands)
    return fresh


def _routes(router: Router) -> dict[str, str]:
    """The router's own routes: the way out, and those its owner set."""
    routes: dict[str, str] = {}
    outer = nat.gateway_device(router)
    if outer:
        for nexthop in router.gateway_nexthops:
            routes.setdefault("::/0" if ":" in nexthop else "0.0.0.0/0", f"via {nexthop} dev {outer} onlink")
    for route in router.routes:
        destination = str(ipaddress.ip_network(route.destination, strict=False))
        if destination.endswith(("/32", "/128")):  # shown by `ip` as a bare address
            destination = destination.rpartition("/")[0]
        routes[destination] = f"via {route.nexthop}"
    return routes


def _metadata_routes(wanted: Iterable[Leg]) -> None:
    """Send what comes in by a leg for the metadata address back out of it, to the bridge that holds the address.

    That serves guests that know only their default gateway (no DHCP option 121).
    """
    inner = [leg for leg in wanted if leg.network is not None]
    rules = json.loads(run(("ip", "-j", "rule", "show")) or "[]")
    known = {rule.get("iif"): str(rule.get("table")) for rule in rules if rule.get("iif", "").startswith("qr-")}
    commands = [
        f"rule del iif {device} table {table}"
        for device, table in known.items()
        if device not in {leg.device for leg in inner}
    ]
    with_index = {name: index for index, name in socket.if_nameindex()}
    for leg in inner:
        table = str(1000 + with_index[leg.device])
        commands.append(f"route replace {METADATA_ADDRESS} dev {leg.device} table {table}")
        if known.get(leg.device) != table:
            if leg.device in known:
                commands.append(f"rule del iif {leg.device} table {known[leg.device]}")
            commands.append(f"rule add iif {leg.device} to {METADATA_ADDRESS} table {table}")
    ip_batch(commands)


def forget_lost(before: Router, after: Router) -> None:
    """In the thread's namespace, cut the flows of floating IPs that went or moved, or all if the way out changed."""
    if (before.gateway and before.gateway.addresses) != (after.gateway and after.gateway.addresses) or (
        before.enable_snat and not after.enable_snat
    ):
        run(("conntrack", "-F"))
        return
    now = nat.floating(after)
    for public, fixed in nat.floating(before).items():
        if now.get(public) != fixed:
            forget_flows("--orig-dst", public)
            forget_flows("--reply-dst", public)
