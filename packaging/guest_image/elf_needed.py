"""Print the shared libraries an ELF64 file asks for, one per line (what `objdump -p | grep NEEDED` tells)."""

import struct
import sys
from pathlib import Path

PT_LOAD, PT_DYNAMIC, DT_NEEDED, DT_STRTAB = 1, 2, 1, 5


def needed(data: bytes) -> list[str]:
    """Names in the dynamic section of `data`; none if it is no ELF file or a static one."""
    if data[:4] != b"\x7fELF":
        return []
    table: int = struct.unpack_from("<Q", data, 32)[0]
    count: int = struct.unpack_from("<H", data, 56)[0]
    segments = [struct.unpack_from("<IIQQQQ", data, table + 56 * i) for i in range(count)]
    loads = [s for s in segments if s[0] == PT_LOAD]
    for kind, _flags, offset, _vaddr, _paddr, size in segments:
        if kind == PT_DYNAMIC:
            entries = [struct.unpack_from("<qQ", data, offset + i) for i in range(0, size, 16)]
            address = next(value for tag, value in entries if tag == DT_STRTAB)
            strings = next(s[2] + address - s[3] for s in loads if s[3] <= address < s[3] + s[5])
            starts = [strings + value for tag, value in entries if tag == DT_NEEDED]
            return [data[start : data.index(b"\0", start)].decode() for start in starts]
    return []


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}\n" for name in needed(Path(sys.argv[1]).read_bytes()))
