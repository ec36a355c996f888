"""Listings of accounts and containers as text, JSON or XML: `?format=` or Accept say which. Further in they are JSON.

Reference: https://docs.openstack.org/swift/latest/middleware.html, "Listing Formats"
"""

from collections.abc import Awaitable
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import msgspec
from msgspec import Struct

from cumulet.api.http import Query
from cumulet.services.object_store.message import Handler, Request, Response, drain, refuse

PLAIN, JSON, XML = "text/plain", "application/json", "application/xml"
FORMATS = {"plain": PLAIN, "json": JSON, "xml": XML}
VERSIONS = ("v1", "v1.0")
"""What paths of this API begin with; those of others are left as they are, since their queries may be signed."""
OFFERED = (PLAIN, JSON, XML, "text/xml")
MOST = 1024 * 10_000 * 2
"""Bytes of a body that may be a listing."""

LISTING_AS_IT_IS = "X-Backend-Listing-As-It-Is"
"""Of a reply: a listing that is JSON whatever format was asked for."""


class ListingFormats:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app

    def __call__(self, request: Request) -> Awaitable[Response]:
        if request.object or request.method not in ("GET", "HEAD") or not request.account:
            return self.app(request)
        return self.app(request) if request.version not in VERSIONS else self._listing(request)

    async def _listing(self, request: Request) -> Response:
        asked = request.query.get("format")
        if asked:
            kind = request.headers["Accept"] = FORMATS.get(asked.lower(), PLAIN)
        else:
            found = _accepted(request.headers.get("Accept"))
            if not found:
                return refuse(406) if found is not None else refuse(400, "Invalid Accept header")
            kind = found
        request.query = Query(request.query.replaced(format="json"))
        response = await self.app(request)
        if response.status not in (200, 204):
            return response
        headers = response.headers
        if LISTING_AS_IT_IS in headers:
            return response
        if not asked:
            before = headers.get("Vary")
            if before is None:
                headers["Vary"] = "Accept"
            elif "accept" not in before.lower().replace(" ", "").split(","):
                headers["Vary"] = f"{before}, Accept"
        if headers.get("Content-Type", JSON).partition(";")[0] != JSON:
            return response
        if request.method == "HEAD":
            headers["Content-Type"] = f"{kind}; charset=utf-8"
            headers["Content-Length"] = "0"
            return response
        return await _formatted(request, response, kind)


async def _formatted(request: Request, response: Response, kind: str) -> Response:
    told = response.headers.get("Content-Length")
    if not isinstance(response.body, bytes) and (told is None or int(told) > MOST):
        return response
    body = await drain(response)
    if kind != JSON:
        try:
            if kind == PLAIN:
                body = _plain(body)
            elif request.container:
                body = _container(request.container, _rows(body))
            else:
                body = _account(request.account, _rows(body))
        except (msgspec.DecodeError, KeyError):  # no listing at all, but a site's own JSON
            response.body = body
            return response
    response.headers["Content-Type"] = f"{kind}; charset=utf-8"
    response.headers["Content-Length"] = str(len(body))
    response.body = body
    response.status = 200 if body else 204
    return response


class Named(Struct, gc=False):
    """Of an entry what a plain listing shows: the rest is passed over without being made."""

    name: str = ""
    subdir: str = ""


_named = msgspec.json.Decoder(list[Named]).decode
_rows = msgspec.json.Decoder(list[dict[str, Any]]).decode


def _plain(listing: bytes) -> bytes:
    names = [entry.name or entry.subdir for entry in _named(listing)]
    if "" in names:
        raise KeyError("name")
    return "\n".join([*names, ""]).encode()


HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def _element(name: str, value: Any) -> str:
    return f"<{name}>{escape(_sendable(str(value)))}</{name}>"


def _sendable(text: str) -> str:
    """Text without what XML cannot hold."""
    return "".join(c if c >= " " or c in "\t\n\r" else "\ufffd" for c in text) if not text.isprintable() else text


def _attribute(text: str) -> str:
    return quoteattr(_sendable(text), {"\n": "&#10;", "\t": "&#09;", "\r": "&#13;"})


def _account(name: str, rows: list[dict[str, Any]]) -> bytes:
    parts = [f"{HEAD}<account name={_attribute(name)}>\n"]
    for row in rows:
        if "subdir" in row:
            parts.append(f"<subdir name={_attribute(row['subdir'])} />\n")
            continue
        fields = [_element(field, row[field]) for field in ("name", "count", "bytes", "last_modified")]
        if "storage_policy" in row:
            fields.append(_element("storage_policy", row["storage_policy"]))
        parts.append(f"<container>{''.join(fields)}</container>\n")
    return "".join([*parts, "</account>"]).encode()


def _container(name: str, rows: list[dict[str, Any]]) -> bytes:
    parts = [f"{HEAD}<container name={_attribute(name)}>"]
    for row in rows:
        if "subdir" in row:
            parts.append(f"<subdir name={_attribute(row['subdir'])}>{_element('name', row['subdir'])}</subdir>")
            continue
        fields = [_element(field, row[field]) for field in ("name", "hash", "bytes", "content_type", "last_modified")]
        parts.append(f"<object>{''.join(fields)}</object>")
    return "".join([*parts, "</container>"]).encode()


def _accepted(header: str | None) -> str | None:
    """The best of what is offered that Accept takes; "" for none, None for a header that makes no sense."""
    if not header:
        return PLAIN
    wanted: list[tuple[float, int, str]] = []
    for position, part in enumerate(header.split(",")):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if not kind and not parameters:
            continue
        if kind != "*" and kind.count("/") != 1:
            return None
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value.strip())
                except ValueError:
                    return None
        wanted.append((quality, -position, kind))
    best, chosen = 0.0, ""
    for offer in OFFERED:
        quality = max((q for q, _, kind in wanted if _matches(kind, offer)), key=None, default=0.0)
        exact = [q for q, _, kind in wanted if kind == offer]
        if exact:
            quality = max(exact)
        if quality > best:
            best, chosen = quality, offer
    return chosen


def _matches(kind: str, offer: str) -> bool:
    return kind in ("*", "*/*", offer) or (kind.endswith("/*") and offer.startswith(kind[:-1]))
