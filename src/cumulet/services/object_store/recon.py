"""GET /recon/...: how a node is, for `swift-recon` and for monitoring: its disks, its load, its rings, what its daemons did.

Daemons leave what they did in `Recon.notes`, under swift's own names.
Reference: https://docs.openstack.org/swift/latest/admin_guide.html#cluster-telemetry-and-monitoring
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cumulet
from cumulet.api.http import encode_json
from cumulet.core.tasks import in_thread
from cumulet.services.object_store.message import Response

if TYPE_CHECKING:
    from cumulet.services.object_store.host import StorageHost

PREFIX = "/recon/"
KINDS = ("account", "container", "object")
NOTES: dict[tuple[str, str], tuple[str, ...]] = {
    ("async", ""): ("async_pending", "async_pending_last"),
    ("replication", "account"): ("replication_time", "replication_stats", "replication_last"),
    ("replication", "container"): ("replication_time", "replication_stats", "replication_last"),
    ("replication", "object"): (
        "replication_time",
        "replication_stats",
        "replication_last",
        "object_replication_time",
        "object_replication_last",
    ),
    ("updater", "container"): ("container_updater_sweep",),
    ("updater", "object"): ("object_updater_sweep", "object_updater_stats", "object_updater_last"),
    ("auditor", "account"): (
        "account_audits_passed",
        "account_auditor_pass_completed",
        "account_audits_since",
        "account_audits_failed",
    ),
    ("auditor", "container"): (
        "container_audits_passed",
        "container_auditor_pass_completed",
        "container_audits_since",
        "container_audits_failed",
    ),
    ("auditor", "object"): ("object_auditor_stats_ALL", "object_auditor_stats_ZBF"),
    ("expirer", "object"): ("object_expiration_pass", "expired_last_pass"),
    ("reconstruction", "object"): ("object_reconstruction_last", "object_reconstruction_time"),
    ("sharding", ""): ("sharding_stats", "sharding_time", "sharding_last"),
    ("driveaudit", ""): ("drive_audit_errors",),
    ("relinker", ""): ("devices", "workers"),
}
"""What daemons tell, by check and kind; a check without a kind is the object server's."""


