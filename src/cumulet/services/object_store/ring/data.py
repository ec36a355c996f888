"""The files of rings, as swift reads and writes them: `account.ring.gz`, `container.ring.gz`, `object.ring.gz` and, for
further storage policies, `object-1.ring.gz`.

A ring says which device holds each copy of each partition. Two formats are read: version 1 (a JSON head and then, for each
copy, one 16-bit device number for each partition) and version 2 (sections with checksums, wider numbers); version 1 is
written, as swift 2.38 does by default, unless there are more devices than it can number.
Reference: https://docs.openstack.org/swift/latest/overview_ring.html
"""

import gzip
import io
import json
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cumulet.files import write_atomic

MAGIC = b"R1NG"
MADE = 1300507380.0
"""The time in the files' gzip header: always the same, so that equal rings are equal files."""
TYPES = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""The arrays' type codes, by the bytes of a device number."""
MOST_DEVICES = 1 << 16
"""Devices that the numbers of version 1 can tell apart."""


class RingError(Exception):
    """A ring cannot be used; the text says which, why, and what would do."""


@dataclass(slots=True)
class RingData:
    """What a file of a ring holds. `devices` are swift's dictionaries by id, None where one was removed; `table` holds, for
    each copy, the device's id for each partition (the last one may be shorter: a fraction of a copy)."""

    table: list["array[int]"]
    devices: list[dict[str, Any] | None]
    power: int
    version: int | None = None
    next_power: int | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def replicas(self) -> float:
        if not self.table:
            return 0.0
        return len(self.table) - 1 + len(self.table[-1]) / len(self.table[0])


