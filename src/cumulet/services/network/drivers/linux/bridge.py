"""The bridge of a network and what is plugged into it. All functions run in a thread of `namespace.in_thread`."""

import errno
import fcntl
import hashlib
import ipaddress
import json
import os
import socket
import struct
from pathlib import Path

from cumulet.services.network.drivers import DataplaneError, Network
from cumulet.services.network.drivers.linux.address import address_changes, addresses_of, route_changes
from cumulet.services.network.drivers.linux.command import ip_batch, run
from cumulet.services.network.drivers.linux.filter import TAP_PREFIX, tap_name
from cumulet.services.network.drivers.linux.namespace import write_sysctl

BRIDGE = "br0"
BRIDGE_KIND = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
METADATA_ADDRESS = "169.254.169.254"
PLUGS = (TAP_PREFIX, "leg", "qr-", "qg-")
"""How the names of devices begin that lead out of a namespace: taps, legs of routers at either end, ways out."""

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000

SYSCTLS = {
    "bridge/bridge-nf-call-iptables": "1",
    "bridge/bridge-nf-call-ip6tables": "1",
    "bridge/bridge-nf-call-arptables": "0",
    "bridge/bridge-nf-filter-vlan-tagged": "0",
    "ipv4/ip_forward": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv6/conf/all/forwarding": "0",
    # Only br0 speaks IPv6 here; taps and legs must not answer for themselves.
    "ipv6/conf/default/disable_ipv6": "1",
    # A flow is opened by its first packet or not at all: half a conversation must not pass for a new one.
    "netfilter/nf_conntrack_tcp_loose": "0",
    "netfilter/nf_conntrack_tcp_be_liberal": "1",
}


def bridge_mac(network_id: str) -> str:
    """The bridge's own MAC: fixed, as one that followed its ports would spoil every guest's ARP cache."""
    digest = hashlib.sha256(network_id.encode()).digest()
    return "02:" + ":".join(f"{octet:02x}" for octet in digest[:5])


def local_addresses(network: Network) -> tuple[list[str], list[str]]:
    """What br0 holds, with prefix lengths, and the subnets it reaches without an address in them.

    The DHCP server's addresses and the metadata address; metadata is answered on subnets without DHCP as well.
    """
    addresses, bare = [f"{METADATA_ADDRESS}/32"], []
    for subnet in network.subnets:
        net = ipaddress.ip_network(subnet.cidr, strict=False)
        if subnet.dhcp_address:
            addresses.append(f"{subnet.dhcp_address}/{net.prefixlen}")
        elif net.version == 4:
            bare.append(str(net))
    return addresses, bare


def default_gateway(network: Network) -> str | None:
    """Where br0's own name server sends its questions: the first IPv4 gateway of a subnet it has an address in."""
    for subnet in network.subnets:
        if subnet.dhcp_address and subnet.gateway_ip and ":" not in subnet.cidr:
            return subnet.gateway_ip
    return None


def ensure_bridge(network: Network) -> None:
    """Make br0 of the namespace the thread is in, with exactly the network's addresses and routes."""
    names = {name for _, name in socket.if_nameindex()}
    if BRIDGE not in names:
        write_sysctl(SYSCTLS)
        ip_batch(["link set lo up", f"link add {BRIDGE} address {bridge_mac(network.id)} {BRIDGE_KIND}"])
    own = {"disable_ipv6": "0", "accept_ra": "0", "accept_dad": "0"}
    write_sysctl({f"ipv6/conf/{BRIDGE}/{name}": value for name, value in own.items()})
    # br0 may have no port yet: a bridge's MTU follows its ports unless it is set by hand, so all are set.
    commands = [f"link set {BRIDGE} mtu {network.mtu} up"]
    commands += [f"link set {name} mtu {network.mtu}" for name in sorted(names) if name.startswith(TAP_PREFIX)]
    wanted, bare = local_addresses(network)
    commands += address_changes(BRIDGE, wanted, addresses_of(BRIDGE) if BRIDGE in names else set())
    routes = dict.fromkeys(bare, f"dev {BRIDGE} src {METADATA_ADDRESS}")
    gateway = default_gateway(network)
    if gateway is not None:
        routes["0.0.0.0/0"] = f"via {gateway} dev {BRIDGE} onlink"
    ip_batch(commands)
    ip_batch(route_changes(routes))


def open_tap(port_id: str, mtu: int) -> int:
    """Make the tap of a port in the thread's namespace and plug it into br0; returns its descriptor.

    The flags are those that QEMU's `-netdev tap,fd=N` reads back (TUNGETIFF): no packet information, virtio-net header.
    """
    name = tap_name(port_id)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        try:
            fcntl.ioctl(descriptor, TUNSETIFF, request)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise DataplaneError(
                    f"port {port_id}: its tap {name} is held by another process (an old machine?)"
                ) from error
            raise DataplaneError(f"port {port_id}: could not make its tap {name}: {error.strerror}") from error
        ip_batch([f"link set {name} master {BRIDGE} mtu {mtu} alias {port_id} up"])
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def taps() -> list[str]:
    """The ports whose taps are in the thread's namespace."""
    if not any(name.startswith(TAP_PREFIX) for _, name in socket.if_nameindex()):
        return []
    links = json.loads(run(("ip", "-j", "link", "show", "master", BRIDGE)) or "[]")
    return [link["ifalias"] for link in links if link.get("ifname", "").startswith(TAP_PREFIX) and link.get("ifalias")]


def remove_plugs() -> None:
    """Remove what we plugged into the thread's namespace, at once: machines that still hold a tap would keep the
    namespace alive, unseen, and its legs with it. All else goes with the namespace."""
    for _, name in socket.if_nameindex():
        if name.startswith(PLUGS):
            remove_device(name)


def remove_device(name: str) -> None:
    """Remove a device of the thread's namespace unless it is gone."""
    if not has_device(name):
        return
    try:
        run(("ip", "link", "del", name))
    except DataplaneError:
        if has_device(name):  # else the other end of the pair took it along
            raise


def has_device(name: str) -> bool:
    """Whether the thread's namespace has a device of this name."""
    return any(name == other for _, other in socket.if_nameindex())


def load_modules() -> None:
    """Have the kernel track connections, and show bridged packets to inet tables where a namespace asks for it.

    br_netfilter does so in every namespace by default. Where it was not loaded before, the program's own namespace is
    set back at once: the host's other bridges must not notice.
    """
    _load("nf_conntrack", "netfilter/nf_conntrack_max")
    if _load("br_netfilter", "bridge/bridge-nf-call-iptables"):
        write_sysctl({f"bridge/bridge-nf-call-{kind}": "0" for kind in ("iptables", "ip6tables", "arptables")})


def _load(module: str, setting: str) -> bool:
    """Load a kernel module unless its setting (below /proc/sys/net) is there; whether it had to be."""
    path = Path("/proc/sys/net", setting)
    if path.exists():
        return False
    try:
        run(("modprobe", module))
    except DataplaneError as error:
        raise DataplaneError(f"security groups need the kernel module {module}: {error}") from error
    if not path.exists():
        raise DataplaneError(f"security groups need the kernel module {module}, which was loaded to no effect")
    return True
