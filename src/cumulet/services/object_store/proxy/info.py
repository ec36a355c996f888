"""What layers and the core want to know of an account, a container or an object before they answer: asked once for each
client's request, by a HEAD that needs no leave.

Metadata is by name without its prefix, in lower case: `X-Container-Meta-Quota-Bytes` is meta["quota-bytes"],
`X-Container-Sysmeta-Versions-Enabled` is sysmeta["versions-enabled"].
"""

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


async def account_info(app: Handler, request: Request, account: str = "") -> Info:
    return await _asked(app, request, "account", (account or request.account, "", ""))


async def container_info(app: Handler, request: Request, container: str = "", account: str = "") -> Info:
    key = (account or request.account, container or request.container, "")
    return await _asked(app, request, "container", key)


async def object_info(app: Handler, request: Request, container: str = "", object: str = "") -> Info:
    key = (request.account, container or request.container, object or request.object)
    return await _asked(app, request, "object", key)


def forget(request: Request, account: str, container: str = "", object: str = "") -> None:
    """What was known is not so any more: somebody has just changed it."""
    request.memo.pop(("info", account, container, object), None)


async def _asked(app: Handler, request: Request, level: Level, key: tuple[str, str, str]) -> Info:
    memo = ("info", *key)
    found = request.memo.get(memo)
    if found is None:
        account, container, object = key
        ask = request.sub("HEAD", source="info", trusted=True, account=account, container=container, object=object)
        found = request.memo[memo] = _info(level, await app(ask))
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
