"""What was found out and can be told again, until anything of identity changes: then all of it is forgotten at once."""

from collections.abc import Awaitable, Hashable
from typing import Generic, TypeVar

from msgspec import Struct

from cumulet.core.context import Caller
from cumulet.services.identity.session import Session

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Known(Struct):
    """A token that was found valid: what it means, who holds it, and once somebody has asked what a reply tells of it."""

    session: Session
    caller: Caller
    told: bytes = b""


class Memory(Generic[K, V]):
    """Up to `size` answers by what was asked; the oldest gives way to a new one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: dict[K, V] = {}
        self._generation = 0

    def get(self, asked: K) -> V | None:
        return self._kept.get(asked)

    async def keep(self, asked: K, answer: Awaitable[V]) -> V:
        """The answer, which is remembered unless all was forgotten while it was looked for: it may be of the time before."""
        generation = self._generation
        found = await answer
        if generation == self._generation:
            self._kept.pop(asked, None)
            if len(self._kept) >= self.size:
                del self._kept[next(iter(self._kept))]
            self._kept[asked] = found
        return found

    def forget(self) -> None:
        self._generation += 1
        self._kept.clear()
