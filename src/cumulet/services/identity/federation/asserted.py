"""What a source of assertions gives: attributes with their values. Sources are declared in one file (`sources.py`)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from cumulet.api.http import Request


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
