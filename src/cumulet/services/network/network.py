"""Networks.

GET, POST /v2.0/networks · GET, PUT, DELETE /v2.0/networks/{id}
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta
from sqlalchemy import ColumnElement, Connection, Index, func, or_, select

from cumulet.api.policy import ADMIN
from cumulet.api.resource import AUTO, FILTER, FIND, computed, edit, once, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import Str64, Str255
from cumulet.services.network.standard import (
    MTU,
    Ctx,
    Standard,
    calls,
    change,
    changeable,
    charge,
    field_rules,
    owner,
    stamps,
)

PROVIDER = "{verb}_network:provider:network_type"
PHYSICAL = "{verb}_network:provider:physical_network"
SEGMENT = "{verb}_network:provider:segmentation_id"


class Network(Standard, table="network_networks", path="/v2.0/networks", lax=True):
    """An isolated network on which devices meet."""

    name: Str255 = edit("A name, which need not be unique.", "", FIND)
    admin_state_up: bool = edit("Whether it carries traffic.", True, FIND)
    status: Str64 = read("ACTIVE, or ERROR where the host could not make it.", "ACTIVE", FIND)
    shared: bool = edit("Whether every project may use it.", False, FIND, set="{verb}_network:shared")
    external: bool = edit(
        "Whether it leads out of the cloud.",
        False,
        FIND,
        wire="router:external",
        set="{verb}_network:router:external",
    )
    mtu: Annotated[int, Meta(ge=68, le=9216)] = edit("Bytes of the largest packet.", MTU, FIND)
    port_security_enabled: bool = edit("Whether its new ports are filtered.", True, FILTER)
    is_default: bool = edit("Whether it is the default external network.", False, FIND, set="{verb}_network:is_default")
    subnets: list[str] = read("The IDs of its subnets.", [])
    availability_zone_hints: list[str] = once("Where to place it: there is one zone.", [])
    availability_zones: list[str] = computed("Where it is.", lambda row: ["nova"])
    ipv4_address_scope: str | None = computed("The address scope of its IPv4 subnets.", lambda row: None)
    ipv6_address_scope: str | None = computed("The address scope of its IPv6 subnets.", lambda row: None)
    network_type: Literal["vxlan", "flat", "local"] = once(
        "How it is made.", AUTO, FILTER, wire="provider:network_type", show=PROVIDER.format(verb="get"), set=PROVIDER
    )
    physical_network: Str64 | None = once(
        "What it runs on.",
        None,
        FILTER,
        wire="provider:physical_network",
        show=PHYSICAL.format(verb="get"),
        set=PHYSICAL,
    )
    segmentation_id: Annotated[int, Meta(ge=1, le=16777215)] | None = once(
        "Its number.", AUTO, FILTER, wire="provider:segmentation_id", show=SEGMENT.format(verb="get"), set=SEGMENT
    )


NETWORKS = Network.table
Index("network_networks_segment", NETWORKS.c.network_type, NETWORKS.c.segmentation_id, unique=True)

_MEMBER = "role:admin or (role:member and project_id:%(project_id)s)"
RULES = {
    "get_network": "role:admin or (role:reader and project_id:%(project_id)s)",
    "create_network": _MEMBER,
    "update_network": _MEMBER,
    "delete_network": _MEMBER,
    **field_rules(
        ADMIN,
        "network",
        ("get", "create", "update"),
        (
            "provider:network_type",
            "provider:physical_network",
            "provider:segmentation_id",
            "shared",
            "router:external",
            "is_default",
        ),
    ),
}


def visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """A project sees its own networks, the shared and the external ones."""
    if ctx.caller.is_admin:
        return ()
    return (or_(NETWORKS.c.project_id == ctx.caller.project_id, NETWORKS.c.shared, NETWORKS.c.external),)


_highest = select(func.max(NETWORKS.c.segmentation_id)).where(NETWORKS.c.network_type == "vxlan")


def add_network(tx: Connection, ctx: Ctx, body: Any) -> Network:
    project_id = owner(ctx, body)
    charge(tx, "network", Network, project_id)
    given = body.given()
    kind = given.get("network_type", "flat" if body.external else "vxlan")
    number = given.get("segmentation_id")
    if kind == "vxlan" and number is None:
        number = (tx.execute(_highest).scalar() or 0) + 1
    if kind != "vxlan" and given.get("segmentation_id") is not None:
        raise Invalid(f"segmentation_id is not allowed for a {kind} network")
    if number is not None and db.first(
        tx, Network, NETWORKS.c.network_type == kind, NETWORKS.c.segmentation_id == number
    ):
        raise Conflict(f"Unable to create the network. The {kind} segment {number} is in use.", code="VlanIdInUse")
    zones = [zone for zone in body.availability_zone_hints if zone != "nova"]
    if zones:
        raise Invalid(f"AvailabilityZone {zones[0]} could not be found.", code="AvailabilityZoneNotFound")
    physical = given.get("physical_network") or ("public" if kind == "flat" else None)
    network = Network.new(
        body, **stamps(project_id), network_type=kind, segmentation_id=number, physical_network=physical
    )
    db.insert(tx, network)
    return network


def _change(tx: Connection, ctx: Ctx, id: str, body: Any) -> Network:
    network = changeable(tx, ctx, Network, id, visible, "update_network")
    given = body.given()
    if network.shared and given.get("shared") is False and _used_by_others(tx, network):
        raise Conflict(
            f"Unable to reconfigure sharing settings for network {id}. Multiple tenants are using it.",
            code="InvalidSharedSetting",
        )
    if network.external and given.get("external") is False and _has_gateway(tx, id):
        raise Conflict(
            f"External network {id} cannot be updated to be made non-external, since it has existing gateway ports",
            code="ExternalNetworkInUse",
        )
    network = change(tx, network, **given)
    ctx.service.realiser.touch(tx, [id])
    if "mtu" in given:
        ctx.service.realiser.touch_routers_of(tx, id)
    return network


def _used_by_others(tx: Connection, network: Network) -> bool:
    from cumulet.services.network.port import PORTS

    others = select(PORTS.c.id).where(
        PORTS.c.network_id == network.id,
        PORTS.c.project_id.not_in([network.project_id, ""]),
        ~PORTS.c.device_owner.startswith("network:"),
    )
    return tx.execute(others.limit(1)).first() is not None


def _has_gateway(tx: Connection, id: str) -> bool:
    from cumulet.services.network.port import PORTS

    query = select(PORTS.c.id).where(PORTS.c.network_id == id, PORTS.c.device_owner == "network:router_gateway")
    return tx.execute(query.limit(1)).first() is not None


def _remove(tx: Connection, ctx: Ctx, id: str) -> None:
    from cumulet.services.network.floating_ip import drop_unused
    from cumulet.services.network.plumbing import drop_ports
    from cumulet.services.network.port import PORTS
    from cumulet.services.network.subnet import Subnet

    network = changeable(tx, ctx, Network, id, visible, "delete_network")
    drop_unused(tx, ctx.service, id)
    in_use = select(PORTS.c.id).where(PORTS.c.network_id == id, PORTS.c.device_owner != "network:dhcp")
    if tx.execute(in_use.limit(1)).first() is not None:
        raise Conflict(
            f"Unable to complete operation on network {id}. There are one or more ports still in use on the network.",
            code="NetworkInUse",
        )
    drop_ports(tx, ctx.service, PORTS.c.network_id == id)
    db.remove_where(tx, Subnet, Subnet.table.c.network_id == id)
    db.remove(tx, Network, network.id)
    ctx.service.realiser.touch(tx, [id])


endpoints = calls(Network, visible, add_network, _change, _remove)
