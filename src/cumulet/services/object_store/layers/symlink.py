"""Symlinks: an empty object with X-Symlink-Target: container/object stands for another one, also of another account
(X-Symlink-Target-Account).

GET and HEAD give the target, `?symlink=get` the link itself; a static link (X-Symlink-Target-Etag) holds for one state of the
target only (409 else). DELETE takes the link away; POST changes the link and answers 307, with the target's place. COPY follows
as GET does. In listings a link has `symlink_path`, a static one `symlink_etag` and `symlink_bytes` too.
Where a link points to is in its X-Object-Sysmeta-Symlink-..., and for listings in the ETag that the container gets.
Reference: https://docs.openstack.org/swift/latest/middleware.html#symlink
"""

from collections.abc import Awaitable
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from cumulet.api.http import encode_json
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    close,
    drain,
    encoded,
    parts_of,
    refuse,
)
from cumulet.services.object_store.values import (
    account_name,
    appended,
    is_true,
    joined,
    object_path,
    parameters,
    unquoted,
)

TARGET, TARGET_ACCOUNT = "X-Symlink-Target", "X-Symlink-Target-Account"
TARGET_ETAG, TARGET_BYTES = "X-Symlink-Target-Etag", "X-Symlink-Target-Bytes"
SYSMETA = {name: f"X-Object-Sysmeta-{name[2:]}" for name in (TARGET, TARGET_ACCOUNT, TARGET_ETAG, TARGET_BYTES)}
EXTENDS_LOOP = "X-Object-Sysmeta-Symloop-Extend"
"""A link that does not count: versions are such links."""
MAY_BE_RESERVED = "X-Object-Sysmeta-Allow-Reserved-Names"
"""A link that may point to a name of the program's own: whoever made it asked for leave."""
OVERRIDE_ETAG = "X-Object-Sysmeta-Container-Update-Override-Etag"
"""The ETag that the container is told."""
EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
MAX_LINKS = 2
FORMAT = "X-Symlink-Target header must be of the form <container name>/<object name>"


class Walk(Struct):
    """From a link to what it stands for: how many links there were, and where the last one led."""

    links: int = 0
    place: str = ""


