"""Networks, subnets and ports over HTTP: what they look like, and what may not be."""

import asyncio
from typing import Any

import pytest

from tests.services.network.conftest import Net

UNKNOWN = "11111111-1111-1111-1111-111111111111"


async def test_versions_and_extensions_need_no_token_or_any(net: Net) -> None:
    root = await net.client("GET", "/", token="nobody")
    assert root.status == 200 and root.json()["versions"][0]["id"] == "v2.0"
    names = {r["name"] for r in (await net.client("GET", "/v2.0/", token="nobody")).json()["resources"]}
    assert {"network", "subnet", "port", "router"} <= names
    assert (await net("GET", "extensions", token="nobody")).status == 401
    aliases = {e["alias"] for e in await net.list("extension", token="reader")}
    assert {"router", "external-net", "security-group", "quotas"} <= aliases
    assert (await net("GET", "extensions/router")).json()["extension"]["alias"] == "router"
    await net.refused(404, "ExtensionNotFound", "GET", "extensions/teleport")
    assert (await net("GET", "networks/")).json() == {"networks": []}


async def test_service_providers(net: Net) -> None:
    reply = await net("GET", "service-providers", token="reader")
    assert [row["service_type"] for row in reply.json()["service_providers"]] == ["L3_ROUTER_NAT"]


async def test_network_from_creation_to_deletion(net: Net) -> None:
    made = await net.make("network", name="a", description="d")
    assert made["project_id"] == made["tenant_id"] == "project-demo"
    assert (made["status"], made["mtu"], made["shared"], made["router:external"]) == ("ACTIVE", 1500, False, False)
    assert made["subnets"] == [] and made["revision_number"] == 0 and "provider:network_type" not in made
    path = f"networks/{made['id']}"
    changed = (await net("PUT", path, {"network": {"name": "b", "admin_state_up": "false"}})).json()["network"]
    assert (changed["name"], changed["admin_state_up"], changed["revision_number"]) == ("b", False, 1)
    seen = await net.show("network", made["id"], token="admin")
    assert seen["provider:network_type"] == "vxlan" and seen["provider:segmentation_id"] == 1
    assert [n["id"] for n in await net.list("network", "name=b&fields=id")] == [made["id"]]
    assert (await net("GET", f"{path}?fields=name")).json() == {"network": {"name": "b"}}
    assert (await net("DELETE", path)).status == 204
    await net.refused(404, "NetworkNotFound", "GET", path)


async def test_bulk_is_all_or_nothing(net: Net) -> None:
    reply = await net("POST", "networks", {"networks": [{"name": "a"}, {"name": "b"}]})
    assert reply.status == 201 and [n["name"] for n in reply.json()["networks"]] == ["a", "b"]
    network_id = reply.json()["networks"][0]["id"]
    good, bad = {"network_id": network_id, "cidr": "10.1.0.0/24"}, {"network_id": network_id, "cidr": "10.1.0.0/25"}
    await net.refused(400, "InvalidInput", "POST", "subnets", {"subnets": [good, bad]})
    assert await net.list("subnet") == []
    assert (await net.show("network", network_id))["subnets"] == []


async def test_subnet_defaults(net: Net) -> None:
    network, subnet = await net.network("10.7.0.0/24")
    assert subnet["gateway_ip"] == "10.7.0.1" and subnet["enable_dhcp"] is True and subnet["ip_version"] == 4
    assert subnet["allocation_pools"] == [{"start": "10.7.0.2", "end": "10.7.0.254"}]
    assert (await net.show("network", network["id"]))["subnets"] == [subnet["id"]]
    six = await net.make("subnet", network_id=network["id"], cidr="fd00:7::/64", ip_version=6)
    assert six["gateway_ip"] == "fd00:7::1"
    assert six["allocation_pools"] == [{"start": "fd00:7::2", "end": "fd00:7::ffff:ffff:ffff:ffff"}]
    none = await net.make("subnet", network_id=network["id"], cidr="10.8.0.0/30", gateway_ip=None)
    assert none["gateway_ip"] is None and none["allocation_pools"] == [{"start": "10.8.0.1", "end": "10.8.0.2"}]
    middle = await net.make("subnet", network_id=network["id"], cidr="10.9.0.0/29", gateway_ip="10.9.0.3")
    assert [p["start"] for p in middle["allocation_pools"]] == ["10.9.0.1", "10.9.0.4"]


