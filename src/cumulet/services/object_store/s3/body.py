"""The body of a request of S3 on its way in: taken out of its chunks, and held against what was signed and told of it.

Nothing is kept but the piece in hand, and the last piece of all is not handed on before everything has been found right: an
upload that is wrong is never whole.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
"""

import hashlib
from collections.abc import AsyncIterator

from cumulet.core.tasks import in_thread
from cumulet.services.identity.interface import AccessKey
from cumulet.services.object_store.s3.authorization import Signed
from cumulet.services.object_store.s3.checksum import Checksum, Hash
from cumulet.services.object_store.s3.errors import S3Error

SMALLEST = 8192
"""Bytes of a chunk, but for the last."""
CHUNK = "AWS4-HMAC-SHA256-PAYLOAD"
LINE = 4096
"""Bytes that a line of a chunk's or trailer's head may take."""
EMPTY = hashlib.sha256(b"").hexdigest()
SEVERAL = 1 << 17
"""From so many bytes on, a piece is hashed in a thread."""
STREAMS = {
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
}
UNKNOWN_STREAMS = {"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"}
_SIGNATURE = "x-amz-trailer-signature"


def _unexpected_end() -> S3Error:
    return S3Error("IncompleteBody", "The request body terminated unexpectedly")


class _Source:
    """A body that is read by lines and by counts of bytes."""

    def __init__(self, body: AsyncIterator[bytes] | None) -> None:
        self._body = body
        self._held = b""

    async def _more(self) -> bool:
        if self._body is None:
            return False
        async for piece in self._body:
            self._held += piece
            if piece:
                return True
        self._body = None
        return False

    async def line(self) -> bytes:
        """Up to and with the next line feed; what is left where there is none."""
        while (end := self._held.find(b"\n")) < 0:
            if len(self._held) > LINE:
                raise _unexpected_end()
            if not await self._more():
                end = len(self._held) - 1
                break
        found, self._held = self._held[: end + 1], self._held[end + 1 :]
        return found

    async def some(self, most: int) -> bytes:
        """Some of what comes, at most so much; nothing at the end."""
        if not self._held and not await self._more():
            return b""
        found, self._held = self._held[:most], self._held[most:]
        return found


class Chunks:
    """A body that comes in chunks with heads of their own (`aws-chunked`), of which each may be signed."""

    def __init__(
        self, body: AsyncIterator[bytes] | None, length: int, kind: str, signed: Signed, key: AccessKey,
        checksum: Checksum | None,
    ) -> None:  # fmt: skip
        self._source = _Source(body)
        self._length = length
        self._signed = signed
        self._key = key if kind != "STREAMING-UNSIGNED-PAYLOAD-TRAILER" else None
        self._previous = signed.signature
        self._expected = {_SIGNATURE} if kind == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" else set()
        if checksum is not None and not checksum.value:
            self._expected.add(checksum.header)
        self.trailers: dict[str, str] = {}

    async def pieces(self) -> AsyncIterator[bytes]:
        """The data, each chunk found right by its end."""
        done, last, number = 0, SMALLEST, 0
        while True:
            number += 1
            size, signature = await self._head()
            if last < SMALLEST and size:
                raise S3Error("InvalidChunkSizeError", Chunk=str(number), BadChunkSize=str(last))
            if done + size > self._length:
                raise self._wrong_size(done + size)
            hashed, left = hashlib.sha256(), size
            while left:
                piece = await self._source.some(left)
                if not piece:
                    raise _unexpected_end()
                left -= len(piece)
                if self._key is not None:
                    await summed(hashed, piece)
                yield piece
            if self._key is not None:
                self._verify(f"{CHUNK}\n%\n{EMPTY}\n{hashed.hexdigest()}", signature)
            if not size:
                break
            if await self._source.line() != b"\r\n":
                raise _unexpected_end()
            done, last = done + size, size
        await self._read_trailers()
        if done != self._length:
            raise self._wrong_size(done)

    async def _head(self) -> tuple[int, str]:
        """(the size of the next chunk, its signature)."""
        line = await self._source.line()
        if not line.endswith(b"\r\n"):
            raise _unexpected_end()
        told, _, params = line[:-2].decode(errors="replace").partition(";")
        try:
            size = int(told, 16)
        except ValueError:
            raise _unexpected_end() from None
        if size < 0:
            raise _unexpected_end()
        if self._key is None:
            return size, ""
        name, _, signature = params.partition("=")
        if not params:
            raise _unexpected_end()
        if name.strip() != "chunk-signature":
            self._verify(f"{CHUNK}\n%\n{EMPTY}\n", "")
        if ";" in signature or not signature.strip():
            raise _unexpected_end()
        return size, signature.strip()

    async def _read_trailers(self) -> None:
        if not self._expected:
            if await self._source.line() not in (b"", b"\r\n"):
                raise _unexpected_end()
            return
        while line := await self._source.line():
            if not line.endswith(b"\r\n"):
                raise _unexpected_end()
            if line == b"\r\n":
                break
            name, _, value = line.decode(errors="replace").partition(":")
            if name.lower() not in self._expected:
                raise S3Error("MalformedTrailerError")
            self.trailers[name.strip()] = value.strip()
        if _SIGNATURE in self._expected and _SIGNATURE not in self.trailers:
            raise _unexpected_end()
        if self.trailers.keys() != self._expected:
            raise S3Error("MalformedTrailerError")
        if _SIGNATURE in self._expected:
            told = sorted(item for item in self.trailers.items() if item[0] != _SIGNATURE)
            lines = "".join(f"{name}:{value}\n" for name, value in told) or "\n"
            hashed = hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
            self._verify(f"AWS4-HMAC-SHA256-TRAILER\n%\n{hashed}", self.trailers[_SIGNATURE])
            if not told:
                raise _unexpected_end()

    def _verify(self, text: str, signature: str) -> None:
        signed = text.replace("%", f"{self._signed.date}\n{self._signed.scope}\n{self._previous}", 1)
        self._signed.text, self._signed.signature = signed.encode(errors="replace"), signature
        if self._key is None or not self._key.verifies_part(self._signed.text, signature):
            raise self._signed.mismatch()
        self._previous = signature

    def _wrong_size(self, provided: int) -> S3Error:
        return S3Error("IncompleteBody", NumberBytesExpected=str(self._length), NumberBytesProvided=str(provided))


async def summed(hashed: Hash, piece: bytes) -> None:
    """A piece added to a hash, beside the event loop where it is long."""
    if len(piece) >= SEVERAL:
        await in_thread(hashed.update, piece)
    else:
        hashed.update(piece)


async def hashed(body: AsyncIterator[bytes] | None, length: int, wanted: str) -> AsyncIterator[bytes]:
    """The body, whose SHA-256 was signed."""
    found, done = hashlib.sha256(), 0
    if body is not None:
        async for piece in body:
            await summed(found, piece)
            done += len(piece)
            yield piece
    if done == length and found.hexdigest() != wanted.lower():
        raise S3Error(
            "XAmzContentSHA256Mismatch",
            ClientComputedContentSHA256=wanted,
            S3ComputedContentSHA256=found.hexdigest(),
        )


async def checked(body: AsyncIterator[bytes], checksum: Checksum, trailers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body, of which a checksum was told, before it or behind it."""
    async for piece in body:
        await summed(checksum.sum, piece)
        yield piece
    checksum.check(trailers.get(checksum.header, ""))


async def held_back(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body, each piece one step later: the last one when all behind it has been found right."""
    held = b""
    async for piece in body:
        if held:
            yield held
        held = piece
    if held:
        yield held
