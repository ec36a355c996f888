"""Routers, floating IPs and security groups over HTTP."""

from typing import Any

import pytest

from tests.services.network.conftest import Net

UNKNOWN = "11111111-1111-1111-1111-111111111111"


async def joined(net: Net) -> tuple[Any, Any, Any, str]:
    """(network, subnet, router with a leg on it and a way out, external network's ID)."""
    public = await net.public()
    network, subnet = await net.network()
    router = await net.make("router", name="r", external_gateway_info={"network_id": public})
    reply = await net("PUT", f"routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    assert reply.status == 200, reply.data
    return network, subnet, router, public


async def test_router_interfaces(net: Net) -> None:
    _, subnet = await net.network()
    router = await net.make("router", name="r")
    assert router["external_gateway_info"] is None and router["status"] == "ACTIVE" and router["routes"] == []
    path = f"routers/{router['id']}"
    added = (await net("PUT", f"{path}/add_router_interface", {"subnet_id": subnet["id"]})).json()
    assert added["id"] == router["id"] and added["subnet_id"] == subnet["id"] and added["subnet_ids"] == [subnet["id"]]
    port = await net.show("port", added["port_id"])
    assert port["device_owner"] == "network:router_interface" and port["device_id"] == router["id"]
    assert port["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.1"}]
    await net.refused(409, "ServicePortInUse", "DELETE", f"ports/{port['id']}")
    await net.refused(409, "RouterInUse", "DELETE", path)
    await net.refused(409, "SubnetInUse", "DELETE", f"subnets/{subnet['id']}")
    await net.refused(409, "GatewayIpInUse", "PUT", f"subnets/{subnet['id']}", {"subnet": {"gateway_ip": None}})
    add = f"{path}/add_router_interface"
    await net.refused(400, "BadRequest", "PUT", add, {"subnet_id": subnet["id"]})
    await net.refused(400, "BadRequest", "PUT", add, {})
    await net.refused(400, "BadRequest", "PUT", add, {"subnet_id": subnet["id"], "port_id": port["id"]})
    await net.refused(409, "PortInUse", "PUT", add, {"port_id": port["id"]})
    await net.refused(404, "SubnetNotFound", "PUT", add, {"subnet_id": UNKNOWN})
    _, overlapping = await net.network("10.0.0.0/25")
    await net.refused(400, "BadRequest", "PUT", add, {"subnet_id": overlapping["id"]})
    other, third = await net.network("10.3.0.0/24")
    own = await net.make("port", network_id=other["id"])
    assert (await net("PUT", add, {"port_id": own["id"]})).json()["subnet_id"] == third["id"]
    remove = f"{path}/remove_router_interface"
    await net.refused(404, "RouterInterfaceNotFoundForSubnet", "PUT", remove, {"subnet_id": overlapping["id"]})
    await net.refused(404, "RouterInterfaceNotFound", "PUT", remove, {"port_id": UNKNOWN})
    assert (await net("PUT", remove, {"subnet_id": subnet["id"]})).status == 200
    assert (await net("PUT", remove, {"port_id": own["id"]})).status == 200
    assert (await net("DELETE", path)).status == 204


async def test_gateway(net: Net) -> None:
    public = await net.public()
    network, _ = await net.network()
    router = await net.make("router", external_gateway_info={"network_id": public})
    info = router["external_gateway_info"]
    assert info["network_id"] == public and info["enable_snat"] is True
    assert info["external_fixed_ips"][0]["ip_address"] == "203.0.113.2"
    path = f"routers/{router['id']}"
    snat = {"router": {"external_gateway_info": {"network_id": public, "enable_snat": False}}}
    await net.refused(403, "PolicyNotAuthorized", "PUT", path, snat)
    assert (await net("PUT", path, snat, token="admin")).json()["router"]["external_gateway_info"][
        "enable_snat"
    ] is False
    inside = {"router": {"external_gateway_info": {"network_id": network["id"]}}}
    await net.refused(400, "BadRequest", "PUT", path, inside)
    assert (await net("PUT", path, {"router": {"external_gateway_info": {}}})).json()["router"][
        "external_gateway_info"
    ] is None
    assert await net.list("port", f"device_id={router['id']}", token="admin") == []


