"""Rate limits: how many containers an account may make and remove a second, and how many objects may be written to, or
listings had of, a container, by the number of objects in it. Who is too fast is made to wait; who would wait too long gets 498.

The limits are those of one process: behind several proxies each has its own count.
Reference: https://docs.openstack.org/swift/latest/ratelimit.html
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cumulet.config import SettingsError
from cumulet.services.object_store.message import Handler, Request, Response, refuse
from cumulet.services.object_store.proxy.info import account_info, container_info
from cumulet.services.object_store.proxy.limits import VERSIONS
from cumulet.services.object_store.words import listed

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

log = logging.getLogger("cumulet.object_store")

WRITES = frozenset({"PUT", "DELETE", "POST", "COPY"})
MADE, REMOVED = "PUT", "DELETE"
FREE, BARRED = "WHITELIST", "BLACKLIST"
PENALTY = 1.0
"""Seconds for which a barred account waits for its refusal."""
MOST = 100_000
"""Counts that are kept; those of before are dropped then."""

Limits = Sequence[tuple[int, float]]
"""(objects in the container, requests a second), rising: between two of them the rate lies on the line from one to the other,
under the first there is no limit."""


def limits(name: str, setting: str) -> Limits:
    """From `100=50, 10000=5`."""
    try:
        pairs = [tuple(part.split("=")) for part in listed(setting)]
        found = sorted((int(size), float(rate)) for size, rate in pairs)
    except ValueError:
        wanted = "pairs such as 100=50, 10000=5: objects in a container, and requests a second"
        raise SettingsError(f"`{name}` is {setting!r}, but must be {wanted}") from None
    if len({size for size, _ in found}) < len(found) or any(size < 0 or rate <= 0 for size, rate in found):
        raise SettingsError(f"`{name}` is {setting!r}: each size may be there once, and rates are above 0")
    return found


def rate(of: Limits, size: int) -> float | None:
    """The limit for a container of `size` objects; None for none."""
    found = None
    for position, (start, value) in enumerate(of):
        if not size or size < start:
            break
        found = value
        if position + 1 < len(of):
            end, other = of[position + 1]
            found = value + (other - value) * (size - start) / (end - start)
    return found


class Clocks:
    """When the next request of each kind may come."""

    def __init__(self, buffer: float, longest: float) -> None:
        self._next: dict[str, float] = {}
        self.buffer = buffer
        self.longest = longest

    def wait(self, key: str, rate: float, now: float) -> float | None:
        """Seconds to wait; None where it would be too long, and the request does not count."""
        if len(self._next) > MOST:
            self._next = {name: at for name, at in self._next.items() if at > now - self.buffer}
        each = 1.0 / rate
        due = self._next.get(key, 0.0)
        if now - due > self.buffer:
            self._next[key] = now + each
            return 0.0
        delay = max(due - now, 0.0)
        if delay >= self.longest * 0.99:
            return None
        self._next[key] = due + each
        return delay


def ratelimit(service: "ObjectStoreRuntime", app: Handler) -> Handler:
    layer = RateLimit(service, app)
    return layer if layer.wanted else app


class RateLimit:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        settings = service.kernel.settings
        self.app = app
        self.account_rate = settings.object_account_ratelimit
        self.writes = limits("object_container_ratelimits", settings.object_container_ratelimits)
        self.listings = limits("object_listing_ratelimits", settings.object_listing_ratelimits)
        self.of_accounts = dict(_of_account(part) for part in listed(settings.object_account_ratelimits))
        self.clocks = Clocks(settings.object_ratelimit_buffer, settings.object_ratelimit_longest_wait)
        self.wanted = bool(self.account_rate or self.writes or self.listings or self.of_accounts)
        service.told["ratelimit"] = {
            "account_ratelimit": self.account_rate,
            "max_sleep_time_seconds": float(self.clocks.longest),
            "container_ratelimits": [list(pair) for pair in self.writes],
            "container_listing_ratelimits": [list(pair) for pair in self.listings],
        }

    async def __call__(self, request: Request) -> Response:
        if request.version not in VERSIONS or not request.account or request.source or RateLimit in request.memo:
            return await self.app(request)
        request.memo[RateLimit] = True
        said = self.of_accounts.get(request.account)
        if said is None:
            said = (await account_info(self.app, request)).sysmeta.get("global-write-ratelimit")
        if said == BARRED:
            await asyncio.sleep(PENALTY)
            return refuse(497, "Your account has been blacklisted")
        if said != FREE:
            for key, allowed in await self._keys(request, said):
                delay = self.clocks.wait(key, allowed, time.monotonic())
                if delay is None:
                    log.info("%s %s is refused: its turn would come too late", request.method, request.path)
                    return refuse(498, "Slow down")
                if delay:
                    await asyncio.sleep(delay)
        return await self.app(request)

    async def _keys(self, request: Request, said: str | None) -> list[tuple[str, float]]:
        """What a request counts as, and how often a second that may come."""
        found: list[tuple[str, float | None]] = []
        where = f"{request.account}/{request.container}"
        if request.container and not request.object:
            if request.method in (MADE, REMOVED):
                found.append((request.account, self.account_rate))
            elif request.method == "GET" and self.listings:
                found.append((f"listing {where}", rate(self.listings, await self._size(request))))
        elif request.object and request.method in WRITES and self.writes:
            found.append((where, rate(self.writes, await self._size(request))))
        if said and request.method in WRITES:
            found.append((f"writes {request.account}", _number(said)))
        return [(key, allowed) for key, allowed in found if allowed]

    async def _size(self, request: Request) -> int:
        info = await container_info(self.app, request)
        return info.number("X-Container-Object-Count")


def _of_account(text: str) -> tuple[str, str]:
    account, _, value = text.partition("=")
    if not account or (value not in (FREE, BARRED) and not _number(value)):
        wanted = f"ACCOUNT=RATE, ACCOUNT={FREE} or ACCOUNT={BARRED}"
        raise SettingsError(f"`object_account_ratelimits` names {text!r}, but each must be {wanted}")
    return account, value


def _number(text: str) -> float:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return 0.0
