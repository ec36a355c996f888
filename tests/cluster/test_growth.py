"""A cloud on one machine gets storage nodes: nothing is converted, nothing is started anew but what is new."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import requests

from cumulet.services.object_store.ring.ring import FileRing
from tests.cloud import ProcessCloud, inside
from tests.cluster.hosts import NETWORK, PROXY, Node, wait_until, why_not
from tests.portmap.hosts import place

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
RINGS = ("account", "container", "object")


def test_one_machine_becomes_a_cluster(tmp_path: Path) -> None:
    with place(PROXY, "n1", "n2") as site, inside(site.namespace(PROXY)):
        for name in (PROXY, "n1", "n2"):
            site.give(name, [NETWORK])
        address = site.address(PROXY, NETWORK)
        options = ("--hypervisor", "simulated", "--network", "simulated", "--object-replication-interval", "1")
        namespace = site.namespace(PROXY)
        cloud = ProcessCloud(tmp_path / "data", *options, namespace=namespace)
        rings = cloud.data / "object-store" / "rings"
        nodes = [Node(name, site, tmp_path, tmp_path / name / "rings") for name in ("n1", "n2")]
        try:
            cloud.start()
            account = cloud.connect().object_store.get_endpoint()
            contents = {f"object {number}": os.urandom(number * 1000) for number in range(30)}
            _request(cloud, "PUT", f"{account}/c")
            for name, data in contents.items():
                assert _request(cloud, "PUT", f"{account}/c/{name}", data=data).status_code == 201
            cloud.stop()
            cloud.arguments = (*cloud.arguments, "--object-bind", address)  # from now on others are to reach it
            cloud.start()

            def ring(*words: str) -> str:
                return cloud.run(*_python(), "ring", words[0], *RINGS, *words[1:], "--data", str(cloud.data))

            for zone, node in enumerate(nodes, 2):
                ring("add", "--zone", str(zone), "--address", node.address, "--device", "d1")
            ring("set", "--replicas", "3", "--min-part-hours", "0")
            ring("rebalance")
            for node in nodes:
                shutil.copytree(rings, node.rings)
                node.start()
            read = FileRing(rings / "object.ring.gz")
            assert read.replicas == 3 and read.every()[0].address == address

            def missing() -> list[str]:
                """Where objects of the ring's partitions are still to come."""
                found = []
                for node in nodes:
                    here = {path.name for path in node.device.glob("objects/*/*/*")}
                    if len(here) < len(contents):
                        found.append(f"{node.name} has {len(here)} objects")
                    if not list(node.device.glob("containers/*/*/*/*.db")):
                        found.append(f"{node.name} has no container")
                return found

            wait_until("copies on the new nodes", missing)
            for name, data in contents.items():
                assert _request(cloud, "GET", f"{account}/c/{name}").content == data
            (cloud.data / "object-store" / "devices" / "d1" / "objects").rename(
                tmp_path / "lost"
            )  # the others have all
            for name, data in contents.items():
                assert _request(cloud, "GET", f"{account}/c/{name}").content == data
        finally:
            cloud.stop()
            for node in nodes:
                node.end()


def _python() -> tuple[str, ...]:

    return sys.executable, "-m", "cumulet"


def _request(cloud: ProcessCloud, method: str, url: str, **more: object) -> requests.Response:
    return requests.request(method, url, headers={"X-Auth-Token": cloud.token()}, timeout=30, **more)  # type: ignore[arg-type]