class Symlinks:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app
        service.told["symlink"] = {"symloop_max": MAX_LINKS, "static_links": True}

    def __call__(self, request: Request) -> Awaitable[Response]:
        method = request.method
        if not request.object:
            if method == "GET" and request.container:
                return self._listing(request)
        elif method in ("GET", "HEAD"):
            if request.query.get("symlink") == "get":
                return self._show(request)
            if "Range" in request.headers:
                appended(request.headers, "X-Backend-Ignore-Range-If-Metadata-Present", SYSMETA[TARGET])
            return self._follow(request, Walk())
        elif method == "PUT" and TARGET in request.headers:
            return self._make(request)
        elif method == "POST":
            return self._post(request)
        return self.app(request)

    async def _show(self, request: Request) -> Response:
        return _shown(await self.app(request))

    async def _follow(self, request: Request, walk: Walk, expected: str = "", *, soft: bool = True) -> Response:
        """The reply of what a link stands for, whose ETag must be the `expected` one. Without `soft` a link that is not static
        counts as an object itself."""
        origin = request
        while True:
            response = await self.app(request)
            target = response.headers.get(SYSMETA[TARGET])
            if not target:
                break
            etag = response.headers.get(SYSMETA[TARGET_ETAG], "")
            if not (etag or soft):
                break
            await close(response)
            if expected and expected != (etag or unquoted(response.headers.get("ETag", ""))):
                raise _conflict("X-Symlink-Target-Etag headers do not match", walk)
            if walk.links >= MAX_LINKS:
                text = f"Too many levels of symbolic links, maximum allowed is {MAX_LINKS}"
                raise Refusal(refuse(409, text))
            walk.links += not is_true(response.headers.get(EXTENDS_LOOP))
            request = _towards(origin, request, response.headers, target, walk)
            expected, soft = etag, True
        found = unquoted(response.headers.get("ETag", "")) if expected else ""
        if found and found != expected:
            await close(response)
            raise _conflict(f"Object Etag {found!r} does not match X-Symlink-Target-Etag header {expected!r}", walk)
        if walk.place:
            response.headers["Content-Location"] = walk.place
        return response

    async def _make(self, request: Request) -> Response:
        """PUT of a link."""
        headers = request.headers
        if request.length or (request.length is None and await _has_bytes(request)):
            raise Refusal(refuse(400, "Symlink requests require a zero byte body"))
        account, container, object, etag = _checked(request)
        if etag and request.memo.get("symlink_override"):
            headers[SYSMETA[TARGET_ETAG]], headers[SYSMETA[TARGET_BYTES]] = etag, headers[TARGET_BYTES]
        elif etag:
            await self._pin(request, account, container, object, etag)
        for name in (TARGET, TARGET_ACCOUNT):
            if name in headers:
                headers[SYSMETA[name]] = str(headers.popall(name)[-1])
        for name in (TARGET_ETAG, TARGET_BYTES):
            headers.popall(name, None)
        told = [_without_target(headers.get(OVERRIDE_ETAG, EMPTY_MD5)), f"symlink_target={headers[SYSMETA[TARGET]]}"]
        if SYSMETA[TARGET_ACCOUNT] in headers:
            told.append(f"symlink_target_account={headers[SYSMETA[TARGET_ACCOUNT]]}")
        if SYSMETA[TARGET_ETAG] in headers:
            told.append(f"symlink_target_etag={headers[SYSMETA[TARGET_ETAG]]}")
            told.append(f"symlink_target_bytes={headers[SYSMETA[TARGET_BYTES]]}")
        headers[OVERRIDE_ETAG] = "; ".join(told)
        return await self.app(request)

    async def _pin(self, request: Request, account: str, container: str, object: str, etag: str) -> None:
        """Hold a static link against its target, and note the target's size for listings."""
        headers = request.headers
        sub = request.sub("HEAD", source="symlink", account=account, container=container, object=object)
        if is_true(headers.get("X-Backend-Allow-Reserved-Names")):
            sub.headers["X-Backend-Allow-Reserved-Names"] = "true"
        walk = Walk(place=encoded(f"/{request.version}/{account}/{container}/{object}"))
        found = await self._follow(sub, walk, etag, soft=False)
        if found.status == 404:
            raise _conflict("X-Symlink-Target does not exist", walk)
        if not found.ok:
            raise Refusal(refuse(found.status))
        told = found.headers
        if OVERRIDE_ETAG not in headers:
            if OVERRIDE_ETAG in told:
                _, semicolon, rest = told[OVERRIDE_ETAG].partition(";")
                headers[OVERRIDE_ETAG] = EMPTY_MD5 + semicolon + rest
            elif slo_etag := told.get("X-Object-Sysmeta-Slo-Etag"):
                headers[OVERRIDE_ETAG] = f"{EMPTY_MD5}; slo_etag={slo_etag}"
        size: str = told.get("X-Object-Sysmeta-Slo-Size") or told["Content-Length"]
        headers[SYSMETA[TARGET_BYTES]] = size
        headers[SYSMETA[TARGET_ETAG]] = etag
        if not headers.get("Content-Type"):
            headers["Content-Type"] = told["Content-Type"]

    async def _post(self, request: Request) -> Response:
        if TARGET in request.headers:
            raise Refusal(refuse(400, "A PUT request is required to set a symlink target"))
        response = await self.app(request)
        target = response.headers.get(SYSMETA[TARGET])
        if not response.ok or not target:
            return response
        account = response.headers.get(SYSMETA[TARGET_ACCOUNT]) or encoded(request.account)
        reply = refuse(
            307,
            "The requested POST was applied to a symlink. POST directly to the target to apply requested metadata.",
            Location=f"/{request.version}/{account}/{target}",
        )
        if etag := response.headers.get(SYSMETA[TARGET_ETAG]):
            reply.headers[TARGET_ETAG] = etag
        for name, value in response.headers.items():
            if name.lower().startswith("x-object-sysmeta-"):
                reply.headers[name] = value
        return reply

    async def _listing(self, request: Request) -> Response:
        response = await self.app(request)
        if not response.ok:
            return response
        body = response.body = await drain(response)
        if b"symlink_target=" in body:
            rows = msgspec.json.decode(body)
            for row in rows:
                if "symlink_target=" in row.get("hash", ""):
                    _describe(row, request)
            response.body = encode_json(rows)
            response.headers["Content-Length"] = str(len(response.body))
        return response


