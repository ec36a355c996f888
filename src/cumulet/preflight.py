"""Start-up checks: what stands in the way, what is done instead, and the way out. Nothing here changes the host,
apart from making the data directory."""

import errno
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from cumulet import listeners, lock, ports
from cumulet.config import Settings

Level = Literal["ok", "note", "fallback", "fatal"]

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "genisoimage": "genisoimage",
    "ip": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "conntrack": "conntrack",
}
"""The programs that are run, and the Debian package each comes from."""

HYPERVISOR_PROGRAMS = ("qemu-system-x86_64", "qemu-img", "genisoimage")
NETWORK_PROGRAMS = ("ip", "nft", "dnsmasq", "conntrack")
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""What namespaces, bridges and taps need, as bit numbers of the kernel's capability sets."""
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_LOW_SPACE = 2 * 1024**3
_NO_SPACE = 64 * 1024**2
"""Bytes: below the one servers' disks may fill what is left, below the other the database itself has no room."""


class Finding(Struct, frozen=True):
    """One result of a check. `fatal` stops the start; `fallback` means that something simulated takes over."""

    level: Level
    text: str
    way_out: str = ""


class Obstacle(Struct, frozen=True):
    """Why something real cannot run here, and the way out."""

    text: str
    way_out: str


class Plan(Struct, frozen=True):
    """What will run here, and all that was found on the way to that decision."""

    hypervisor: Literal["qemu", "simulated"]
    network: Literal["linux", "simulated"]
    findings: list[Finding] = field(default_factory=list)

    @property
    def fatal(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "fatal"]

    @property
    def fallbacks(self) -> list[str]:
        """What runs simulated though it was not asked for, each as one text."""
        return [_joined(finding) for finding in self.findings if finding.level == "fallback"]


def examine(settings: Settings) -> Plan:
    """Run all checks, before anything is started. Takes some milliseconds and raises nothing that the user can mend."""
    findings = check_data(settings.data)
    if not any(finding.level == "fatal" for finding in findings):
        findings += check_ports(settings)
    plan = choose(settings)
    return Plan(plan.hypervisor, plan.network, findings + plan.findings)


def choose(settings: Settings) -> Plan:
    """Only decide which drivers run: what `auto` means here, and whether what is insisted on can be had."""
    network, network_findings = _choose_network(settings)
    hypervisor, hypervisor_findings = _choose_hypervisor(settings, network)
    findings = network_findings + hypervisor_findings
    if hypervisor == "qemu" and settings.find_guest_image() is None:
        findings.append(
            Finding("note", "no guest image was found, so none is registered", "build one with `make guest-image`")
        )
    return Plan(hypervisor, network, findings)


# Ports


def check_ports(settings: Settings) -> list[Finding]:
    """Try every port that will be listened on, without listening."""
    findings = []
    for row in ports.served(settings.port_offset):
        address: str = getattr(settings, row.address)
        problem = _bind_problem(address, row.number)
        if problem == errno.EADDRNOTAVAIL:
            text = f"this host has no address {address}, so nothing can listen there"
            flag = f"--{row.address.replace('_', '-')}"
            return [Finding("fatal", text, f"give one of its addresses with {flag} (`ip -brief address` lists them)")]
        if problem == errno.EACCES:
            text = f"port {row.number} ({row.purpose}) is privileged and this user may not listen on it"
            findings.append(Finding("fatal", text, "run as root, or move all ports with --port-offset"))
        elif problem:
            findings.append(_taken(address, row))
    if not findings:
        findings.append(Finding("ok", f"every port is free on {settings.bind}"))
    return findings


def explain_port_taken(host: str, row: ports.Port) -> str:
    """For the program when a bind fails after all: who has the port, and the way out."""
    finding = _taken(host, row)
    return f"{finding.text}; {finding.way_out}"


def _taken(host: str, row: ports.Port) -> Finding:
    """Who has a port. Where it is one that Linux gives to connections, any program may get it at any time."""
    holder = listeners.find_listener(host, row.number) or listeners.find_client(host, row.number)
    text = f"port {row.number} ({row.purpose}) is taken by {holder or 'a socket that /proc does not show'}"
    over = isinstance(holder, listeners.Client) and holder.over
    way_out = f"{'wait for it' if over else 'stop it'}, move all ports with --port-offset, or give another --bind"
    low, high = listeners.ephemeral_range()
    if low <= row.number <= high and not isinstance(holder, listeners.Listener):
        command = listeners.reservation(row.number)
        way_out += (
            f"; Linux gives ports {low}-{high} to outgoing connections, and keeps this one from them by `{command}`"
        )
    return Finding("fatal", text, way_out)


