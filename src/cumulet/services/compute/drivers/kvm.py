"""Whether KVM is worth using on this host: measured, never assumed.

Some nested hosts offer a /dev/kvm that opens, makes machines and then runs them thousands of times too slowly. So a
five-byte guest (a counting loop in real mode) is run by raw ioctls, in a child process with a time limit, and KVM is
taken only if that was fast. The file stands alone, so that the child starts without importing the program.
"""

import asyncio
import ctypes
import fcntl
import mmap
import os
import struct
import sys
import time
from typing import Literal, NamedTuple

LOOPS = 60_000  # the counter has 16 bits
FAST_SECONDS = 0.005
"""A real KVM runs the loops in well under 1 ms; what emulates each instruction was seen to need 50 to 450 ms."""
LIMIT_SECONDS = 1.0

KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_RUN = 0xAE80
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
KVM_SET_REGS = 0x4090AE82
KVM_EXIT_HLT = 5
SREGS_SIZE, CS_BASE, CS_SELECTOR = 312, 0, 12
EXIT_REASON_OFFSET = 8
GUEST_CODE = bytes([0x49, 0x75, 0xFD, 0xF4])  # loop: dec cx; jnz loop; hlt

VirtType = Literal["kvm", "qemu"]


class Probe(NamedTuple):
    """The choice (`qemu` is TCG, in the API's words), why, and the seconds the loops took where they were run."""

    virt_type: VirtType
    reason: str
    seconds: float | None = None


async def choose(override: str = "auto", *, device: str = "/dev/kvm") -> Probe:
    """Decide by measurement, or as `override` (auto | kvm | tcg) says."""
    match override:
        case "kvm":
            return Probe("kvm", "KVM was asked for by the configuration; it was not measured.")
        case "tcg":
            return Probe("qemu", "TCG (emulation) was asked for by the configuration.")
        case "auto":
            return await _measure(device)
    raise ValueError(f"virt_type must be auto, kvm or tcg, not {override!r}")


def _exists(device: str) -> bool:
    return os.path.exists(device)


async def _measure(device: str) -> Probe:
    if not _exists(device):
        return Probe("qemu", f"This host has no {device}, so guests are emulated (TCG).")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", __file__, device, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), LIMIT_SECONDS)
    except TimeoutError:
        return Probe("qemu", f"KVM did not run {LOOPS} loops within {LIMIT_SECONDS:g} s; guests are emulated (TCG).")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return judge(child.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


def judge(returncode: int, out: str, err: str) -> Probe:
    """Turn what the child said into the choice."""
    if returncode != 0:
        said = (err.strip().splitlines() or [f"exit status {returncode}"])[-1]
        return Probe("qemu", f"KVM cannot be used ({said}); guests are emulated (TCG).")
    seconds = float(out)
    told = f"{LOOPS} loops in {seconds * 1000:.2f} ms"
    if seconds > FAST_SECONDS:
        return Probe("qemu", f"KVM is there but slow ({told}); guests are emulated (TCG).", seconds)
    return Probe("kvm", f"KVM is there and fast ({told}).", seconds)


def run_loops(device: str) -> float:
    """Run the guest to its end; returns the seconds of the run alone. Raises OSError where KVM refuses."""
    kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    memory = mmap.mmap(-1, 0x1000)
    memory[: len(GUEST_CODE)] = GUEST_CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", 0, 0, 0x1000, 0x1000, address))
    vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    run = mmap.mmap(vcpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
    sregs = bytearray(SREGS_SIZE)
    fcntl.ioctl(vcpu, KVM_GET_SREGS, sregs)
    struct.pack_into("=Q", sregs, CS_BASE, 0)
    struct.pack_into("=H", sregs, CS_SELECTOR, 0)
    fcntl.ioctl(vcpu, KVM_SET_SREGS, bytes(sregs))
    registers = [0] * 18
    registers[2], registers[16], registers[17] = LOOPS, 0x1000, 2  # rcx, rip, rflags
    fcntl.ioctl(vcpu, KVM_SET_REGS, struct.pack("=18Q", *registers))
    started = time.perf_counter()
    fcntl.ioctl(vcpu, KVM_RUN, 0)
    seconds = time.perf_counter() - started
    (reason,) = struct.unpack_from("=I", run, EXIT_REASON_OFFSET)
    if reason != KVM_EXIT_HLT:
        raise OSError(f"the test guest stopped for reason {reason}, not at its end")
    return seconds


if __name__ == "__main__":
    try:
        sys.stdout.write(str(run_loops(sys.argv[1])))
    except OSError as error:
        sys.exit(str(error))
