"""Parts of an object that a request asks for, and replies made of them: Range, 206, 416 and multipart/byteranges.

Reference: RFC 9110, section 14. A header that is not understood is as none; whoever asks for too many or for overlapping parts
gets none at all (section 17.15).
"""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise

from cumulet.services.object_store.message import Response, chunks, close

MAX_RANGES = 50
MAX_OVERLAPS = 2
MAX_UNORDERED = 8

Spec = tuple[int | None, int | None]
"""First and last byte, both included; (None, n) are the last n bytes, (n, None) all from n on."""
Span = tuple[int, int]
"""First byte, and the one after the last."""
Slice = Callable[[int, int], AsyncIterator[bytes]]
"""The bytes of a span."""


def parse(header: str | None) -> list[Spec]:
    """What a Range header asks for; nothing where it is absent or not understood."""
    text = (header or "").replace(" ", "")
    if not text.lower().startswith("bytes="):
        return []
    specs: list[Spec] = []
    for part in text[6:].split(","):
        first, dash, last = part.partition("-")
        if not dash or not (first or last) or not all(n.isascii() and n.isdigit() for n in (first, last) if n):
            return []
        spec = (int(first) if first else None, int(last) if last else None)
        if spec[0] is not None and spec[1] is not None and spec[1] < spec[0]:
            return []
        specs.append(spec)
    return specs


def header(spans: Sequence[Span]) -> str:
    """A Range header that asks for spans."""
    return "bytes=" + ",".join(f"{first}-{end - 1}" for first, end in spans)


def spans(specs: Sequence[Spec], length: int) -> list[Span]:
    """The parts that there are in `length` bytes, in the order asked for; none: 416."""
    found: list[Span] = []
    for first, last in specs:
        if first is None:
            if last:
                found.append((max(0, length - last), length))
        elif first < length:
            found.append((first, length if last is None else min(last + 1, length)))
    if len(found) > MAX_RANGES or _overlaps(found) > MAX_OVERLAPS:
        return []
    if len(found) >= MAX_UNORDERED and any(before[0] > after[0] for before, after in pairwise(found)):
        return []
    return found


def _overlaps(found: Sequence[Span]) -> int:
    count = 0
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            count += one[0] < other[1] and other[0] < one[1] and one != other
    return count


def respond(response: Response, asked: Sequence[Span], length: int, slice: Slice) -> Response:
    """`response`, a 200 of `length` bytes, cut down to the parts `asked` for, which `slice` gives."""
    kind = response.headers.get("Content-Type", "application/octet-stream")
    if len(asked) == 1:
        first, end = asked[0]
        response.headers["Content-Range"] = f"bytes {first}-{end - 1}/{length}"
        response.headers["Content-Length"] = str(end - first)
        response.body = slice(first, end)
    else:
        boundary = secrets.token_hex(16)
        response.headers["Content-Type"] = f"multipart/byteranges;boundary={boundary}"
        heads = [_part_head(boundary, kind, span, length) for span in asked]
        size = sum(map(len, heads)) + sum(end - first + 2 for first, end in asked) + len(boundary) + 4
        response.headers["Content-Length"] = str(size)
        response.body = _multipart(heads, asked, boundary, slice)
    response.status = 206
    return response


def _part_head(boundary: str, kind: str, span: Span, length: int) -> bytes:
    return (
        f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {span[0]}-{span[1] - 1}/{length}\r\n\r\n"
    ).encode()


async def _multipart(
    heads: Sequence[bytes], asked: Sequence[Span], boundary: str, slice: Slice
) -> AsyncIterator[bytes]:
    for head, (first, end) in zip(heads, asked, strict=True):
        yield head
        async for piece in slice(first, end):
            yield piece
        yield b"\r\n"
    yield f"--{boundary}--".encode()


async def unsatisfiable(response: Response, length: int) -> Response:
    """416 in place of `response`."""
    await close(response)
    headers = {"Content-Type": "text/html; charset=UTF-8", "Content-Range": f"bytes */{length}"}
    for name in ("Accept-Ranges", "ETag", "Last-Modified", "X-Timestamp"):
        if name in response.headers:
            headers[name] = response.headers[name]
    text = "<html><h1>Requested Range Not Satisfiable</h1><p>The Range requested is not available.</p></html>"
    return Response(416, text.encode(), headers)


async def cut(response: Response, first: int, end: int) -> AsyncIterator[bytes]:
    """Some bytes of a reply's body."""
    at = 0
    body = chunks(response)
    try:
        async for piece in body:
            if at >= end:
                break
            part = piece[max(0, first - at) : end - at]
            at += len(piece)
            if part:
                yield part
    finally:
        await close(Response(200, body))
