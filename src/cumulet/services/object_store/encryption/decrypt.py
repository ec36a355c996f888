"""The body of a reply, decrypted: whole, a range of it, or several (multipart/byteranges, RFC 9110, 14.6)."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from cryptography.hazmat.primitives.ciphers import CipherContext

from cumulet.services.object_store.encryption.cipher import CryptoError, decryptor
from cumulet.services.object_store.message import Response, chunks

RANGE = re.compile(rb"content-range:\s*bytes\s+(\d+)-(\d+)/", re.IGNORECASE)
SINGLE = re.compile(r"bytes\s+(\d+)-")
END_OF_HEAD = b"\r\n\r\n"
LONGEST_HEAD = 16384


async def decrypted(response: Response, key: bytes, iv: bytes) -> bytes | AsyncIterator[bytes]:
    """The body; small ones stay bytes."""
    if response.headers.get("Content-Type", "").startswith("multipart/byteranges") and response.status == 206:
        return _parts(chunks(Response(200, response.body)), key, iv)
    match = SINGLE.match(response.headers.get("Content-Range", ""))
    offset = int(match[1]) if match else 0
    if isinstance(response.body, bytes):
        return decryptor(key, iv, offset).update(response.body)
    return _whole(chunks(Response(200, response.body)), decryptor(key, iv, offset))


async def _whole(body: AsyncGenerator[bytes], cipher: CipherContext) -> AsyncIterator[bytes]:
    async with aclosing(body) as pieces:
        async for piece in pieces:
            yield cipher.update(piece)


async def _parts(body: AsyncGenerator[bytes], key: bytes, iv: bytes) -> AsyncIterator[bytes]:
    async with aclosing(body) as pieces:
        async for piece in _decrypt_parts(pieces, key, iv):
            yield piece


async def _decrypt_parts(pieces: AsyncIterator[bytes], key: bytes, iv: bytes) -> AsyncIterator[bytes]:
    """Each part's head says where its data begins and ends; only that is encrypted."""
    waiting, left, cipher = b"", 0, decryptor(key, iv)
    async for piece in pieces:
        waiting += piece
        while waiting:
            if left:
                data, waiting = waiting[:left], waiting[left:]
                left -= len(data)
                yield cipher.update(data)
                continue
            end = waiting.find(END_OF_HEAD, 2)
            if end < 0:
                if len(waiting) > LONGEST_HEAD:
                    raise CryptoError("a part of several ranges does not say where it begins")
                break
            head, waiting = waiting[: end + len(END_OF_HEAD)], waiting[end + len(END_OF_HEAD) :]
            match = RANGE.search(head)
            if match is None:
                raise CryptoError("a part of several ranges does not say where it begins")
            first, last = int(match[1]), int(match[2])
            left, cipher = last - first + 1, decryptor(key, iv, first)
            yield head
    yield waiting
