"""What the running program says of itself: `status.json` in the data directory, read by `cumulet status` and `demo`."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct, field

from cumulet.files import write_atomic

STATUS_FILE = "status.json"
HYPERVISORS = {"qemu": "QEMU"}
NETWORKS = {"linux": "real: Linux namespaces, bridges, nftables", "simulated": "simulated: no packet flows"}


class Status(Struct, frozen=True, kw_only=True):
    """Written once every port answers.

    `started` is Unix time; `ready_seconds` counts from the start of the process until every port answered; `urls` maps
    names of the port registry to root URLs; `virt_type` is `kvm`, `qemu` (TCG) or `simulated` and `virt_reason` says
    why; `log` is the log file, `-` for standard error; `fallbacks` are sentences about what runs simulated without having
    been asked for.
    """

    pid: int = field(default_factory=os.getpid)
    started: float
    ready_seconds: float
    version: str
    region: str
    urls: dict[str, str]
    hypervisor: str
    virt_type: str
    virt_reason: str
    network: str
    database: str
    log: str = "-"
    fallbacks: list[str] = []

    @property
    def simulated(self) -> bool:
        """Whether no guest can be reached: the hypervisor or the network is simulated."""
        return "simulated" in (self.hypervisor, self.network)

    @property
    def engine(self) -> str:
        """What runs servers, whether with KVM, and why, in words."""
        if self.virt_type == "simulated":
            return "simulated: no server really runs"
        return f"{HYPERVISORS.get(self.hypervisor, self.hypervisor)}: {self.virt_reason.rstrip('.')}"

    @property
    def dataplane(self) -> str:
        """What carries networks, in words."""
        return NETWORKS.get(self.network, self.network)

    def is_running(self) -> bool:
        """Whether the process that wrote this lives: a process of that pid which is no younger than the status."""
        try:
            return _process_started(self.pid) <= self.started + 1
        except OSError:
            return False


def write(data: Path, status: Status) -> None:
    """Store the status in one step."""
    write_atomic(data / STATUS_FILE, msgspec.json.format(msgspec.json.encode(status)), mode=0o644)


def read(data: Path) -> Status | None:
    """The status last written, or None where there is none of this version's form."""
    try:
        return msgspec.json.decode((data / STATUS_FILE).read_bytes(), type=Status)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def remove(data: Path) -> None:
    """Forget the status: the program has stopped in order."""
    (data / STATUS_FILE).unlink(missing_ok=True)


def announce_ready(data: Path, status: Status, announce: Callable[[str], None]) -> None:
    """Store the status and tell the user what runs where. Call it once every port answers."""
    write(data, status)
    for line in summary(data, status):
        announce(line)
    announce(f"ready in {status.ready_seconds:.2f} s")


def summary(data: Path, status: Status) -> list[str]:
    """What runs where, for people."""
    lines = [f"Cumulet {status.version}, region {status.region}"]
    lines += [f"  {name:<14} {url}" for name, url in status.urls.items()]
    lines.append(f"  servers        {status.engine}")
    lines.append(f"  networks       {status.dataplane}")
    lines.append(f"  credentials    {data}/admin-openrc, {data}/clouds.yaml (clouds cumulet, cumulet-demo)")
    if status.log != "-":
        lines.append(f"  log            {status.log}")
    lines.append("  stop           Ctrl-C; servers keep running, and the next start finds them")
    lines += [f"  NOTE: {text}" for text in status.fallbacks]
    return lines


def seconds_since_start() -> float:
    """How long ago this process was started, its interpreter's start-up included. 10 ms resolution."""
    return time.time() - _process_started(os.getpid())


def _process_started(pid: int) -> float:
    """Unix time at which a process began. Raises FileNotFoundError or ProcessLookupError if there is none."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    ticks = int(stat.rpartition(")")[2].split()[19])  # field 22; the name before it may hold spaces
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + ticks / os.sysconf("SC_CLK_TCK")