async def test_routes(net: Net) -> None:
    _, subnet, router, _ = await joined(net)
    path = f"routers/{router['id']}"
    routes = [{"destination": "192.168.0.0/24", "nexthop": "10.0.0.9"}]
    assert (await net("PUT", path, {"router": {"routes": routes}})).json()["router"]["routes"] == routes
    remove = f"{path}/remove_router_interface"
    await net.refused(409, "RouterInterfaceInUseByRoute", "PUT", remove, {"subnet_id": subnet["id"]})
    assert (await net("PUT", path, {"router": {"routes": None}})).json()["router"]["routes"] == []
    far = [{"destination": "192.168.0.0/24", "nexthop": "172.16.0.9"}]
    await net.refused(400, "InvalidRoutes", "PUT", path, {"router": {"routes": far}})
    own = [{"destination": "192.168.0.0/24", "nexthop": "10.0.0.1"}]
    await net.refused(400, "InvalidRoutes", "PUT", path, {"router": {"routes": own}})


async def test_floating_ip(net: Net) -> None:
    network, subnet, router, public = await joined(net)
    port = await net.make("port", network_id=network["id"])
    floating = await net.make("floatingip", floating_network_id=public)
    assert (floating["status"], floating["port_id"], floating["router_id"]) == ("DOWN", None, None)
    path = f"floatingips/{floating['id']}"
    assert (await net("PUT", path, {"floatingip": {"port_id": port["id"]}})).status == 200
    await net.settle()
    seen = await net.show("floatingip", floating["id"])
    assert (seen["status"], seen["router_id"], seen["fixed_ip_address"]) == ("ACTIVE", router["id"], "10.0.0.3")
    body = {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}
    await net.refused(409, "FloatingIPPortAlreadyAssociated", "POST", "floatingips", body)
    remove, leg = f"routers/{router['id']}/remove_router_interface", {"subnet_id": subnet["id"]}
    await net.refused(409, "RouterInterfaceInUseByFloatingIP", "PUT", remove, leg)
    clear: Any = {"router": {"external_gateway_info": {}}}
    await net.refused(409, "RouterExternalGatewayInUseByFloatingIp", "PUT", f"routers/{router['id']}", clear)
    assert (await net("DELETE", f"ports/{port['id']}")).status == 204
    seen = await net.show("floatingip", floating["id"])
    assert (seen["status"], seen["port_id"], seen["router_id"]) == ("DOWN", None, None)
    assert (await net("DELETE", path)).status == 204
    assert await net.list("port", f"network_id={public}&device_owner=network:floatingip", token="admin") == []


async def test_floating_ips_that_cannot_be(net: Net) -> None:
    network, subnet, _, public = await joined(net)
    apart, _ = await net.network("10.4.0.0/24")
    port = await net.make("port", network_id=apart["id"])
    two = [{"subnet_id": subnet["id"]}, {"subnet_id": subnet["id"]}]
    double = await net.make("port", network_id=network["id"], fixed_ips=two)
    bare = await net.make("port", network_id=network["id"], fixed_ips=[])

    async def refused(status: int, code: str, **values: Any) -> None:
        body = {"floatingip": {"floating_network_id": public, **values}}
        await net.refused(status, code, "POST", "floatingips", body)

    await refused(404, "ExternalGatewayForFloatingIPNotFound", port_id=port["id"])
    await refused(400, "BadRequest", port_id=double["id"])
    await refused(400, "BadRequest", port_id=bare["id"])
    await refused(400, "BadRequest", port_id=double["id"], fixed_ip_address="10.0.0.77")
    await refused(400, "BadRequest", fixed_ip_address="10.0.0.77")
    await refused(404, "PortNotFound", port_id=UNKNOWN)
    await refused(400, "BadRequest", floating_network_id=network["id"])
    await refused(403, "PolicyNotAuthorized", floating_ip_address="203.0.113.50")
    assert await net.list("floatingip") == []
    fixed = double["fixed_ips"][1]["ip_address"]
    made = await net.make("floatingip", floating_network_id=public, port_id=double["id"], fixed_ip_address=fixed)
    assert made["fixed_ip_address"] == fixed