def _bind_problem(host: str, number: int) -> int:
    """The errno a bind meets, 0 if it works. SO_REUSEADDR as in the real one: old connections do not count."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


# Data directory


def check_data(data: Path) -> list[Finding]:
    """Make the directory if it is missing, and see that it can be written and that nobody else holds it."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data):
            pid = lock.holder(data)
        free = shutil.disk_usage(data).free
    except OSError as error:
        text = f"the data directory {data} cannot be used: {(error.strerror or str(error)).lower()}"
        return [Finding("fatal", text, "give a directory this user may write with --data")]
    if pid is not None:
        return [Finding("fatal", lock.locked_text(data, pid), "stop that one, or give this one its own --data")]
    if free < _NO_SPACE:
        text = f"only {free // 1024**2} MiB are free in {data}, too little for the database"
        return [Finding("fatal", text, "free some, or give another directory with --data")]
    findings = [Finding("ok", f"the data directory {data} can be written")]
    if free < _LOW_SPACE:
        text = f"only {free // 1024**2} MiB are free in {data}; servers' disks may fill them"
        findings.append(Finding("note", text, "free some, or give another directory with --data"))
    return findings


# What runs servers and networks


def _choose_network(settings: Settings) -> tuple[Literal["linux", "simulated"], list[Finding]]:
    if settings.network == "simulated":
        return "simulated", [Finding("note", "the network is simulated, as set: no packet flows")]
    if settings.network == "auto" and settings.hypervisor == "simulated":
        return "simulated", [Finding("note", "the network is simulated: simulated servers send no packets")]
    obstacles = network_obstacles()
    if not obstacles:
        return "linux", [Finding("ok", "networks are real: namespaces, bridges, nftables")]
    if settings.network == "linux":
        return "linux", [Finding("fatal", f"network is set to linux, but {o.text}", o.way_out) for o in obstacles]
    return "simulated", [
        Finding("fallback", f"the network is SIMULATED, no packet flows: {o.text}", o.way_out) for o in obstacles
    ]


def _choose_hypervisor(
    settings: Settings, network: Literal["linux", "simulated"]
) -> tuple[Literal["qemu", "simulated"], list[Finding]]:
    if settings.hypervisor == "simulated":
        return "simulated", [Finding("note", "the hypervisor is simulated, as set: no server really runs")]
    obstacles = missing_programs(HYPERVISOR_PROGRAMS)
    if network == "simulated" and settings.network != "simulated":
        way_out = "--hypervisor qemu --network simulated runs servers without a network"
        obstacles.append(Obstacle("servers would have no network", way_out))
        if settings.hypervisor == "qemu":
            obstacles += network_obstacles()
    if settings.hypervisor == "qemu" and obstacles:
        return "qemu", [Finding("fatal", f"hypervisor is set to qemu, but {o.text}", o.way_out) for o in obstacles]
    if obstacles:
        text = "the hypervisor is SIMULATED, no server really runs"
        return "simulated", [Finding("fallback", f"{text}: {o.text}", o.way_out) for o in obstacles]
    if network == "simulated" and settings.hypervisor == "auto":
        text = "the hypervisor is simulated, as the network is set to be"
        return "simulated", [Finding("note", text, "add --hypervisor qemu to run servers without a network")]
    return "qemu", [Finding("ok", "servers are real: QEMU")]


def network_obstacles() -> list[Obstacle]:
    """What keeps this process from making real networks."""
    found = []
    lacking = missing_capabilities()
    if lacking:
        who = "this user is not root and" if os.geteuid() else "this process"
        way_out = "run as root (in a container: with these capabilities)"
        found.append(Obstacle(f"{who} lacks {' and '.join(lacking)}", way_out))
    elif not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        text = "/dev/net/tun " + ("may not be opened" if os.path.exists("/dev/net/tun") else "does not exist")
        found.append(Obstacle(text, "run as root; `modprobe tun` makes the device where it is missing"))
    return found + missing_programs(NETWORK_PROGRAMS)


def missing_capabilities() -> list[str]:
    """Those of CAPABILITIES that are not in this process's effective set."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    return list(CAPABILITIES)


def missing_programs(names: tuple[str, ...]) -> list[Obstacle]:
    """One obstacle for all programs that are not installed, with the packages they come from."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}"
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if not missing:
        return []
    packages = " ".join(sorted({PACKAGES[name] for name in missing}))
    text = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
    return [Obstacle(text, f"apt-get install --no-install-recommends {packages}")]


def _joined(finding: Finding) -> str:
    return f"{finding.text} ({finding.way_out})" if finding.way_out else finding.text
