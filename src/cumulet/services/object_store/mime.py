"""Bodies in parts (MIME, RFC 2046), as nodes send each other an object whose last metadata is known only when its data has
passed: first the data, then a JSON object of headers."""

import json
import secrets
from collections.abc import AsyncIterator
from hashlib import md5

from cumulet.services.object_store.message import Headers, Refusal, Trailer, refuse

BOUNDARY = "X-Backend-Obj-Multipart-Mime-Boundary"
FOOTER = "X-Backend-Obj-Metadata-Footer"


def boundary() -> str:
    return secrets.token_hex(32)


async def joined(body: AsyncIterator[bytes], trailer: Trailer, mark: str) -> AsyncIterator[bytes]:
    """A body and the headers that are told after it, in two parts."""
    yield f"--{mark}\r\nX-Document: object body\r\n\r\n".encode()
    async for piece in body:
        yield piece
    told = json.dumps(dict(trailer())).encode()
    digest = md5(told, usedforsecurity=False).hexdigest()
    yield f"\r\n--{mark}\r\nX-Document: object metadata\r\nContent-MD5: {digest}\r\n\r\n".encode()
    yield told + f"\r\n--{mark}--".encode()


class Parted:
    """Takes such a body apart: `body` is the data, and once it has been read `trailer` tells the headers."""

    def __init__(self, pieces: AsyncIterator[bytes], mark: str) -> None:
        self._pieces = pieces
        self._start = f"--{mark}".encode()
        self._told: Headers | None = None

    async def body(self) -> AsyncIterator[bytes]:
        held = b""
        async for piece in self._pieces:
            held += piece
            if b"\r\n\r\n" in held:
                break
        head, found, held = held.partition(b"\r\n\r\n")
        if not found or not head.lstrip(b"\r\n").startswith(self._start):
            raise Refusal(refuse(400, "The body does not begin with a part of an object."))
        end = b"\r\n" + self._start
        while end not in held:
            if len(held) > len(end):
                yield held[: -len(end)]
                held = held[-len(end) :]
            piece = await anext(self._pieces, b"")
            if not piece:
                raise Refusal(refuse(499, "The body ends before its first part does."))
            held += piece
        data, _, held = held.partition(end)
        if data:
            yield data
        self._told = _told(held + b"".join([piece async for piece in self._pieces]), end)

    def trailer(self) -> Headers:
        """The headers; the body has been read."""
        return self._told if self._told is not None else Headers()


def _told(rest: bytes, end: bytes) -> Headers:
    head, _, told = rest.partition(b"\r\n\r\n")
    told = told.partition(end)[0]
    named = dict(line.split(b": ", 1) for line in head.split(b"\r\n") if b": " in line)
    if named.get(b"X-Document") != b"object metadata":
        raise Refusal(refuse(400, "The body has no part with an object's metadata."))
    if named.get(b"Content-MD5", b"").decode() != md5(told, usedforsecurity=False).hexdigest():
        raise Refusal(refuse(422, "The object's metadata was damaged on its way."))
    try:
        return Headers({str(name): str(value) for name, value in json.loads(told).items()})
    except (ValueError, AttributeError):
        raise Refusal(refuse(400, "The object's metadata is no JSON object.")) from None
