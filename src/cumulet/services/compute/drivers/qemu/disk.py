"""Disks of a host: cached base images and the copy-on-write disks of servers. Blocking; run in threads.

A base is a link to (or, across file systems, a copy of) the image store's file, which never changes; a server's disk is a
qcow2 file over it. Each file appears under its name only when it is whole, so that a crash leaves nothing half made.
"""

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Set
from pathlib import Path

from .. import HypervisorError, RootDisk

GIB = 1024**3


def ensure_base(directory: Path, root: RootDisk) -> Path:
    """The base image of `root` in `directory`, made if it is missing."""
    base = directory / f"{root.image_id}.{root.format}"
    if base.exists():
        return base
    new = directory / f".{base.name}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        try:
            os.link(os.path.realpath(root.image), new)
        except OSError:  # another file system, or one without links
            shutil.copyfile(root.image, new)
        new.rename(base)
    except OSError as error:
        raise HypervisorError(f"the image {root.image_id} cannot be read: {error}") from error
    finally:
        new.unlink(missing_ok=True)
    return base


def remove_unused_bases(directory: Path, used: Set[str]) -> None:
    """Remove every base but those whose image id is in `used`, and what a crash left half made."""
    for file in directory.iterdir():
        if file.stem not in used:
            file.unlink(missing_ok=True)


def remove_base(directory: Path, root: RootDisk) -> None:
    """Remove the base of `root`, which no disk is a child of. Not there: no effect."""
    (directory / f"{root.image_id}.{root.format}").unlink(missing_ok=True)


def virtual_size(image: Path, image_format: str) -> int:
    """The size in bytes of the disk a guest sees in `image`."""
    if image_format == "raw":
        return image.stat().st_size
    with image.open("rb") as file:
        header = file.read(32)
    if len(header) < 32 or header[:4] != b"QFI\xfb":
        raise HypervisorError(f"the image file {image.name} is not a qcow2 image")
    size: int = struct.unpack_from(">Q", header, 24)[0]
    return size


def ensure_disk(disk: Path, bases: Path, root: RootDisk) -> None:
    """The server's own disk over its base. One that exists is left as it is: it holds the server's data."""
    if disk.exists():
        return
    base = ensure_base(bases, root)
    image_size, wanted = virtual_size(base, root.format), root.size_gb * GIB
    if wanted and wanted < image_size:
        raise HypervisorError(
            f"the image needs a disk of {-(-image_size // GIB)} GB, the flavor gives {root.size_gb} GB"
        )
    new = disk.with_suffix(".new")
    new.unlink(missing_ok=True)
    size = str(max(wanted, image_size))
    run(
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        root.format,
        "-b",
        str(base),
        str(new),
        size,
        package="qemu-utils",
    )
    new.rename(disk)


def grow(disk: Path, size_gb: int) -> None:
    """Make the disk this large, and keep it as it was in a copy. A copy that is there stays: it is the older one."""
    wanted = size_gb * GIB
    if not disk.exists() or virtual_size(disk, "qcow2") >= wanted:
        return
    copy = kept(disk)
    if not copy.exists():
        new = copy.with_suffix(".new")
        try:
            shutil.copyfile(disk, new)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise HypervisorError(f"the disk cannot be copied: {error}") from error
        new.rename(copy)
    run("qemu-img", "resize", "-q", "-f", "qcow2", str(disk), str(wanted), package="qemu-utils")


def kept(disk: Path) -> Path:
    """The copy of a disk from before it grew."""
    return disk.with_name("disk-kept.qcow2")


def restore(disk: Path) -> None:
    """Put the copy back, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        kept(disk).rename(disk)


def run(program: str, *arguments: str, package: str) -> None:
    """Run a short tool; its last line of error becomes the HypervisorError, its absence names the package to install."""
    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
        )
    except FileNotFoundError as error:
        raise HypervisorError(f"{program} is missing; install the package {package}") from error
    except subprocess.TimeoutExpired as error:
        raise HypervisorError(f"{program} did not end within 60 s") from error
    if done.returncode != 0:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise HypervisorError(f"{program} failed: {said}")
