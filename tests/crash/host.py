"""What a host really holds of a cloud, and what it should hold: processes, devices, namespaces, files, control groups."""

import contextlib
import json
import os
import shutil
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.compute.drivers.qemu import cgroup
from tests.cloud import ProcessCloud, inside, network_namespace
from tests.crash.killing import rows

PROGRAMS = ("qemu-system-x86_64", "qemu-img", "genisoimage", "dnsmasq", "nft", "ip", "conntrack", "ss", "nsenter")
NETNS = Path("/run/netns")


def why_not() -> str:
    """Why the real thing cannot run here, or nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"needs {', '.join(missing)}" if missing else ""


@contextlib.contextmanager
def real_cloud(directory: Path) -> Iterator[ProcessCloud]:
    """A cloud with real machines and networks, in a network namespace of its own, which this thread is in as well."""
    if reason := why_not():
        pytest.skip(reason)
    options = ("--hypervisor", "qemu", "--network", "linux", "--virt-type", "tcg")
    with network_namespace(f"cucrash-{uuid.uuid4().hex[:6]}") as name, inside(name):
        cloud = ProcessCloud(directory / "data", *options, namespace=name)
        try:
            cloud.start()
            yield cloud
        finally:
            cloud.destroy()


def prefix(cloud: ProcessCloud) -> str:
    """How the names begin of what the cloud makes on the host."""
    return str(json.loads((cloud.data / "secrets.json").read_bytes())["cloud"])


def processes(data: Path, program: str) -> dict[int, list[str]]:
    """The processes of `program` whose arguments name something below `data`."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == program and any(str(data) in word for word in words):
            found[int(entry)] = words
    return found


def machines(cloud: ProcessCloud) -> Counter[str]:
    """How many QEMU processes each server has."""
    found = processes(cloud.data, "qemu-system-x86_64").values()
    return Counter(Path(words[words.index("-pidfile") + 1]).parent.name for words in found)


def name_servers(cloud: ProcessCloud) -> Counter[str]:
    """How many dnsmasq processes each network (or router) has."""
    files = [word for words in processes(cloud.data, "dnsmasq").values() for word in words if "--conf-file=" in word]
    return Counter(Path(file).parent.name for file in files)


def namespaces(start: str) -> set[str]:
    return {entry.name.removeprefix(start) for entry in NETNS.glob(f"{start}*")}


def devices(namespace: str) -> dict[str, str]:
    """Devices of a namespace by name, with their alias."""
    done = subprocess.run(["ip", "-n", namespace, "-j", "link"], capture_output=True, text=True, check=True)
    return {link["ifname"]: link.get("ifalias", "") for link in json.loads(done.stdout or "[]")}


def listeners(namespace: str) -> list[str]:
    """Addresses on which the metadata service listens in a namespace."""
    command = ["nsenter", f"--net={NETNS}/{namespace}", "ss", "-Hltn"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[3] for line in lines if "169.254.169.254:80" in line]


def groups(known: set[str]) -> set[str]:
    """The servers, of those that are `known`, that have a control group."""
    return {name for parent in cgroup.find().parents if parent.is_dir() for name in os.listdir(parent) if name in known}


def ever(cloud: ProcessCloud) -> set[str]:
    """Every server there ever was."""
    return {row[0] for row in rows(cloud, "SELECT id FROM compute_server")}


def check_host(cloud: ProcessCloud, servers: list[dict[str, Any]]) -> None:
    """The host holds what the database says, and nothing else."""
    alive = {s["id"] for s in servers}
    running = {s["id"] for s in servers if s["status"] in ("ACTIVE", "PAUSED")}
    assert machines(cloud) == Counter(running), "QEMU processes and running servers"
    folders = cloud.data / "compute/servers"
    assert set(os.listdir(folders)) == alive, "folders and servers"
    partial = [
        str(f) for f in (cloud.data / "compute").rglob("*") if f.suffix in (".new", ".folder") or f.name[0] == "."
    ]
    assert partial == [], "half made files"
    images = {row[0] for row in rows(cloud, "SELECT id FROM image_image WHERE status = 'active'")}
    assert {file.stem for file in (cloud.data / "compute/base").iterdir()} <= images, "base images"
    assert groups(ever(cloud)) == running, "control groups and running servers"
    check_networks(cloud, running)
    check_records(cloud, alive)


