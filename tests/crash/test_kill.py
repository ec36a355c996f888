"""SIGKILL at random moments under load, with simulated drivers: nothing lost, nothing stuck, nothing leaked."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import ProcessCloud
from tests.crash.killing import rows, simulated_cloud
from tests.crash.load import Load, delete_all, kill_again_and_again, set_up

ROUNDS = 6
CLIENTS = 4


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ProcessCloud]:
    with simulated_cloud(tmp_path) as cloud:
        yield cloud


def test_sigkill_loses_nothing_and_leaves_nothing_stuck(process: ProcessCloud) -> None:
    site = set_up(process, b"\0" * 4096, servers=200, sides=8)
    load = Load(process, site, clients=CLIENTS, seed=1)

    def enough() -> bool:
        return bool(len(load.servers.promised) > 20 and load.routers.promised and load.uploaded)

    kill_again_and_again(process, load, rounds=ROUNDS, dice=random.Random(1), enough=enough)
    servers = {s["id"] for s in load.check()}
    assert enough(), "too little was done to prove anything"
    check_nothing_leaked(process, servers)
    delete_all(process, site)
    check_nothing_leaked(process, set())
    assert rows(process, "SELECT device_owner FROM network_ports") == []


def check_nothing_leaked(cloud: ProcessCloud, servers: set[str]) -> None:
    """Ports, addresses and allocations belong to servers that exist, files to images that have data."""
    ports = rows(cloud, "SELECT id, device_id, device_owner FROM network_ports")
    assert {device for _, device, owner in ports if owner.startswith("compute:")} == servers
    holders = {port for (port,) in rows(cloud, "SELECT port_id FROM network_allocations")}
    assert holders == {port for port, _, _ in ports}
    assert set(rows(cloud, "SELECT DISTINCT server_id FROM compute_server_port")) == {(server,) for server in servers}
    headers = {"OpenStack-API-Version": "placement 1.39"}
    (provider,) = cloud.request("GET", "placement", "/resource_providers", headers=headers).json()["resource_providers"]
    path = f"/resource_providers/{provider['uuid']}/allocations"
    assert set(cloud.request("GET", "placement", path, headers=headers).json()["allocations"]) == servers
    images = cloud.request("GET", "image", "/v2/images?limit=1000").json()["images"]
    stored = {path.name for path in (cloud.data / "image").rglob("*") if path.is_file()}
    assert stored == {image["id"] for image in images if image["status"] == "active"}
