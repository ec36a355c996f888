"""What fails for good says why and gives back what it took; what meets on one network does not get in each other's way."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import ProcessCloud
from tests.crash.host import check_host, real_cloud
from tests.crash.load import Site, set_up, settled
from tests.drivers.hypervisor_guest import OBEYS, boot_sector

BUILDS = 50
AT_ONCE = 5
pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.slow]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCloud]:
    with real_cloud(tmp_path_factory.mktemp("failure")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def site(real: ProcessCloud) -> Site:
    return set_up(real, boot_sector(OBEYS), servers=AT_ONCE, sides=0)


def call(cloud: ProcessCloud, method: str, service: str, path: str, body: Any = None) -> Any:
    reply = cloud.request(method, service, path, body)
    assert reply.ok, reply.text
    return reply.json() if reply.content else None


def create(cloud: ProcessCloud, site: Site, **more: Any) -> str:
    networks = [{"uuid": site.network_id}]
    body = {"name": "s", "flavorRef": "42", "imageRef": site.image_id, "networks": networks, **more}
    return str(call(cloud, "POST", "compute", "/v2.1/servers", {"server": body})["server"]["id"])


def delete_servers(cloud: ProcessCloud) -> None:
    for one in settled(cloud):
        call(cloud, "DELETE", "compute", f"/v2.1/servers/{one['id']}")
    assert settled(cloud) == []
    check_host(cloud, [])


def upload(cloud: ProcessCloud, data: bytes) -> str:
    body = {"name": "broken", "disk_format": "raw", "container_format": "bare"}
    image = str(call(cloud, "POST", "image", "/v2/images", body)["id"])
    headers = {"Content-Type": "application/octet-stream"}
    assert cloud.request("PUT", "image", f"/v2/images/{image}/file", data=data, headers=headers).status_code == 204
    return image


def check_error(cloud: ProcessCloud, server_id: str, *words: str) -> None:
    """The server is in ERROR with a fault that has these words, and holds nothing but its row and its name."""
    (server,) = settled(cloud)
    assert (server["id"], server["status"]) == (server_id, "ERROR")
    for word in words:
        assert word in server["fault"]["message"]
    assert server["addresses"] == {}
    check_host(cloud, [])


def test_image_that_cannot_be_read(real: ProcessCloud, site: Site) -> None:
    image = upload(real, boot_sector(OBEYS))
    (real.data / "image" / image).unlink()
    server = create(real, site, imageRef=image)
    check_error(real, server, image, "cannot be read")
    delete_servers(real)


def test_network_that_cannot_be_made(real: ProcessCloud, site: Site) -> None:
    network = call(real, "POST", "network", "/v2.0/networks", {"network": {"name": "broken"}})["network"]["id"]
    body: dict[str, Any] = {"network_id": network, "ip_version": 4, "cidr": "10.77.0.0/24"}
    call(real, "POST", "network", "/v2.0/subnets", {"subnet": body})
    in_the_way: Path = real.data / "network/networks" / network / "dnsmasq.conf"
    in_the_way.mkdir(parents=True)  # its name server cannot be given a configuration
    server = create(real, site, networks=[{"uuid": network}])
    try:
        (listed,) = settled_servers(real)
        assert (listed["id"], listed["status"]) == (server, "ERROR")
        assert "dnsmasq.conf" in listed["fault"]["message"]
    finally:
        in_the_way.rmdir()
    call(real, "DELETE", "compute", f"/v2.1/servers/{server}")
    create(real, site, networks=[{"uuid": network}])
    assert [s["status"] for s in settled(real)] == ["ACTIVE"], "the network is mended once it can be"
    check_host(real, settled(real))
    for one in settled(real):
        call(real, "DELETE", "compute", f"/v2.1/servers/{one['id']}")
    assert settled(real) == []
    call(real, "DELETE", "network", f"/v2.0/networks/{network}")
    settled(real)
    check_host(real, [])


def settled_servers(cloud: ProcessCloud) -> list[dict[str, Any]]:
    """The servers once none is under way, whatever else is."""
    deadline = time.monotonic() + 60
    while True:
        servers: list[dict[str, Any]] = call(cloud, "GET", "compute", "/v2.1/servers/detail")["servers"]
        if all(s["OS-EXT-STS:task_state"] is None and s["status"] != "BUILD" for s in servers):
            return servers
        assert time.monotonic() < deadline, servers
        time.sleep(0.1)


def test_server_that_cannot_be_started_again(real: ProcessCloud, site: Site) -> None:
    server = create(real, site)
    settled(real)
    call(real, "POST", "compute", f"/v2.1/servers/{server}/action", {"os-stop": None})
    settled(real)
    (real.data / "compute/servers" / server / "disk.qcow2").write_bytes(b"no disk")
    call(real, "POST", "compute", f"/v2.1/servers/{server}/action", {"os-start": None})
    (shown,) = settled(real)
    assert shown["status"] == "ERROR"
    assert "qcow2" in shown["fault"]["message"]
    delete_servers(real)


def test_much_at_once_on_one_network(real: ProcessCloud, site: Site) -> None:
    network = call(real, "POST", "network", "/v2.0/networks", {"network": {"name": "busy"}})["network"]["id"]
    body: dict[str, Any] = {"network_id": network, "ip_version": 4, "cidr": "10.78.0.0/24"}
    subnet = call(real, "POST", "network", "/v2.0/subnets", {"subnet": body})["subnet"]["id"]
    body = {"name": "busy", "external_gateway_info": {"network_id": site.public_id}}
    router = call(real, "POST", "network", "/v2.0/routers", {"router": body})["router"]["id"]
    group = call(real, "POST", "network", "/v2.0/security-groups", {"security_group": {"name": "busy"}})
    group_id = group["security_group"]["id"]
    rule = {"security_group_id": group_id, "direction": "ingress", "remote_group_id": group_id}
    doomed = create(real, site, networks=[{"uuid": network}])
    work: list[tuple[Any, ...]] = [
        *[("POST", "compute", "/v2.1/servers", {"server": {
            "name": f"s{n}", "flavorRef": "42", "imageRef": site.image_id, "networks": [{"uuid": network}],
            "security_groups": [{"name": "busy"}],
        }}) for n in range(4)],
        ("PUT", "network", f"/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet}),
        ("POST", "network", "/v2.0/security-group-rules", {"security_group_rule": rule}),
        ("POST", "network", "/v2.0/ports", {"port": {"network_id": network}}),
        ("DELETE", "compute", f"/v2.1/servers/{doomed}"),
    ]  # fmt: skip
    with ThreadPoolExecutor(len(work)) as pool:
        list(pool.map(lambda one: call(real, *one), work))
    servers = settled(real)
    assert [s["status"] for s in servers] == ["ACTIVE"] * 4
    check_host(real, servers)
    ports = call(real, "GET", "network", f"/v2.0/ports?network_id={network}")["ports"]
    told = (real.data / "network/networks" / network / "hosts").read_text()
    assert all(port["mac_address"] in told for port in ports if not port["device_owner"].startswith("network:"))
    for port in ports:
        if not port["device_owner"]:
            call(real, "DELETE", "network", f"/v2.0/ports/{port['id']}")
    call(real, "PUT", "network", f"/v2.0/routers/{router}/remove_router_interface", {"subnet_id": subnet})
    call(real, "DELETE", "network", f"/v2.0/routers/{router}")
    delete_servers(real)
    call(real, "DELETE", "network", f"/v2.0/networks/{network}")
    settled(real)
    check_host(real, [])


def test_delete_during_build(real: ProcessCloud, site: Site) -> None:
    dice = random.Random(5)
    for _ in range(BUILDS // AT_ONCE):
        servers = [create(real, site, config_drive=dice.random() < 0.5) for _ in range(AT_ONCE)]
        for server in servers:
            time.sleep(dice.uniform(0, 0.5))  # the moment of the delete is what is random here
            call(real, "DELETE", "compute", f"/v2.1/servers/{server}")
        assert settled(real) == []
    check_host(real, [])
