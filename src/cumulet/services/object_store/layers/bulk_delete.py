"""Many deletes in one request: `POST /v1/account?bulk-delete`, a line for each object (or empty container), percent-encoded.

The reply is always 200; its body tells how many were deleted, how many were not there, and which failed.
Reference: https://docs.openstack.org/swift/latest/middleware.html (Bulk Delete)
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote, unquote_to_bytes

from cumulet.api.http import Query
from cumulet.services.object_store.layers.reports import Report, reported, status_line, wanted_kind
from cumulet.services.object_store.message import Handler, Refusal, Request, Response, ask, close, refuse

MAX_DELETES = 10_000
MAX_FAILURES = 1000
MAX_PATH = 1024 + 256 + 2
AT_ONCE = 16
"""Deletes that are made at the same time."""


@dataclass(slots=True)
class Doomed:
    """What is to be deleted: /container/object, or /container; perhaps one version of it. With `error` it is not tried."""

    name: str
    version: str = ""
    error: tuple[int, str] | None = None

    @property
    def is_object(self) -> bool:
        return "/" in self.name.strip("/")


async def bulk_delete(app: Handler, request: Request) -> Response:
    """The call."""
    kind = wanted_kind(request, default=None)

    async def work() -> bytes:
        deletes = Deletes(app, request)
        try:
            if kind is None:
                raise Refusal(refuse(406))
            if not request.headers.get("Content-Type", "text/plain").startswith("text/plain"):
                raise Refusal(refuse(406))
            doomed = await _read(request)
            await deletes.run(one for one in doomed if one.is_object)
            await deletes.run(one for one in doomed if not one.is_object)
            deletes.finish()
        except Refusal as refusal:
            deletes.refused(refusal)
        return deletes.report.encoded(kind, "delete")

    return await reported(work(), kind)


async def _read(request: Request) -> list[Doomed]:
    """The lines of the body."""
    if request.length is None and request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise Refusal(refuse(411))
    found: list[Doomed] = []
    rest = b""
    if request.body is not None:
        async for piece in request.body:
            *lines, rest = (rest + piece).split(b"\n")
            _add(found, lines)
            if len(rest) > MAX_PATH * 6:  # percent-encoded, three bytes stand for one
                raise Refusal(refuse(400, "Invalid File Name"))
    _add(found, [rest])
    return found


def _add(found: list[Doomed], lines: Sequence[bytes]) -> None:
    for line in lines:
        name = unquote_to_bytes(line.strip())
        if name:
            try:
                found.append(Doomed(name.decode()))
            except UnicodeDecodeError:
                text = name.decode(errors="surrogateescape")
                found.append(Doomed(text, error=(412, status_line(412))))
        if len(found) > MAX_DELETES:
            raise Refusal(refuse(413, f"Maximum Bulk Deletes: {MAX_DELETES} per request"))


class Deletes:
    """Deletes being made, and what came of them."""

    def __init__(self, app: Handler, request: Request, source: str = "bulk") -> None:
        self.app = app
        self.request = request
        self.source = source
        self.report = Report({"Number Deleted": 0, "Number Not Found": 0})
        self.report.end(200)
        self.gateway_failed = False

    async def run(self, doomed: Iterable[Doomed]) -> None:
        """Delete them, in any order; Refusal once too many have failed."""
        waiting = iter(doomed)
        while batch := list(islice(waiting, AT_ONCE)):
            await asyncio.gather(*map(self._delete, batch))
            if len(self.report.errors) >= MAX_FAILURES:
                raise Refusal(refuse(400, "Max delete failures exceeded"))

    async def _delete(self, doomed: Doomed) -> None:
        if doomed.error is not None:
            status, text = doomed.error
            self._note(doomed, status, text)
            return
        container, _, object = doomed.name.lstrip("/").partition("/")
        if not container or "\0" in doomed.name:
            self._note(doomed, 412, status_line(412))
            return
        query = Query(f"version-id={doomed.version}" if doomed.version else "")
        sub = self.request.sub("DELETE", source=self.source, container=container, object=object, query=query)
        response = await ask(self.app, sub)
        await close(response)
        self._note(doomed, response.status, status_line(response.status))

    def _note(self, doomed: Doomed, status: int, text: str) -> None:
        values = self.report.values
        if 200 <= status < 300:
            values["Number Deleted"] += 1
        elif status == 404:
            values["Number Not Found"] += 1
        else:
            self.gateway_failed = self.gateway_failed or status >= 500
            self.report.errors.append((encoded_name(doomed.name), text))

    def finish(self) -> None:
        """Say how it went altogether."""
        report = self.report
        if report.errors:
            report.end(502 if self.gateway_failed else 400)
        elif not (report.values["Number Deleted"] or report.values["Number Not Found"]):
            report.end(400, "Invalid bulk delete.")

    def refused(self, refusal: Refusal) -> None:
        """Say that it could not be gone on with."""
        self.report.refused(refusal)


def encoded_name(name: str) -> str:
    """A name, percent-encoded, whatever bytes it is made of."""
    return quote(name.encode(errors="surrogateescape"), safe="/~")