@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        ({"cidr": "nonsense"}, 400, ""),
        ({"cidr": "10.0.0.0"}, 400, ""),
        ({"cidr": "0.0.0.0/0"}, 400, ""),
        ({"cidr": "10.0.0.0/24", "ip_version": 6}, 400, ""),
        ({"cidr": "10.0.0.0/24", "ip_version": 5}, 400, ""),
        ({"cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.0"}, 400, ""),
        ({"cidr": "10.0.0.0/24", "gateway_ip": "x"}, 400, ""),
        ({"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.5"}]}, 400, ""),
        ({"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.1.5"}]}, 400,
         "OutOfBoundsAllocationPool"),
        ({"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.1", "end": "10.0.0.5"}]}, 409,
         "GatewayConflictWithAllocationPools"),
        ({"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.2", "end": "10.0.0.5"}] * 2}, 409,
         "OverlappingAllocationPools"),
        ({"cidr": "10.0.0.0/24", "dns_nameservers": ["1.1.1.1"] * 2}, 400, ""),
        ({"cidr": "10.0.0.0/24", "host_routes": [{"destination": "x", "nexthop": "10.0.0.9"}]}, 400, ""),
        ({"cidr": "10.0.0.0/24", "ipv6_ra_mode": "slaac"}, 400, ""),
        ({"cidr": "fd00::/80", "ip_version": 6, "ipv6_address_mode": "slaac"}, 400, ""),
        ({"ip_version": 4}, 400, "BadRequest"),
        ({"cidr": "10.0.0.0/24", "wings": 2}, 400, ""),
        ({"cidr": "10.0.0.0/24", "network_id": UNKNOWN}, 404, "NetworkNotFound"),
        ({"cidr": "10.5.0.0/25"}, 400, "InvalidInput"),
    ],
)  # fmt: skip
async def test_subnets_that_make_no_sense(net: Net, values: dict[str, Any], status: int, code: str) -> None:
    network, _ = await net.network("10.5.0.0/24")
    await net.refused(status, code, "POST", "subnets", {"subnet": {"network_id": network["id"], **values}})


@pytest.mark.parametrize("cidr", ["10.0.0.0/32", "10.0.0.0/31", "fd00::/128", "fd00::/127", "10.0.0.0/30"])
async def test_tiny_subnets(net: Net, cidr: str) -> None:
    network = await net.make("network")
    await net.make("subnet", network_id=network["id"], cidr=cidr)
    reply = await net("POST", "ports", {"port": {"network_id": network["id"]}})
    assert reply.status in (201, 409), reply.data


async def test_subnet_update_and_use(net: Net) -> None:
    network, subnet = await net.network()
    path = f"subnets/{subnet['id']}"
    change = {"name": "n", "dns_nameservers": ["1.1.1.1"], "gateway_ip": "10.0.0.254",
              "allocation_pools": [{"start": "10.0.0.10", "end": "10.0.0.20"}],
              "host_routes": [{"destination": "10.9.0.0/24", "nexthop": "10.0.0.9"}]}  # fmt: skip
    changed = (await net("PUT", path, {"subnet": change})).json()["subnet"]
    assert {k: changed[k] for k in change} == change
    port = await net.make("port", network_id=network["id"])
    assert port["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.10"}]
    dhcp = (await net.list("port", "device_owner=network:dhcp"))[0]
    assert dhcp["fixed_ips"][0]["ip_address"] == "10.0.0.11"
    await net.refused(409, "SubnetInUse", "DELETE", path)
    await net.refused(409, "NetworkInUse", "DELETE", f"networks/{network['id']}")
    await net("PUT", path, {"subnet": {"enable_dhcp": False}})
    assert await net.list("port", "device_owner=network:dhcp") == []
    assert (await net("DELETE", f"ports/{port['id']}")).status == 204
    assert (await net("DELETE", path)).status == 204
    assert (await net.show("network", network["id"]))["subnets"] == []


