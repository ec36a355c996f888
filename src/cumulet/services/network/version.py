"""Versions and what the API consists of.

GET / · GET /v2.0 · GET /v2.0/extensions · GET /v2.0/extensions/{alias} · GET /v2.0/availability_zones · GET /v2.0/agents ·
GET /v2.0/service-providers
"""

from typing import Any

from msgspec import Struct

from cumulet.api.http import Endpoint, Response
from cumulet.core.errors import NotFound
from cumulet.services.network.standard import Ctx

COLLECTIONS = {
    "network": "networks",
    "subnet": "subnets",
    "subnetpool": "subnetpools",
    "port": "ports",
    "router": "routers",
    "floatingip": "floatingips",
    "security_group": "security-groups",
    "security_group_rule": "security-group-rules",
    "address_scope": "address-scopes",
    "quota": "quotas",
    "extension": "extensions",
    "availability_zone": "availability_zones",
    "agent": "agents",
    "service_provider": "service-providers",
}


class Extension(Struct, frozen=True):
    alias: str
    name: str
    description: str
    updated: str = "2026-01-01T00:00:00-00:00"
    links: tuple[str, ...] = ()


EXTENSIONS = {
    alias: Extension(alias, name, description)
    for alias, name, description in (
        ("agent", "agent", "The agents of the cloud: there are none apart from the program itself"),
        ("allowed-address-pairs", "Allowed Address Pairs", "Addresses a port may use beside its own"),
        ("availability_zone", "Availability Zone", "The zones of the cloud"),
        ("binding", "Port Binding", "Where and how a port is plugged in"),
        ("default-subnetpools", "Default Subnetpools", "A pool that is taken when none is named"),
        ("ext-gw-mode", "Neutron L3 Configurable external gateway mode", "Routers with and without source NAT"),
        ("external-net", "Neutron external network", "Networks that lead out of the cloud"),
        ("extraroute", "Neutron Extra Route", "Routes of routers"),
        ("net-mtu", "Network MTU", "The largest packet of a network"),
        ("net-mtu-writable", "Network MTU (writable)", "The largest packet of a network can be set"),
        ("network_availability_zone", "Network Availability Zone", "The zone of a network"),
        ("port-security", "Port Security", "Ports that are not filtered"),
        ("project-id", "project_id field enabled", "The owner's name is project_id"),
        ("provider", "Provider Network", "How a network is made"),
        ("quota_details", "Quota details management support", "What is used of each quota"),
        ("quotas", "Quota management support", "Limits for each project"),
        ("router", "Neutron L3 Router", "Routers and floating IPs"),
        ("router_availability_zone", "Router Availability Zone", "The zone of a router"),
        ("security-group", "security-group", "Rules that filter the traffic of ports"),
        ("security-groups-normalized-cidr", "Normalized CIDR of rules", "A rule's prefix in its usual form"),
        ("service-type", "Neutron Service Type Management", "Who provides a service"),
        ("sorting", "Sorting support", "Lists can be sorted"),
        ("pagination", "Pagination support", "Lists come in pages"),
        ("standard-attr-description", "standard-attr-description", "Descriptions"),
        ("standard-attr-revisions", "Resource revision numbers", "How often a resource has changed"),
        ("standard-attr-tag", "Tag support for resources with standard attribute", "Tags"),
        ("standard-attr-timestamp", "Resource timestamps", "When a resource was made and changed"),
        ("subnet_allocation", "Subnet Allocation", "Subnet pools"),
    )
}
"""What is true of this cloud, by upstream's names."""


async def versions(ctx: Ctx) -> Any:
    """Which versions of the API there are."""
    base = ctx.request.base_url
    link = {"rel": "self", "href": f"{base}/v2.0/"}
    return {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]}


async def resources(ctx: Ctx) -> Any:
    """Which resources the API has."""
    base = ctx.request.base_url
    return {
        "resources": [
            {"name": name, "collection": path, "links": [{"rel": "self", "href": f"{base}/v2.0/{path}"}]}
            for name, path in COLLECTIONS.items()
        ]
    }


async def extensions(ctx: Ctx) -> Any:
    """List the extensions of the API."""
    return {"extensions": list(EXTENSIONS.values())}


async def extension(ctx: Ctx, alias: str) -> Any:
    """Show an extension of the API."""
    if alias not in EXTENSIONS:
        raise NotFound(message=f"Extension with alias {alias} does not exist", code="ExtensionNotFound")
    return {"extension": EXTENSIONS[alias]}


async def availability_zones(ctx: Ctx) -> Any:
    """List the zones: one, for networks and for routers."""
    return {
        "availability_zones": [
            {"name": "nova", "resource": kind, "state": "available"} for kind in ("network", "router")
        ]
    }


async def agents(ctx: Ctx) -> Any:
    """List the agents: there are none, the program does their work."""
    return {"agents": []}


async def no_agent(ctx: Ctx, id: str) -> Response:
    """Show an agent: there is none."""
    raise NotFound("agent", id)


async def service_providers(ctx: Ctx) -> Any:
    """List who provides routers: the program alone."""
    return {"service_providers": [{"service_type": "L3_ROUTER_NAT", "name": "single_node", "default": True}]}


RULES = {"get_agent": "role:reader", "get_service_provider": "role:reader", "get_availability_zone": "role:reader"}

endpoints = [
    Endpoint("GET", "/", versions, auth=False),
    Endpoint("GET", "/v2.0", resources, auth=False),
    Endpoint("GET", "/v2.0/extensions", extensions),
    Endpoint("GET", "/v2.0/extensions/{alias}", extension),
    Endpoint("GET", "/v2.0/availability_zones", availability_zones, "get_availability_zone"),
    Endpoint("GET", "/v2.0/agents", agents, "get_agent"),
    Endpoint("GET", "/v2.0/agents/{id}", no_agent, "get_agent"),
    Endpoint("GET", "/v2.0/service-providers", service_providers, "get_service_provider"),
]
