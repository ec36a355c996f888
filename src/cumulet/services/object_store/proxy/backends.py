"""How the proxy asks storage nodes: whom it reads from, how many must have written before it says so, which answer it gives.

Writes go to all primaries of a partition at once, handoffs stand in for those that fail, and most of them must agree. Reads
take the first good answer, or with X-Newest the newest of all. Nodes that failed often are left alone for a while.
Reference: https://docs.openstack.org/swift/latest/overview_architecture.html
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from cumulet.services.object_store.message import Headers, Response, chunks, close, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest, Device, Nodes, Ring

log = logging.getLogger("cumulet.object_store")

ERRORS, SUPPRESSED = 10, 60.0
"""So many errors within so many seconds, and a node is left alone for that long."""
GRACE = 0.5
"""Seconds that the rest get to answer once enough have."""


def quorum(copies: int) -> int:
    """How many of so many copies must be written."""
    return (copies + 1) // 2


class Backends:
    """The storage nodes, as the proxy asks them."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._errors: dict[Device, tuple[int, float]] = {}

    async def call(self, device: Device, request: BackendRequest) -> Response:
        """One call; what fails is remembered against the node."""
        response = await self._nodes.call(device, replace(request, device=device.name))
        if response.status >= 500:
            count, _ = self._errors.get(device, (0, 0.0))
            self._errors[device] = (ERRORS if response.status == 507 else count + 1, time.monotonic())
        return response

    def candidates(self, ring: Ring, partition: int, *, shuffled: bool = False) -> "Iterator[tuple[Device, bool]]":
        """The devices that may be asked, and whether each is a primary: twice as many as there are copies, at most. Those that
        failed often are left out, unless there are no others."""
        primaries = list(ring.devices(partition))
        if shuffled and len(primaries) > 1:
            random.shuffle(primaries)
        if not self._errors:
            for device in primaries:
                yield device, True
            left = len(primaries)
            for device in ring.handoffs(partition):
                if not left:
                    return
                left -= 1
                yield device, False
            return
        left, limited = 2 * len(primaries), []
        for device in [*primaries, *ring.handoffs(partition)]:
            if self._limited(device):
                limited.append(device)
            elif left:
                left -= 1
                yield device, device in primaries
        for device in limited[:left]:
            yield device, device in primaries

    def _limited(self, device: Device) -> bool:
        count, last = self._errors.get(device, (0, 0.0))
        if count and time.monotonic() - last > SUPPRESSED:
            del self._errors[device]
            return False
        return count >= ERRORS

    async def read(self, ring: Ring, request: BackendRequest, *, newest: bool = False) -> Response:
        """The answer to a GET or HEAD: the first good one; with `newest` the one with the latest timestamp."""
        answers: list[Response] = []
        good: list[Response] = []
        deleted = Timestamp(0)
        for device, primary in self.candidates(ring, request.partition, shuffled=True):
            response = await self.call(device, request)
            if _is_good(response, request.kind):
                if deleted.ticks and _told_at(response) < deleted:
                    await close(response)
                elif newest:
                    good.append(response)
                else:
                    return self._resumable(ring, request, response, device)
                continue
            when = _stamp(response.headers.get("X-Backend-Timestamp"))
            if not primary and not when.ticks and (response.status >= 500 or response.status == 404):
                continue  # a handoff that knows nothing says nothing
            if response.status == 404 and request.kind == "object":
                deleted = max(deleted, when)
            answers.append(response)
        good = [response for response in good if _told_at(response) >= deleted]
        if good:
            good.sort(key=_told_at)
            for older in good[:-1]:
                await close(older)
            return good[-1]
        return best(answers, quorum(len(answers)))

    def _resumable(self, ring: Ring, request: BackendRequest, response: Response, device: Device) -> Response:
        """A stream of an object that breaks off is taken up at another node."""
        if request.method == "GET" and request.kind == "object" and hasattr(response.body, "__aiter__"):
            length = response.headers.get("Content-Length", "")
            if response.status == 200 and length.isdigit() and response.headers.get("Etag"):
                etag = response.headers["Etag"].strip('"')
                response.body = self._resumed(ring, request, response.body, device, etag, int(length))
        return response

    async def _resumed(
        self, ring: Ring, request: BackendRequest, body: Any, device: Device, etag: str, length: int
    ) -> AsyncIterator[bytes]:
        sent, tried = 0, {device}
        try:
            while True:
                try:
                    async for piece in body:
                        sent += len(piece)
                        yield piece
                    if sent >= length:
                        return
                except (OSError, EOFError) as error:
                    log.warning("%s broke off after %d of %d bytes: %s", device.name, sent, length, error)
                body = await self._rest(ring, request, tried, etag, sent, length)
        finally:
            if hasattr(body, "aclose"):
                await body.aclose()

    async def _rest(
        self, ring: Ring, request: BackendRequest, tried: set[Device], etag: str, start: int, length: int
    ) -> AsyncIterator[bytes]:
        """The same data from `start` on, of a node that was not asked yet; OSError where there is none."""
        headers = Headers(request.headers)
        headers["Range"], headers["If-Match"] = f"bytes={start}-{length - 1}", f'"{etag}"'
        headers.popall("If-None-Match", None)
        for device, _ in self.candidates(ring, request.partition):
            if device in tried:
                continue
            tried.add(device)
            response = await self.call(device, replace(request, headers=headers))
            if response.status == 206 and response.headers.get("Etag", "").strip('"') == etag:
                return chunks(response)
            await close(response)
        raise OSError("the data broke off, and no other node has the rest of it")

    async def write(
        self,
        ring: Ring,
        requests: Sequence[BackendRequest],
        *,
        unless: "dict[int, int] | None" = None,
        handoffs_for: int = 0,
    ) -> Response:
        """The answer to a write without a body: `requests` has one for each primary. `unless` gives statuses that count as
        others where there is no agreement; for each primary that answers `handoffs_for` a handoff is asked, where others say
        that there is something to write to."""
        if len(requests) == 1:
            return await self._written(self.candidates(ring, requests[0].partition), requests[0])
        candidates = self.candidates(ring, requests[0].partition)
        firsts = [device for device, _ in _take(candidates, len(requests))]
        tasks = [
            asyncio.ensure_future(self._written(_then(device, candidates), request))
            for device, request in zip(firsts, requests, strict=False)
        ]
        answers = await enough_of(tasks, quorum(len(requests)))
        found = sum(answer.ok for answer in answers)
        if handoffs_for and 0 < found < quorum(len(requests)):
            for answer in [answer for answer in answers if answer.status == handoffs_for]:
                other = await self._written(candidates, requests[0])
                if other.ok:
                    answers[answers.index(answer)] = other
            if sum(answer.ok for answer in answers) < quorum(len(requests)):
                return refuse(503, "Too few of the nodes that hold this answer. Try again later.", Retry_After="1")
        return best(answers, quorum(len(requests)), unless)

    async def _written(self, devices: "Iterator[tuple[Device, bool]]", request: BackendRequest) -> Response:
        status = 503
        for device, _ in devices:
            response = await self.call(device, request)
            if response.status < 500:
                return response
            status = response.status
        return response if status == 507 else refuse(503)


