"""A control group for each server, where the host lets us: version 2, or the version 1 hierarchies cpu and memory.

Best effort: servers run without. What groups give is the fair share of processor time (by vCPUs) and the accounting
of what a server uses. Blocking, but only writes to the kernel's own file systems.
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

SHARES_PER_VCPU = 1024
WEIGHT_PER_VCPU = 100
WEIGHT_MAX = 10_000


class Groups(NamedTuple):
    """Where this host's groups are made: one parent folder per hierarchy. `reason` says why there are none."""

    parents: tuple[Path, ...]
    version: int
    reason: str = ""

    def join(self, server_id: str, pid: int, vcpus: int) -> None:
        """Put a process and all its threads into the server's group."""
        for parent in self.parents:
            group = parent / server_id
            with contextlib.suppress(OSError):
                group.mkdir(parents=True, exist_ok=True)
                self._set_share(group, vcpus)
                (group / "cgroup.procs").write_text(str(pid))

    def _set_share(self, group: Path, vcpus: int) -> None:
        if self.version == 2:
            file, value = group / "cpu.weight", min(WEIGHT_MAX, WEIGHT_PER_VCPU * vcpus)
        else:
            file, value = group / "cpu.shares", SHARES_PER_VCPU * vcpus
        if file.exists():
            file.write_text(str(value))

    def remove(self, server_id: str) -> None:
        """Remove the server's group, and the parent with the last one. Its processes must have ended."""
        for parent in self.parents:
            for folder in (parent / server_id, parent):
                with contextlib.suppress(OSError):  # not there, or still in use by others
                    folder.rmdir()


def find(root: Path = Path("/sys/fs/cgroup"), name: str = "cumulet") -> Groups:
    """What this host offers."""
    controllers = root / "cgroup.controllers"
    if controllers.exists():
        if not os.access(root, os.W_OK):
            return Groups((), 2, f"{root} cannot be written to")
        offered = {"cpu", "memory"} & set(controllers.read_text().split())
        with contextlib.suppress(OSError):
            for folder in (root, root / name):
                folder.mkdir(exist_ok=True)
                (folder / "cgroup.subtree_control").write_text(
                    " ".join(f"+{controller}" for controller in sorted(offered))
                )
            return Groups((root / name,), 2)
        return Groups((), 2, f"{root} does not let groups be made")
    found = tuple(root / kind / name for kind in ("cpu", "memory") if os.access(root / kind / "cgroup.procs", os.W_OK))
    return Groups(found, 1, "" if found else f"no writable cpu or memory hierarchy under {root}")
