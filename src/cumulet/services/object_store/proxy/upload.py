"""PUT of an object: its data goes to all nodes that keep it at once, as it comes, and most of them must have it on disk before
the client is told so.

A node begins to read when it is ready to write; until then another one can stand in for it. So what it answers without having
read anything costs nobody anything, as with 100-continue between swift's nodes.
"""

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cumulet.api.http import http_date
from cumulet.services.object_store.message import Refusal, Request, Response, empty, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest, Device
from cumulet.services.object_store.proxy import limits
from cumulet.services.object_store.proxy.backends import Backends, best, enough_of, quorum
from cumulet.services.object_store.proxy.where import Place
from cumulet.services.object_store.values import is_true

if TYPE_CHECKING:
    from cumulet.services.object_store.proxy.core import Core

AHEAD = 8
"""Pieces that the fastest node may be ahead of the slowest."""
NODE_TIMEOUT = 20.0
"""Seconds in which a node must take a piece."""


async def upload(core: "Core", request: Request, found: Place) -> Response:
    """Store an object."""
    from cumulet.services.object_store.proxy.object import headers_for

    settle_type(request)
    if (wrong := limits.check_upload(request)) is not None:
        return wrong
    copies = headers_for(core, request, found)
    requests = [core.backend("object", request, found.partition, copy, trailer=request.trailer) for copy in copies]
    intake = Intake(request)
    if len(requests) == 1:
        response = await _one(core.backends, found, requests[0], intake)
    else:
        response = await _several(core.backends, found, requests, intake)
    return _told(request, response)


class Intake:
    """What a client sends, on its way: `begun` once a node reads it, and held to what was announced and to the limit."""

    def __init__(self, request: Request) -> None:
        self._body = request.body if request.body is not None else empty()
        self._announced = request.length
        self.begun = False
        self.failure: Refusal | None = None

    async def stream(self) -> AsyncIterator[bytes]:
        self.begun = True
        size = 0
        try:
            async for piece in self._body:
                size += len(piece)
                if size > limits.MOST_FILE:
                    raise Refusal(refuse(413, "Your request is too large."))
                yield piece
            if self._announced is not None and size < self._announced:
                raise Refusal(refuse(499, f"The body ended after {size} of {self._announced} bytes."))
        except Refusal as failure:
            self.failure = failure
            raise


async def _one(backends: Backends, found: Place, request: BackendRequest, intake: Intake) -> Response:
    """To the one node that keeps the object, or to one that stands in for it."""
    response: Response | None = None
    for device, _ in backends.candidates(found.ring, found.partition):
        try:
            response = await backends.call(device, replace(request, body=intake.stream()))
        except Refusal:
            if intake.failure is None:
                raise
        if intake.failure is not None:
            raise intake.failure
        if response is not None and (response.status < 500 or intake.begun):
            break
    return best([response or refuse(503)], 1)


class Branch:
    """The data on its way to one of several nodes."""

    def __init__(self, backends: Backends, device: Device, request: BackendRequest) -> None:
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(AHEAD)
        self.begun = asyncio.Event()
        self.task = asyncio.ensure_future(backends.call(device, replace(request, body=self._stream())))
        self.task.add_done_callback(lambda _: self.begun.set())
        self.dropped = False

    @property
    def alive(self) -> bool:
        return not self.dropped and not self.task.done()

    async def _stream(self) -> AsyncIterator[bytes]:
        self.begun.set()
        while True:
            piece = await self.queue.get()
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def put(self, piece: bytes | None) -> None:
        """Hand a piece on; a node that does not take it in time is dropped."""
        try:
            self.queue.put_nowait(piece)
            return
        except asyncio.QueueFull:
            pass
        putting = asyncio.ensure_future(self.queue.put(piece))
        await asyncio.wait((putting, self.task), timeout=NODE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not putting.done():
            putting.cancel()
            if not self.task.done():
                self.drop()

    def drop(self) -> None:
        self.dropped = True
        self.task.cancel()


async def _several(backends: Backends, found: Place, requests: Sequence[BackendRequest], intake: Intake) -> Response:
    devices = backends.candidates(found.ring, found.partition)
    branches: list[Branch] = []
    needed = quorum(len(requests))
    try:
        branches = [Branch(backends, device, request) for request, (device, _) in zip(requests, devices, strict=False)]
        for position, request in enumerate(requests[: len(branches)]):
            await branches[position].begun.wait()
            while _is_useless(branches[position]) and (other := next(devices, None)) is not None:
                branches[position] = Branch(backends, other[0], request)
                await branches[position].begun.wait()
        if sum(branch.alive or branch.task.result().ok for branch in branches) < needed:
            await _end(branches, Refusal(refuse(503)))
            return best([branch.task.result() for branch in branches if _is_answered(branch)], needed)
        async for piece in intake.stream():
            alive = [branch for branch in branches if branch.alive]
            if len(alive) < needed:
                break
            for branch in alive:
                await branch.put(piece)
        for branch in branches:
            if branch.alive:
                await branch.put(None)
        answers = await enough_of([branch.task for branch in branches if not branch.dropped], needed)
    except Refusal as refusal:
        await _end(branches, refusal)
        raise
    except BaseException:
        for branch in branches:
            branch.drop()
        raise
    return best(answers, needed)


def _is_answered(branch: Branch) -> bool:
    return branch.task.done() and not branch.task.cancelled() and branch.task.exception() is None


def _is_useless(branch: Branch) -> bool:
    return _is_answered(branch) and branch.task.result().status >= 500


async def _end(branches: Sequence[Branch], failure: Refusal) -> None:
    """Have nodes throw away what they got."""
    for branch in branches:
        if branch.alive:
            try:
                branch.queue.put_nowait(failure)
            except asyncio.QueueFull:
                branch.drop()
    await asyncio.gather(*(branch.task for branch in branches), return_exceptions=True)


def settle_type(request: Request) -> None:
    """Find a content type by the name where none is told."""
    headers = request.headers
    guess = is_true(headers.pop("X-Detect-Content-Type", None))
    if guess or not headers.get("Content-Type"):
        headers["Content-Type"] = mimetypes.guess_type(request.path)[0] or "application/octet-stream"


def _told(request: Request, response: Response) -> Response:
    if response.status == 409:
        return Response(202, b"", {"Content-Type": "text/html; charset=UTF-8"})
    if response.status == 201:
        headers = response.headers
        if (etag := headers.get("Etag")) is not None:
            headers["Etag"] = etag.replace('"', "")
        headers["Last-Modified"] = http_date(Timestamp.parse(request.headers["X-Timestamp"]).ceil)
        headers.setdefault("Content-Type", "text/html; charset=UTF-8")
    return response
