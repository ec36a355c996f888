"""What a disk image file really is, and whether it can be trusted: read from its bytes alone, never opened by QEMU first.

A guest image is data from a stranger. qcow2 and VMDK can name other files (a backing file, an external data file, extents),
which the host would then read on the stranger's behalf; such images are refused, as is anything that is not understood.
References: QEMU `docs/interop/qcow2.txt`; VMware "Virtual Disk Format 5.0"; Microsoft "VHD" and "VHDX" specifications;
ECMA-119 (ISO 9660).
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

LARGEST = 2**63 - 1
SECTOR = 512


class Refused(Exception):
    """The data is no image that may be used; the text says why."""


class Inspection(Struct, frozen=True):
    """The format of the data (`raw` where nothing else was recognised) and the bytes of the disk in it."""

    format: str
    virtual_size: int


class Data:
    """A file's bytes, read where they are asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer where the file ends, none outside of it."""
        if not 0 <= offset < self.size:
            return b""
        self._file.seek(offset)
        return self._file.read(length)

    def unpack(self, form: str, offset: int) -> tuple[int, ...]:
        """Numbers at `offset`; Refused where the file ends before."""
        found = self.at(offset, struct.calcsize(form))
        if len(found) < struct.calcsize(form):
            raise Refused("The image ends inside its header")
        return struct.unpack(form, found)


def inspect(path: Path, most: int = LARGEST) -> Inspection:
    """Recognise the format of a file and check that it is safe, and that the disk in it has at most `most` bytes; Refused if
    not. Reads a few pages."""
    with path.open("rb") as file:
        data = Data(file)
        name = detect(data)
        size = CHECKS[name](data)
        if not 0 <= size <= LARGEST:
            raise Refused(f"The image claims an impossible size of {size} bytes")
        if size > most:
            raise Refused(f"The image would make a disk of {size} bytes; at most {most} are taken here")
        return Inspection(name, size)


def check(path: Path, disk_format: str | None, *, bare: bool, most: int = LARGEST, match: bool = True) -> int:
    """The virtual size of an image said to be `disk_format`. Refused where the data is unsafe, or (`match`) not of that
    format; inside a container (not `bare`) the format cannot be told."""
    found = inspect(path, most)
    if not bare or disk_format == "raw" or (found.format == "raw" and disk_format not in CHECKS):
        return found.virtual_size if found.format == "raw" else path.stat().st_size
    if found.format != disk_format and match:
        raise Refused(f"Image disk_format {disk_format} does not match stream data {found.format}")
    return found.virtual_size


def detect(data: Data) -> str:
    """The format that the data is of. Refused where it is of two at once: what one program takes for one thing, another would
    take for another. (A CD that is a disk with a partition table as well, as installers are, is a CD.)"""
    found = [name for name, at, magic in MAGIC if data.at(at, len(magic)) == magic]
    if data.at(0, 256).lstrip().lower().startswith(b"# disk descriptorfile"):
        found.append("vmdk")
    if found == ["iso"] or not found:
        return found[0] if found else "raw"
    if data.at(SECTOR, 8) == PARTITIONS:
        found.append("gpt")
    if len(found) > 1:
        raise Refused(f"The image is of several formats at once: {', '.join(found)}")
    return found[0]


def _check_qcow2(data: Data) -> int:
    version, backing = data.unpack(">IQ", 4)
    (size,) = data.unpack(">Q", 24)
    if version not in (2, 3):
        raise Refused("Unsupported qcow2 version")
    if backing:
        raise Refused("Image has a backing file")
    header_length = 72
    if version == 3:
        (incompatible,) = data.unpack(">Q", 72)
        (header_length,) = data.unpack(">I", 100)
        if incompatible & 1 << 2:
            raise Refused("Image has an external data file")
        if incompatible >> 5:
            raise Refused("Image has unknown qcow2 features")
    _check_qcow2_extensions(data, header_length)
    return size


def _check_qcow2_extensions(data: Data, offset: int) -> None:
    """No header extension names a data file or a backing format, whatever the feature bits say."""
    for _ in range(64):
        if len(data.at(offset, 8)) < 8:
            return
        kind, length = data.unpack(">II", offset)
        if kind == 0:
            return
        if kind == 0x44415441:
            raise Refused("Image has an external data file")
        if kind == 0xE2792ACA:
            raise Refused("Image has a backing file")
        offset += 8 + (length + 7) // 8 * 8
    raise Refused("Image has too many qcow2 header extensions")


GRAIN_DIRECTORY_AT_END = 0xFFFFFFFFFFFFFFFF


def _check_vmdk(data: Data) -> int:
    if data.at(0, 4) != b"KDMV":
        raise Refused("A VMDK descriptor alone points to other files")
    version, capacity, place, length, directory = _vmdk_header(data, 0)
    if version not in (1, 2, 3):
        raise Refused("Unsupported VMDK version")
    if place != 1 or not 0 < length <= 2048:
        raise Refused("The VMDK descriptor is not where it belongs")
    _check_vmdk_descriptor(data.at(place * SECTOR, length * SECTOR))
    if directory == GRAIN_DIRECTORY_AT_END:
        _check_vmdk_footer(data, (version, capacity, place, length))
    return capacity * SECTOR


