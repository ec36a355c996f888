"""Copies inside the cloud: COPY with Destination (and Destination-Account), and PUT with X-Copy-From (and
X-Copy-From-Account).

What a GET of the source gives becomes the body of a PUT; so a large object becomes one of its own, a symlink what it stands
for, a Range a part. With `?multipart-manifest=get` or `?symlink=get` the manifest or the link itself is copied. Metadata go
along and those of the request add to them; with X-Fresh-Metadata only those of the request count.
Reference: https://docs.openstack.org/swift/latest/middleware.html#server-side-copy
"""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from cumulet.services.object_store.layers.reports import Report, reported, said, status_line, wanted_kind
from cumulet.services.object_store.layers.segments import Broken
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    chunks,
    close,
    encoded,
    refuse,
)
from cumulet.services.object_store.values import account_name, is_true, object_path, queried, unquoted

MAX_SIZE = 5 * (1 << 30) + 2
"""Bytes of one object; what is larger has to be in segments."""
OF_THE_REPLY = frozenset(
    {
        "accept-ranges",
        "content-length",
        "content-location",
        "content-range",
        "content-type",
        "connection",
        "date",
        "etag",
        "last-modified",
        "transfer-encoding",
        "x-object-manifest",
        "x-object-version-id",
        "x-openstack-request-id",
        "x-static-large-object",
        "x-timestamp",
        "x-trans-id",
        "x-manifest-etag",
        "x-parts-count",
    }
)
"""Headers of the source's reply that say nothing of the copy, or are set where they do."""
OVERRIDES = "x-object-sysmeta-container-update-override-"
OF_LARGE = "x-object-sysmeta-slo-"
KINDS = ("text/plain", "application/json")


class Copies:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app

    def __call__(self, request: Request) -> Awaitable[Response]:
        if request.object:
            if request.method == "COPY":
                _become_put(request)
                return self._copy(request)
            if request.method == "PUT" and request.headers.get("X-Copy-From"):
                return self._copy(request)
            if request.method == "OPTIONS":
                return self._options(request)
        return self.app(request)

    async def _options(self, request: Request) -> Response:
        return _may_copy(await self.app(request))

    async def _copy(self, request: Request) -> Response:
        if request.length:
            raise Refusal(refuse(400, "Copy requests require a zero byte body"))
        headers = request.headers
        container, object = object_path(request, "X-Copy-From")
        account = account_name(told) if (told := headers.get("X-Copy-From-Account")) else request.account
        source = await self._source(request, account, container, object)
        if source.status >= 300:
            return source
        if source.headers.get("Content-Length") is None or int(source.headers["Content-Length"]) > MAX_SIZE:
            await close(source)
            raise Refusal(refuse(413))
        _fill(request, source)
        told_of_source = _told(account, f"{container}/{object}", source.headers, request.headers)
        if not is_true(request.query.get("heartbeat")):
            try:
                response = await self.app(request)
            finally:
                await close(source)
            if response.ok:
                response.headers.update(told_of_source)
            return response
        kind = wanted_kind(request, KINDS)
        work = self._in_time(request, source, told_of_source, kind)
        return await reported(work, kind, 202, at_once=True)

    async def _source(self, request: Request, account: str, container: str, object: str) -> Response:
        headers = request.headers.copy()
        for name in ("X-Backend-Storage-Policy-Index", "Content-Length", "X-Copy-From", "X-Copy-From-Account"):
            headers.popall(name, None)
        headers["X-Newest"] = "true"
        query = request.query
        if query.get("multipart-manifest") == "get":
            query = queried(query, format="raw")
        return await ask(
            self.app,
            request.sub(
                "GET",
                source="copy",
                account=account,
                container=container,
                object=object,
                headers=headers,
                query=query,
                raw_path=encoded(f"/{request.version}/{account}/{container}/{object}"),
            ),
        )

    async def _in_time(self, request: Request, source: Response, told: Headers, kind: str | None) -> bytes:
        """The report of a copy that is made while the client is kept waiting."""
        try:
            response = await ask(self.app, request)
            text = said(response)
        finally:
            await close(source)
        report = Report()
        report.end(response.status, text)
        if not response.ok:
            report.errors.append((told["X-Copied-From"], status_line(response.status)))
        for name, value in (*told.items(), *response.headers.items()):
            if not name.lower().startswith(("x-object-sysmeta-", "x-backend")):
                report.values[name] = value
        return report.encoded(kind, "copy")


