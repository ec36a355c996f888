"""SIGKILL at random moments under load, with simulated drivers: nothing lost, nothing stuck, nothing leaked."""

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cloud import ProcessCloud

ROUNDS = 6
CLIENTS = 4
FINAL = {"ACTIVE", "SHUTOFF", "ERROR", "PAUSED"}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ProcessCloud]:
    cloud = ProcessCloud(tmp_path / "data", "--hypervisor", "simulated", "--network", "simulated")
    cloud.start()
    yield cloud
    cloud.destroy()


class Load:
    """Clients that make and delete servers until told to stop, and remember what they were promised."""

    def __init__(self, cloud: ProcessCloud, network_id: str, image_id: str) -> None:
        self.cloud = cloud
        self.server = {"flavorRef": "42", "imageRef": image_id, "networks": [{"uuid": network_id}]}
        self.token = cloud.token()
        self.promised: set[str] = set()  # a create was answered with 202
        self.doomed: set[str] = set()  # a delete was sent, whatever came of it
        self.gone: set[str] = set()  # a delete was answered with 204
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        self._stop.clear()
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        dice = random.Random(f"{number} {len(self.promised)}")
        while not self._stop.is_set():
            try:
                self._act(dice)
            except requests.ConnectionError:
                return  # the program was killed: what was not answered was not promised

    def _act(self, dice: random.Random) -> None:
        victims = sorted(self.promised - self.doomed)
        if victims and dice.random() < 0.4:
            victim = dice.choice(victims)
            self.doomed.add(victim)
            reply = self.cloud.request("DELETE", "compute", f"/v2.1/servers/{victim}", token=self.token)
            assert reply.status_code in (204, 404), reply.text
            self.gone.add(victim)
        elif victims and dice.random() < 0.3:
            action: dict[str, Any] = dice.choice([{"os-stop": None}, {"os-start": None}, {"reboot": {"type": "HARD"}}])
            path = f"/v2.1/servers/{dice.choice(victims)}/action"
            reply = self.cloud.request("POST", "compute", path, action, token=self.token)
            assert reply.status_code in (202, 409, 404), reply.text
        else:
            body = {"server": {"name": f"s{dice.random()}", **self.server}}
            reply = self.cloud.request("POST", "compute", "/v2.1/servers", body, token=self.token)
            assert reply.status_code == 202, reply.text
            self.promised.add(reply.json()["server"]["id"])


def wait_until_settled(cloud: ProcessCloud, timeout: float = 60) -> list[dict[str, Any]]:
    """The servers, once none is under way and no operation is unfinished."""
    deadline = time.monotonic() + timeout
    while True:
        reply = cloud.request("GET", "compute", "/v2.1/servers/detail?all_tenants=1")
        servers: list[dict[str, Any]] = reply.json()["servers"]
        busy = [s for s in servers if s["OS-EXT-STS:task_state"] or s["status"] not in FINAL]
        if not busy and not unfinished(cloud):
            return servers
        assert time.monotonic() < deadline, f"stuck: {busy} {unfinished(cloud)}"
        time.sleep(0.1)


def unfinished(cloud: ProcessCloud) -> list[Any]:
    with sqlite3.connect(f"file:{cloud.data}/cumulet.sqlite?mode=ro", uri=True) as database:
        return database.execute(
            "SELECT kind, resource_id, state, attempts, error FROM core_operation WHERE state IN ('queued', 'running')"
        ).fetchall()


def set_up(cloud: ProcessCloud) -> tuple[str, str]:
    """A network and a quota large enough; returns the ids of the network and of the guest image."""
    admin = cloud.connect()
    project = admin.current_project_id
    body = {"quota_set": {"instances": -1, "cores": -1, "ram": -1}}
    assert cloud.request("PUT", "compute", f"/v2.1/os-quota-sets/{project}", body).status_code == 200
    assert cloud.request("PUT", "network", f"/v2.0/quotas/{project}", {"quota": {"port": -1}}).status_code == 200
    network = admin.network.create_network(name="crash")
    admin.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.9.0.0/16")
    image = admin.image.find_image("cumulet-guest")
    if image is None:
        image = admin.image.create_image(
            name="crash", disk_format="raw", container_format="bare", data=b"\0" * 1048576, wait=True, min_disk=0
        )
    return network.id, image.id


def test_sigkill_loses_nothing_and_leaves_nothing_stuck(process: ProcessCloud) -> None:
    load = Load(process, *set_up(process))
    for number in range(ROUNDS):
        load.run()
        time.sleep(random.Random(number).uniform(0.3, 1.5))  # the moment of the kill is what is random here
        process.kill()
        load.stop()
        process.start()
        load.token = process.token()
    servers = wait_until_settled(process)
    there = {s["id"] for s in servers}
    assert len(load.promised) > 20
    assert load.promised - load.doomed <= there, "a server that was promised is lost"
    assert not load.gone & there, "a server that was deleted is back"
    assert [s["fault"] for s in servers if s["status"] == "ERROR"] == []
    check_nothing_leaked(process, there)


def check_nothing_leaked(cloud: ProcessCloud, servers: set[str]) -> None:
    """Ports and allocations belong to servers that exist."""
    ports = cloud.request("GET", "network", "/v2.0/ports").json()["ports"]
    owners = {p["device_id"] for p in ports if p["device_owner"].startswith("compute:")}
    assert owners == servers
    headers = {"OpenStack-API-Version": "placement 1.39"}
    (provider,) = cloud.request("GET", "placement", "/resource_providers", headers=headers).json()["resource_providers"]
    path = f"/resource_providers/{provider['uuid']}/allocations"
    assert set(cloud.request("GET", "placement", path, headers=headers).json()["allocations"]) == servers
