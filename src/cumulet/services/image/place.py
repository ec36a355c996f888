"""Where images' data lies: the cloud's own store, or places outside it, named by URL.

A place outside is read over HTTP and never written. Whether there may be any is the operator's to say, since it is the cloud
that then asks whatever address an image's owner names.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

import aiohttp
from msgspec import Meta, Struct

from cumulet.core.errors import Invalid
from cumulet.core.tasks import in_thread
from cumulet.services.image.fetch import Fetcher, Refused, body

MOST = 10
"""How many places the data of one image may lie at."""


class Location(Struct, forbid_unknown_fields=True):
    """One place where an image's data lies."""

    url: Annotated[str, Meta(max_length=255)]
    metadata: dict[str, Any]


class Digest(Struct, frozen=True):
    """What data turned out to be. `value` is of the algorithm that was asked for."""

    size: int
    md5: str
    value: str


class Places(Protocol):
    """What reads places outside the cloud's own store."""

    def reads(self, url: str) -> bool:
        """Whether data at this URL can be read, as far as the URL itself tells."""
        ...

    async def size(self, url: str) -> int:
        """How many bytes there are; Invalid where there are none, Unavailable where nobody answers."""
        ...

    def chunks(self, url: str) -> AsyncIterator[bytes]:
        """The data in pieces; errors as for `size`."""
        ...


class Web:
    """Implements `Places` for http and https, where images may be fetched from; for nothing, unless `allowed`."""

    def __init__(self, allowed: bool, fetcher: Fetcher) -> None:
        self.allowed = allowed
        self._fetcher = fetcher

    def reads(self, url: str) -> bool:
        try:
            return self.allowed and bool(self._fetcher.check_url(url))
        except Refused:
            return False

    async def size(self, url: str) -> int:
        async with self._asked("HEAD", url) as reply:
            length = reply.headers.get("Content-Length", "")
            if not length.isdigit():
                raise Invalid(f"The server of {url} does not say how long the data is.")
            return int(length)

    async def chunks(self, url: str) -> AsyncIterator[bytes]:
        async with self._asked("GET", url) as reply:
            async for chunk in body(reply, url):
                yield chunk

    @asynccontextmanager
    async def _asked(self, method: str, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The reply; the data itself has to be there, not a word of where it is."""
        if not self.reads(url):
            raise Invalid(f"No store of this cloud reads {url}.")
        try:
            async with self._fetcher.open(url, method=method, redirects=0) as reply:
                yield reply
        except Refused as error:
            raise Invalid(f"No store of this cloud reads {url}: {error}.") from None


async def digest(chunks: AsyncIterator[bytes], algorithm: str) -> Digest:
    """Read data to its end and say what it is, hashing off the loop."""
    md5, other = hashlib.md5(usedforsecurity=False), hashlib.new(algorithm, usedforsecurity=False)

    def add(chunk: bytes) -> None:
        md5.update(chunk)
        other.update(chunk)

    size = 0
    async for chunk in chunks:
        size += len(chunk)
        await in_thread(add, chunk)
    return Digest(size, md5.hexdigest(), other.hexdigest())