def check_networks(cloud: ProcessCloud, running: set[str]) -> None:
    """Namespaces, devices, dnsmasq processes and metadata sockets belong to what is stored."""
    start = prefix(cloud)
    ports = rows(cloud, "SELECT id, network_id, device_id, device_owner FROM network_ports")
    inner = {row[0] for row in rows(cloud, "SELECT id FROM network_networks WHERE NOT external")}
    used = {network for _, network, _, _ in ports} & inner
    routers = {row[0] for row in rows(cloud, "SELECT id FROM network_routers")}
    assert namespaces(f"{start}-n-") == used, "namespaces and networks"
    assert namespaces(f"{start}-r-") == routers, "namespaces and routers"
    served = rows(cloud, "SELECT DISTINCT network_id FROM network_subnets WHERE dhcp_port_id IS NOT NULL")
    assert name_servers(cloud) == Counter(row[0] for row in served), "dnsmasq and networks with DHCP"
    assert set(os.listdir(cloud.data / "network/networks")) == used, "directories and networks"
    assert set(os.listdir(cloud.data / "network/routers")) == routers, "directories and routers"
    for network in used:
        found = devices(f"{start}-n-{network}")
        taps = {alias for name, alias in found.items() if name.startswith("tap")}
        assert taps == {p for p, net, device, _ in ports if net == network and device in running}, "taps"
        legs = {name for name in found if name.startswith("leg")}
        owner = "network:router_interface"
        assert legs == {f"leg{p[:11]}" for p, net, _, kind in ports if net == network and kind == owner}, "legs"
        wanted = ["169.254.169.254:80"] if (network,) in served else []
        assert listeners(f"{start}-n-{network}") == wanted, "metadata sockets"
    for router in routers:
        legs = {name for name in devices(f"{start}-r-{router}") if name.startswith("q")}
        assert len(legs) == len([p for p, _, device, _ in ports if device == router]), "legs of a router"
    gateways = [p for p, _, _, kind in ports if kind == "network:router_gateway"]
    plugs = {name[4:] for name in devices(cloud.namespace) if name.startswith("g")}
    assert plugs == {port[:11] for port in gateways}, "legs on the external bridge"


def check_records(cloud: ProcessCloud, alive: set[str]) -> None:
    """Ports, addresses and allocations belong to what exists."""
    ports = rows(cloud, "SELECT id, device_id, device_owner FROM network_ports")
    assert {device for _, device, owner in ports if owner.startswith("compute:")} == alive
    holders = {port for (port,) in rows(cloud, "SELECT port_id FROM network_allocations")}
    assert holders == {port for port, _, _ in ports}, "addresses and ports"
    consumers = {row[0] for row in rows(cloud, "SELECT DISTINCT consumer_uuid FROM placement_allocation")}
    assert consumers == alive, "allocations and servers"


def check_gone(cloud: ProcessCloud, start: str, known: set[str]) -> None:
    """Not a trace of the cloud is left on the host."""
    for program in ("qemu-system-x86_64", "dnsmasq", "qemu-img", "genisoimage"):
        assert processes(cloud.data, program) == {}
    assert namespaces(start) == set()
    assert set(devices(cloud.namespace)) == {"lo"}
    assert groups(known) == set()
    assert not cloud.data.exists()
    links = [link for link in Path("/run").glob("cumulet-*") if link.is_symlink()]
    assert [link for link in links if cloud.data in (Path(os.readlink(link)), *Path(os.readlink(link)).parents)] == []
