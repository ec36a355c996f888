"""Security groups and anti-spoofing of one network, as an nft ruleset. Pure functions: a Network in, text out.

Two tables, replaced together in one transaction:

- `bridge`: who a frame may claim to be (MAC, ARP, IPv4, IPv6), and the mark. A frame from or to a secured port is
  marked with a number that stands for the port's *set* of groups, so a further port is a few set elements, not rules.
- `inet`, which br_netfilter lets see bridged packets with connection tracking: the groups' rules.

**Every packet is judged, established or not.** Connection tracking serves only to tell which way a flow was opened:
rules match the flow's *original* addresses and ports (`ct original`), and a reply is judged by the chain of the
direction in which its flow came. So a rule that goes takes its flows with it in the very transaction, both ways.
A port's packets pass here twice: as egress of the sender (prerouting) and as ingress of the receiver (forward).
"""

import ipaddress
import socket
from collections.abc import Iterable, Iterator

from cumulet.services.network.drivers import DataplaneError, Network, Port, Rule

TABLE = "cumulet"
TAP_PREFIX = "tap"
TCP = 6
ICMP = {4: 1, 6: 58}
WITH_PORTS = frozenset({6, 17, 33, 132, 136})

PROTOCOLS = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "icmp": 1, "icmpv6": 58, "igmp": 2, "ipip": 4,
    "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43,
    "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}  # fmt: skip
"""The protocol names that the Networking API knows."""

FORGETTABLE = 1
"""The conntrack mark of flows that any packet may open anew (all but TCP)."""

Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def tap_name(port_id: str) -> str:
    """The device of a port: `tap` and the first 11 characters of its id, as Neutron names it."""
    return TAP_PREFIX + port_id[:11]


def ruleset(network: Network) -> str:
    """The whole filter of a network, to be loaded in one transaction."""
    live = [port for port in network.ports if port.admin_state_up and network.admin_state_up]
    secured = [port for port in live if port.port_security]
    numbers = _numbers(secured)
    return "\n".join(
        [
            *(
                line
                for family in ("bridge", "inet")
                for line in (f"table {family} {TABLE}", f"delete table {family} {TABLE}")
            ),
            f"table bridge {TABLE} {{",
            *_bridge_sets(live, secured, numbers),
            _BRIDGE_CHAINS,
            "}",
            f"table inet {TABLE} {{",
            *_group_chains(network, numbers),
            _inet_chains(len(numbers)),
            "}",
            "",
        ]
    )


def narrowed(before: Network, after: Network) -> bool:
    """Whether anything that was let through before may not be any more, so that old flows must be forgotten."""
    rules = {group.id: _reach(group.rules) for group in after.security_groups}
    for group in before.security_groups:
        reach = rules.get(group.id, {})
        for rule, remote in _reach(group.rules).items():
            if rule not in reach or not remote <= reach[rule]:
                return True
    ports = {port.id: port for port in after.ports}
    for old in before.ports:
        new = ports.get(old.id)
        if new is None or not set(old.security_groups) <= set(new.security_groups):
            return True
        if (old.fixed_ips, old.mac, old.port_security, old.admin_state_up) != (
            new.fixed_ips, new.mac, new.port_security, new.admin_state_up,
        ):  # fmt: skip
            return True
    return before.admin_state_up and not after.admin_state_up


def _reach(rules: Iterable[Rule]) -> dict[tuple[str | int | bool | None, ...], set[str]]:
    """Rules by what they match apart from the remote, with all remotes of each."""
    found: dict[tuple[str | int | bool | None, ...], set[str]] = {}
    for rule in rules:
        key = (
            rule.direction,
            rule.ethertype,
            rule.protocol,
            rule.port_min,
            rule.port_max,
            rule.remote_given or bool(rule.remote),
        )
        found.setdefault(key, set()).update(rule.remote)
    return found


def _numbers(secured: Iterable[Port]) -> dict[tuple[str, ...], int]:
    """A mark, from 1, for each set of groups that some port has."""
    sets = sorted({tuple(sorted(set(port.security_groups))) for port in secured})
    return {groups: number for number, groups in enumerate(sets, 1)}


