"""Conditional requests and ranges (RFC 9110, sections 13 and 14), as swift takes them: for whoever sends data, a node or a
layer that makes a reply of several objects.
"""

import re
import secrets
import time
from calendar import timegm
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import parsedate
from itertools import pairwise

from cumulet.api.http import http_date
from cumulet.services.object_store.message import Headers, Response, chunks, phrase

MOST_RANGES, MOST_OVERLAPS, MOST_UNORDERED = 50, 2, 8
"""More is refused: such requests cost much more to answer than to send."""

Span = tuple[int, int]
"""The first byte of a range, and the one after its last."""

Part = Callable[[int, int], Response]
"""Opens a part of the data (from a byte, up to but without another) as the body of a reply."""

SPEC = re.compile(r"(\d*)-(\d*)", re.ASCII)


def tags(header: str | None) -> frozenset[str]:
    """The entity tags that If-Match or If-None-Match names, without their quotation marks; `*` for any."""
    if not header:
        return frozenset()
    found = map(str.strip, header.split(","))
    return frozenset(tag[1:-1] if len(tag) > 1 and tag[0] == tag[-1] == '"' else tag for tag in found)


def parse_date(text: str | None) -> int | None:
    """The seconds since 1970 of such a date; None where it is none."""
    if not text:
        return None
    try:
        found = parsedate(text)
        return timegm((*found[:6], 0, 0, 0)) if found else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def condition(headers: Headers, etags: Sequence[str], modified: int | None, status: int = 200) -> int | None:
    """304 or 412 where the conditions of a GET or HEAD say so. `etags` are those by which the data may be known, empty ones
    left out of account; `modified` is its Last-Modified in seconds."""
    known = {etag.strip('"') for etag in etags if etag}
    unwanted, wanted = tags(headers.get("If-None-Match")), tags(headers.get("If-Match"))
    if known and unwanted and ("*" in unwanted or known & unwanted):
        return 304
    if known and wanted and not ("*" in wanted or known & wanted):
        return 412
    if status == 404:
        return 412 if "*" in wanted else None
    if modified is not None:
        since = parse_date(headers.get("If-Modified-Since"))
        if since is not None and modified <= since:
            return 304
        before = parse_date(headers.get("If-Unmodified-Since"))
        if before is not None and modified > before:
            return 412
    return None


def spans(header: str | None, length: int) -> list[Span] | None:
    """The ranges that a Range header asks of `length` bytes. None: there is no such header, or none that counts, and all is
    sent; an empty list: none of them can be had (416)."""
    if not header:
        return None
    header = header.replace(" ", "")
    if not header.lower().startswith("bytes="):
        return None
    found: list[Span] = []
    for spec in header[6:].split(","):
        match = SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return None
        first, last = match.groups()
        if first and last and int(last) < int(first):
            return None
        if not first:
            if int(last):
                found.append((max(0, length - int(last)), length))
        elif int(first) < length:
            found.append((int(first), min(int(last) + 1, length) if last else length))
    return [] if _abusive(found) else found


def _abusive(found: list[Span]) -> bool:
    if len(found) > MOST_RANGES:
        return True
    overlaps = 0
    for position, (start1, end1) in enumerate(found):
        for start2, end2 in found[position + 1 :]:
            if start1 < start2 < end1 or start1 < end2 < end1 or start2 < start1 < end2 or start2 < end1 < end2:
                overlaps += 1
                if overlaps > MOST_OVERLAPS:
                    return True
    ascending = all(one[0] <= next[0] for one, next in pairwise(found))
    return not ascending and len(found) >= MOST_UNORDERED


def answer(
    method: str,
    asked: Headers,
    whole: Headers,
    length: int,
    part: Part,
    *,
    etags: Sequence[str] = (),
    ranges: bool = True,
) -> Response:
    """The reply to a GET or HEAD of data of `length` bytes with the headers `whole`, under the conditions and ranges that were
    `asked`. `etags`: what conditions are held against, Etag by default."""
    modified = parse_date(whole.get("Last-Modified"))
    status = condition(asked, etags or (whole.get("Etag", ""),), modified)
    if status is not None:
        return without_body(status, whole)
    headers = Headers(whole)
    headers["Content-Length"] = str(length)
    wanted = spans(asked.get("Range"), length) if ranges and method == "GET" else None
    if wanted is None or (wanted and not length):
        if method == "HEAD":
            return Response(200, b"", headers)
        return Response(200, part(0, length).body if length else b"", headers)
    if not wanted:
        headers.pop("Content-Length")
        headers["Content-Range"] = f"bytes */{length}"
        headers["Content-Type"] = "text/html; charset=UTF-8"
        text = f"<html><h1>{phrase(416)}</h1><p>The Range requested is not available.</p></html>"
        return Response(416, text.encode(), headers)
    if len(wanted) == 1:
        start, end = wanted[0]
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{length}"
        headers["Content-Length"] = str(end - start)
        return Response(206, part(start, end).body, headers)
    return _several(headers, wanted, length, part)


def without_body(status: int, whole: Headers) -> Response:
    """304 or 412: the headers of the data and nothing of it."""
    headers = Headers(whole)
    headers["Content-Length"] = "0"
    return Response(status, b"", headers)


def _several(headers: Headers, wanted: list[Span], length: int, part: Part) -> Response:
    """multipart/byteranges (RFC 9110, 14.6)."""
    boundary = secrets.token_hex(16)
    kind = headers.get("Content-Type", "application/octet-stream")
    heads = [
        f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {start}-{end - 1}/{length}\r\n\r\n".encode()
        for start, end in wanted
    ]
    tail = f"--{boundary}--".encode()
    headers["Content-Type"] = f"multipart/byteranges;boundary={boundary}"
    headers["Content-Length"] = str(sum(map(len, heads)) + sum(end - start + 2 for start, end in wanted) + len(tail))

    async def body() -> AsyncIterator[bytes]:
        for head, (start, end) in zip(heads, wanted, strict=True):
            yield head
            async for piece in chunks(part(start, end)):
                yield piece
            yield b"\r\n"
        yield tail

    return Response(206, body(), headers)


def today() -> str:
    """The time as Date has it."""
    return http_date(int(time.time()))