def _become_put(request: Request) -> None:
    """A COPY as the PUT that it is the same as."""
    headers = request.headers
    if not headers.get("Destination"):
        raise Refusal(refuse(412, "Destination header required"))
    if request.length:
        raise Refusal(refuse(400, "Copy requests require a zero byte body"))
    account = request.account
    if "Destination-Account" in headers:
        account = account_name(headers.popall("Destination-Account")[-1])
        headers["X-Copy-From-Account"] = encoded(request.account)
    container, object = object_path(request, "Destination")
    headers["X-Copy-From"] = encoded(f"{request.container}/{request.object}")
    headers["Content-Length"] = "0"
    headers.popall("Destination")
    request.method, request.account, request.container, request.object = "PUT", account, container, object


def _fill(request: Request, source: Response) -> None:
    """Make `request` the PUT of what `source` gives."""
    own, given = request.headers.copy(), source.headers
    for name in ("X-Copy-From", "X-Copy-From-Account", "Range"):
        own.popall(name, None)
    if is_true(own.get("X-Fresh-Metadata")):
        merged = Headers((name, value) for name, value in given.items() if name.lower().startswith("x-object-sysmeta-"))
    else:
        merged = Headers((name, value) for name, value in given.items() if _goes_along(name))
    merged.update(own)
    manifest = request.query.get("multipart-manifest") == "get"
    query = queried(request.query, version_id=None)
    if manifest and "X-Static-Large-Object" in given:
        query = queried(query, multipart_manifest="put")
    if manifest and "X-Object-Manifest" in given:
        query = queried(query, multipart_manifest=None)
        merged["X-Object-Manifest"] = given["X-Object-Manifest"]
    whole = source.status == 200 and "X-Static-Large-Object" not in given
    whole = whole and ("X-Object-Manifest" not in given or manifest)
    if whole:
        merged["Etag"] = unquoted(given.get("ETag", ""))
    else:  # an ETag that is not of these bytes must not be held against them, nor shown in listings
        for name in [name for name in merged if name.lower().startswith((OVERRIDES, OF_LARGE))]:
            merged.popall(name, None)
    merged["Content-Length"] = given["Content-Length"]
    if not own.get("Content-Type"):
        merged["Content-Type"] = given.get("Content-Type", "application/octet-stream")
    request.headers, request.query, request.body = merged, query, _body(source)


def _goes_along(name: str) -> bool:
    low = name.lower()
    return low not in OF_THE_REPLY and not low.startswith(("x-backend-", "access-control-"))


async def _body(source: Response) -> AsyncIterator[bytes]:
    try:
        async for piece in chunks(source):
            yield piece
    except Broken as error:
        raise Refusal(refuse(409, f"The source cannot be read to its end: {error}")) from None


def _told(account: str, path: str, source: Headers, sink: Headers) -> Headers:
    """What the reply to a copy says of where it is from."""
    told = Headers({"X-Copied-From-Account": encoded(account), "X-Copied-From": encoded(path)})
    for name, header in (("Last-Modified", "Last-Modified"), ("X-Object-Version-Id", "Version-Id")):
        if name in source:
            told[f"X-Copied-From-{header}"] = source[name]
    for name, value in sink.items():
        low = name.lower()
        if (
            low.startswith(("x-object-meta-", "x-object-sysmeta-", "x-object-transient-sysmeta-"))
            or low == "x-delete-at"
        ):
            told[name] = value
    return told


def _may_copy(response: Response) -> Response:
    """The reply to OPTIONS, which the core makes, with COPY among what may be done."""
    if response.ok:
        for name in ("Allow", "Access-Control-Allow-Methods"):
            value = response.headers.get(name)
            if value is not None and "COPY" not in value:
                response.headers[name] = f"{value}, COPY"
    return response
