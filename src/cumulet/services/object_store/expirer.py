"""The expirer: deletes objects whose time has come (X-Delete-At), as the queue in the account `.expiring_objects` has them.

Such an object is not shown any more from that time on; this takes away what it occupies, and its row in listings. An object
whose time has been changed meanwhile is left alone, since the delete names the time it is for.
Reference: https://docs.openstack.org/swift/latest/overview_expiring_objects.html
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from hashlib import md5
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from cumulet.api.http import Query
from cumulet.config import SettingsError
from cumulet.services.object_store.message import Headers, Request, Response, close, drain
from cumulet.services.object_store.names import Timestamp, partition
from cumulet.services.object_store.node import BackendRequest
from cumulet.services.object_store.storage.expiring import ACCOUNT, parse
from cumulet.services.object_store.words import listed

if TYPE_CHECKING:
    from cumulet.services.object_store.inside import Inside

log = logging.getLogger("cumulet.object_store.expirer")

GATHERED = 10_000
"""Tasks that are put in turns, so that not all deletes at one time are of the same container."""
ASYNC = "application/async-deleted"
"""The type of a task that deletes without asking for the object's own time."""


class Named(msgspec.Struct):
    name: str
    content_type: str = ""


_names = msgspec.json.Decoder(list[Named]).decode


@dataclass(frozen=True, slots=True)
class Task:
    """An object that is to be deleted, and its entry in the queue."""

    queue: str
    entry: str
    at: Timestamp
    account: str
    container: str
    object: str
    unasked: bool = False