def _conflict(text: str, walk: Walk) -> Refusal:
    return Refusal(refuse(409, text, Content_Location=walk.place) if walk.place else refuse(409, text))


def _checked(request: Request) -> tuple[str, str, str, str]:
    """Account, container, object and ETag of the target that a PUT names."""
    headers = request.headers
    if unquote(headers[TARGET]).startswith("/"):
        raise Refusal(refuse(412, FORMAT))
    container, object = object_path(request, TARGET)
    headers[TARGET] = encoded(f"{container}/{object}")
    account = request.account
    if TARGET_ACCOUNT in headers:
        account = account_name(headers[TARGET_ACCOUNT])
        headers[TARGET_ACCOUNT] = encoded(account)
    if (account, container, object) == (request.account, request.container, request.object):
        raise Refusal(refuse(400, "Symlink cannot target itself"))
    etag = unquoted(headers.get(TARGET_ETAG, ""))
    if any(sign in etag for sign in ';"\\'):
        raise Refusal(refuse(400, f"Bad {TARGET_ETAG} format"))
    if not etag and not headers.get("Content-Type"):
        headers["Content-Type"] = "application/symlink"
    return account, container, object, etag


def _without_target(value: str) -> str:
    """What the container is told in place of an ETag, without what it was told of the link that is copied."""
    hash, told = parameters(value)
    return joined(hash, {name: text for name, text in told.items() if not name.startswith("symlink_target")})


async def _has_bytes(request: Request) -> bool:
    if request.body is not None:
        async for piece in request.body:
            if piece:
                return True
    return False


def _towards(origin: Request, request: Request, link: Headers, target: str, walk: Walk) -> Request:
    """The same request to where a link points, made by whoever made the first one."""
    account = link.get(SYSMETA[TARGET_ACCOUNT]) or encoded(request.account)
    walk.place = f"/{request.version}/{account}/{target.lstrip('/')}"
    _, place, container, object = parts_of(unquote(walk.place))
    headers = origin.headers.copy()
    headers.pop("X-Backend-Storage-Policy-Index", None)
    reserved = is_true(link.get(MAY_BE_RESERVED))
    if reserved:
        headers["X-Backend-Allow-Reserved-Names"] = "true"
    return origin.sub(
        origin.method,
        source="symlink",
        trusted=reserved,
        account=place,
        container=container,
        object=object,
        headers=headers,
        query=origin.query,
        raw_path=quote(walk.place, safe="/~%"),
    )


def _shown(response: Response) -> Response:
    """A link's own headers, in the names that clients know."""
    headers = response.headers
    for name, kept in SYSMETA.items():
        if kept in headers:
            headers[name] = headers.popall(kept)[-1]
    return response


def _describe(row: dict[str, Any], request: Request) -> None:
    """Take out of a row's hash what it tells of a link."""
    hash, told = parameters(row["hash"])
    target = told.pop("symlink_target", "")
    account = told.pop("symlink_target_account", encoded(request.account))
    if "symlink_target_etag" in told:
        row["symlink_etag"] = told.pop("symlink_target_etag")
    if "symlink_target_bytes" in told:
        row["symlink_bytes"] = int(told.pop("symlink_target_bytes"))
    row["hash"] = joined(hash, told)
    row["symlink_path"] = f"/{request.version}/{account}/{target}"
