"""Security group rules: what a group lets pass.

GET, POST /v2.0/security-group-rules · GET, DELETE /v2.0/security-group-rules/{id}
"""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, or_, select

from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.resource import FIND, computed, once, read, sent
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import Str64, Uuid
from cumulet.services.network.standard import Ctx, Standard, calls, change, changeable, charge, owner, stamps

PROTOCOLS = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "icmpv6": 58, "igmp": 2, "ip": 0,
    "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43,
    "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}  # fmt: skip
"""IP protocols by the names that the API knows (IANA's numbers)."""
WITH_PORTS = frozenset({6, 17, 33, 132, 136})
ICMP = frozenset({1, 58})
ICMPV6_ONLY = frozenset({"icmpv6", "ipv6-icmp", "ipv6-encap", "ipv6-frag", "ipv6-nonxt", "ipv6-opts", "ipv6-route"})


class SecurityGroupRule(
    Standard,
    table="network_security_group_rules",
    path="/v2.0/security-group-rules",
    key="security_group_rule",
    plural="security_group_rules",
    lax=True,
):
    """One rule: traffic that it matches may pass."""

    security_group_id: Uuid = once("The group it belongs to.", use=FIND, index=True)
    direction: Literal["ingress", "egress"] = once("ingress: to the port; egress: from it.", use=FIND)
    ethertype: Literal["IPv4", "IPv6"] = once("Which IP.", "IPv4", FIND)
    protocol_sent: str | int | None = sent("A name, a number or null for all.", None, wire="protocol")
    protocol: Str64 | None = read("A name, a number or null for all.", use=FIND)
    port_range_min: int | None = once("The lowest port, or the ICMP type.", None, FIND)
    port_range_max: int | None = once("The highest port, or the ICMP code.", None, FIND)
    remote_ip_prefix: Str64 | None = once("Addresses of the other side.", None, FIND)
    remote_group_id: Str64 | None = once("A group that the other side belongs to.", None, FIND, index=True)
    remote_address_group_id: str | None = computed("An address group of the other side.", lambda row: None)
    normalized_cidr: str | None = computed("The prefix in its usual form.", lambda row: normal(row.remote_ip_prefix))


RULE = SecurityGroupRule.table
RULES = {
    "get_security_group_rule": ADMIN_OR_OWNER_READER,
    "create_security_group_rule": ADMIN_OR_OWNER_MEMBER,
    "delete_security_group_rule": ADMIN_OR_OWNER_MEMBER,
}


def normal(prefix: str | None) -> str | None:
    return None if prefix is None else str(ip_network(prefix, strict=False))


rule_view = SecurityGroupRule.view()


def visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """A project sees its own rules and those of its own groups."""
    from cumulet.services.network.security_group import GROUPS

    if ctx.caller.is_admin:
        return ()
    mine = select(GROUPS.c.id).where(GROUPS.c.project_id == ctx.caller.project_id)
    return (or_(RULE.c.project_id == ctx.caller.project_id, RULE.c.security_group_id.in_(mine)),)


def default_rules(group_id: str, project_id: str, *, own: bool) -> list[SecurityGroupRule]:
    """Upstream's first rules of a group: everything out; in a default group (`own`) also in from its own members."""
    made = []
    for ethertype in ("IPv4", "IPv6"):
        for direction in ("ingress", "egress") if own else ("egress",):
            made.append(
                SecurityGroupRule.new(
                    **stamps(project_id),
                    security_group_id=group_id,
                    direction=direction,
                    ethertype=ethertype,
                    remote_group_id=group_id if direction == "ingress" else None,
                )
            )
    return made


# ---- what is valid ------------------------------------------------------------------------------------------------------


def parse_protocol(value: str | int | None, ethertype: str) -> tuple[str | None, int | None]:
    """(as it is stored and shown, its number); None is all protocols. Invalid where there is no such protocol."""
    if value is None or str(value).lower() in ("any", ""):
        return None, None
    name = str(value).lower()
    if name.isdecimal() and int(name) <= 255:
        return name, int(name)
    if name not in PROTOCOLS:
        raise Invalid(
            f"Security group rule protocol {value} not supported. Only protocol values {sorted(PROTOCOLS)} and integer "
            "representations [0 to 255] are supported.",
            code="SecurityGroupRuleInvalidProtocol",
        )
    if name in ICMPV6_ONLY and ethertype == "IPv4":
        raise Invalid(
            f"Invalid ethertype {ethertype} for protocol {name}.", code="SecurityGroupEthertypeConflictWithProtocol"
        )
    return name, PROTOCOLS[name]