class Recon:
    """What a node tells of itself. `notes` is what its daemons did last, by kind of server."""

    def __init__(self, host: "StorageHost") -> None:
        self.host = host
        self.notes: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self._checks: dict[str, Callable[[], Any]] = {
            "devices": self._devices,
            "diskusage": self._usage,
            "load": _load,
            "mem": _memory,
            "mounted": _mounted,
            "quarantined": self._quarantined,
            "ringmd5": self._rings,
            "sockstat": _sockets,
            "swiftconfmd5": self._cluster,
            "time": time.time,
            "unmounted": self._unmounted,
            "version": lambda: {"version": cumulet.__version__},
        }

    async def answer(self, method: str, path: str) -> Response:
        if method not in ("GET", "HEAD"):
            return _text(405, f"{method} is no call of /recon/: GET is.")
        check, _, kind = path.removeprefix(PREFIX).strip("/").partition("/")
        made = self._checks.get(check)
        if made is not None and not kind:
            value = await in_thread(made)
        else:
            if check == "replication" and not kind:
                kind = "object"  # as it was asked of old
            names = NOTES.get((check, kind))
            if names is None:
                return _text(404, f"Invalid path: {path}")
            told = self.notes[kind or "object"] | await in_thread(self._live, check, kind)
            value = {name: told.get(name) for name in names}
        return Response(200, encode_json(value), {"Content-Type": "application/json"})

    def _live(self, check: str, kind: str) -> dict[str, Any]:
        """What daemons count as they go."""
        objects, catalogue = self.host.objects, self.host.catalogue
        if objects is None or catalogue is None:
            return {}
        if check == "async":
            pending = sum(1 for _ in self._root.glob("*/async_pending*/*/*"))
            return {"async_pending": pending, "async_pending_last": time.time()}
        if check == "replication":
            daemon = objects.replicator if kind == "object" else catalogue.replicator
            stats = {"attempted": daemon.passes, "success": daemon.pushed, "failure": daemon.failed}
            minutes = daemon.seconds / 60
            return {
                "replication_time": minutes if kind == "object" else daemon.seconds,
                "replication_stats": stats,
                "object_replication_time": minutes,
            }
        if check == "updater" and kind == "object":
            updater = objects.updater
            return {"object_updater_stats": {"successes": updater.delivered, "failures": updater.failed}}
        if check == "auditor" and kind == "object":
            passes, quarantined = objects.auditor.audited, objects.auditor.quarantined
            return {"object_auditor_stats_ALL": {"passes": passes, "quarantined": quarantined, "errors": 0}}
        if check == "auditor":
            audited, mended = catalogue.auditor.audited, catalogue.auditor.mended
            return {f"{kind}_audits_passed": audited, f"{kind}_audits_failed": mended}
        return {}

    @property
    def _root(self) -> Path:
        return Path(self.host.devices.root)

    def _names(self) -> list[str]:
        """The devices of this node, there or not."""
        root = self._root
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []

    def _usable(self, name: str) -> bool:
        return self.host.devices.usable(name)

    def _devices(self) -> Any:
        return {str(self._root): self._names()}

    def _usage(self) -> Any:
        found: list[dict[str, Any]] = []
        for name in self._names():
            if not self._usable(name):
                found.append({"device": name, "mounted": False, "size": "", "used": "", "avail": ""})
                continue
            room = os.statvfs(self._root / name)
            size, free = room.f_bsize * room.f_blocks, room.f_bsize * room.f_bavail
            found.append({"device": name, "mounted": True, "size": size, "used": size - free, "avail": free})
        return found

    def _unmounted(self) -> Any:
        return [{"device": name, "mounted": False} for name in self._names() if not self._usable(name)]

    def _quarantined(self) -> Any:
        counts: dict[str, Any] = {"accounts": 0, "containers": 0, "objects": 0, "policies": {}}
        for directory in self._root.glob("*/quarantined/*"):
            kind, _, index = directory.name.partition("-")
            if kind in counts and directory.is_dir():
                count = sum(1 for entry in directory.iterdir() if entry.is_dir())
                counts[kind] += count
                if kind == "objects":
                    policy = counts["policies"].setdefault(index or "0", {"objects": 0})
                    policy["objects"] += count
        return counts

    def _rings(self) -> Any:
        return {str(path): _md5(path) for path in sorted(self.host.cluster.directory.glob("*.ring.gz"))}

    def _cluster(self) -> Any:
        path = self.host.cluster.directory / "swift.conf"
        return {str(path): _md5(path) if path.exists() else None}


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), {"Content-Type": "text/plain"})


def _load() -> Any:
    one, five, fifteen, tasks, last = Path("/proc/loadavg").read_text().split()
    return {"1m": float(one), "5m": float(five), "15m": float(fifteen), "tasks": tasks, "processes": int(last)}


def _memory() -> Any:
    lines = (line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def _mounted() -> Any:
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [{"device": words[0], "path": words[1]} for words in lines]


def _sockets() -> Any:
    found: dict[str, int] = {}
    for path, prefix in ((Path("/proc/net/sockstat"), "TCP:"), (Path("/proc/net/sockstat6"), "TCP6:")):
        if not path.exists():
            continue
        for line in path.read_text().splitlines():
            kind, *words = line.split()
            numbers = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            if kind == prefix == "TCP:":
                found |= {
                    "tcp_in_use": numbers["inuse"],
                    "orphan": numbers["orphan"],
                    "time_wait": numbers["tw"],
                    "tcp_mem_allocated_bytes": numbers["mem"] * os.sysconf("SC_PAGE_SIZE"),
                }
            elif kind == prefix:
                found["tcp6_in_use"] = numbers["inuse"]
    return found
