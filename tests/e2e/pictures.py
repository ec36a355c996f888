"""What a PNG shows, as far as the tests ask. Reference: the PNG specification, 8 bits a channel, not interlaced."""

import struct
import zlib
from pathlib import Path

CHANNELS = {2: 3, 6: 4}
"""Bytes of a pixel by the kind of colour: RGB and RGBA."""
LIGHT = 120
"""From here on a channel counts as light: text on a screen, not the grey of an empty page."""


def light_share(picture: Path, below: int) -> float:
    """The share of light pixels under the first `below` rows, 0 to 1."""
    width, height, step, rows = _rows(picture.read_bytes())
    light = total = 0
    for number, row in enumerate(rows):
        if number >= below:
            light += sum(1 for at in range(0, width * step, step) if row[at] >= LIGHT and row[at + 1] >= LIGHT)
            total += width
    assert total, f"the picture has only {height} rows"
    return light / total


def _rows(data: bytes) -> tuple[int, int, int, list[bytearray]]:
    """Width, height, bytes of a pixel, and the rows."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    assert depth == 8
    assert not interlaced
    step = CHANNELS[colour]
    raw = zlib.decompress(b"".join(body for kind, body in _chunks(data) if kind == b"IDAT"))
    length = width * step
    rows: list[bytearray] = []
    above = bytearray(length)
    for number in range(height):
        start = number * (length + 1)
        above = _unfilter(raw[start], bytearray(raw[start + 1 : start + 1 + length]), above, step)
        rows.append(above)
    return width, height, step, rows


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    at, found = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += length + 12
    return found


def _unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> bytearray:
    """A row as it was before it was filtered for compression."""
    for at in range(len(row)) if kind else ():
        left = row[at - step] if at >= step else 0
        corner = above[at - step] if at >= step else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = above[at]
        elif kind == 3:
            guess = (left + above[at]) // 2
        else:
            guess = _paeth(left, above[at], corner)
        row[at] = (row[at] + guess) & 255
    return row


def _paeth(left: int, above: int, corner: int) -> int:
    straight = left + above - corner
    distances = abs(straight - left), abs(straight - above), abs(straight - corner)
    if distances[0] <= distances[1] and distances[0] <= distances[2]:
        return left
    return above if distances[1] <= distances[2] else corner