def _bridge_sets(live: list[Port], secured: list[Port], numbers: dict[tuple[str, ...], int]) -> Iterator[str]:
    taps = [(tap_name(port.id), port) for port in secured]
    open_taps = [f'"{tap_name(port.id)}"' for port in live if not port.port_security]
    claims = [(f'"{tap}" . {mac}', nets) for tap, port in taps for mac, nets in _claims(port).items()]
    yield _set("set open", "ifname", open_taps)
    yield _set("set secured", "ifname", [f'"{tap}"' for tap, _ in taps])
    yield _set(
        "map groups",
        "ifname : mark",
        [f'"{tap}" : {numbers[tuple(sorted(set(port.security_groups)))]}' for tap, port in taps],
    )
    yield _set("set macs", "ifname . ether_addr", [claim for claim, _ in claims])
    for version in (4, 6):
        elements = [f"{claim} . {net}" for claim, nets in claims for net in nets if (":" in net) is (version == 6)]
        yield _set(f"set addresses{version}", f"ifname . ether_addr . ipv{version}_addr", elements, "flags interval;")
    # A set of raw bytes: nft has no name for the address that a neighbour advertisement speaks of.
    targets = [f"{claim} . {_hexadecimal(net)}" for claim, nets in claims for net in nets if ":" in net]
    yield _set("set targets", "iifname . ether saddr . @th,64,128", targets, "flags interval;", "typeof")


def _hexadecimal(net: str) -> str:
    """An IPv6 address or network as a number or a range of them."""
    address, _, length = net.partition("/")
    first = socket.inet_pton(socket.AF_INET6, address).hex()
    last = int(first, 16) | (1 << 128 - int(length or 128)) - 1
    return f"0x{first}" if int(first, 16) == last else f"0x{first}-0x{last:032x}"


def _set(head: str, kind: str, elements: list[str], flags: str = "", by: str = "type") -> str:
    inner = f"elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"  {head} {{ {by} {kind}; {flags} {inner} }}"


def _claims(port: Port) -> dict[str, list[str]]:
    """The MACs a secured port may use, each with its addresses; overlaps are merged, which nft would refuse."""
    own = port.mac.lower()
    claims = {own: [link_local(own), *(fixed.ip_address for fixed in port.fixed_ips)]}
    for address, mac in port.allowed_address_pairs:
        claims.setdefault(other := (mac or own).lower(), [link_local(other)]).append(address)
    if port.allowed_address_pairs:
        for mac, addresses in claims.items():
            nets = collapse(ipaddress.ip_network(address, strict=False) for address in addresses)
            claims[mac] = [str(net) for net in nets]
    return claims


