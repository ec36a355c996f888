"""The external network: a bridge in the program's own namespace, on which the host holds the gateway addresses.

So the host itself reaches floating IPs. A bridge of the name that was there before is used, and left when we go.
All functions run in a thread of `namespace.in_thread`.
"""

import ipaddress
import json
import logging
from pathlib import Path

from cumulet.services.network.drivers import Network
from cumulet.services.network.drivers.linux.address import address_changes, addresses_of
from cumulet.services.network.drivers.linux.bridge import BRIDGE_KIND, bridge_mac, has_device, remove_device
from cumulet.services.network.drivers.linux.command import ip_batch, nft, run
from cumulet.services.network.drivers.linux.nat import masquerade

log = logging.getLogger(__name__)


def gateway_addresses(network: Network) -> set[str]:
    """What the host holds of an external network: its subnets' gateway addresses, with prefix lengths."""
    return {
        f"{ipaddress.ip_address(subnet.gateway_ip)}/{ipaddress.ip_network(subnet.cidr, strict=False).prefixlen}"
        for subnet in network.subnets
        if subnet.gateway_ip
    }


def ensure(network: Network, others: list[Network], before: set[str], bridge: str, owner: str) -> None:
    """Make the bridge hold the gateway addresses of an external network beside those of the others.

    A bridge of ours holds nothing else; from a bridge that we found only those of `before` are taken away.
    """
    if not has_device(bridge):
        ip_batch([f"link add {bridge} address {bridge_mac(owner)} mtu {network.mtu} {BRIDGE_KIND}"])
    ip_batch([f"link set {bridge} up"])
    wanted = set[str]().union(*(gateway_addresses(one) for one in (network, *others) if one.admin_state_up))
    present = addresses_of(bridge)
    ip_batch(address_changes(bridge, wanted, present if is_ours(bridge, owner) else present & (before | wanted)))


def remove(addresses: set[str], bridge: str, owner: str, *, last: bool) -> None:
    """Take an external network's addresses off the bridge; with the last one the bridge goes, if it is ours."""
    if not has_device(bridge):
        return
    ip_batch(address_changes(bridge, (), addresses_of(bridge) & addresses))
    if last and is_ours(bridge, owner):
        remove_device(bridge)


def ensure_masquerade(networks: list[Network], bridge: str, owner: str) -> None:
    """Hide the external networks behind the host's own addresses, if the host forwards at all."""
    cidrs = sorted({subnet.cidr for network in networks for subnet in network.subnets if ":" not in subnet.cidr})
    if cidrs and Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() != "1":
        log.warning(
            "the host does not forward packets (net.ipv4.ip_forward is 0): guests reach no further than the host"
        )
        cidrs = []
    nft(masquerade(bridge, owner, cidrs))


def is_ours(bridge: str, owner: str) -> bool:
    """Whether the bridge is there and was made for this cloud: its MAC, fixed as it is made, tells."""
    if not has_device(bridge):
        return False
    links = json.loads(run(("ip", "-j", "link", "show", "dev", bridge)) or "[]")
    return bool(links) and links[0].get("address") == bridge_mac(owner)
