"""The store `http`: data that lies at web servers, under URLs that images' owners name. Nothing is ever written."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from cumulet.core.errors import Invalid, NotImplementedHere
from cumulet.services.image.place import Places


class HttpStore:
    """Implements `Store`."""

    kind = "http"
    read_only = True

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        self._places = places

    @property
    def spool(self) -> Path:
        raise self._refused()

    async def start(self, keep: frozenset[str]) -> None:
        """Nothing of it is here."""

    async def put(self, image_id: str, file: Path) -> None:
        raise self._refused()

    async def remove(self, image_id: str) -> None:
        """What lies elsewhere stays there."""

    def url(self, image_id: str) -> str:
        raise self._refused()

    def file(self, url: str) -> Path | None:
        return None

    async def size(self, url: str) -> int:
        return await self._places.size(url)

    async def chunks(self, url: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        left = length
        async for chunk in self._places.chunks(url):
            part, offset = chunk[offset:], max(0, offset - len(chunk))
            if left is not None:
                part, left = part[:left], left - len(part[:left])
            if part:
                yield part
            if left == 0:
                return
        if left or offset:
            raise Invalid(f"The data at {url} ends before what was asked for.")

    def properties(self) -> Mapping[str, Any]:
        return {}

    def _refused(self) -> NotImplementedHere:
        return NotImplementedHere(f"The store {self.name} is read only: data cannot be put there.")
