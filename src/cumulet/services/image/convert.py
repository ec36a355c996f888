"""What can be done to data between its arrival and the stores: unpacking it, and converting a disk to another format."""

import asyncio
import contextlib
import gzip
import os
import re
import shutil
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import IO

from cumulet.core.errors import NotImplementedHere
from cumulet.core.tasks import in_thread
from cumulet.services.image.inspect import Refused, inspect
from cumulet.services.image.intake import PIECE

Report = Callable[[str], Awaitable[None]]

QEMU_NAMES = {"vhd": "vpc", **{name: name for name in ("raw", "qcow2", "vmdk", "vhdx", "vdi")}}
"""What QEMU calls the disk formats that it reads."""
PROGRESS = re.compile(rb"\((\d+)(?:\.\d+)?/100%\)")
BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, gzip.BadGzipFile)


async def unpacked(path: Path) -> AsyncIterator[bytes]:
    """What is in a gzip file, or in a zip archive of one file, in pieces. Refused where it is neither, or broken."""
    try:
        opened = await in_thread(_open, path)
    except BROKEN as error:
        raise Refused(f"The compressed image cannot be unpacked: {error}") from None
    with opened as file:
        while piece := await in_thread(_read, file):
            yield piece


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path)  # type: ignore[return-value]
    if magic == b"PK\x03\x04":
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
        if len(members) != 1 or members[0].is_dir() or members[0].flag_bits & 1:
            raise Refused("A zip archive has to hold one file, not encrypted")
        return archive.open(members[0])
    raise Refused("The image is said to be compressed, but is neither a gzip nor a zip file")


def _read(file: IO[bytes]) -> bytes:
    try:
        return file.read(PIECE)
    except Exception as error:  # noqa: BLE001 - the libraries raise many kinds for data that makes no sense
        raise Refused(f"The compressed image cannot be unpacked: {error}") from None


async def convert(source: Path, disk_format: str, target: Path, wanted: str, report: Report) -> None:
    """Write a disk, which was inspected, to a new file in another format; qemu-img is told what it reads and guesses nothing.

    It is given the file open, not its name: one that outlives the program cannot make the file again, which the next start
    has removed.
    """
    program = shutil.which("qemu-img")
    if program is None:
        raise NotImplementedHere("Disks are converted by qemu-img, which is not installed here.")
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        formats = ("-f", QEMU_NAMES[disk_format], "-O", wanted)
        process = await asyncio.create_subprocess_exec(
            program, "convert", "-p", *formats, str(source), f"/dev/fd/{handle}", pass_fds=(handle,),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    finally:
        os.close(handle)
    assert process.stdout is not None and process.stderr is not None, "they are pipes"
    complaints = asyncio.ensure_future(process.stderr.read())
    try:
        while text := await process.stdout.read(4096):
            if found := PROGRESS.findall(text):
                await report(f"Converted {int(found[-1])} %")
        status = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    finally:
        said = await complaints
    if status != 0:
        words = said.decode(errors="replace").strip().replace(str(source.parent), "")
        if "No space left" in words:
            raise OSError(28, "No space left on device")
        raise Refused(f"The image cannot be converted: {words}")
    found_format = (await asyncio.to_thread(inspect, target)).format
    if found_format != wanted:
        raise Refused(f"The image became {found_format} when it was converted to {wanted}: it holds another one")


def properties(text: str) -> dict[str, str]:
    """Custom properties as the setting `image_inject` names them. ValueError where it makes no sense."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, value = part.partition(":")
        if not (name and colon):
            raise ValueError(f"{part!r} is not name:value")
        found[name.strip()] = value.strip()
    return found
