"""KVM or emulation, with a memory: the measurement (`../kvm.py`) takes up to a second where KVM is slow, and says the same
until the host is booted or its KVM is loaded anew."""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from cumulet.files import write_atomic

from ..kvm import FAST_SECONDS, Probe, VirtType
from ..kvm import choose as measure

DEVICE = "/dev/kvm"
CLEARLY_SLOW_SECONDS = 10 * FAST_SECONDS
"""From here on it is no matter of how busy the machine was."""


class Kept(Struct):
    """A result, and what must not have changed since."""

    key: str
    virt_type: VirtType
    reason: str
    seconds: float


async def choose(override: str, memory: Path, *, device: str = DEVICE) -> Probe:
    """Decide as `kvm.choose` does. `memory` is the file in which a clear measurement is kept."""
    key = _key(device)
    if override != "auto" or key is None:
        return await measure(override, device=device)
    kept = _read(memory)
    if kept is not None and kept.key == key:
        return Probe(kept.virt_type, kept.reason, kept.seconds)
    probe = await measure(override, device=device)
    if probe.seconds is not None and not FAST_SECONDS < probe.seconds < CLEARLY_SLOW_SECONDS:
        memory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(memory, msgspec.json.encode(Kept(key, probe.virt_type, probe.reason, probe.seconds)))
    return probe


def _read(memory: Path) -> Kept | None:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=Kept)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _key(device: str) -> str | None:
    """What changes when the host is booted, or KVM loaded with other parameters; None where there is no device."""
    try:
        node = os.stat(device)
    except FileNotFoundError:
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {node.st_ino} {node.st_ctime_ns}"
