"""What layers and the core want to know of an account, a container or an object before they answer: asked once for each
client's request, and kept for a while, by a HEAD that needs no leave.

Metadata is by name without its prefix, in lower case: `X-Container-Meta-Quota-Bytes` is meta["quota-bytes"],
`X-Container-Sysmeta-Versions-Enabled` is sysmeta["versions-enabled"].
"""

import time
from dataclasses import dataclass, field
from typing import Literal

from cumulet.services.object_store.message import Handler, Headers, Request, Response

Level = Literal["account", "container", "object"]


@dataclass(frozen=True, slots=True)
class Info:
    """What a HEAD told. `status` is 404 where there is none; `count` are the objects (of an account: its containers too)."""

    status: int
    headers: Headers
    meta: dict[str, str] = field(default_factory=dict)
    sysmeta: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def number(self, name: str) -> int:
        """A header that is a number; 0 where there is none."""
        return int(self.headers.get(name) or 0)


Key = tuple[str, str, str]
INFOS = "infos"
"""Where `Request.memo` has the InfoCache that all requests share; one that the program makes for itself may have none."""


class InfoCache:
    """What is known of accounts and containers between requests: what clients change here is forgotten at once, what they
    change elsewhere after `lasts` seconds. What is not there is asked for each time."""

    def __init__(self, lasts: float = 5.0, most: int = 20_000) -> None:
        self.lasts = lasts
        self._most = most
        self._known: dict[Key, tuple[float, Info]] = {}
        self.changes = 0
        """How often something was forgotten: what was asked before then may be stale."""

    def get(self, key: Key) -> Info | None:
        found = self._known.get(key)
        return found[1] if found is not None and found[0] > time.monotonic() else None

    def put(self, key: Key, info: Info, asked_at: int) -> None:
        if self.changes == asked_at:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = (time.monotonic() + self.lasts, info)

    def forget(self, key: Key) -> None:
        self.changes += 1
        self._known.pop(key, None)


async def account_info(app: Handler, request: Request, account: str = "", *, fresh: bool = False) -> Info:
    """What is known of an account. `fresh`: its counts of this moment matter."""
    key = (account or request.account, "", "")
    known: Info | None = None if fresh else request.memo.get(key)
    return await _asked(app, request, "account", key, fresh) if known is None else known


async def container_info(
    app: Handler, request: Request, container: str = "", account: str = "", *, fresh: bool = False
) -> Info:
    """What is known of a container. `fresh`: its counts of this moment matter."""
    key = (account or request.account, container or request.container, "")
    known: Info | None = None if fresh else request.memo.get(key)
    return await _asked(app, request, "container", key, fresh) if known is None else known


async def object_info(app: Handler, request: Request, container: str = "", object: str = "") -> Info:
    key = (request.account, container or request.container, object or request.object)
    known: Info | None = request.memo.get(key)
    return await _asked(app, request, "object", key, True) if known is None else known


def forget(request: Request, account: str, container: str = "", object: str = "") -> None:
    """What was known is not so any more: somebody changes it."""
    key = (account, container, object)
    request.memo.pop(key, None)
    if not object and (infos := request.memo.get(INFOS)) is not None:
        infos.forget(key)


async def _asked(app: Handler, request: Request, level: Level, key: Key, fresh: bool) -> Info:
    """What nothing is known of yet in the course of this request."""
    infos: InfoCache | None = request.memo.get(INFOS)
    found = infos.get(key) if infos is not None and not fresh else None
    if found is None:
        asked_at = infos.changes if infos is not None else 0
        account, container, object = key
        ask = request.sub("HEAD", source="info", trusted=True, account=account, container=container, object=object)
        found = _info(level, await app(ask))
        if (
            infos is not None
            and level != "object"
            and found.ok
            and "X-Backend-Fake-Account-Listing" not in found.headers
        ):
            infos.put(key, found, asked_at)
    if not fresh or level == "object":
        request.memo[key] = found
    return found


def _info(level: Level, response: Response) -> Info:
    meta: dict[str, str] = {}
    sysmeta: dict[str, str] = {}
    of_users, of_program = f"x-{level}-meta-", f"x-{level}-sysmeta-"
    for name, value in response.headers.items():
        low = name.lower()
        if low.startswith(of_users):
            meta[low[len(of_users) :]] = value
        elif low.startswith(of_program):
            sysmeta[low[len(of_program) :]] = value
    return Info(response.status, response.headers, meta, sysmeta)
