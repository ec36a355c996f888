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
from cumulet.services.object_store.message import Request, phrase
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


@dataclass(slots=True)
class Report:
    """How it went. `errors` are pairs: what failed (percent-encoded), and why."""

    values: dict[str, Any] = field(default_factory=dict)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def end(self, status: int, text: str = "") -> None:
        self.values["Response Status"] = status_line(status)
        self.values["Response Body"] = text or self.values.get("Response Body", "")

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


async def beating(work: Awaitable[bytes], kind: str | None, *, at_once: bool = False) -> AsyncIterator[bytes]:
    """What `work` gives in the end, after signs of life while it goes on (the first one `at_once`). An XML reply begins with
    its declaration, since nothing may stand before it. Whoever stops reading stops the work."""
    is_xml = kind is not None and kind.endswith("/xml")
    sign, begun = (b'<?xml version="1.0" encoding="UTF-8"?>\n' if is_xml else b" "), False
    task = asyncio.ensure_future(work)
    try:
        if at_once:
            yield b" "
            sign, begun = b" ", True
        while not (await asyncio.wait({task}, timeout=HEARTBEAT))[0]:
            yield sign
            sign, begun = b" ", True
        yield (b"\r\n\r\n" if begun else b"") + task.result()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
