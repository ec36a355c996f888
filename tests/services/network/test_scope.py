"""Who may see and do what: roles, other projects, shared and external networks."""

from typing import Any

import pytest

from tests.services.network.conftest import Net, collection


async def things(net: Net) -> dict[str, str]:
    """One of each kind, the member's own: their IDs."""
    public = await net.public()
    network, subnet = await net.network()
    made = {"network": network["id"], "subnet": subnet["id"]}
    made["port"] = (await net.make("port", network_id=network["id"]))["id"]
    made["router"] = (await net.make("router"))["id"]
    made["floatingip"] = (await net.make("floatingip", floating_network_id=public))["id"]
    made["security_group"] = (await net.make("security_group", name="g"))["id"]
    rule = await net.make("security_group_rule", security_group_id=made["security_group"], direction="ingress")
    made["security_group_rule"] = rule["id"]
    made["subnetpool"] = (await net.make("subnetpool", name="p", prefixes=["10.0.0.0/8"]))["id"]
    made["address_scope"] = (await net.make("address_scope", name="s", ip_version=4))["id"]
    return made


async def test_another_project_sees_nothing(net: Net) -> None:
    for kind, one in (await things(net)).items():
        path = f"{collection(kind)}/{one}"
        assert (await net("GET", path, token="other")).status == 404, kind
        assert one not in {x["id"] for x in await net.list(kind, token="other")}, kind
        assert one in {x["id"] for x in await net.list(kind, token="admin")}, kind
        if kind != "security_group_rule":
            assert (await net("PUT", path, {kind: {"description": "x"}}, token="other")).status == 404, kind
        assert (await net("DELETE", path, token="other")).status == 404, kind


async def test_readers_read(net: Net) -> None:
    for kind, one in (await things(net)).items():
        path = f"{collection(kind)}/{one}"
        assert (await net("GET", path, token="reader")).status == 200, kind
        assert (await net("POST", collection(kind), {kind: {}}, token="reader")).status in (400, 403), kind
        if kind != "security_group_rule":
            assert (await net("PUT", path, {kind: {"description": "x"}}, token="reader")).status == 403, kind
            assert (await net("PUT", path, {kind: {"description": "x"}}, token="manager")).status == 200, kind
        assert (await net("DELETE", path, token="reader")).status == 403, kind
        assert (await net("GET", path, token="nobody")).status == 401, kind
    await net.refused(403, "PolicyNotAuthorized", "POST", "networks", {"network": {}}, token="reader")


@pytest.mark.parametrize(
    "values",
    [{"shared": True}, {"router:external": True}, {"is_default": True}, {"provider:network_type": "flat"},
     {"provider:segmentation_id": 7}],
)  # fmt: skip
async def test_what_only_admins_set(net: Net, values: dict[str, Any]) -> None:
    await net.refused(403, "PolicyNotAuthorized", "POST", "networks", {"network": values})
    assert (await net("POST", "networks", {"network": values}, token="admin")).status == 201


async def test_owners_are_named_by_admins_only(net: Net) -> None:
    for name in ("project_id", "tenant_id"):
        await net.refused(400, "", "POST", "networks", {"network": {name: "project-other"}})
        made = await net.make("network", token="admin", **{name: "project-other"})
        assert made["project_id"] == made["tenant_id"] == "project-other"
    assert len(await net.list("network", token="other")) == 2


async def test_shared_networks(net: Net) -> None:
    network = await net.make("network", token="admin", shared=True)
    subnet = await net.make("subnet", token="admin", network_id=network["id"], cidr="10.0.0.0/24")
    assert (await net.show("subnet", subnet["id"]))["id"] == subnet["id"]
    await net.refused(403, "", "PUT", f"networks/{network['id']}", {"network": {"name": "mine"}})
    await net.refused(403, "", "DELETE", f"networks/{network['id']}")
    await net.refused(403, "", "POST", "subnets", {"subnet": {"network_id": network["id"], "cidr": "10.1.0.0/24"}})
    port = await net.make("port", network_id=network["id"])
    for values in ({"fixed_ips": [{"ip_address": "10.0.0.9"}]}, {"mac_address": "fa:16:3e:00:00:09"},
                   {"port_security_enabled": False}, {"device_owner": "network:router_interface"}):  # fmt: skip
        await net.refused(403, "", "POST", "ports", {"port": {"network_id": network["id"], **values}})
    assert (await net("GET", f"ports/{port['id']}", token="other")).status == 404
    unshare = {"network": {"shared": False}}
    await net.refused(409, "InvalidSharedSetting", "PUT", f"networks/{network['id']}", unshare, token="admin")


async def test_external_networks(net: Net) -> None:
    public = await net.public()
    assert (await net.show("network", public))["router:external"] is True
    await net.refused(403, "", "POST", "ports", {"port": {"network_id": public}})
    (subnet,) = (await net.show("network", public))["subnets"]
    await net.refused(404, "SubnetNotFound", "GET", f"subnets/{subnet}")
    first = await net.public()
    assert first == public
    await net.make("router", external_gateway_info={"network_id": public})
    body = {"network": {"router:external": False}}
    await net.refused(409, "ExternalNetworkInUse", "PUT", f"networks/{public}", body, token="admin")
    await net.refused(409, "NetworkInUse", "DELETE", f"networks/{public}", token="admin")


async def test_a_networks_owner_sees_all_its_ports(net: Net) -> None:
    network, _ = await net.network()
    port = await net.make("port", token="admin", network_id=network["id"])
    assert port["project_id"] == "project-admin"
    assert (await net("DELETE", f"ports/{port['id']}")).status == 204


async def test_an_external_network_goes_with_its_unused_floating_ips(net: Net) -> None:
    public = await net.public()
    await net.make("floatingip", floating_network_id=public)
    assert (await net("DELETE", f"networks/{public}", token="admin")).status == 204
    assert await net.list("floatingip") == await net.list("port", token="admin") == []