async def test_default_group(net: Net) -> None:
    (group,) = await net.list("security_group")
    assert group["name"] == "default"
    rules = {(r["direction"], r["ethertype"], r["remote_group_id"]) for r in group["security_group_rules"]}
    assert rules == {("ingress", "IPv4", group["id"]), ("ingress", "IPv6", group["id"]), ("egress", "IPv4", None),
                     ("egress", "IPv6", None)}  # fmt: skip
    path = f"security-groups/{group['id']}"
    await net.refused(409, "SecurityGroupCannotRemoveDefault", "DELETE", path)
    await net.refused(409, "SecurityGroupCannotUpdateDefault", "PUT", path, {"security_group": {"name": "x"}})
    body = {"security_group": {"name": "default"}}
    await net.refused(409, "SecurityGroupDefaultAlreadyExists", "POST", "security-groups", body)
    assert [g["id"] for g in await net.list("security_group")] == [group["id"]]
    assert (await net("DELETE", path, token="admin")).status == 204


async def test_groups_and_rules(net: Net) -> None:
    group = await net.make("security_group", name="web", description="d")
    assert [r["direction"] for r in group["security_group_rules"]] == ["egress", "egress"]
    group_id = group["id"]
    values = {
        "security_group_id": group_id,
        "direction": "ingress",
        "protocol": "tcp",
        "port_range_min": 80,
        "port_range_max": 80,
    }
    rule = await net.make("security_group_rule", **values, remote_ip_prefix="10.0.0.5/24")
    assert rule["ethertype"] == "IPv4" and rule["normalized_cidr"] == "10.0.0.0/24"
    assert {k: rule[k] for k in values} == values
    again = {"security_group_rule": {**values, "protocol": 6, "remote_ip_prefix": "10.0.0.0/24"}}
    await net.refused(409, "SecurityGroupRuleExists", "POST", "security-group-rules", again)
    shown = await net.show("security_group", group_id)
    assert rule["id"] in {r["id"] for r in shown["security_group_rules"]} and shown["revision_number"] == 1
    assert (await net("GET", f"security-group-rules/{rule['id']}")).json()["security_group_rule"] == rule
    assert len(await net.list("security_group_rule", f"security_group_id={group_id}")) == 3
    assert (await net("DELETE", f"security-group-rules/{rule['id']}")).status == 204
    assert (await net("DELETE", f"security-groups/{group_id}")).status == 204
    assert await net.list("security_group_rule", f"security_group_id={group_id}") == []


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"protocol": "warp"}, "SecurityGroupRuleInvalidProtocol"),
        ({"protocol": 256}, "SecurityGroupRuleInvalidProtocol"),
        ({"protocol": "icmpv6"}, "SecurityGroupEthertypeConflictWithProtocol"),
        ({"protocol": "tcp", "port_range_min": 9, "port_range_max": 2}, "SecurityGroupInvalidPortRange"),
        ({"protocol": "tcp", "port_range_min": 9}, "SecurityGroupInvalidPortRange"),
        ({"port_range_min": 9, "port_range_max": 10}, "SecurityGroupProtocolRequiredWithPorts"),
        ({"protocol": "icmp", "port_range_min": 300}, "SecurityGroupInvalidIcmpValue"),
        ({"protocol": "icmp", "port_range_max": 3}, "SecurityGroupMissingIcmpType"),
        ({"protocol": "esp", "port_range_min": 1, "port_range_max": 1}, "SecurityGroupInvalidProtocolForPort"),
        ({"remote_ip_prefix": "x"}, ""),
        ({"remote_ip_prefix": "fd00::/8"}, "SecurityGroupRuleParameterConflict"),
        ({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": UNKNOWN}, "SecurityGroupRemoteGroupAndRemoteIpPrefix"),
        ({"direction": "up"}, ""),
        ({"ethertype": "IPX"}, ""),
        ({"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536}, "SecurityGroupInvalidPortValue"),
        ({"protocol": "tcp", "port_range_min": -16, "port_range_max": 80}, "SecurityGroupInvalidPortValue"),
    ],
)
async def test_rules_that_make_no_sense(net: Net, values: dict[str, Any], code: str) -> None:
    group = await net.make("security_group", name="g")
    if values.get("remote_group_id"):
        values = {**values, "remote_group_id": group["id"]}
    body = {"security_group_rule": {"security_group_id": group["id"], "direction": "ingress", **values}}
    await net.refused(400, code, "POST", "security-group-rules", body)


async def test_a_rule_needs_its_groups(net: Net) -> None:
    group = await net.make("security_group", name="g")
    for values in ({"security_group_id": UNKNOWN}, {"security_group_id": group["id"], "remote_group_id": UNKNOWN}):
        body = {"security_group_rule": {"direction": "ingress", **values}}
        await net.refused(404, "SecurityGroupNotFound", "POST", "security-group-rules", body)