def _vmdk_header(data: Data, offset: int) -> tuple[int, int, int, int, int]:
    """(version, sectors, sector of the descriptor, its length, sector of the grain directory) of a sparse extent's header."""
    _magic, version, _flags, capacity, _grain, place, length, _entries, _rgd, directory = data.unpack(
        "<4sIIQQQQIQQ", offset
    )
    return version, capacity, place, length, directory


def _check_vmdk_footer(data: Data, header: tuple[int, int, int, int]) -> None:
    """A stream-optimised disk ends in a marker, a second header, which wins over the first, and an end-of-stream marker."""
    start = data.size - 3 * SECTOR
    if data.at(start + SECTOR, 4) != b"KDMV":
        raise Refused("The VMDK footer is missing")
    *rest, directory = _vmdk_header(data, start + SECTOR)
    if tuple(rest) != header or directory == GRAIN_DIRECTORY_AT_END:
        raise Refused("The VMDK footer contradicts the header")


def _check_vmdk_descriptor(raw: bytes) -> None:
    """Every line must be understood; one extent, which is this file; no parent."""
    try:
        text = raw.split(b"\0")[0].decode("ascii").lower()
    except UnicodeDecodeError:
        raise Refused("The VMDK descriptor is no plain text") from None
    extents, fields = [], {}
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith(("#", "ddb.")):
            continue
        if line.split()[0] in ("rw", "rdonly", "noaccess"):
            extents.append(line)
        elif "=" in line and " " not in line.partition("=")[0].strip():
            name, _, value = line.partition("=")
            fields[name.strip()] = value.strip().strip('"')
        else:
            raise Refused("The VMDK descriptor holds what is not understood")
    if fields.get("createtype") not in ("monolithicsparse", "streamoptimized"):
        raise Refused("Unsupported VMDK subformat: only monolithicSparse and streamOptimized are taken")
    if fields.get("parentcid", "ffffffff") != "ffffffff" or "parentfilenamehint" in fields:
        raise Refused("Image has a parent")
    if len(extents) != 1 or extents[0].split()[2:3] != ["sparse"] or "/" in extents[0] or "\\" in extents[0]:
        raise Refused("The VMDK has extents outside of its own file")


def _check_vhd(data: Data) -> int:
    (size,) = data.unpack(">Q", 48)
    (kind,) = data.unpack(">I", 60)
    if kind not in (2, 3):
        raise Refused("Unsupported VHD type: differencing disks have a parent")
    return size


METADATA_REGION = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
DISK_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")
FILE_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")


def _check_vhdx(data: Data) -> int:
    region = _vhdx_entry(data, 0x30000, b"regi", 16, 8, METADATA_REGION)
    size_at = _vhdx_entry(data, region, b"meta", 32, 10, DISK_SIZE)
    (size,) = data.unpack("<Q", region + size_at)
    flags_at = _vhdx_entry(data, region, b"meta", 32, 10, FILE_PARAMETERS)
    _block, flags = data.unpack("<II", region + flags_at)
    if flags & 2:
        raise Refused("Image has a parent")
    return size


def _vhdx_entry(data: Data, table: int, magic: bytes, header: int, count_at: int, wanted: bytes) -> int:
    """The offset that a region or metadata table gives for one entry of 32 bytes."""
    if data.at(table, 4) != magic:
        raise Refused("A VHDX table is missing")
    (count,) = data.unpack("<I" if count_at == 8 else "<H", table + count_at)
    for number in range(min(count, 2047)):
        entry = table + header + 32 * number
        if data.at(entry, 16) == wanted:
            return data.unpack("<Q" if count_at == 8 else "<I", entry + 16)[0]
    raise Refused("A VHDX table entry is missing")


def _check_vdi(data: Data) -> int:
    (kind,) = data.unpack("<I", 0x4C)
    if kind not in (1, 2):
        raise Refused("Unsupported VDI type: differencing disks have a parent")
    return data.unpack("<Q", 0x170)[0]


def _refuse_qed(data: Data) -> int:
    raise Refused("This file format is not allowed")


def _whole(data: Data) -> int:
    return data.size


MAGIC = (
    ("qcow2", 0, b"QFI\xfb"),
    ("qed", 0, b"QED\0"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vhd", 0, b"conectix"),
    ("vhdx", 0, b"vhdxfile"),
    ("luks", 0, b"LUKS\xba\xbe"),
    ("vdi", 0x40, b"\x7f\x10\xda\xbe"),
    ("iso", 0x8001, b"CD001"),
)
"""By format: what stands where."""
PARTITIONS = b"EFI PART"
"""What the second sector of a disk with a partition table (GPT) begins with."""
CHECKS: dict[str, Callable[[Data], int]] = {
    "qcow2": _check_qcow2,
    "qed": _refuse_qed,
    "vmdk": _check_vmdk,
    "vhd": _check_vhd,
    "vhdx": _check_vhdx,
    "vdi": _check_vdi,
    "iso": _whole,
    "luks": _whole,
    "raw": _whole,
}
"""By format: refuse what is unsafe; the bytes of the disk."""