def check_ports(body: Any, protocol: int | None) -> None:
    low, high = body.port_range_min, body.port_range_max
    if low is None and high is None:
        return
    if protocol is None:
        raise Invalid(
            "Must also specify protocol if port range is given.", code="SecurityGroupProtocolRequiredWithPorts"
        )
    if protocol in ICMP:
        for name, value in (("type", low), ("code", high)):
            if value is not None and not 0 <= value <= 255:
                raise Invalid(
                    f"Invalid value for ICMP {name}: {value}. It must be 0 to 255.",
                    code="SecurityGroupInvalidIcmpValue",
                )
        if low is None:
            raise Invalid(
                f"ICMP code (port-range-max) {high} is provided but ICMP type (port-range-min) is missing.",
                code="SecurityGroupMissingIcmpType",
            )
        return
    if protocol not in WITH_PORTS:
        raise Invalid(
            f"Port range cannot be specified for protocol {protocol}.", code="SecurityGroupInvalidProtocolForPort"
        )
    for value in (low, high):
        if value is not None and not 0 <= value <= 65535:
            raise Invalid(f"Invalid value for port {value}", code="SecurityGroupInvalidPortValue")
    if low is None or high is None or low > high:
        raise Invalid(
            "For TCP/UDP protocols, port_range_min must be <= port_range_max", code="SecurityGroupInvalidPortRange"
        )


def check_remote(body: Any) -> str | None:
    """The remote prefix as it is stored."""
    if body.remote_ip_prefix is None:
        return None
    if body.remote_group_id is not None:
        raise Invalid(
            "Only remote_ip_prefix or remote_group_id may be provided.",
            code="SecurityGroupRemoteGroupAndRemoteIpPrefix",
        )
    try:
        found = ip_network(body.remote_ip_prefix if "%" not in body.remote_ip_prefix else "", strict=False)
    except ValueError:
        raise Invalid(f"'{body.remote_ip_prefix}' is not a valid CIDR.") from None
    if f"IPv{found.version}" != body.ethertype:
        raise Invalid(
            f"Conflicting value ethertype {body.ethertype} for CIDR {body.remote_ip_prefix}",
            code="SecurityGroupRuleParameterConflict",
        )
    return str(body.remote_ip_prefix) if "/" in body.remote_ip_prefix else str(found)


def _check_new(tx: Connection, rule: SecurityGroupRule) -> None:
    """Conflict where the group has the same rule already."""
    for other in db.find(tx, SecurityGroupRule, RULE.c.security_group_id == rule.security_group_id):
        if _meaning(other) == _meaning(rule):
            raise Conflict(
                f"Security group rule already exists. Rule id is {other.id}.", code="SecurityGroupRuleExists"
            )


def _meaning(rule: SecurityGroupRule) -> tuple[Any, ...]:
    protocol = rule.protocol
    if protocol is not None:
        protocol = str(PROTOCOLS.get(protocol, protocol))
    return (
        rule.direction,
        rule.ethertype,
        protocol,
        rule.port_range_min,
        rule.port_range_max,
        None if rule.remote_ip_prefix in ("0.0.0.0/0", "::/0") else normal(rule.remote_ip_prefix),
        rule.remote_group_id,
    )


# ---- the calls ----------------------------------------------------------------------------------------------------------


def add_rule(tx: Connection, ctx: Ctx, body: Any) -> SecurityGroupRule:
    from cumulet.services.network import security_group as groups

    project_id = owner(ctx, body)
    group = db.get(tx, groups.SecurityGroup, body.security_group_id, *groups.visible(ctx))
    if body.remote_group_id is not None:
        db.get(tx, groups.SecurityGroup, body.remote_group_id, *groups.visible(ctx))
    protocol, number = parse_protocol(body.protocol_sent, body.ethertype)
    check_ports(body, number)
    prefix = check_remote(body)
    charge(tx, "security_group_rule", SecurityGroupRule, project_id)
    rule = SecurityGroupRule.new(body, **stamps(project_id), protocol=protocol, remote_ip_prefix=prefix)
    _check_new(tx, rule)
    db.insert(tx, rule)
    change(tx, group)
    ctx.service.realiser.touch_groups(tx, [group.id])
    return rule


def _remove(tx: Connection, ctx: Ctx, id: str) -> None:
    from cumulet.services.network import security_group as groups

    rule = changeable(tx, ctx, SecurityGroupRule, id, visible, "delete_security_group_rule")
    db.remove(tx, SecurityGroupRule, id)
    group = db.first(tx, groups.SecurityGroup, groups.GROUPS.c.id == rule.security_group_id)
    if group is not None:
        change(tx, group)
    ctx.service.realiser.touch_groups(tx, [rule.security_group_id])


endpoints = calls(SecurityGroupRule, visible, add_rule, None, _remove)
