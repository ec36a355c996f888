"""Measure a real cloud: QEMU and the `linux` dataplane, in a network namespace of its own. As root, with a guest image.

usage: CUMULET_GUEST_IMAGE=guest.qcow2 python -m bench.real [ROUNDS]      (default: 3 servers, one after the other)

`POST /servers` is the start of the clock; the port and its floating IP are there before. SSH means a login with the key that
ran a command, through the floating IP.
"""

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from bench.measure import cpu_seconds, line, resident_mib
from tests.cloud import ProcessCloud, inside, network_namespace
from tests.e2e.guests import answers_ssh

STARTS = 4
LIMIT = 180.0
"""Seconds after which a server that does not come is given up."""


class Tenant:
    """The demo user's network with a way out, and what it takes to log in."""

    def __init__(self, cloud: ProcessCloud, directory: Path) -> None:
        self.cloud = cloud
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.token = cloud.token("cumulet-demo")
        public = self.key.with_suffix(".pub").read_text()
        self.call("POST", "compute", "/v2.1/os-keypairs", {"keypair": {"name": "bench", "public_key": public}})
        self.network = self.call("POST", "network", "/v2.0/networks", {"network": {"name": "bench"}})["network"]["id"]
        subnet = {"network_id": self.network, "ip_version": 4, "cidr": "10.99.0.0/24"}
        subnet = self.call("POST", "network", "/v2.0/subnets", {"subnet": subnet})["subnet"]
        self.public = self.call("GET", "network", "/v2.0/networks?name=public")["networks"][0]["id"]
        gateway = {"name": "bench", "external_gateway_info": {"network_id": self.public}}
        router = self.call("POST", "network", "/v2.0/routers", {"router": gateway})["router"]["id"]
        self.call("PUT", "network", f"/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet["id"]})
        group = self.call("GET", "network", "/v2.0/security-groups?name=default")["security_groups"][0]["id"]
        rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp", "ethertype": "IPv4"}
        rule |= {"port_range_min": 22, "port_range_max": 22}
        self.call("POST", "network", "/v2.0/security-group-rules", {"security_group_rule": rule})
        self.image = self.call("GET", "image", "/v2/images?name=cumulet-guest")["images"][0]["id"]
        flavors = self.call("GET", "compute", "/v2.1/flavors")["flavors"]
        self.flavor = next(flavor["id"] for flavor in flavors if flavor["name"] == "m1.nano")

    def call(self, method: str, service: str, path: str, body: Any = None) -> Any:
        reply = self.cloud.request(method, service, path, body, token=self.token)
        assert reply.status_code < 300, f"{method} {path}: {reply.status_code} {reply.text[:300]}"
        return reply.json() if reply.content else None

    def boot(self) -> tuple[float, float]:
        """Seconds from POST /servers to ACTIVE, and to a login. The server is deleted again."""
        port = self.call("POST", "network", "/v2.0/ports", {"port": {"network_id": self.network}})["port"]["id"]
        wanted = {"floating_network_id": self.public, "port_id": port}
        address = self.call("POST", "network", "/v2.0/floatingips", {"floatingip": wanted})["floatingip"]
        body = {"name": "b", "flavorRef": self.flavor, "imageRef": self.image, "key_name": "bench"}
        started = time.perf_counter()
        server = self.call("POST", "compute", "/v2.1/servers", {"server": {**body, "networks": [{"port": port}]}})
        path = f"/v2.1/servers/{server['server']['id']}"
        while (status := self.call("GET", "compute", path)["server"]["status"]) != "ACTIVE":
            assert status == "BUILD", status
            time.sleep(0.005)
        active = time.perf_counter() - started
        while not self._logs_in(address["floating_ip_address"]):
            assert time.perf_counter() - started < LIMIT, "no SSH came"
            time.sleep(0.05)
        login = time.perf_counter() - started
        self.call("DELETE", "compute", path)
        return active, login

    def _logs_in(self, address: str) -> bool:
        if not answers_ssh(address, 1.0):
            return False
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "ConnectTimeout=20"]
        words = ["ssh", "-i", str(self.key), *(word for option in options for word in ("-o", option))]
        done = subprocess.run([*words, f"cumulet@{address}", "true"], capture_output=True, check=False)
        return done.returncode == 0


def measure(cloud: ProcessCloud, directory: Path, rounds: int) -> None:
    took = []
    for _ in range(STARTS):
        took.append(cloud.start())
        cloud.stop()
    line("`cumulet up`, real, warm", f"median {statistics.median(took[1:]):.2f} s (first start {took[0]:.2f} s)")
    cloud.start()
    assert cloud.process is not None
    with inside(cloud.namespace):
        tenant = Tenant(cloud, directory)
        times = [tenant.boot() for _ in range(rounds)]
    for what, which in (("to ACTIVE, real QEMU", 0), ("to SSH through the floating IP", 1)):
        found = [pair[which] for pair in times]
        line(
            f"POST /v2.1/servers {what}",
            f"median {statistics.median(found):.2f} s of {rounds} (worst {max(found):.2f})",
        )
    before = cpu_seconds(cloud.process.pid)
    time.sleep(20)
    line("idle CPU, real", f"{(cpu_seconds(cloud.process.pid) - before) / 20 * 100:.2f} % of a core")
    line("resident memory, real", f"{resident_mib(cloud.process.pid):.0f} MiB")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with (
        tempfile.TemporaryDirectory(prefix="cumulet-real-") as directory,
        network_namespace(f"cub{uuid.uuid4().hex[:6]}") as namespace,
    ):
        cloud = ProcessCloud(Path(directory) / "data", namespace=namespace)
        try:
            measure(cloud, Path(directory), rounds)
        finally:
            cloud.destroy()


if __name__ == "__main__":
    main()
