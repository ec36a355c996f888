"""The message bus: a doorbell between parts of the program, and between hosts. The database stays the truth:
losing every message loses no work.

Bodies are msgspec-encodable values. A topic is a dotted name; a server answers `call` and `cast`, subscribers hear `publish`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

Method = Callable[..., Awaitable[Any]]
Subscriber = Callable[[str, Any], Awaitable[None]]


class BusError(Exception):
    """Nobody serves the topic, or the answer did not come in time."""


class Bus(Protocol):
    """How parts of the program reach each other, in one process or in many."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def serve(self, topic: str, methods: dict[str, Method]) -> None:
        """Answer calls and casts on `topic`."""
        ...

    def subscribe(self, topic: str, subscriber: Subscriber) -> None:
        """Hear what is published on `topic`; the subscriber gets (event type, payload)."""
        ...

    def heard(self, topic: str) -> bool:
        """Whether anybody hears what is published on `topic`: what nobody hears need not be made."""
        ...

    async def call(self, topic: str, method: str, payload: dict[str, Any], *, timeout: float = 60.0) -> Any:
        """Ask and wait for the answer; the method's own error is raised here."""
        ...

    async def cast(self, topic: str, method: str, payload: dict[str, Any]) -> None:
        """Ask without waiting."""
        ...

    async def publish(self, topic: str, event: str, payload: Any) -> None:
        """Tell every subscriber of `topic` that something happened."""
        ...
