"""Ports: where devices join networks.

GET, POST /v2.0/ports · GET, PUT, DELETE /v2.0/ports/{id}
"""

import re
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Annotated, Any

from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, Connection, Index, and_, or_, select, true

from cumulet.api.policy import ADMIN
from cumulet.api.resource import AUTO, FILTER, FIND, Body, computed, edit, hidden, once, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Str64, Str255, Uuid
from cumulet.services.network import allocate
from cumulet.services.network.allocate import FixedIp
from cumulet.services.network.network import NETWORKS, Network
from cumulet.services.network.network import visible as network_visible
from cumulet.services.network.security_group import GROUPS, members
from cumulet.services.network.standard import (
    Ctx,
    Standard,
    calls,
    changeable,
    charge,
    empty_for_null,
    field_rules,
    listing,
    owner,
)

MAC = re.compile(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")
BINDING = "{verb}_port:binding:"


class AddressPair(Struct, forbid_unknown_fields=True):
    """Addresses that a port may use beside its own."""

    ip_address: str
    mac_address: str | None = None


class Port(Standard, table="network_ports", path="/v2.0/ports", lax=True):
    """A point at which a device joins a network."""

    name: Str255 = edit("A name, which need not be unique.", "", FIND)
    network_id: Uuid = once("The network it is on.", use=FIND)
    admin_state_up: bool = edit("Whether it may carry traffic.", True, FIND)
    status: Str64 = read("ACTIVE while traffic passes, DOWN else.", "DOWN", FIND)
    mac_address: Annotated[str, Meta(max_length=32)] = edit("The hardware address.", AUTO, FIND)
    fixed_ips: list[FixedIp] = edit("Addresses, each of one subnet.", AUTO)
    device_id: Str255 = edit("What it belongs to.", "", FIND, index=True)
    device_owner: Str255 = edit("What kind of thing it belongs to.", "", FIND)
    security_groups: list[Uuid] | None = edit("Groups whose rules apply.", AUTO)
    port_security_enabled: bool = edit("Whether it is filtered.", AUTO, FILTER)
    allowed_address_pairs: list[AddressPair] | None = edit("Addresses it may use beside its own.", [])
    vnic_type: Str64 = edit("How the device is attached.", "normal", FILTER, wire="binding:vnic_type")
    host: Str255 = edit(
        "The host it is bound to.", "", FILTER, wire="binding:host_id", show="get_port:binding:host_id",
        set=BINDING + "host_id",
    )  # fmt: skip
    profile: dict[str, Any] = edit(
        "What the device's driver should know.", {}, wire="binding:profile", show="get_port:binding:profile",
        set=BINDING + "profile",
    )  # fmt: skip
    vif_type: str = computed(
        "How it was plugged in.",
        lambda row: "bridge" if row.host else "unbound",
        wire="binding:vif_type",
        show="get_port:binding:vif_type",
    )
    vif_details: dict[str, Any] = computed(
        "More of how it was plugged in.",
        lambda row: {"port_filter": True, "connectivity": "l2"} if row.host else {},
        wire="binding:vif_details",
        show="get_port:binding:vif_details",
    )
    hostname: Str255 = hidden("What DHCP tells the guest its name is.", "")


PORTS = Port.table
Index("network_ports_mac", PORTS.c.network_id, PORTS.c.mac_address, unique=True)

_MEMBER = "role:admin or (role:member and project_id:%(project_id)s)"
_EITHER = "role:admin or (role:member and (project_id:%(project_id)s or project_id:%(network_project_id)s))"
_NETWORK = "role:admin or (role:member and project_id:%(network_project_id)s)"
RULES = {
    "get_port": "role:admin or (role:reader and project_id:%(project_id)s)",
    "create_port": _MEMBER,
    "update_port": _EITHER,
    "delete_port": _EITHER,
    **field_rules(ADMIN, "port", ("get", "create", "update"), ("binding:host_id", "binding:profile")),
    **field_rules(ADMIN, "port", ("get",), ("binding:vif_type", "binding:vif_details")),
    **field_rules(
        _NETWORK,
        "port",
        ("create", "update"),
        ("mac_address", "fixed_ips:ip_address", "port_security_enabled", "allowed_address_pairs", "device_owner"),
    ),
    "update_port:mac_address": ADMIN,
}


def visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """A project sees its own ports and those on its own networks."""
    if ctx.caller.is_admin:
        return ()
    mine = ctx.caller.project_id
    return (or_(PORTS.c.project_id == mine, PORTS.c.network_id.in_(select(NETWORKS.c.id).where(NETWORKS.c.project_id == mine))),)  # fmt: skip  # noqa: E501


# ---- what is valid and allowed ------------------------------------------------------------------------------------------


def check_mac(mac: str) -> str:
    mac = mac.lower().replace("-", ":")
    if not MAC.match(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise Invalid(f"Invalid input for mac_address. Reason: '{mac}' is not a valid MAC address.")
    return mac


def check_pairs(pairs: Sequence[AddressPair]) -> None:
    for pair in pairs:
        try:
            ip_network(pair.ip_address if "%" not in pair.ip_address else "", strict=False)
        except ValueError:
            raise Invalid(f"'{pair.ip_address}' is not a valid IP address or CIDR.") from None
        if pair.mac_address is not None:
            check_mac(pair.mac_address)
    if len({(p.ip_address, p.mac_address) for p in pairs}) < len(pairs):
        raise Invalid("Request contains duplicate address pair.", code="DuplicateAddressPairInRequest")


def _require_network_owner(ctx: Ctx, verb: str, network: Network, project_id: str, given: dict[str, Any]) -> None:
    """Refuse what only the network's owner may choose."""
    if ctx.caller.is_admin:
        return
    target = {"project_id": project_id, "network_project_id": network.project_id}
    for field in ("mac_address", "port_security_enabled", "allowed_address_pairs"):
        if given.get(field) and field in given:
            ctx.require(f"{verb}_port:{field}", target)
    if given.get("port_security_enabled") is False:
        ctx.require(f"{verb}_port:port_security_enabled", target)
    if any(wish.ip_address for wish in given.get("fixed_ips", ())):
        ctx.require(f"{verb}_port:fixed_ips:ip_address", target)
    if str(given.get("device_owner", "")).startswith("network:"):
        ctx.require(f"{verb}_port:device_owner", target)


def _groups(tx: Connection, ctx: Ctx, project_id: str, wanted: Sequence[str] | None) -> list[str]:
    """The groups asked for, each once; NotFound names one that is not the project's to use."""
    ids = list(dict.fromkeys(wanted or ()))
    if not ids:
        return []
    scope = () if ctx.caller.is_admin else (GROUPS.c.project_id == project_id,)
    found = set(tx.execute(select(GROUPS.c.id).where(GROUPS.c.id.in_(ids), *scope)).scalars())
    missing = next((group for group in ids if group not in found), None)
    if missing is not None:
        raise NotFound("security_group", missing)
    return ids


def _check_secure(filtered: bool, groups: Sequence[str] | None, pairs: Sequence[Any]) -> None:
    if filtered:
        return
    if groups:
        raise Conflict(
            "Port Security must be enabled on the port in order to have security groups on it.",
            code="PortSecurityPortHasSecurityGroup",
        )
    if pairs:
        raise Conflict("Port Security must be enabled in order to have allowed address pairs on a port.",
                       code="AddressPairAndPortSecurityRequired")  # fmt: skip


# ---- the calls ----------------------------------------------------------------------------------------------------------


def make_port(tx: Connection, ctx: Ctx, body: Body) -> Port:
    from cumulet.services.network.plumbing import add_port, tell_addresses

    empty_for_null(body, "allowed_address_pairs")
    project_id = owner(ctx, body)
    network = db.get(tx, Network, body.network_id, *network_visible(ctx))
    if not (ctx.caller.is_admin or network.shared or network.project_id == ctx.caller.project_id):
        raise Forbidden(rule="rule:create_port")
    given = body.given()
    _require_network_owner(ctx, "create", network, project_id, given)
    charge(tx, "port", Port, project_id)
    groups = given.get("security_groups")
    if groups is not None or "security_groups" in given:
        groups = _groups(tx, ctx, project_id, groups)
    filtered = given.get("port_security_enabled", network.port_security_enabled)
    check_pairs(body.allowed_address_pairs)
    _check_secure(filtered, groups, body.allowed_address_pairs)
    mac = given.get("mac_address")
    port = add_port(
        tx,
        ctx.service,
        network,
        project_id,
        fixed_ips=given.get("fixed_ips"),
        groups=groups,
        mac=None if mac is None else check_mac(mac),
        body=body,
        port_security_enabled=filtered,
        device_owner=body.device_owner,
    )
    if port.device_id:
        tell_addresses(tx, ctx.service, [port])
    return port


def _change(tx: Connection, ctx: Ctx, id: str, body: Body) -> Port:
    from cumulet.services.network import plumbing
    from cumulet.services.network.subnet import subnets_of

    port = db.get(tx, Port, id, *visible(ctx))
    network = db.get(tx, Network, port.network_id)
    changeable(tx, ctx, Port, id, visible, "update_port", network_project_id=network.project_id)
    empty_for_null(body, "allowed_address_pairs")
    given = body.given()
    _require_network_owner(ctx, "update", network, port.project_id, given)
    if "mac_address" in given:
        given["mac_address"] = check_mac(given["mac_address"])
        if given["mac_address"] != port.mac_address:
            if port.host:
                raise Conflict(f"Unable to complete operation on port {id}, port is already bound.", code="PortBound")
            plumbing.check_mac_free(tx, port.network_id, given["mac_address"])
    if "security_groups" in given:
        given["security_groups"] = _groups(tx, ctx, port.project_id, given["security_groups"])
    check_pairs(given.get("allowed_address_pairs", ()))
    filtered = given.get("port_security_enabled", port.port_security_enabled)
    _check_secure(filtered, given.get("security_groups", port.security_groups),
                  given.get("allowed_address_pairs", port.allowed_address_pairs or ()))  # fmt: skip
    if "fixed_ips" in given:
        given["fixed_ips"] = plumbing.set_fixed_ips(tx, port, given["fixed_ips"], subnets_of(tx, network.id))
    return plumbing.replace_port(tx, ctx.service, port, given)


def _remove(tx: Connection, ctx: Ctx, id: str) -> None:
    from cumulet.services.network.plumbing import drop_ports

    port = db.get(tx, Port, id, *visible(ctx))
    network = db.get(tx, Network, port.network_id)
    changeable(tx, ctx, Port, id, visible, "delete_port", network_project_id=network.project_id)
    if port.device_owner in ("network:router_interface", "network:router_gateway", "network:floatingip"):
        raise Conflict(
            f"Port {id} cannot be deleted directly via the port API: has device owner {port.device_owner}.",
            code="ServicePortInUse",
        )
    drop_ports(tx, ctx.service, PORTS.c.id == id)


def _by_fixed_ips(values: list[str]) -> ColumnElement[bool]:
    """`fixed_ips=ip_address=10.0.0.3&fixed_ips=subnet_id=...`: ports with an address of which all of that is true."""
    conditions: list[ColumnElement[bool]] = []
    for value in values:
        name, _, wanted = value.partition("=")
        if name == "ip_address_substr":
            conditions.append(allocate.a.ip_address.contains(wanted, autoescape=True))
        elif name in ("ip_address", "subnet_id"):
            conditions.append(allocate.a[name] == wanted)
        else:
            raise Invalid(f"'{value}' is not a filter of fixed_ips.")
    found: ColumnElement[bool] = PORTS.c.id.in_(select(allocate.a.port_id).where(and_(true(), *conditions)))
    return found


def _by_groups(values: list[str]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = PORTS.c.id.in_(
        select(members.c.port_id).where(members.c.security_group_id.in_(values))
    )
    return found


_listing = listing(Port, fixed_ips=_by_fixed_ips, security_groups=_by_groups)

endpoints = calls(Port, visible, make_port, _change, _remove, listed=_listing)