class Expirer:
    def __init__(self, service: "Inside") -> None:
        settings = service.kernel.settings
        self.service = service
        self.rate = settings.object_expirer_rate
        self.concurrency = settings.object_expirer_concurrency
        self.reclaim = settings.object_expirer_reclaim
        self.delays = dict(_delay(part) for part in listed(settings.object_expirer_delays))
        mine, _, shares = settings.object_expirer_share.partition("/")
        self.mine, self.shares = int(mine or 0), int(shares or 1)
        if self.mine >= self.shares:
            raise SettingsError(
                f"`object_expirer_share` is {settings.object_expirer_share}: the first number is the lower one"
            )

    async def run(self) -> None:
        """One pass over what is due."""
        began, deleted = time.monotonic(), 0
        limit = asyncio.Semaphore(self.concurrency)
        going: set[asyncio.Task[bool]] = set()

        async def one(task: Task) -> bool:
            async with limit:
                return await self._do(task)

        try:
            async for task in self._tasks():
                while len(going) >= self.concurrency:
                    done, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                    deleted += sum(one.result() for one in done)
                going.add(asyncio.create_task(one(task)))
                await asyncio.sleep(1 / self.rate if self.rate < 1000 else 0)
            deleted += sum(await asyncio.gather(*going))
        finally:
            for left in going:
                left.cancel()
            await asyncio.gather(*going, return_exceptions=True)
        if deleted:
            log.info("%d objects whose time had come were deleted", deleted)
        notes = self.service.host.recon.notes["object"]
        notes |= {"object_expiration_pass": time.monotonic() - began, "expired_last_pass": deleted}

    async def _tasks(self) -> AsyncIterator[Task]:
        """What is due, in turns of the containers it is in."""
        turns: dict[tuple[str, str], deque[Task]] = {}
        count = 0
        async for queue in self._queues():
            async for task in self._due(queue):
                turns.setdefault((task.account, task.container), deque()).append(task)
                count += 1
                if count >= GATHERED:
                    for one in _in_turns(turns):
                        yield one
                    count = 0
        for one in _in_turns(turns):
            yield one

    async def _queues(self) -> AsyncIterator[str]:
        """The containers of the queue whose time has begun."""
        async for row in self._listed(""):
            if not row.name.isdigit():
                log.error("%s/%s is no container of the queue", ACCOUNT, row.name)
            elif int(row.name) > time.time():
                return
            else:
                yield row.name

    async def _due(self, queue: str) -> AsyncIterator[Task]:
        is_empty = True
        async for row in self._listed(queue):
            is_empty = False
            try:
                at, account, container, object = parse(row.name)
            except ValueError:
                log.error("%s/%s/%s is no entry of the queue", ACCOUNT, queue, row.name)
                continue
            now = time.time()
            if at.seconds > now:
                break
            unasked = row.content_type == ASYNC
            delay = self.delays.get(f"{account}/{container}", self.delays.get(account, 0.0))
            if self._is_mine(f"{queue}/{row.name}") and (unasked or at.seconds <= now - delay):
                yield Task(queue, row.name, at, account, container, object, unasked)
        if is_empty:
            await close(await self._ask("DELETE", queue))

    def _is_mine(self, name: str) -> bool:
        number = int.from_bytes(md5(name.encode(), usedforsecurity=False).digest(), "big")
        return number % self.shares == self.mine

    async def _listed(self, container: str) -> AsyncIterator[Named]:
        marker = ""
        while True:
            response = await self._ask("GET", container, query=Query(urlencode({"format": "json", "marker": marker})))
            body = await drain(response)
            if not response.ok:
                if response.status != 404:
                    log.error("the queue %s/%s was listed with %d", ACCOUNT, container, response.status)
                return
            rows = _names(body) if body else []
            for row in rows:
                yield row
            if not rows:
                return
            marker = rows[-1].name

    async def _ask(self, method: str, container: str, query: Query | None = None) -> Response:
        return await self.service.core(_request(method, ACCOUNT, container, query=query))

    async def _do(self, task: Task) -> bool:
        """Whether the object is gone, and its entry with it."""
        headers = {"X-Timestamp": task.at.normal}
        if not task.unasked:
            headers |= {"X-If-Delete-At": str(int(task.at.seconds)), "X-Backend-Clean-Expiring-Object-Queue": "no"}
        response = await self.service.core(_request("DELETE", task.account, task.container, task.object, headers))
        await close(response)
        good = response.ok or response.status == 409 or (task.unasked and response.status == 404)
        if not good:
            vain = response.status in (404, 412) and task.at.seconds <= time.time() - self.reclaim
            if not vain:
                if response.status not in (404, 412):
                    log.error(
                        "%s/%s/%s was deleted with %d", task.account, task.container, task.object, response.status
                    )
                return False
        return await self._forget(task) and good

    async def _forget(self, task: Task) -> bool:
        """Take the entry out of the queue, on every node that holds it."""
        ring = self.service.rings.container
        number = partition(self.service.salt.digest(ACCOUNT, task.queue), ring.power)
        now = Timestamp.now().internal
        replies = await asyncio.gather(
            *(
                self.service.nodes.call(
                    device,
                    BackendRequest(
                        "container",
                        "DELETE",
                        device.name,
                        number,
                        ACCOUNT,
                        task.queue,
                        task.entry,
                        Headers({"X-Timestamp": now, "X-Backend-Storage-Policy-Index": "0"}),
                    ),
                )
                for device in ring.devices(number)
            )
        )
        return any(reply.ok for reply in replies)


def _request(
    method: str,
    account: str,
    container: str,
    object: str = "",
    headers: dict[str, str] | None = None,
    query: Query | None = None,
) -> Request:
    """One that the program makes for itself."""
    return Request(
        method,
        account,
        container,
        object,
        Headers(headers or ()),
        query or Query(""),
        settled=True,
        source="expirer",
    )


def _in_turns(turns: dict[tuple[str, str], deque[Task]]) -> Iterator[Task]:
    while turns:
        for key in sorted(turns):
            if turns[key]:
                yield turns[key].popleft()
            else:
                del turns[key]


def _delay(text: str) -> tuple[str, float]:
    where, _, seconds = text.partition("=")
    try:
        if not where or where.strip("/") != where or where.count("/") > 1 or float(seconds) < 0:
            raise ValueError
        return where, float(seconds)
    except ValueError:
        wanted = "ACCOUNT=SECONDS or ACCOUNT/CONTAINER=SECONDS"
        raise SettingsError(f"`object_expirer_delays` names {text!r}, but each must be {wanted}") from None