async def test_network_goes_with_its_subnets_and_dhcp_ports(net: Net) -> None:
    network, _ = await net.network()
    port = await net.make("port", network_id=network["id"])
    await net("DELETE", f"ports/{port['id']}")
    assert len(await net.list("port")) == 1
    assert (await net("DELETE", f"networks/{network['id']}")).status == 204
    assert await net.list("port") == await net.list("subnet") == []
    await net.settle()
    assert net.dataplane.networks == {}


async def test_port_as_made(net: Net) -> None:
    network, subnet = await net.network()
    port = await net.make("port", network_id=network["id"], name="p")
    assert port["mac_address"].startswith("fa:16:3e:") and port["status"] == "DOWN"
    assert port["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.2"}]
    groups = {g["name"]: g["id"] for g in await net.list("security_group")}
    assert port["security_groups"] == [groups["default"]] and port["port_security_enabled"] is True
    assert port["binding:vnic_type"] == "normal" and "binding:host_id" not in port
    seen = await net.show("port", port["id"], token="admin")
    assert seen["binding:vif_type"] == "unbound" and seen["binding:host_id"] == ""
    by_address = "fixed_ips=ip_address=10.0.0.2"
    for query in (
        by_address,
        f"{by_address}&fixed_ips=subnet_id={subnet['id']}",
        f"security_groups={groups['default']}",
        f"mac_address={port['mac_address']}",
        "tenant_id=project-demo&name=p",
    ):
        assert [p["id"] for p in await net.list("port", query)] == [port["id"]], query
    assert await net.list("port", f"fixed_ips=ip_address=10.0.0.3&fixed_ips=subnet_id={UNKNOWN}") == []


async def test_addresses_asked_for(net: Net) -> None:
    network, subnet = await net.network()
    on = network["id"]
    other = await net.make("subnet", network_id=on, cidr="10.1.0.0/24")

    async def addresses(fixed: list[dict[str, str]]) -> list[str]:
        port = await net.make("port", network_id=on, fixed_ips=fixed)
        return [f["ip_address"] for f in port["fixed_ips"]]

    assert await addresses([{"ip_address": "10.0.0.50"}]) == ["10.0.0.50"]
    assert await addresses([{"subnet_id": other["id"]}]) == ["10.1.0.2"]
    assert await addresses([{"subnet_id": subnet["id"], "ip_address": "10.0.0.60"}]) == ["10.0.0.60"]
    assert len(set(await addresses([{"subnet_id": subnet["id"]}, {"subnet_id": subnet["id"]}]))) == 2
    assert await addresses([]) == []

    async def refused(status: int, code: str, fixed: Any) -> None:
        await net.refused(status, code, "POST", "ports", {"port": {"network_id": on, "fixed_ips": fixed}})

    await refused(409, "IpAddressAlreadyAllocated", [{"ip_address": "10.0.0.50"}])
    await refused(400, "InvalidIpForNetwork", [{"ip_address": "10.9.0.50"}])
    await refused(400, "InvalidIpForSubnet", [{"ip_address": "10.0.0.7", "subnet_id": other["id"]}])
    await refused(400, "InvalidIpForSubnet", [{"ip_address": "10.0.0.255", "subnet_id": subnet["id"]}])
    await refused(400, "", [{"subnet_id": UNKNOWN}])
    await refused(400, "", [{"ip_address": "x"}])
    await refused(400, "", [{}])
    await refused(400, "", [{"ip_address": "10.0.0.80"}, {"ip_address": "10.0.0.80"}])


async def test_a_pool_runs_out_and_addresses_come_back(net: Net) -> None:
    network, _ = await net.network("10.0.0.0/29", enable_dhcp=False)
    ports = [await net.make("port", network_id=network["id"]) for _ in range(5)]
    assert [p["fixed_ips"][0]["ip_address"] for p in ports] == [f"10.0.0.{n}" for n in range(2, 7)]
    body = {"port": {"network_id": network["id"]}}
    await net.refused(409, "IpAddressGenerationFailure", "POST", "ports", body)
    await net("DELETE", f"ports/{ports[2]['id']}")
    assert (await net.make("port", network_id=network["id"]))["fixed_ips"][0]["ip_address"] == "10.0.0.4"


