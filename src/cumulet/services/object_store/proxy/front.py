"""Where requests come in and replies go out: what clients send becomes a `Request`, who holds the token is found, what clients
may not send or see is taken away, and whatever was raised on the way becomes a reply.

Every reply carries X-Trans-Id and X-Openstack-Request-Id, by which the log can be searched.
Reference: https://docs.openstack.org/swift/latest/middleware.html ("Gatekeeper", "Catch Errors")
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from cumulet.api.access_log import log_request
from cumulet.api.caller import handed_on, is_permitted
from cumulet.api.http import Request as HttpRequest
from cumulet.api.http import Response as HttpResponse
from cumulet.core.context import NOBODY, Caller
from cumulet.core.errors import CloudError, Invalid
from cumulet.services.object_store.conditional import today
from cumulet.services.object_store.message import Headers, Refusal, Request, Response, close, encoded, parts_of, refuse
from cumulet.services.object_store.proxy.info import INFOS, InfoCache

log = logging.getLogger("cumulet.object_store")

CLIENT_TIMEOUT = 60.0
"""Seconds without a byte of a body after which a client is given up."""
MOST_URL = 8192
"""Bytes of a path with its query."""
KNOWN_AS = ("object-store", "swift")
"""The names of the service in access rules."""

IDS = random.Random()  # noqa: S311
"""Makes ids of transactions. They only have to differ, and nobody gains anything by guessing one: so they come from a generator
that the system's randomness has seeded once, and cost no system call each."""

INTERNAL = re.compile(
    r"x-(?:(?:account|container|object)-(?:transient-)?sysmeta-|backend"
    r"|account-(?:host|device|partition)$|container-(?:host|device|partition|root-db-state)$"
    r"|delete-at-(?:host|device|partition|container)$)",
    re.IGNORECASE,
).match


@lru_cache(maxsize=4096)
def is_internal(name: str) -> bool:
    """Whether a header is the program's own. It is asked of each header of each request and reply, and they are nearly always
    the same."""
    return INTERNAL(name) is not None


class Front:
    """Answers HTTP requests; `service.proxy` answers what is made of them."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.infos = InfoCache()

    async def __call__(self, http: HttpRequest) -> HttpResponse:
        """Answer one request; never raises but for cancellation."""
        started = time.perf_counter()
        headers = _received(http)
        transaction = _transaction(headers)
        caller = NOBODY
        try:
            caller = await self._who(http, headers)
            request = self._request(http, headers, caller, transaction)
            response = await self.service.proxy(request)
        except Refusal as refusal:
            response = refusal.response
        except Exception:
            log.exception("%s %s failed, transaction %s", http.method, http.raw_path, transaction)
            response = refuse(500, f"The server failed to answer. Its log says more under {transaction}.")
        return await self._finish(http, response, caller, transaction, started)

    def _request(self, http: HttpRequest, headers: Headers, caller: Caller, transaction: str) -> Request:
        query = http.query
        if len(http.raw_path) + len(query.raw) > MOST_URL:
            raise Refusal(refuse(414, "The path and the query are longer than the 8192 bytes that are taken here."))
        version, account, container, object = parts_of(_path(http.raw_path))
        return Request(
            http.method,
            account,
            container,
            object,
            headers,
            query,
            body=_body(http, headers),
            version=version,
            caller=caller,
            raw_path=http.raw_path,
            base_url=http.base_url,
            remote=http.remote,
            transaction=transaction,
            memo={INFOS: self.infos},
        )

    async def _who(self, http: HttpRequest, headers: Headers) -> Caller:
        """Who holds the token; NOBODY where there is none that counts, since much may be read by anybody."""
        token = headers.get("X-Auth-Token") or headers.get("X-Storage-Token")
        if not token:
            return NOBODY
        authenticate = self.service.identity.authenticate
        try:
            of_service = headers.get("X-Service-Token")
            if not of_service:
                caller: Caller = await authenticate(token)
            else:
                caller = await handed_on(authenticate, token, of_service)
        except CloudError:
            return NOBODY
        if not is_permitted(caller, KNOWN_AS, http.method, http.path):
            raise Refusal(
                refuse(403, f"The access rules of the token do not allow {http.method} {http.path} of object-store.")
            )
        return caller

    async def _finish(
        self, http: HttpRequest, response: Response, caller: Caller, transaction: str, started: float
    ) -> HttpResponse:
        headers = response.headers
        _drop_internal(headers)
        headers["X-Trans-Id"] = headers["X-Openstack-Request-Id"] = transaction
        if "Date" not in headers:
            headers["Date"] = today()
        if "Content-Type" not in headers:
            headers["Content-Type"] = "text/html; charset=UTF-8"
        if response.status in (204, 304):
            headers["Content-Length"] = "0"
        if response.status == 401 and "WWW-Authenticate" not in headers:
            account = parts_of(http.path)[1] or "unknown"
            headers["WWW-Authenticate"] = f'Swift realm="{encoded(account)}"'
        if http.headers.get("Connection", "").lower() == "keep-alive":
            headers["Connection"] = "keep-alive"
        if http.method == "HEAD" and not isinstance(response.body, bytes):
            await close(response)
            response.body = b""
        log_request("object-store", http, http.raw_path, transaction, caller, response.status, started)
        return response


def _received(http: HttpRequest) -> Headers:
    """The headers without those that only the program itself may set."""
    headers = Headers(http.headers)
    _drop_internal(headers)
    said = headers.pop("X-Timestamp", None)
    if said is not None:
        headers["X-Backend-Inbound-X-Timestamp"] = said
    if "Transfer-Encoding" in headers and headers["Transfer-Encoding"].lower().endswith("chunked"):
        headers.pop("Content-Length", None)
    return headers


def _drop_internal(headers: Headers) -> None:
    for name in list(filter(is_internal, headers)):
        headers.popall(name, None)


def _transaction(headers: Headers) -> str:
    """tx, 21 random digits, the time, and what the client wants to be known by."""
    more = headers.get("X-Trans-Id-Extra", "")[:32]
    known = f"-{more}" if more and more.isascii() and more.isprintable() else ""
    return f"tx{IDS.getrandbits(84):021x}-{int(time.time()):010x}{known}"


def _path(raw: str) -> str:
    path = raw
    if "%" in raw or not raw.isascii():
        try:
            path = unquote_to_bytes(raw.encode(errors="surrogateescape")).decode()
        except UnicodeDecodeError:
            path = "\0"
    if "\0" in path:
        raise Refusal(refuse(412, "Invalid UTF8 or contains NULL"))
    return path


def _body(http: HttpRequest, headers: Headers) -> AsyncIterator[bytes] | None:
    """The body as it comes, None where none is announced."""
    if "Transfer-Encoding" not in headers and headers.get("Content-Length", "0") == "0":
        return None
    return _patient(http)


async def _patient(http: HttpRequest) -> AsyncIterator[bytes]:
    """The body of a client who may be slow, but not for ever: it costs no thread meanwhile."""
    pieces = http.chunks()
    try:
        while True:
            piece = http.at_hand()
            if piece is None:
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    piece = await anext(pieces, b"")
            if not piece:
                return
            yield piece
    except TimeoutError:
        raise Refusal(refuse(408, f"Nothing more of the body came within {CLIENT_TIMEOUT:.0f} seconds.")) from None
    except Invalid:
        raise Refusal(refuse(499, "The client went away before the end of the body.")) from None
