"""Calls of old that compute passes on, with the whole program behind them."""

from typing import Any

import pytest

from tests.cloud import InProcessCloud

OLD = {"OpenStack-API-Version": "compute 2.1"}


class Demo:
    """The ordinary project's calls."""

    def __init__(self, cloud: InProcessCloud) -> None:
        self.cloud = cloud
        self.token = cloud.login("demo", cloud.program.secrets.demo_password, "demo")

    def __call__(self, method: str, path: str, body: Any = None, status: int = 200, service: str = "compute") -> Any:
        headers = OLD if service == "compute" else {}
        reply = self.cloud.request(method, service, path, body, token=self.token, headers=headers)
        assert reply.status_code == status, reply.text
        return reply.json() if reply.content else None

    def boot(self, network: str) -> str:
        """A server on a network, of an image that is all zeros."""
        image = {"name": "zeros", "disk_format": "raw", "container_format": "bare"}
        image_id = self("POST", "/v2/images", image, 201, "image")["id"]
        sent = self.cloud.request(
            "PUT", "image", f"/v2/images/{image_id}/file", token=self.token, data=bytes(1 << 20),
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip
        assert sent.status_code == 204, sent.text
        server = {"name": "vm", "imageRef": image_id, "flavorRef": "42", "networks": [{"uuid": network}]}
        made = self("POST", "/v2.1/servers", {"server": server}, 202)["server"]["id"]
        self.cloud.settle()
        assert self("GET", f"/v2.1/servers/{made}")["server"]["status"] == "ACTIVE"
        return str(made)


@pytest.fixture
def demo(cloud: InProcessCloud) -> Demo:
    return Demo(cloud)


def test_security_groups_by_the_old_api(demo: Demo) -> None:
    path = "/v2.1/os-security-groups"
    group = demo("POST", path, {"security_group": {"name": "old-web", "description": "web"}})["security_group"]
    assert group["rules"] == [] and group["description"] == "web"
    rule = {"parent_group_id": group["id"], "ip_protocol": "tcp", "from_port": 80, "to_port": 80, "cidr": "10.0.0.0/8"}
    made = demo("POST", "/v2.1/os-security-group-rules", {"security_group_rule": rule})["security_group_rule"]
    assert made["ip_range"] == {"cidr": "10.0.0.0/8"} and (made["from_port"], made["to_port"]) == (80, 80)
    by_group = {"parent_group_id": group["id"], "ip_protocol": "icmp", "from_port": -1, "to_port": -1}
    made = demo("POST", "/v2.1/os-security-group-rules", {"security_group_rule": {**by_group, "group_id": group["id"]}})
    assert made["security_group_rule"]["group"]["name"] == "old-web"
    assert made["security_group_rule"]["from_port"] == -1
    shown = demo("GET", f"{path}/{group['id']}")["security_group"]
    assert len(shown["rules"]) == 2
    assert group["id"] in [g["id"] for g in demo("GET", path)["security_groups"]]
    demo("POST", "/v2.1/os-security-group-rules", {"security_group_rule": rule}, 400)  # there already
    demo("DELETE", f"/v2.1/os-security-group-rules/{shown['rules'][0]['id']}", status=202)
    demo("PUT", f"{path}/{group['id']}", {"security_group": {"name": "older"}})
    demo("DELETE", f"{path}/{group['id']}", status=202)
    demo("GET", f"{path}/{group['id']}", status=404)
    demo("GET", f"{path}/nonsense", status=400)
    demo("POST", path, {"security_group": {"name": "default"}}, status=400)


def test_a_second_address_by_the_old_api(demo: Demo) -> None:
    network = demo("POST", "/v2.0/networks", {"network": {"name": "wide"}}, 201, "network")["network"]["id"]
    subnet = {"network_id": network, "cidr": "10.77.0.0/24", "ip_version": 4}
    demo("POST", "/v2.0/subnets", {"subnet": subnet}, 201, "network")
    server = demo.boot(network)
    (first,) = addresses(demo, server)
    action = f"/v2.1/servers/{server}/action"
    demo("POST", action, {"addFixedIp": {"networkId": network}}, 202)
    assert len(addresses(demo, server)) == 2 and first in addresses(demo, server)
    (second,) = set(addresses(demo, server)) - {first}
    demo("POST", action, {"removeFixedIp": {"address": "10.99.0.1"}}, 400)
    demo("POST", action, {"removeFixedIp": {"address": second}}, 202)
    assert addresses(demo, server) == [first]
    demo("POST", action, {"addSecurityGroup": {"name": "no-such"}}, 404)
    group = demo("POST", "/v2.0/security-groups", {"security_group": {"name": "extra"}}, 201, "network")
    demo("POST", action, {"addSecurityGroup": {"name": "extra"}}, 202)
    shown = demo("GET", f"/v2.1/servers/{server}")["server"]["security_groups"]
    assert {g["name"] for g in shown} == {"default", "extra"}
    demo("POST", action, {"removeSecurityGroup": {"name": "extra"}}, 202)
    demo("DELETE", f"/v2.1/servers/{server}", None, 204)
    demo.cloud.settle()
    demo("GET", f"/v2.1/servers/{server}", None, 404)
    demo("DELETE", f"/v2.0/security-groups/{group['security_group']['id']}", None, 204, "network")
    demo("DELETE", f"/v2.0/networks/{network}", None, 204, "network")


def addresses(demo: Demo, server: str) -> list[str]:
    (listed,) = demo("GET", f"/v2.1/servers/{server}")["server"]["addresses"].values()
    return [address["addr"] for address in listed]