def collapse(nets: Iterable[Net]) -> list[Net]:
    """The same addresses without overlap, IPv4 first, in order."""
    every = list(nets)
    four = ipaddress.collapse_addresses(net for net in every if isinstance(net, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(net for net in every if isinstance(net, ipaddress.IPv6Network))
    return [*four, *six]


def link_local(mac: str) -> str:
    """The link-local address that a machine makes of its MAC (EUI-64)."""
    first, *rest = (int(octet, 16) for octet in mac.split(":"))
    return "fe80::{:02x}{:02x}:{:02x}ff:fe{:02x}:{:02x}{:02x}".format(first ^ 2, *rest)


def _group_chains(network: Network, numbers: dict[tuple[str, ...], int]) -> Iterator[str]:
    """A chain per group and direction, and per set of groups one that tries its groups and then drops."""
    used = {group for groups in numbers for group in groups}
    known = {group.id: group for group in network.security_groups if group.id in used}
    for group in known.values():
        for direction in ("ingress", "egress"):
            lines = [line for rule in group.rules if rule.direction == direction for line in rule_lines(rule)]
            yield f"  chain {_chain(direction, group.id)} {{\n" + "".join(f"    {line}\n" for line in lines) + "  }"
    for groups, number in numbers.items():
        for direction in ("ingress", "egress"):
            jumps = "".join(f"    jump {_chain(direction, group)}\n" for group in groups if group in known)
            yield f"  chain {direction}_{number} {{\n{jumps}    drop\n  }}"


def _chain(direction: str, group_id: str) -> str:
    return f"{direction}_{group_id.replace('-', '_')}"


def rule_lines(rule: Rule) -> list[str]:
    """A rule as nft lines (none if it can match nobody), judging a flow by its original addresses and ports."""
    version = 6 if rule.ethertype.lower() == "ipv6" else 4
    parts = [f"meta nfproto ipv{version}"]
    if rule.remote or rule.remote_given:
        every = (ipaddress.ip_network(remote, strict=False) for remote in rule.remote)
        nets = collapse(net for net in every if net.version == version)
        if not nets:
            return []
        if nets[0].prefixlen > 0:
            side = "saddr" if rule.direction == "ingress" else "daddr"
            family = "ip" if version == 4 else "ip6"
            parts.append(f"ct original {family} {side} {{ {', '.join(map(str, nets))} }}")
    if rule.protocol not in (None, "", "any", "ip", "0"):
        number = _protocol(str(rule.protocol), version)
        parts.append(f"meta l4proto {number}")
        parts.extend(_ports(rule, number))
    return [" ".join([*parts, "accept"])]


def _protocol(name: str, version: int) -> int:
    number = int(name) if name.isdigit() else PROTOCOLS.get(name.lower(), -1)
    if not 0 <= number <= 255:
        raise DataplaneError(f"a security group rule has the unknown protocol '{name}'")
    return ICMP[6] if version == 6 and number == ICMP[4] else number


def _ports(rule: Rule, number: int) -> list[str]:
    low, high = rule.port_min, rule.port_max
    if number in WITH_PORTS and (low is not None or high is not None):
        first, last = low if low is not None else 0, high if high is not None else 65535
        return [f"ct original proto-dst {first}" if first == last else f"ct original proto-dst {first}-{last}"]
    if number in ICMP.values() and low is not None:
        # Connection tracking keeps an ICMP flow's type and code where the destination port of others is.
        return [
            f"ct original proto-dst {low << 8 | high}"
            if high is not None
            else f"ct original proto-dst {low << 8}-{low << 8 | 255}"
        ]
    return []


_BRIDGE_CHAINS = f"""\
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname "{TAP_PREFIX}*" goto from_port
  }}
  chain from_port {{
    iifname @open accept
    iifname != @secured drop
    iifname . ether saddr != @macs drop
    ether type arp iifname . arp saddr ether . arp saddr ip @addresses4 accept
    ether type arp iifname . arp saddr ether @macs arp saddr ip 0.0.0.0 accept
    ether type ip udp sport 67 udp dport 68 drop
    ether type ip6 udp sport 547 udp dport 546 drop
    ether type ip6 icmpv6 type {{ 134, 137 }} drop
    ether type ip6 icmpv6 type 136 iifname . ether saddr . @th,64,128 != @targets drop
    ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 meta mark set iifname map @groups accept
    ether type ip iifname . ether saddr . ip saddr @addresses4 meta mark set iifname map @groups accept
    ether type ip6 ip6 saddr :: icmpv6 type {{ 131, 132, 133, 135, 143 }} meta mark set iifname map @groups accept
    ether type ip6 iifname . ether saddr . ip6 saddr @addresses6 meta mark set iifname map @groups accept
    drop
  }}
  chain forward {{
    type filter hook forward priority -200; policy accept;
    meta mark set 0
    oifname "{TAP_PREFIX}*" goto to_port
  }}
  chain to_port {{
    oifname @open accept
    oifname != @secured drop
    ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @macs drop
    ether type arp accept
    ether type != {{ ip, ip6 }} drop
    meta mark set oifname map @groups
  }}"""


def _inet_chains(count: int) -> str:
    """The two hooks. Replies go to the chain of the opposite direction: that is how their flow was opened."""
    ingress = ", ".join(f"{number} : goto ingress_{number}" for number in range(1, count + 1))
    egress = ", ".join(f"{number} : goto egress_{number}" for number in range(1, count + 1))

    def judge(original: str, reply: str) -> str:
        lines = ["ct state invalid drop", "ct state related accept"]
        if count:
            lines.append(f"ct direction original meta mark vmap {{ {original} }}")
            lines.append(f"ct direction reply meta mark vmap {{ {reply} }}")
        return "\n".join(f"    {line}" for line in (*lines, "drop"))

    return f"""\
  chain prerouting {{
    type filter hook prerouting priority -150; policy accept;
    ct state new meta l4proto != {TCP} ct mark set {FORGETTABLE}
    meta mark 0 accept
    udp sport 68 udp dport 67 accept
    udp sport 546 udp dport 547 accept
    icmpv6 type {{ 131, 132, 133, 135, 136, 143 }} accept
{judge(egress, ingress)}
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    meta mark 0 accept
    icmpv6 type {{ 130, 131, 132, 134, 135, 136 }} accept
{judge(ingress, egress)}
  }}"""
