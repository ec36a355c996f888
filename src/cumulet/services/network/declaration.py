"""Networking as the program sees it: its port, its calls, its rules."""

from cumulet.api.dialect import NETWORK
from cumulet.api.service import Service
from cumulet.services.network import (
    floating_ip,
    network,
    port,
    quota,
    router,
    router_interface,
    security_group,
    security_group_rule,
    subnet,
    subnetpool,
    tag,
    version,
)

PARTS = (version, network, subnet, port, router, floating_ip, security_group, security_group_rule, quota, subnetpool)

SERVICE = Service(
    type="network",
    upstream="neutron",
    ports=("network",),
    dialect=NETWORK,
    endpoints=[endpoint for part in (*PARTS, router_interface, tag) for endpoint in part.endpoints],
    rules={name: text for part in PARTS for name, text in part.RULES.items()},
)
