"""Inspection of image data: real images of every format, and each known way to smuggle another file in."""

import struct
import subprocess
from pathlib import Path

import pytest

from cumulet.services.image.inspect import Refused, check, inspect

MIB = 1 << 20


def qemu_img(path: Path, kind: str, *options: str, size: str = "5M") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, *options, str(path), *([size] if size else [])], check=True)
    return path


def patched(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("qcow2", "qcow2", ()), ("qcow2", "qcow2", ("-o", "compat=0.10")), ("qcow2", "qcow2", ("-o", "extended_l2=on")),
        ("qcow2", "qcow2", ("-o", "compression_type=zstd")), ("vmdk", "vmdk", ()),
        ("vmdk", "vmdk", ("-o", "subformat=streamOptimized")), ("vpc", "vhd", ("-o", "force_size=on")), ("vhdx", "vhdx", ()),
        ("vdi", "vdi", ()), ("raw", "raw", ()),
    ],
)  # fmt: skip
def test_real_images(tmp_path: Path, kind: str, name: str, options: tuple[str, ...]) -> None:
    path = qemu_img(tmp_path / "disk", kind, *options)
    found = inspect(path)
    assert found.format == name and found.virtual_size == 5 * MIB
    assert check(path, name, bare=True) == 5 * MIB
    for other in {"qcow2", "vmdk", "iso", "ami"} - {name}:
        if not (name == "raw" and other == "ami"):
            with pytest.raises(Refused, match="does not match"):
                check(path, other, bare=True)
    assert check(path, "raw", bare=True) == path.stat().st_size


