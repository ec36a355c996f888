"""The bus inside one process."""

import asyncio
import logging
from collections import defaultdict
from typing import Any

from cumulet.core.bus import BusError, Method, Subscriber
from cumulet.core.tasks import Tasks

log = logging.getLogger("cumulet.bus")


class LocalBus:
    """Calls go straight to their method; casts and events run as background tasks."""

    def __init__(self) -> None:
        self._servers: dict[str, dict[str, Method]] = defaultdict(dict)
        self._subscribers: dict[str, list[Subscriber]] = defaultdict(list)
        self._tasks = Tasks()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        await self._tasks.stop()

    def serve(self, topic: str, methods: dict[str, Method]) -> None:
        self._servers[topic].update(methods)

    def subscribe(self, topic: str, subscriber: Subscriber) -> None:
        self._subscribers[topic].append(subscriber)

    def heard(self, topic: str) -> bool:
        return bool(self._subscribers.get(topic))

    async def call(self, topic: str, method: str, payload: dict[str, Any], *, timeout: float = 60.0) -> Any:
        async with asyncio.timeout(timeout):
            return await self._method(topic, method)(**payload)

    async def cast(self, topic: str, method: str, payload: dict[str, Any]) -> None:
        self._tasks.spawn(f"cast {topic}.{method}", _run(self._method(topic, method), payload))

    async def publish(self, topic: str, event: str, payload: Any) -> None:
        for subscriber in self._subscribers[topic]:
            self._tasks.spawn(f"event {event}", _hear(subscriber, event, payload))

    def _method(self, topic: str, method: str) -> Method:
        try:
            return self._servers[topic][method]
        except KeyError:
            raise BusError(f"nobody serves {topic}.{method}") from None


async def _run(method: Method, payload: dict[str, Any]) -> None:
    await method(**payload)


async def _hear(subscriber: Subscriber, event: str, payload: Any) -> None:
    await subscriber(event, payload)
