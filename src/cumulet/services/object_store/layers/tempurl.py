"""Temporary URLs: `?temp_url_sig=...&temp_url_expires=...` lets whoever holds the URL make one kind of request of one object,
or of all objects whose names begin alike (`temp_url_prefix`), from certain addresses (`temp_url_ip_range`), until a time.

What is signed, with a key of the account or the container: the method, the time and the path, a line each.
Reference: https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html
"""

import posixpath
import time
from calendar import timegm
from collections.abc import Awaitable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from cumulet.api.http import Query, http_date
from cumulet.core.context import NOBODY
from cumulet.services.object_store.message import Authorize, Handler, Request, Response, close, refuse
from cumulet.services.object_store.signatures import allowed_digests, digest_of, keys_for, same, sign, told_of
from cumulet.services.object_store.words import Patterns, drop, listed, requested_path, unauthorized

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

DISALLOWED = ("X-Object-Manifest", "X-Symlink-Target", "X-Copy-From")
"""Headers of uploads that would make an object point to data which the URL gives no leave to read."""
ISO = "%Y-%m-%dT%H:%M:%SZ"
READS = ("GET", "HEAD")
SIGNED_FOR_HEAD = ("HEAD", "GET", "POST", "PUT")
GENERATED = "X-Backend-Content-Generator"


@dataclass(frozen=True, slots=True)
class TempUrl:
    """What the query of a temporary URL says. `expires` is as it was given."""

    signature: str
    expires: str
    prefix: str | None = None
    ip_range: str | None = None
    filename: str | None = None
    inline: bool = False

    @classmethod
    def read(cls, query: Query) -> "TempUrl | None":
        """None where a request is no attempt at one. Of a value that is given twice the first counts."""
        values: dict[str, str] = {}
        for name, value in query.pairs:
            values.setdefault(name, value)
        if "temp_url_sig" not in values and "temp_url_expires" not in values:
            return None
        return cls(
            values.get("temp_url_sig", ""),
            values.get("temp_url_expires", ""),
            values.get("temp_url_prefix"),
            values.get("temp_url_ip_range"),
            values.get("filename"),
            "inline" in values,
        )

    @property
    def end(self) -> int:
        """When it ends, in seconds; 0 where that is no time, or past."""
        try:
            end = int(self.expires)
        except ValueError:
            try:
                end = timegm(time.strptime(self.expires, ISO))
            except ValueError:
                return 0
        return end if end >= time.time() else 0

    def query(self) -> str:
        """What further layers see of it."""
        pairs = {"temp_url_sig": self.signature, "temp_url_expires": self.expires}
        if self.prefix is not None:
            pairs["temp_url_prefix"] = self.prefix
        if self.filename:
            pairs["filename"] = self.filename
        if self.inline:
            pairs["inline"] = ""
        return urlencode(pairs)


class TempUrls:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        settings = service.kernel.settings
        self.app = app
        self.digests = allowed_digests(settings.object_digests)
        self.methods = frozenset(listed(settings.object_tempurl_methods.upper()))
        told = {
            "methods": list(listed(settings.object_tempurl_methods.upper())),
            "incoming_remove_headers": list(listed(settings.object_tempurl_incoming_remove)),
            "incoming_allow_headers": list(listed(settings.object_tempurl_incoming_allow)),
            "outgoing_remove_headers": list(listed(settings.object_tempurl_outgoing_remove)),
            "outgoing_allow_headers": list(listed(settings.object_tempurl_outgoing_allow)),
        }
        self.incoming = Patterns(told["incoming_remove_headers"]), Patterns(told["incoming_allow_headers"])
        self.outgoing = Patterns(told["outgoing_remove_headers"]), Patterns(told["outgoing_allow_headers"])
        service.told["tempurl"] = told | told_of(self.digests)

    def __call__(self, request: Request) -> Awaitable[Response]:
        if "temp_url_" not in request.query.raw or request.method == "OPTIONS":
            return self.app(request)
        return self._by_url(request)

    async def _by_url(self, request: Request) -> Response:
        url = TempUrl.read(request.query)
        if url is None:
            return await self.app(request)
        end = url.end
        scope = await self._scope(request, url, end) if url.signature and end else ""
        if not scope:
            return _invalid(request)
        if request.method not in READS:
            for name in DISALLOWED:
                if name in request.headers:
                    return refuse(400, f"The header '{name}' is not allowed in this tempurl")
        drop(request.headers, *self.incoming)
        request.authorize, request.settled = _within(request, scope), True
        request.caller, request.owner = NOBODY, False
        request.query = Query(url.query())
        request.memo[TempUrl] = url
        response = await self.app(request)
        drop(response.headers, *self.outgoing)
        if request.method in READS and response.ok:
            return await _as_a_file(request, response, url, end)
        return response

    async def _scope(self, request: Request, url: TempUrl, end: int) -> str:
        """How far the key reaches that the request is signed with; "" where it is signed with none."""
        try:
            digest, signature = digest_of(url.signature)
        except ValueError:
            return ""
        root = url.prefix == "" and request.method in READS and request.container
        named = root or request.object.strip("/")
        if digest not in self.digests or request.method not in self.methods or not named or request.version != "v1":
            return ""
        if not _from_range(url.ip_range, request.remote):
            return ""
        path = f"/v1/{request.account}/{request.container}/"
        if url.prefix is None:
            path += request.object
        elif request.object.startswith(url.prefix):
            path = f"prefix:{path}{url.prefix}"
        else:
            return ""
        before = [f"ip={url.ip_range}"] if url.ip_range else []
        methods = SIGNED_FOR_HEAD if request.method == "HEAD" else (request.method,)
        keys = await keys_for(self.app, request)
        for method in methods:
            for key, scope in keys:
                if same(signature, sign(key, digest, *before, method, str(end), path)):
                    return scope
        return ""


def _from_range(told: str | None, remote: str) -> bool:
    """Whether the client is where the URL may be used from."""
    if not told:
        return True
    try:
        return ip_address(remote) in ip_network(told)
    except ValueError:
        return False


def _within(request: Request, scope: str) -> Authorize:
    """Leave for requests of the same account, or of the same container."""
    account, container = request.account, request.container

    async def authorize(asked: Request) -> Response | None:
        if asked.account == account and (scope == "account" or asked.container == container):
            return None
        return unauthorized(asked, "")

    return authorize


def _invalid(request: Request) -> Response:
    return unauthorized(request, "" if request.method == "HEAD" else "401 Unauthorized: Temp URL invalid\n")


async def _as_a_file(request: Request, response: Response, url: TempUrl, end: int) -> Response:
    """What a browser is told to do with the data: save it, under which name, or show it."""
    headers = response.headers
    generated = headers.get(GENERATED) == "staticweb"
    if not request.object and not generated:
        await close(response)
        return _invalid(request)
    if url.inline or generated:
        told = _disposition("inline", url.filename) if url.filename else "inline"
    elif url.filename:
        told = _disposition("attachment", url.filename)
    else:
        name = posixpath.basename(requested_path(request).rstrip("/"))
        told = headers.get("Content-Disposition") or _disposition("attachment", name)
    headers["Content-Disposition"] = told.replace("\n", "%0A")
    headers["Expires"] = http_date(end)
    return response


def _disposition(kind: str, filename: str) -> str:
    """Content-Disposition (RFC 6266) with a name that need not be ASCII (RFC 8187)."""
    plain, full = quote(filename, safe=" /"), quote(filename)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{full}"
