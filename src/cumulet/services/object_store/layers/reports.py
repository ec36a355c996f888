"""Replies that tell in their body how something long went, which are begun before it is known: bulk calls, and manifests and
copies with `heartbeat=on`. Space is sent now and then meanwhile, so that nobody in between takes the connection for dead.

In plain text, JSON or XML, as Accept wants. Reference: https://docs.openstack.org/swift/latest/middleware.html (bulk, SLO).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from cumulet.api.http import encode_json
from cumulet.core.tasks import to_the_end
from cumulet.services.object_store.message import EXPLAINED, Refusal, Request, Response, phrase
from cumulet.services.object_store.values import best_match

KINDS = ("text/plain", "application/json", "application/xml", "text/xml")
HEARTBEAT = 10.0
"""Seconds between two signs of life."""


def status_line(status: int) -> str:
    """201 Created."""
    return f"{status} {phrase(status)}"


def wanted_kind(request: Request, kinds: Sequence[str] = KINDS, default: str | None = "text/plain") -> str | None:
    """The kind of reply that a client takes; `default` where it takes none of ours or its Accept is not understood."""
    try:
        return best_match(request.headers.get("Accept"), kinds) or default
    except ValueError:
        return default


def said(response: Response) -> str:
    """What a refusal says in plain words."""
    if response.headers.get("Content-Type", "").startswith("text/plain") and isinstance(response.body, bytes):
        return response.body.decode(errors="replace")
    return "" if response.ok else "\n".join(filter(None, (phrase(response.status), EXPLAINED.get(response.status))))


@dataclass(slots=True)
class Report:
    """How it went. `errors` are pairs: what failed (percent-encoded), and why."""

    values: dict[str, Any] = field(default_factory=dict)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def end(self, status: int, text: str = "") -> None:
        self.values["Response Status"] = status_line(status)
        self.values["Response Body"] = text or self.values.get("Response Body", "")

    def refused(self, refusal: Refusal) -> None:
        self.end(refusal.response.status, said(refusal.response))

    def encoded(self, kind: str | None, root: str) -> bytes:
        """As `kind`, in XML in an element `root`."""
        if kind == "application/json":
            return encode_json({**self.values, "Errors": self.errors})
        if kind is not None and kind.endswith("/xml"):
            return self._xml(root).encode()
        lines = [f"{name}: {self.values[name]}\n" for name in sorted(self.values)]
        return "".join([*lines, "Errors:\n", *(f"{what}, {why}\n" for what, why in self.errors)]).encode()

    def _xml(self, root: str) -> str:
        lines = [f"<{root}>\n"]
        for name in sorted(self.values):
            tag = name.replace(" ", "_").lower()
            lines.append(f"<{tag}>{escape(str(self.values[name]))}</{tag}>\n")
        lines.append("<errors>\n")
        for what, why in self.errors:
            lines.append(f"<object><name>{escape(what)}</name><status>{escape(why)}</status></object>\n")
        return "".join([*lines, f"</errors>\n</{root}>\n"])


async def reported(work: Awaitable[bytes], kind: str | None, status: int = 200, *, at_once: bool = False) -> Response:
    """The reply that `work` gives the body of. It is begun when that is there, or else when somebody might think that nothing
    goes on, or `at_once`. What is begun is done, even if nobody waits for it any more."""
    task = asyncio.ensure_future(work)
    headers = {"Content-Type": kind or KINDS[0]}
    if at_once:
        return Response(status, _beating(task, b" "), headers)
    try:
        done, _ = await asyncio.wait({task}, timeout=HEARTBEAT)
    except asyncio.CancelledError:
        await to_the_end(_ended(task))
        raise
    if done:
        return Response(status, task.result(), headers)
    is_xml = kind is not None and kind.endswith("/xml")  # where nothing may stand before the declaration
    return Response(status, _beating(task, b'<?xml version="1.0" encoding="UTF-8"?>\n' if is_xml else b" "), headers)


async def _beating(task: "asyncio.Future[bytes]", first: bytes) -> AsyncIterator[bytes]:
    try:
        yield first
        while not (await asyncio.wait({task}, timeout=HEARTBEAT))[0]:
            yield b" "
        yield b"\r\n\r\n" + task.result()
    finally:
        if not task.done():
            await to_the_end(_ended(task))


async def _ended(task: "asyncio.Future[bytes]") -> None:
    with contextlib.suppress(Exception):
        await task
