"""A cluster of object storage: five storage nodes and a proxy, each in a network namespace of its own, three copies."""

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from cumulet.services.object_store import policies
from cumulet.services.object_store.names import partition
from cumulet.services.object_store.node import BackendRequest, Device, Kind
from cumulet.services.object_store.policies import ClusterFile
from cumulet.services.object_store.remote import target
from cumulet.services.object_store.ring import builder_file, data
from cumulet.services.object_store.ring.builder import Builder
from cumulet.services.object_store.ring.ring import FileRing
from tests.cloud import SOURCE, ProcessCloud, inside, run_all
from tests.portmap.hosts import Place, place

NODES = ("n1", "n2", "n3", "n4", "n5")
PROXY = "px"
NETWORK = "storage"
POWER = 6
COPIES = 3
PORTS: dict[Kind, int] = {"object": 6000, "container": 6001, "account": 6002}
FAST = (
    "--object-replication-interval", "1",
    "--object-update-interval", "1",
)  # fmt: skip


def why_not() -> str:
    """Why there can be no such cluster here, or nothing."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    missing = [program for program in ("ip", "nsenter", "rsync") if shutil.which(program) is None]
    return f"needs {', '.join(missing)}" if missing else ""


class Node:
    """A host that runs `cumulet object-node`."""

    def __init__(self, name: str, site: Place, directory: Path, rings: Path) -> None:
        self.name = name
        self.site = site
        self.directory = directory / name
        self.rings = rings
        self.devices = self.directory / "devices"
        self.device = self.devices / "d1"
        self.device.mkdir(parents=True)
        self.process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return self.site.address(self.name, NETWORK)

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            *self.site.command(self.name), sys.executable, "-m", "cumulet", "object-node",
            "--data", str(self.directory / "data"), "--object-bind", self.address, "--object-devices", str(self.devices),
            "--object-rings", str(self.rings), *FAST,
        ]  # fmt: skip
        with open(self.directory / "output.log", "a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "PYTHONPATH": str(SOURCE / "src")},
            )  # fmt: skip
        heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self.process, heard), daemon=True).start()
        said = []
        while True:
            line = heard.get(timeout=120)
            said.append(line)
            if line.startswith("ready in "):
                return
            assert line, f"{self.name} ended: {''.join(said)}{self.log()}"

    def log(self) -> str:
        files = (self.directory / "output.log", self.directory / "data" / "cumulet.log")
        return "".join(file.read_text()[-4000:] for file in files if file.exists())

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.end(signal.SIGKILL)

    def wipe(self) -> None:
        """Put an empty disk in the place of its disk."""
        shutil.rmtree(self.device)
        self.device.mkdir()

    def cut(self, *, off: bool = True) -> None:
        """Take its cable out, or put it back."""
        state = "down" if off else "up"
        run_all([["ip", "-n", self.site.namespace("sw"), "link", "set", f"p{self.name}", state]])


def _listen(process: "subprocess.Popen[str]", heard: "queue.SimpleQueue[str]") -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            heard.put(line)
    heard.put("")


class ObjectCluster:
    """The nodes, and the proxy that asks them: a whole cloud, whose objects lie elsewhere."""

    def __init__(self, site: Place, directory: Path) -> None:
        self.site = site
        self.rings = directory / "rings"
        self.nodes = {name: Node(name, site, directory, self.rings) for name in NODES}
        self.make_rings()
        self.told: ClusterFile = policies.read(self.rings / policies.FILE)
        self.files = {kind: FileRing(self.rings / f"{kind}.ring.gz") for kind in PORTS}
        self.proxy = ProcessCloud(
            directory / "proxy", "--hypervisor", "simulated", "--network", "simulated",
            "--object-bind", site.address(PROXY, NETWORK), "--object-rings", str(self.rings),
            namespace=site.namespace(PROXY),
        )  # fmt: skip

    def make_rings(self) -> None:
        """Each node is a zone."""
        self.rings.mkdir(parents=True)
        policies.make(self.rings / policies.FILE)
        for kind, port in PORTS.items():
            builder = Builder(POWER, COPIES, 0)
            for number, node in enumerate(self.nodes.values(), 1):
                builder.add(
                    {"region": 1, "zone": number, "ip": node.address, "port": port, "device": "d1", "weight": 100.0}
                )
            builder.rebalance("cluster")
            builder_file.save(builder, self.rings / f"{kind}.builder")
            data.save(builder.ring(), self.rings / f"{kind}.ring.gz")

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()
        self.proxy.start()

    def stop(self) -> None:
        self.proxy.stop()
        for node in self.nodes.values():
            node.cut(off=False)
            node.end()

    def place(self, kind: Kind, *path: str) -> tuple[int, tuple[Device, ...]]:
        """The partition of a name and the devices that it belongs to."""
        ring = self.files[kind]
        number = partition(self.told.salt.digest(*path), ring.power)
        return number, ring.devices(number)

    def node_of(self, device: Device) -> Node:
        return next(node for node in self.nodes.values() if node.address == device.address)

    def ask(self, device: Device, kind: Kind, method: str, *path: str) -> requests.Response:
        """Ask one node for its own copy. In the proxy's namespace."""
        number, _ = self.place(kind, *path)
        names = dict(zip(("account", "container", "object"), path, strict=False))
        where = target(BackendRequest(kind, method, device.name, number, **names))  # type: ignore[arg-type]
        return requests.request(method, f"http://{device.address}:{device.port}{where}", timeout=60)


@contextmanager
def object_cluster(directory: Path) -> Iterator[ObjectCluster]:
    """A running cluster. This thread is in the proxy's namespace as long."""
    with place(PROXY, *NODES) as site:
        for name in (PROXY, *NODES):
            site.give(name, [NETWORK])
        cluster = ObjectCluster(site, directory)
        with inside(site.namespace(PROXY)):
            try:
                cluster.start()
                yield cluster
            finally:
                cluster.stop()


def wait_until(what: str, true: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until a condition holds; where it is a list of what is missing, it holds when that is empty."""
    end = time.monotonic() + seconds
    while True:
        missing = true()
        if not missing:
            return
        assert time.monotonic() < end, f"{what}: {str(missing)[:1000]}"
        time.sleep(0.3)
