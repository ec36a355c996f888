"""What the host is: processors, memory, disk, QEMU's version. Blocking; run in a thread."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from .. import HostInfo, HypervisorError
from ..kvm import Probe
from .command import PROGRAM
from .process import PACKAGE


def find_program() -> str:
    """QEMU's path; HypervisorError names the package where it is missing."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise HypervisorError(f"{PROGRAM} is missing; install the package {PACKAGE}")
    return program


def qemu_version(program: str) -> int:
    """As one number, the way the API shows it: 7.2.22 is 7002022."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=20).stdout
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    if found is None:
        raise HypervisorError(f"{program} does not tell its version")
    major, minor, micro = (int(part) for part in found.groups())
    return major * 1_000_000 + minor * 1_000 + micro


def describe(hostname: str, directory: Path, version: int, probe: Probe) -> HostInfo:
    """The host as it is now."""
    return HostInfo(
        hostname=hostname,
        hypervisor_type="QEMU",
        hypervisor_version=version,
        virt_type=probe.virt_type,
        reason=probe.reason,
        vcpus=os.cpu_count() or 1,
        memory_mb=memory_mb(),
        disk_gb=shutil.disk_usage(directory).total // 1024**3,
        cpu_model=_cpu_model(),
    )


def memory_mb() -> int:
    """The host's physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024**2


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else ""
