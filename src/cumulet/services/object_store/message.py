"""Requests and replies as the parts of object storage hand them to each other, and how one refuses.

A client's request becomes a `Request`, passes the layers (`pipeline.py`) and comes to the proxy's core, which asks storage
nodes with `BackendRequest`s (`node.py`). All of them answer with `Response`, of which a body is bytes, a stream or a file.
Reference: https://docs.openstack.org/api-ref/object-store/
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec import Struct, field
from msgspec.structs import replace
from multidict import CIMultiDict

from cumulet.api.http import File, Handle, Query
from cumulet.api.http import Response as HttpResponse
from cumulet.core.context import NOBODY, Caller
from cumulet.core.tasks import in_thread

if TYPE_CHECKING:
    Headers = CIMultiDict[str]
else:
    Headers = CIMultiDict  # called by a name with `[str]` it would cost six times as much

PIECE = 1 << 16
"""Bytes of a stream that are handed on at once, where a file is read."""


class Response(HttpResponse):
    """A reply; its headers ignore case: `Headers` that it is given become its own. `body` is bytes, a part of a file, or an
    async iterator of both."""

    headers: Headers

    def __init__(self, status: int = 200, body: Any = b"", headers: Any = ()) -> None:
        self.status = status
        self.body = body
        self.headers = headers if isinstance(headers, CIMultiDict) else Headers(headers)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Refusal(Exception):
    """A request cannot be served; `response` says why. Raised anywhere, answered where the request came in."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


Authorize = Callable[["Request"], Awaitable["Response | None"]]
"""Whether a request may be made, asked when the ACL that counts is known (`Request.acl`): None, or the refusal."""

Trailer = Callable[[], Headers]
"""Headers that are only known once the body has been read to its end: of what a layer made of it on the way (its ETag
encrypted, say). Asked then, perhaps more than once; what it tells replaces headers of the same names. swift calls them footers.
A body that turns out to be wrong is refused by its iterator, which raises a Refusal."""


def parts_of(path: str) -> tuple[str, str, str, str]:
    """Version, account, container and object of a decoded path such as /v1/account/container/object/with/slashes; what is not
    there is empty."""
    found = path.removeprefix("/").split("/", 3)
    version, account, container, object = [*found, "", "", ""][:4]
    return version, account, container, object


class Request(Struct, eq=False):
    """One request at the proxy: of an account, a container in it, or an object in that. Names are decoded text.

    `body` can be read once. `authorize` is None where a request needs no leave: one that the program makes itself.
    With `settled` a layer has decided already who may make it (by `authorize`, or nobody needs to ask): identity's layer then
    leaves both as they are.
    `source` names the layer that made it ("" for a client's own). `memo` is what layers keep for each other while one
    client's request lasts, subrequests included.
    """

    method: str
    account: str
    container: str = ""
    object: str = ""
    headers: Headers = field(default_factory=Headers)
    query: Query = field(default_factory=lambda: Query(""))
    body: AsyncIterator[bytes] | None = None
    trailer: Trailer | None = None
    version: str = "v1"
    caller: Caller = NOBODY
    authorize: Authorize | None = None
    settled: bool = False
    acl: str | None = None
    owner: bool = False  # the caller owns the account: may see and set what others may not
    source: str = ""
    raw_path: str = ""  # as the client sent it, percent-encoded
    base_url: str = ""
    remote: str = ""
    transaction: str = ""
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """/v1/account/container/object, decoded."""
        parts = [self.version, self.account, self.container, self.object]
        return "/" + "/".join(part for part in parts if part)

    @property
    def length(self) -> int | None:
        """Content-Length; None where it is not told. Refusal (400) where it is no number."""
        told = self.headers.get("Content-Length")
        if told is None:
            return None
        if not (told.isascii() and told.isdigit()):
            raise Refusal(refuse(400, "Bad Content-Length"))
        return int(told)

    def sub(self, method: str, *, source: str, trusted: bool = False, **changes: Any) -> "Request":
        """A request that a layer makes on this one's behalf: no body, no headers and no query but those given in `changes`
        (account, container, object, headers, query, body), the same caller and memo. It comes from where this one comes
        from, which ACLs ask (Referer). `trusted`: it needs no leave."""
        made = replace(self, method=method, source=source, acl=None, headers=Headers(), query=Query(""), body=None)
        made.trailer = None
        if trusted:
            made.authorize, made.settled = None, True
        for name, value in changes.items():
            setattr(made, name, value)
        if (referrer := self.headers.get("Referer")) is not None:
            made.headers.setdefault("Referer", referrer)
        return made


Handler = Callable[[Request], Awaitable[Response]]
"""What answers requests: the proxy's core, or a layer around it."""


async def ask(app: Handler, request: Request) -> Response:
    """The reply to a request that a layer makes, where a refusal is a reply as any other."""
    try:
        return await app(request)
    except Refusal as refusal:
        return refusal.response


def empty() -> AsyncIterator[bytes]:
    return stream(b"")


async def stream(data: bytes) -> AsyncIterator[bytes]:
    """Data as a body."""
    if data:
        yield data


async def chunks(response: Response) -> AsyncGenerator[bytes]:
    """The body of a reply, whatever it is, in pieces."""
    body = response.body
    if isinstance(body, bytes):
        if body:
            yield body
    elif isinstance(body, File):
        handle: Handle = body.opened if body.opened is not None else await in_thread(open, body.path, "rb")
        offset, end = body.offset, body.offset + body.length
        while offset < end and (
            piece := await in_thread(os.pread, handle.fileno(), min(end - offset, PIECE * 16), offset)
        ):
            offset += len(piece)
            yield piece
    else:
        async for piece in body:
            if isinstance(piece, File):
                async for part in chunks(Response(200, piece)):
                    yield part
            else:
                yield piece


async def drain(response: Response) -> bytes:
    """The whole body of a reply."""
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([piece async for piece in chunks(response)])


async def close(response: Response) -> None:
    """Let go of a reply whose body is not wanted."""
    if hasattr(response.body, "aclose"):
        await response.body.aclose()


PHRASES = {
    408: "Request Timeout",
    413: "Request Entity Too Large",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
    497: "Blacklisted",
    498: "Rate Limited",
    499: "Client Disconnect",
    507: "Insufficient Storage",
}


EXPLAINED = {
    400: "The server could not comply with the request since it is either malformed or otherwise incorrect.",
    409: "There was a conflict when trying to complete your request.",
    422: "Unable to process the contained instructions",
}
"""What clients find in the body of a refusal without a text of its own."""


def phrase(status: int) -> str:
    return PHRASES.get(status) or HTTPStatus(status).phrase


def refuse(status: int, text: str = "", **headers: str) -> Response:
    """A reply that says in plain words why a request is not served; `headers` have `_` for `-`."""
    said = f"<p>{EXPLAINED[status]}</p>" if status in EXPLAINED else ""
    body = (text or f"<html><h1>{phrase(status)}</h1>{said}</html>").encode()
    kind = "text/plain; charset=UTF-8" if text else "text/html; charset=UTF-8"
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, body, {"Content-Type": kind, **told})


def encoded(path: str) -> str:
    """A path as it stands in URLs and in headers that name objects."""
    return quote(path, safe="/~")
