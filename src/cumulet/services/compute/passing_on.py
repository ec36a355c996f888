"""Asking another service's API as the caller, inside the program: for calls that compute's API of old passes on."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from cumulet.api.http import Request, encode_json
from cumulet.core.errors import CloudError, Conflict, Forbidden, Invalid, NotFound, NotImplementedHere, Unavailable
from cumulet.services.compute.context import Ctx

ERRORS: dict[int, type[CloudError]] = {400: Invalid, 403: Forbidden, 404: NotFound, 409: Conflict}


class Sent:
    """The body of a request that comes from no wire."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._data:
            yield self._data

    def at_hand(self) -> bytes | None:
        return None


async def ask(ctx: Ctx, service: str, method: str, path: str, body: Any = None, query: str = "") -> Any:
    """What the service's API answers to the caller; its errors are raised in its own words."""
    api = ctx.service.apis.get(service)
    if api is None:
        raise NotImplementedHere(f"Compute does not pass this on: ask the {service} service itself.")
    data = b"" if body is None else encode_json(body)
    headers = {
        "X-Auth-Token": ctx.request.headers.get("X-Auth-Token", ""),
        "X-OpenStack-Request-ID": ctx.request_id,
        "Content-Length": str(len(data)),
    }
    reply = await api(Request(method, path, query, headers, Sent(data), remote=ctx.request.remote))
    value = msgspec.json.decode(reply.body) if reply.body else None
    if reply.status >= 400:
        raise _error(reply.status, value)
    return value


def _error(status: int, value: Any) -> CloudError:
    inner = next(iter(value.values())) if isinstance(value, dict) and value else value
    message = inner.get("message", "") if isinstance(inner, dict) else str(inner)
    kind = inner.get("type", "") if isinstance(inner, dict) else ""
    if kind == "OverQuota":
        return Forbidden(message)
    if status not in ERRORS:
        return Unavailable(message)
    error = ERRORS[status]
    return NotFound(message=message) if error is NotFound else error(message)
