"""What a source of assertions gives: attributes with their values. Sources are declared in one file (`sources.py`)."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from msgspec import Struct

from cumulet.api.http import Request
from cumulet.core.errors import Unavailable


class Asserted(Struct, frozen=True):
    """What a provider asserts of somebody. `remote_id_attribute` is the attribute by which it names itself; `remote_user`
    who the web server in front says he is, for rules that name no user. An assertion that is good for one login only has its id
    in `once`, which is remembered `until` then (seconds since 1970)."""

    attributes: Mapping[str, Sequence[str]]
    remote_id_attribute: str = ""
    remote_user: str = ""
    once: str = ""
    until: float = 0.0


class Reader(Protocol):
    """A source at work."""

    async def read(self, request: Request) -> Asserted:
        """What the request proves; Unauthorized where it proves nothing, Unavailable where the provider does not answer."""
        ...


class Turns:
    """Lets `at_once` work at a time, and `waiting` more wait for it: anybody can send assertions, and none may fill memory."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._turn = asyncio.Semaphore(at_once)
        self._room = at_once + waiting

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A turn; Unavailable where too many wait."""
        if not self._room:
            raise Unavailable("Too many logins are under way; try again in some seconds.")
        self._room -= 1
        try:
            async with self._turn:
                yield
        finally:
            self._room += 1
