"""A plan in the words of each firewall: nftables, iptables, ufw, firewalld, and a security group of the cloud itself.

Every form lets in what the plan says, answers to what the host itself asked, loopback, and the ICMP that networks need; it
stops everything else, and touches nothing but what it has itself made.
"""

import ipaddress
import json
import shlex
from collections.abc import Callable, Iterable, Mapping

from cumulet.portmap.firewall.plan import Plan, Rule

TABLE = "cumulet_firewall"
CHAIN = "CUMULET-INPUT"
NUMBERS = {"gre": "47", "vrrp": "112"}
ICMP = ("destination-unreachable", "echo-request", "time-exceeded", "parameter-problem")
ICMPV6 = (
    "destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem", "echo-request",
    "nd-router-advert", "nd-neighbor-solicit", "nd-neighbor-advert",
)  # fmt: skip


def families(sources: Iterable[str]) -> dict[int, list[str]]:
    """CIDRs by IP version."""
    found: dict[int, list[str]] = {}
    for cidr in sources:
        found.setdefault(ipaddress.ip_network(cidr).version, []).append(cidr)
    return found


def nftables(plan: Plan) -> str:
    """A ruleset for `nft -f`: one table, replaced as a whole in one transaction."""
    lines = [
        f"# {_title(plan)}",
        f"table inet {TABLE} {{}}",  # so that the next line has something to delete
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        "\tchain input {",
        "\t\ttype filter hook input priority filter; policy drop;",
        '\t\tiifname "lo" accept',
        "\t\tct state established,related accept",
        "\t\tct state invalid drop",
        f"\t\ticmp type {{ {', '.join(ICMP)} }} accept",
        f"\t\ticmpv6 type {{ {', '.join(ICMPV6)} }} accept",
    ]
    for rule in plan.rules:
        match = f"{rule.protocol} dport {rule.ports}" if rule.has_ports else f"meta l4proto {rule.first}"
        for version, sources in families(rule.sources).items():
            address = "ip" if version == 4 else "ip6"
            comment = json.dumps(f"{rule.network}: {rule.purpose}"[:120], ensure_ascii=True)
            lines.append(f"\t\t{address} saddr {{ {', '.join(sources)} }} {match} accept comment {comment}")
    return "\n".join([*lines, "\t}", "}", ""])


def iptables(plan: Plan) -> str:
    """A shell script: a chain of our own for `iptables-restore` and `ip6tables-restore`, and one jump to it."""
    parts = ["#!/bin/sh", f"# {_title(plan)}", "set -e"]
    for version, tool in ((4, "iptables"), (6, "ip6tables")):
        rules = "\n".join(iptables_rules(plan, version))
        parts += [
            f"{tool}-restore --noflush <<'RULES'\n{rules}\nRULES",
            f"{tool} -C INPUT -j {CHAIN} 2>/dev/null || {tool} -I INPUT 1 -j {CHAIN}",
        ]
    return "\n".join([*parts, ""])


