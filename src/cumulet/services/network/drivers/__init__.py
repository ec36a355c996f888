"""The dataplane driver: what networking asks of a host.

One Protocol; `linux` (namespaces, bridges, nftables, dnsmasq) and `simulated` (records only) implement it and pass the
same suite, `tests/drivers/test_dataplane.py`. A call carries the whole wanted state of one network or one router, and
makes the host match it, whatever was there before: repeatable after any crash, and atomic where packets are filtered.
"""

import socket
from typing import Protocol

from msgspec import Struct


class DataplaneError(Exception):
    """The host's network could not be made as asked; the text names the object and the tool's own words."""


class Rule(Struct, frozen=True):
    """One security group rule. Unset fields match all. `remote` holds CIDRs and addresses, a remote group's among them;
    an empty tuple with `remote_given` matches nobody (a group without members).

    `port_min` and `port_max` are ports of tcp, udp, sctp, dccp and udplite, and type and code of icmp and icmpv6.
    `protocol` is a name or a number as text.
    """

    direction: str  # "ingress" | "egress"
    ethertype: str  # "IPv4" | "IPv6"
    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote: tuple[str, ...] = ()
    remote_given: bool = False


class SecurityGroup(Struct, frozen=True):
    id: str
    rules: tuple[Rule, ...]


class FixedIp(Struct, frozen=True):
    subnet_id: str
    ip_address: str


class Port(Struct, frozen=True):
    """A port of a network. With `port_security` off nothing is filtered. `hostname` is what DHCP tells the guest."""

    id: str
    mac: str
    fixed_ips: tuple[FixedIp, ...]
    security_groups: tuple[str, ...] = ()
    allowed_address_pairs: tuple[tuple[str, str], ...] = ()  # (address or CIDR, MAC)
    port_security: bool = True
    admin_state_up: bool = True
    hostname: str = ""


class Route(Struct, frozen=True):
    destination: str
    nexthop: str


class Subnet(Struct, frozen=True):
    """`dhcp_address` is the address of the DHCP server (and name server) of this subnet, None where DHCP is off."""

    id: str
    cidr: str
    gateway_ip: str | None
    dhcp_address: str | None
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[Route, ...] = ()
    ipv6_mode: str | None = None  # slaac | dhcpv6-stateless | dhcpv6-stateful, on IPv6 subnets


class Network(Struct, frozen=True):
    """A network with everything on it. An `external` network is the bridge to the host's own world:
    the host holds its subnets' gateway addresses, and routers reach out through it."""

    id: str
    mtu: int = 1500
    external: bool = False
    admin_state_up: bool = True
    subnets: tuple[Subnet, ...] = ()
    ports: tuple[Port, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()


class RouterInterface(Struct, frozen=True):
    """A leg of a router. `addresses` carry their prefix length ("10.0.0.1/24")."""

    port_id: str
    network_id: str
    mac: str
    addresses: tuple[str, ...]
    mtu: int = 1500


class FloatingIp(Struct, frozen=True):
    id: str
    floating_ip_address: str
    fixed_ip_address: str


class Router(Struct, frozen=True):
    """A router with its legs, its way out and its floating IPs. `gateway.addresses` are on the external network;
    `gateway_nexthops` are that network's own gateways."""

    id: str
    interfaces: tuple[RouterInterface, ...] = ()
    gateway: RouterInterface | None = None
    gateway_nexthops: tuple[str, ...] = ()
    enable_snat: bool = True
    floating_ips: tuple[FloatingIp, ...] = ()
    routes: tuple[Route, ...] = ()
    admin_state_up: bool = True


class Observed(Struct, frozen=True):
    """What the host holds of this cloud: ids of networks and routers (as far as their names tell), and ids of ports
    whose tap is present (a machine has them open)."""

    networks: frozenset[str]
    routers: frozenset[str]
    taps: frozenset[str]


class Dataplane(Protocol):
    """A host's dataplane. Ids are the API's UUIDs."""

    async def start(self) -> None:
        """Make ready; adopt what is there from before."""
        ...

    async def stop(self) -> None:
        """Let go without disturbing anything: packets go on flowing, DHCP goes on answering."""
        ...

    async def ensure_network(self, network: Network) -> None: ...

    async def remove_network(self, network_id: str) -> None:
        """Leave nothing behind: namespace, devices, rules, processes, files. Unknown: no effect."""
        ...

    async def ensure_router(self, router: Router) -> None:
        """The networks of all its legs must have been ensured before."""
        ...

    async def remove_router(self, router_id: str) -> None: ...

    async def open_tap(self, network_id: str, port_id: str, mac: str) -> int:
        """Open the tap of a port, plugged into its network with its rules in force; returns a file descriptor that the
        caller passes on to a virtual machine and closes. The device goes when the last holder closes it."""
        ...

    async def metadata_socket(self, network_id: str) -> socket.socket:
        """A listening, non-blocking TCP socket on 169.254.169.254:80 inside the network. Each call opens a new one."""
        ...

    async def observe(self) -> Observed: ...

    async def remove_all(self) -> None:
        """Remove every trace of this cloud from the host (`cumulet reset`)."""
        ...
