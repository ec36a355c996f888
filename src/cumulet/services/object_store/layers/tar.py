"""A tar archive read as it arrives, perhaps compressed (gzip, bzip2): its files one after the other, with bounded memory.

Reference: POSIX.1-2001 (pax), GNU tar's long names.
"""

import bz2
import tarfile
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from cumulet.core.tasks import in_thread

BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 18
"""Bytes that are unpacked at once, at most: what is packed may grow a thousandfold."""
MAX_RECORD = 1 << 20
"""Bytes of a long name or of a file's attributes."""
INLINE = 1 << 12
"""Packed bytes that are unpacked where they are; more go to a thread."""


class TarError(ValueError):
    """It is no such archive, or ends too early."""


class Decompressor(Protocol):
    """As bz2.BZ2Decompressor."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Gunzip:
    """zlib's, in the shape of bz2's."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not (self._inner.unconsumed_tail or self._full)

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))
        self._full = len(out) == max_length
        return out


KINDS: dict[str, type[Gunzip] | type[bz2.BZ2Decompressor] | None] = {
    "tar": None,
    "tar.gz": Gunzip,
    "tar.bz2": bz2.BZ2Decompressor,
}


async def unpacked(body: AsyncIterator[bytes], kind: str) -> AsyncIterator[bytes]:
    """The archive itself, out of what was sent; several streams in a row count as one."""
    make = KINDS[kind]
    if make is None:
        async for piece in body:
            yield piece
        return
    machine: Decompressor = make()
    begun = False
    async for piece in body:
        rest = piece
        while rest or not machine.needs_input:
            begun = True
            try:
                if len(rest) > INLINE:
                    out = await in_thread(machine.decompress, rest, PIECE)
                else:
                    out = machine.decompress(rest, PIECE)
            except (zlib.error, OSError) as error:
                raise TarError(f"not {kind}: {error}") from None
            rest = b""
            if out:
                yield out
            if machine.eof:
                rest, machine, begun = machine.unused_data, make(), False
                if not rest.strip(b"\0"):
                    rest = b""
                    break
    if begun:
        raise TarError("unexpected end of data")


class Reader:
    """Reads a stream by numbers of bytes."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""

    async def some(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        if not self._buffer:
            self._buffer = await anext(self._pieces, b"")
            while not self._buffer:
                piece = await anext(self._pieces, None)
                if piece is None:
                    return b""
                self._buffer = piece
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    async def exactly(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        found = []
        while size and (piece := await self.some(size)):
            found.append(piece)
            size -= len(piece)
        return b"".join(found)


@dataclass(slots=True)
class Member:
    """A file in an archive. `data` must be read, or skipped, before the next one."""

    name: str
    size: int
    is_file: bool
    is_sparse: bool
    reader: Reader
    attributes: dict[str, str] = field(default_factory=dict)
    left: int = 0

    async def data(self) -> AsyncIterator[bytes]:
        """Its bytes; TarError where the archive ends before they do."""
        while self.left:
            piece = await self.reader.some(min(self.left, PIECE))
            if not piece:
                raise TarError("unexpected end of data")
            self.left -= len(piece)
            yield piece

    async def skip(self) -> None:
        """What is left of it, and what fills up its last block."""
        async for _ in self.data():
            pass
        await self.reader.exactly(-self.size % BLOCK)


async def members(reader: Reader) -> AsyncIterator[Member]:
    """The files of an archive; TarError where it is none."""
    first, shared, own, name = True, dict[str, str](), dict[str, str](), ""
    while True:
        block = await reader.exactly(BLOCK)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if first and not (block and not block.strip(b"\0")):
                raise TarError(str(error)) from None
            return
        first = False
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            own = _pax(await _record(reader, header))
        elif header.type == tarfile.XGLTYPE:
            shared |= _pax(await _record(reader, header))
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            name = (await _record(reader, header)).rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif header.type == tarfile.GNUTYPE_LONGLINK:
            await _record(reader, header)
        else:
            told = shared | own
            size = header.size if header.isreg() else 0
            if header.isreg() and told.get("size", "").isdigit():
                size = int(told["size"])
            is_sparse = header.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse.major" in told or "GNU.sparse.map" in told
            named = told.get("path") or name or header.name
            member = Member(named, size, header.isreg(), is_sparse, reader, told, size)
            yield member
            await member.skip()
            own, name = {}, ""


async def _record(reader: Reader, header: tarfile.TarInfo) -> bytes:
    """What a header that is about the next one brings along."""
    if header.size > MAX_RECORD:
        raise TarError("a name or the attributes of a file are too long")
    data = await reader.exactly(header.size)
    await reader.exactly(-header.size % BLOCK)
    if len(data) < header.size:
        raise TarError("unexpected end of data")
    return data


def _pax(data: bytes) -> dict[str, str]:
    """Attributes of a pax header: lines of length, key and value."""
    found: dict[str, str] = {}
    while data:
        size, space, _ = data.partition(b" ")
        if not space or not size.isdigit() or not len(size) < int(size) <= len(data):
            raise TarError("invalid header")
        line = data[len(size) + 1 : int(size)].removesuffix(b"\n")
        data = data[int(size) :]
        key, _, value = line.partition(b"=")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    return found