def iptables_rules(plan: Plan, version: int) -> list[str]:
    """The lines of one `iptables-restore` for IPv4 or IPv6; naming the chain empties it first."""
    lines = ["*filter", f":{CHAIN} - [0:0]", f"-A {CHAIN} -i lo -j ACCEPT"]
    lines.append(f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
    lines.append(f"-A {CHAIN} -m conntrack --ctstate INVALID -j DROP")
    if version == 4:
        lines += [f"-A {CHAIN} -p icmp --icmp-type {kind} -j ACCEPT" for kind in ICMP]
    else:
        names = {"nd-router-advert": "134", "nd-neighbor-solicit": "135", "nd-neighbor-advert": "136"}
        lines += [f"-A {CHAIN} -p ipv6-icmp --icmpv6-type {names.get(kind, kind)} -j ACCEPT" for kind in ICMPV6]
    for rule in plan.rules:
        match = f"-p {rule.protocol} --dport {rule.ports.replace('-', ':')}" if rule.has_ports else f"-p {rule.first}"
        comment = shlex.quote(f"{rule.network}: {rule.purpose}"[:120]).replace("'", '"')
        lines += [
            f"-A {CHAIN} -s {cidr} {match} -m comment --comment {comment} -j ACCEPT"
            for cidr in families(rule.sources).get(version, [])
        ]
    return [*lines, f"-A {CHAIN} -j DROP", "COMMIT"]


def ufw(plan: Plan) -> str:
    """Commands for ufw. It knows no protocols beside TCP, UDP, GRE and few more: VRRP is left to its before.rules."""
    lines = ["#!/bin/sh", f"# {_title(plan)}", "set -e", "ufw default deny incoming"]
    for rule in plan.rules:
        comment = shlex.quote(f"cumulet {rule.network}: {rule.purpose}"[:120])
        for cidr in rule.sources:
            if rule.has_ports:
                ports = rule.ports.replace("-", ":")
                lines.append(f"ufw allow proto {rule.protocol} from {cidr} to any port {ports} comment {comment}")
            elif rule.protocol == "gre" and ":" not in cidr:
                lines.append(f"ufw allow proto gre from {cidr} to any comment {comment}")
            else:
                lines.append(f"# {rule.protocol} from {cidr}: ufw has no such rule; add it to /etc/ufw/before.rules")
    return "\n".join([*lines, "ufw --force enable", ""])


def firewalld(plan: Plan) -> str:
    """Commands for firewalld: a zone for each network, with the network's CIDRs as its sources."""
    lines = ["#!/bin/sh", f"# {_title(plan)}", "set -e"]
    zones: dict[tuple[str, ...], list[Rule]] = {}  # a source can be in one zone only
    for rule in plan.rules:
        zones.setdefault(rule.sources, []).append(rule)
    for sources, rules in zones.items():
        zone = f"cumulet-{rules[0].network.split(',')[0]}"  # at most 17 characters
        here = f"firewall-cmd --permanent --zone={zone}"
        lines += [
            f"if firewall-cmd --permanent --get-zones | grep -qw {zone}; then",
            f"  firewall-cmd --permanent --delete-zone={zone}",
            "fi",
            f"firewall-cmd --permanent --new-zone={zone}",
            *(f"{here} --add-source={cidr}" for cidr in sources),
        ]
        for rule in rules:
            what = f"--add-port={rule.ports}/{rule.protocol}" if rule.has_ports else f"--add-protocol={rule.protocol}"
            lines.append(f"{here} {what}")
    return "\n".join([*lines, "firewall-cmd --reload", ""])


def security_group_rules(plan: Plan) -> list[dict[str, object]]:
    """The bodies of POST /v2.0/security-group-rules, without the group's id."""
    return [
        {
            "direction": "ingress",
            "ethertype": f"IPv{ipaddress.ip_network(cidr).version}",
            "protocol": rule.protocol,
            "port_range_min": rule.first if rule.has_ports else None,
            "port_range_max": rule.last if rule.has_ports else None,
            "remote_ip_prefix": cidr,
            "description": f"{rule.network}: {rule.purpose}"[:255],
        }
        for rule in plan.rules
        for cidr in rule.sources
    ]


def security_group(plan: Plan) -> str:
    """A Neutron security group and its rules, as JSON."""
    group = {"name": f"cumulet-{'-'.join(plan.roles)}", "description": _title(plan)}
    return json.dumps({"security_group": group, "security_group_rules": security_group_rules(plan)}, indent=2) + "\n"


def openstack(plan: Plan) -> str:
    """The same as commands of the `openstack` client."""
    group = f"cumulet-{'-'.join(plan.roles)}"
    lines = ["#!/bin/sh", f"# {_title(plan)}", "set -e"]
    lines.append(f"openstack security group create {group} --description {shlex.quote(_title(plan))}")
    for body in security_group_rules(plan):
        ports = ""
        if body["port_range_min"] is not None:
            first, last = body["port_range_min"], body["port_range_max"]
            ports = f" --dst-port {first}" + ("" if first == last else f":{last}")
        lines.append(
            f"openstack security group rule create {group} --ingress --ethertype {body['ethertype']}"
            f" --protocol {body['protocol']}{ports} --remote-ip {body['remote_ip_prefix']}"
            f" --description {shlex.quote(str(body['description']))}"
        )
    return "\n".join([*lines, ""])


def _title(plan: Plan) -> str:
    return f"What a host with the role {', '.join(plan.roles)} lets in"


FORMS: Mapping[str, Callable[[Plan], str]] = {
    "nftables": nftables,
    "iptables": iptables,
    "ufw": ufw,
    "firewalld": firewalld,
    "security-group": security_group,
    "openstack": openstack,
}