def test_a_written_stream_optimized_image(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    source.write_bytes(bytes(range(256)) * 8192)
    target = tmp_path / "disk"
    command = ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", str(source), str(target)]
    subprocess.run(command, check=True)
    assert inspect(target).virtual_size == 2 * MIB


def test_iso(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "disk"
    subprocess.run(["genisoimage", "-quiet", "-o", str(path), str(tmp_path / "in")], check=True)
    assert inspect(path).format == "iso"


def test_qcow2_with_a_backing_file(tmp_path: Path) -> None:
    base = qemu_img(tmp_path / "base", "raw")
    path = qemu_img(tmp_path / "disk", "qcow2", "-b", str(base), "-F", "raw")
    for disk_format in ("qcow2", "raw", "iso"):
        with pytest.raises(Refused, match="backing file"):
            check(path, disk_format, bare=True)
    with pytest.raises(Refused, match="backing file"):
        check(path, "qcow2", bare=False)


def test_qcow2_with_an_external_data_file(tmp_path: Path) -> None:
    path = qemu_img(tmp_path / "disk", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on")
    with pytest.raises(Refused, match="external data file"):
        inspect(path)
    bit = struct.unpack(">Q", path.read_bytes()[72:80])[0]
    with pytest.raises(Refused, match="external data file"):
        inspect(patched(path, 72, struct.pack(">Q", bit & ~4)))  # the name alone


def test_qcow2_headers_that_nobody_understands(tmp_path: Path) -> None:
    for offset, data, why in (
        (72, struct.pack(">Q", 1 << 5), "unknown"), (72, struct.pack(">Q", 1 << 63), "unknown"),
        (4, struct.pack(">I", 1), "version"), (4, struct.pack(">I", 4), "version"), (24, b"\xff" * 8, "impossible size"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=why):
            inspect(patched(qemu_img(tmp_path / "disk", "qcow2"), offset, data))
    short = tmp_path / "short"
    for length in (4, 30, 75, 101):
        short.write_bytes((tmp_path / "disk").read_bytes()[:length])
        with pytest.raises(Refused):
            inspect(short)


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_vmdk_whose_data_is_elsewhere(tmp_path: Path, subformat: str) -> None:
    path = qemu_img(tmp_path / "disk.vmdk", "vmdk", "-o", f"subformat={subformat}")
    with pytest.raises(Refused):
        check(path, "vmdk", bare=True)
    with pytest.raises(Refused):
        check(path, "raw", bare=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"monolithicSparse"', b'"monolithicFlat"'), (b'SPARSE "disk"', b'SPARSE "/etc/shadow"'),
        (b'SPARSE "disk"', b'FLAT "secret" 0'), (b'SPARSE "disk"', b'SPARSE "disk"\nRW 10 FLAT "passwd" 0'),
        (b"parentCID=ffffffff", b"parentCID=12345678"), (b'SPARSE "disk"', b'SPARSE "disk"\nparentFileNameHint="x"'),
        (b'SPARSE "disk"', b'SPARSE "disk"\nsomething else'), (b"# Extent", b"\xff Extent"), (b"RW ", b"XX "),
    ],
)  # fmt: skip
def test_vmdk_descriptors(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = qemu_img(tmp_path / "disk", "vmdk")
    assert inspect(path).virtual_size == 5 * MIB
    descriptor = path.read_bytes()[512 : 512 + 20 * 512]
    assert old in descriptor
    changed = descriptor.replace(old, new, 1).rstrip(b"\0")
    with pytest.raises(Refused):
        inspect(patched(path, 512, changed.ljust(20 * 512, b"\0")))


def test_vmdk_headers(tmp_path: Path) -> None:
    for offset, data in ((28, struct.pack("<Q", 5)), (36, struct.pack("<Q", 0)), (36, b"\xff" * 8), (4, b"\xff" * 4)):
        with pytest.raises(Refused):
            inspect(patched(qemu_img(tmp_path / "disk", "vmdk"), offset, data))
    with pytest.raises(Refused, match="footer"):  # the header says that the footer has the last word; there is none
        inspect(patched(qemu_img(tmp_path / "disk", "vmdk"), 56, b"\xff" * 8))


def test_disks_with_a_parent(tmp_path: Path) -> None:
    vhd = patched(qemu_img(tmp_path / "vhd", "vpc"), 60, struct.pack(">I", 4))
    vdi = patched(qemu_img(tmp_path / "vdi", "vdi"), 0x4C, struct.pack("<I", 4))
    for path in (vhd, vdi):
        with pytest.raises(Refused, match="parent"):
            inspect(path)
    vhdx = qemu_img(tmp_path / "vhdx", "vhdx")
    entry = vhdx.read_bytes().index(bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b"))
    region = entry // 0x10000 * 0x10000
    offset = struct.unpack("<I", vhdx.read_bytes()[entry + 16 : entry + 20])[0]
    with pytest.raises(Refused, match="parent"):
        inspect(patched(vhdx, region + offset + 4, struct.pack("<I", 2)))


def test_formats_nobody_takes(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"QED\0" + bytes(1000))
    with pytest.raises(Refused, match="not allowed"):
        check(path, "raw", bare=True)
    path.write_bytes(b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow" 0\n')
    for disk_format in ("raw", "vmdk", "iso"):
        with pytest.raises(Refused, match="other files"):
            check(path, disk_format, bare=True)


ISO = (0x8001, b"CD001")
GPT = (512, b"EFI PART")


@pytest.mark.parametrize(
    ("kind", "marks", "why"),
    [
        ("qcow2", [ISO], "qcow2, iso"), ("qcow2", [GPT], "qcow2, gpt"), ("vmdk", [ISO], "vmdk, iso"),
        ("vdi", [GPT], "vdi, gpt"), ("vhdx", [ISO, GPT], "vhdx, iso, gpt"), ("raw", [ISO, (0, b"QFI\xfb")], "qcow2, iso"),
        ("raw", [ISO, (0, b"LUKS\xba\xbe")], "luks, iso"), ("raw", [ISO, (0, b"# Disk DescriptorFile")], "iso, vmdk"),
    ],
)  # fmt: skip
def test_what_is_of_several_formats(tmp_path: Path, kind: str, marks: list[tuple[int, bytes]], why: str) -> None:
    path = qemu_img(tmp_path / "disk", kind)
    for offset, mark in marks:
        if path.stat().st_size < offset:
            with path.open("r+b") as file:
                file.truncate(offset)
        patched(path, offset, mark)
    for disk_format in ("iso", "raw", "qcow2", "vmdk"):
        with pytest.raises(Refused, match=f"several formats at once: {why}"):
            check(path, disk_format, bare=True)


def test_a_cd_that_boots_as_a_disk_is_a_cd(tmp_path: Path) -> None:
    path = qemu_img(tmp_path / "disk", "raw")
    for offset, mark in (ISO, GPT):
        patched(path, offset, mark)
    assert inspect(path).format == "iso" and check(path, "iso", bare=True) == 5 * MIB
    with pytest.raises(Refused, match="does not match"):
        check(path, "qcow2", bare=True)


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vdi", "vhdx", "raw"])
def test_a_disk_that_would_be_too_large(tmp_path: Path, kind: str) -> None:
    path = qemu_img(tmp_path / "disk", kind)
    for disk_format in (kind, "raw"):
        with pytest.raises(Refused, match=r"a disk of [0-9]+ bytes; at most [0-9]+ are taken"):
            check(path, disk_format, bare=True, most=5 * MIB - 1)
    assert check(path, kind, bare=True, most=5 * MIB) == 5 * MIB


def test_an_empty_file_is_raw(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    assert check(path, "raw", bare=True) == 0
