"""Copies of a server's root disk, running or not: whole qcow2 files without a parent.

Of a running machine QEMU itself makes the copy, as the disk was when it began. Steps that a crash may part are undone
first: a job or a node that an earlier attempt has left.
"""

import asyncio
import contextlib
from pathlib import Path

from .. import HypervisorError
from . import disk
from .machine import Machine

NAME = "snapshot"
"""The job and the node in QEMU; operations on one server do not overlap, so one name is enough."""
LOOK_SECONDS = 1.0
"""How often the job is looked at, should its event be missed."""


def path(folder: Path) -> Path:
    return folder / "snapshot.qcow2"


async def take(folder: Path, machine: Machine | None) -> Path:
    """Make the copy; `machine` is the server's if it runs. A copy from before is replaced."""
    source, target = folder / "disk.qcow2", path(folder)
    if not source.exists():
        raise HypervisorError(f"server {folder.name} has no disk on this host")
    if machine is not None:
        await _clear(machine)
    target.unlink(missing_ok=True)
    try:
        if machine is None:
            await _qemu_img("convert", "-f", "qcow2", "-O", "qcow2", str(source), str(target))
        else:
            size = disk.virtual_size(source, "qcow2")
            await _qemu_img("create", "-q", "-f", "qcow2", str(target), str(size))
            await _copy(machine, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


async def _copy(machine: Machine, target: Path) -> None:
    """Have QEMU write its root disk to an empty file."""
    storage = {"driver": "file", "filename": str(target)}
    await machine.execute("blockdev-add", {"node-name": NAME, "driver": "qcow2", "file": storage})
    job = {"job-id": NAME, "device": "root", "target": NAME, "sync": "full", "auto-dismiss": False}
    try:
        await machine.execute("blockdev-backup", job)
        error = await _concluded(machine)
    finally:
        with contextlib.suppress(HypervisorError):  # QEMU ended: the first error is the one to tell
            await _clear(machine)
    if error:
        raise HypervisorError(f"the disk could not be copied: {error}")


async def _concluded(machine: Machine) -> str:
    """Wait for the end of the job; returns its error, or nothing."""
    while True:
        with machine.hear("JOB_STATUS_CHANGE") as changed:
            job = await _job(machine)
            if job is None:
                return "QEMU knows nothing of it any more"
            if job["status"] == "concluded":
                return job.get("error", "")
            await changed(LOOK_SECONDS)


async def _job(machine: Machine) -> dict[str, str] | None:
    jobs = await machine.execute("query-jobs")
    return next((job for job in jobs if job["id"] == NAME), None)


async def _clear(machine: Machine) -> None:
    """Leave nothing of a copy in QEMU, whether it has ended or not."""
    job = await _job(machine)
    if job is not None:
        if job["status"] != "concluded":
            await machine.execute("block-job-cancel", {"device": NAME, "force": True})
            await _concluded(machine)
        await machine.execute("job-dismiss", {"id": NAME})
    nodes = await machine.execute("query-named-block-nodes", {"flat": True})
    if NAME in {node.get("node-name") for node in nodes}:
        await machine.execute("blockdev-del", {"node-name": NAME})


async def _qemu_img(*arguments: str) -> None:
    """Run `qemu-img`, for as long as it takes; it ends with a caller that is cancelled."""
    try:
        child = await asyncio.create_subprocess_exec(
            "qemu-img", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise HypervisorError("qemu-img is missing; install the package qemu-utils") from error
    try:
        _, said = await child.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        raise
    if child.returncode:
        lines = said.decode(errors="replace").strip().splitlines() or [f"exit status {child.returncode}"]
        raise HypervisorError(f"qemu-img failed: {lines[-1]}")