async def test_macs_are_unique_on_a_network(net: Net) -> None:
    network, _ = await net.network()
    mac = "fa:16:3e:00:00:01"
    await net.make("port", network_id=network["id"], mac_address=mac.upper())
    body = {"port": {"network_id": network["id"], "mac_address": mac}}
    await net.refused(409, "MacAddressInUse", "POST", "ports", body)
    body["port"]["mac_address"] = "zz"
    await net.refused(400, "", "POST", "ports", body)


async def test_slaac_gives_addresses_from_the_mac(net: Net) -> None:
    network = await net.make("network")
    mode = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    subnet = await net.make("subnet", network_id=network["id"], cidr="fd00:1::/64", ip_version=6, **mode)
    port = await net.make("port", network_id=network["id"], mac_address="fa:16:3e:12:34:56")
    assert port["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "fd00:1::f816:3eff:fe12:3456"}]
    assert (await net("DELETE", f"subnets/{subnet['id']}")).status == 204
    assert (await net.show("port", port["id"]))["fixed_ips"] == []


async def test_port_update(net: Net) -> None:
    network, subnet = await net.network()
    port = await net.make("port", network_id=network["id"])
    group = await net.make("security_group", name="web")
    change = {"name": "n", "security_groups": [group["id"]], "fixed_ips": [
        {"subnet_id": subnet["id"], "ip_address": port["fixed_ips"][0]["ip_address"]},
        {"subnet_id": subnet["id"], "ip_address": "10.0.0.99"}]}  # fmt: skip
    changed = (await net("PUT", f"ports/{port['id']}", {"port": change})).json()["port"]
    assert {k: changed[k] for k in change} == change
    await net.refused(409, "SecurityGroupInUse", "DELETE", f"security-groups/{group['id']}")
    await net("PUT", f"ports/{port['id']}", {"port": {"fixed_ips": [{"ip_address": "10.0.0.99"}]}})
    again = await net.make(
        "port", network_id=network["id"], fixed_ips=[{"ip_address": port["fixed_ips"][0]["ip_address"]}]
    )
    assert again["fixed_ips"] == port["fixed_ips"]
    pairs = [{"ip_address": "10.0.0.200", "mac_address": None}]
    off = {"port": {"port_security_enabled": False}}
    path = f"ports/{port['id']}"
    await net.refused(409, "PortSecurityPortHasSecurityGroup", "PUT", path, off)
    assert (await net("PUT", path, {"port": {"allowed_address_pairs": pairs}})).status == 200
    off["port"].update(security_groups=[], allowed_address_pairs=[])  # type: ignore[call-overload]
    assert (await net("PUT", path, off)).json()["port"]["security_groups"] == []
    await net.refused(404, "SecurityGroupNotFound", "PUT", path, {"port": {"security_groups": [UNKNOWN]}})


async def test_fifty_at_once_get_fifty_addresses(net: Net) -> None:
    network, _ = await net.network()
    replies = await asyncio.gather(*(net("POST", "ports", {"port": {"network_id": network["id"]}}) for _ in range(50)))
    assert {r.status for r in replies} == {201}
    ports = [r.json()["port"] for r in replies]
    assert len({p["fixed_ips"][0]["ip_address"] for p in ports}) == len({p["mac_address"] for p in ports}) == 50


async def test_quotas(net: Net) -> None:
    limits = (await net("GET", "quotas/project-demo")).json()["quota"]
    assert (limits["network"], limits["port"], limits["router"]) == (100, 500, 10)
    await net.refused(403, "", "GET", "quotas/project-other")
    await net.refused(403, "", "PUT", "quotas/project-demo", {"quota": {"network": 1}})
    reply = await net("PUT", "quotas/project-demo", {"quota": {"network": 1, "port": 1}}, token="admin")
    assert reply.json()["quota"]["network"] == 1
    network, _ = await net.network(enable_dhcp=False)
    await net.refused(409, "OverQuota", "POST", "networks", {"network": {}})
    bodies = [{"network_id": network["id"]}] * 2
    await net.refused(409, "OverQuota", "POST", "ports", {"ports": bodies})
    assert await net.list("port") == []
    details = (await net("GET", "quotas/project-demo/details.json")).json()["quota"]
    assert details["network"] == {"limit": 1, "used": 1, "reserved": 0}
    assert [q["project_id"] for q in await net.list("quota", token="admin")] == ["project-demo"]
    assert (await net("DELETE", "quotas/project-demo", token="admin")).status == 204
    assert (await net("GET", "quotas/project-demo")).json()["quota"]["network"] == 100
    await net.refused(400, "", "PUT", "quotas/x", {"quota": {"wings": 1}}, token="admin")


async def test_tags(net: Net) -> None:
    network = await net.make("network", name="a")
    path = f"networks/{network['id']}/tags"
    assert (await net("PUT", path, {"tags": ["red", "blue"]})).json() == {"tags": ["red", "blue"]}
    assert (await net("PUT", f"{path}/green")).status == 201
    assert (await net("GET", f"{path}/green")).status == 204
    assert (await net("DELETE", f"{path}/red")).status == 204
    await net.refused(404, "TagNotFound", "GET", f"{path}/red")
    assert (await net.show("network", network["id"]))["tags"] == ["blue", "green"]
    await net.make("network", name="b")
    assert [n["name"] for n in await net.list("network", "tags=blue,green")] == ["a"]
    assert [n["name"] for n in await net.list("network", "not-tags=blue")] == ["b"]
    assert await net.list("network", "tags=blu") == []
    assert (await net("DELETE", path)).status == 204
    await net.refused(404, "NetworkNotFound", "PUT", path, {"tags": []}, token="other")


async def test_subnet_pools(net: Net) -> None:
    pool = await net.make("subnetpool", name="p", prefixes=["10.10.0.0/16"], default_prefixlen=24)
    assert (pool["ip_version"], pool["min_prefixlen"], pool["max_prefixlen"]) == (4, 8, 32)
    network = await net.make("network")
    several: list[dict[str, Any]] = [{}, {"prefixlen": 26}, {}, {"prefixlen": 26}]
    cidrs = [
        (await net.make("subnet", network_id=network["id"], subnetpool_id=pool["id"], **more))["cidr"]
        for more in several
    ]
    assert cidrs == ["10.10.0.0/24", "10.10.1.0/26", "10.10.2.0/24", "10.10.1.64/26"]
    await net.refused(409, "SubnetPoolDeleteError", "DELETE", f"subnetpools/{pool['id']}")
    await net.refused(404, "SubnetPoolNotFound", "GET", f"subnetpools/{UNKNOWN}")
    body = {"subnetpool": {"name": "x", "prefixes": ["10.0.0.0/24"], "min_prefixlen": 30, "default_prefixlen": 24}}
    await net.refused(400, "IllegalSubnetPoolPrefixBounds", "POST", "subnetpools", body)
    scope = await net.make("address_scope", name="s", ip_version=4)
    changed = await net(
        "PUT", f"subnetpools/{pool['id']}", {"subnetpool": {"address_scope_id": scope["id"], "name": "q"}}
    )
    assert changed.json()["subnetpool"]["address_scope_id"] == scope["id"]
    await net.refused(409, "AddressScopeInUse", "DELETE", f"address-scopes/{scope['id']}")


async def test_the_default_pool(net: Net) -> None:
    network = await net.make("network")
    body = {"subnet": {"network_id": network["id"], "use_default_subnetpool": True, "ip_version": 4}}
    await net.refused(400, "BadRequest", "POST", "subnets", body)
    values = {"prefixes": ["10.10.0.0/16"], "default_prefixlen": 26, "is_default": True, "shared": True}
    pool = await net.make("subnetpool", token="admin", name="p", **values)
    await net.refused(400, "", "POST", "subnetpools", {"subnetpool": {"name": "q", **values}}, token="admin")
    subnet = (await net("POST", "subnets", body)).json()["subnet"]
    assert (subnet["cidr"], subnet["subnetpool_id"]) == ("10.10.0.0/26", pool["id"])


async def test_dhcp_is_turned_on_under_ports(net: Net) -> None:
    network, subnet = await net.network(enable_dhcp=False)
    await net.make("port", network_id=network["id"])
    await net("PUT", f"subnets/{subnet['id']}", {"subnet": {"enable_dhcp": True}})
    (dhcp,) = await net.list("port", "device_owner=network:dhcp")
    await net.settle()
    (wanted,) = net.dataplane.networks[network["id"]].subnets
    assert wanted.dhcp_address == dhcp["fixed_ips"][0]["ip_address"] == "10.0.0.3"