def load(path: Path) -> RingData:
    """Read a ring; RingError if that is not one."""
    try:
        content = gzip.decompress(path.read_bytes())
        magic, version = content[:4], int.from_bytes(content[4:6], "big")
        if magic != MAGIC or version not in (1, 2):
            raise RingError(f"{path} is no ring of version 1 or 2")
        return _parse_1(content) if version == 1 else _parse_2(content)
    except OSError as error:
        raise RingError(f"cannot read the ring {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error, ValueError, KeyError, TypeError, struct.error, IndexError) as error:
        raise RingError(f"{path} is no whole ring: {error}") from error


def save(ring: RingData, path: Path) -> None:
    """Write a ring, in one step."""
    wide = len(ring.devices) > MOST_DEVICES
    write_atomic(path, _written_2(ring) if wide else _written_1(ring), mode=0o644)


def parse_device(told: Mapping[str, Any]) -> dict[str, Any]:
    """A device as swift has it, with what old files leave out."""
    device = {"region": 1, "zone": 0, "weight": 0.0, "meta": "", **told}
    device.setdefault("replication_ip", device.get("ip"))
    device.setdefault("replication_port", device.get("port"))
    return device


def _devices(told: Iterable[Mapping[str, Any] | None]) -> list[dict[str, Any] | None]:
    return [None if device is None else parse_device(device) for device in told]


def _parse_1(content: bytes) -> RingData:
    (length,) = struct.unpack_from("!I", content, 6)
    head = json.loads(content[10 : 10 + length])
    power = 32 - head["part_shift"]
    row = 2 << power
    swap = head.get("byteorder", sys.byteorder) != sys.byteorder
    table = []
    for copy in range(head["replica_count"]):
        start = 10 + length + copy * row
        table.append(_row("H", content[start : start + row], swap))
    return _made(table, head["devs"], power, head)


def _parse_2(content: bytes) -> RingData:
    """Sections are found through the index at the end: 16 bytes before it ends is told where that begins."""
    (start,) = struct.unpack_from("!Q", content, len(content) - 16)
    index = json.loads(_blob(content, start))
    head = json.loads(_section(content, index, "swift/ring/metadata"))
    devices = json.loads(_section(content, index, "swift/ring/devices"))
    assigned = _section(content, index, "swift/ring/assignments")
    power, width = 32 - head["part_shift"], head["dev_id_bytes"]
    row = width << power
    swap = sys.byteorder != "big"
    table = [_row(TYPES[width], assigned[at : at + row], swap) for at in range(0, len(assigned), row)]
    return _made(table, devices, power, head)


def _made(table: list["array[int]"], devices: Sequence[Any], power: int, head: Mapping[str, Any]) -> RingData:
    if not table or len(table[0]) != 1 << power:
        raise ValueError("it ends before its table of partitions does")
    if max(map(max, table)) >= len(devices):
        raise ValueError("it names devices that it does not describe")
    return RingData(table, _devices(devices), power, head.get("version"), head.get("next_part_power"))


def _row(code: str, data: bytes, swap: bool) -> "array[int]":
    made = array(code)
    made.frombytes(data)
    if swap:
        made.byteswap()
    return made


def _blob(content: bytes, start: int) -> bytes:
    (length,) = struct.unpack_from("!Q", content, start)
    return content[start + 8 : start + 8 + length]


def _section(content: bytes, index: Mapping[str, Sequence[Any]], name: str) -> bytes:
    _, start, _, end, method, digest = index[name]
    if method == "sha256" and sha256(content[start:end]).hexdigest() != digest:
        raise ValueError(f"its section {name} is damaged")
    return _blob(content, start)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode("ascii")


def _head(ring: RingData) -> dict[str, Any]:
    head: dict[str, Any] = {"part_shift": 32 - ring.power}
    if ring.version is not None:
        head["version"] = ring.version
    if ring.next_power is not None:
        head["next_part_power"] = ring.next_power
    return head


def _written_1(ring: RingData) -> bytes:
    head = _json(
        {**_head(ring), "devs": ring.devices, "replica_count": len(ring.table), "byteorder": sys.byteorder},
    )
    parts = [MAGIC, struct.pack("!HI", 1, len(head)), head, *(row.tobytes() for row in ring.table)]
    return gzip.compress(b"".join(parts), mtime=MADE)


class _Sections:
    """A gzip stream of version 2, whose sections can be read without what stands before them: each begins after a full flush,
    and what leads to the index is not compressed, so that it always lies at the same distance from the end."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._gzip = gzip.GzipFile("", mode="wb", fileobj=self._file, mtime=MADE)
        self.index: dict[str, tuple[int, int, int, int, str, str]] = {}
        self._level(0)
        self._gzip.write(MAGIC + struct.pack("!H", 2))
        self._level(9)

    def _level(self, level: int) -> None:
        self._gzip.flush(zlib.Z_FULL_FLUSH)
        self._gzip.compress = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, 0)

    def _place(self) -> tuple[int, int]:
        return self._file.tell(), self._gzip.tell()

    def _write(self, data: bytes) -> None:
        self._gzip.write(data)
        self._gzip.flush(zlib.Z_FULL_FLUSH)

    def add(self, name: str, data: bytes) -> None:
        data = struct.pack("!Q", len(data)) + data
        packed, plain = self._place()
        self._write(data)
        packed_end, plain_end = self._place()
        self.index[name] = (packed, plain, packed_end, plain_end, "sha256", sha256(data).hexdigest())

    def end(self) -> bytes:
        packed, plain = self._place()
        index = _json(self.index)
        self._write(struct.pack("!Q", len(index)) + index)
        self._level(0)
        for place in (plain, packed):
            self._write(struct.pack("!Q", place))
        self._gzip.close()
        return self._file.getvalue()


def _written_2(ring: RingData) -> bytes:
    width = ring.table[0].itemsize
    assigned = bytearray()
    for row in ring.table:
        copy = array(row.typecode, row)
        if sys.byteorder != "big":
            copy.byteswap()
        assigned += copy.tobytes()
    sections = _Sections()
    head = {"version": None, **_head(ring), "dev_id_bytes": width, "replica_count": ring.replicas}
    sections.add("swift/ring/metadata", _json(head))
    sections.add("swift/ring/devices", _json(ring.devices))
    sections.add("swift/ring/assignments", bytes(assigned))
    return sections.end()