def best(answers: Sequence[Response], enough: int, unless: "dict[int, int] | None" = None) -> Response:
    """The answer on which enough nodes agree (by hundreds), the worst of those; 503 where they do not."""
    for hundred in (200, 300, 400):
        same = [answer for answer in answers if hundred <= answer.status < hundred + 100]
        if same and len(same) >= enough:
            return max(same, key=lambda answer: answer.status)
    if unless:
        counted = [unless.get(answer.status, answer.status) for answer in answers]
        for hundred in (200, 300, 400):
            if sum(hundred <= status < hundred + 100 for status in counted) >= enough:
                same = [a for a in answers if a.status not in unless and hundred <= a.status < hundred + 100]
                if same:
                    return max(same, key=lambda answer: answer.status)
    full = sum(answer.status == 507 for answer in answers)
    if answers and full == len(answers):
        return refuse(507, "There is no space left on the devices that would hold this.")
    return refuse(503, "Too few of the nodes that hold this answer. Try again later.", Retry_After="1")


async def enough_of(tasks: "Sequence[asyncio.Future[Response]]", enough: int) -> list[Response]:
    """The answers of all, or of enough that succeeded and of those that come soon after; the others go on by themselves."""
    pending = set(tasks)
    done: set[asyncio.Future[Response]] = set()
    wait: float | None = None
    while pending:
        finished, pending = await asyncio.wait(pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        done |= finished
        if not finished:
            break
        if wait is None and sum(task.result().ok for task in done) >= enough:
            wait = GRACE
    for task in pending:
        _LATE.add(task)
        task.add_done_callback(_LATE.discard)
    return [task.result() for task in tasks if task in done]


_LATE: "set[asyncio.Future[Response]]" = set()
"""Writes that nobody waits for: they still have to be made."""


def _is_good(response: Response, kind: str) -> bool:
    if kind == "object" and response.status == 416:
        return True
    return 200 <= response.status < 400 and response.headers.get("X-Put-Timestamp", "1").strip("0.") != ""


def _told_at(response: Response) -> Timestamp:
    headers = response.headers
    return _stamp(
        headers.get("X-Backend-Data-Timestamp")
        or headers.get("X-Backend-Timestamp")
        or headers.get("X-Put-Timestamp")
        or headers.get("X-Timestamp")
    )


def _stamp(text: str | None) -> Timestamp:
    try:
        return Timestamp.parse(text) if text else Timestamp(0)
    except ValueError:
        return Timestamp(0)


def _take(devices: "Iterator[tuple[Device, bool]]", most: int) -> "list[tuple[Device, bool]]":
    return [found for _, found in zip(range(most), devices, strict=False)]


def _then(first: Device, rest: "Iterator[tuple[Device, bool]]") -> "Iterator[tuple[Device, bool]]":
    """A device, and then those that nobody else has taken."""
    yield first, True
    yield from rest
