"""Requests that hold only for what the caller knows: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since.

Reference: RFC 9110, section 13, as swift reads it.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime

from cumulet.services.object_store.message import Headers


def unquoted(etag: str) -> str:
    """An ETag without its quotes."""
    return etag[1:-1] if len(etag) > 1 and etag[0] == etag[-1] == '"' else etag


def matches(header: str, etag: str) -> bool:
    """Whether `etag` is among those that If-Match or If-None-Match lists."""
    listed = {unquoted(part.strip().removeprefix("W/")) for part in header.split(",") if part.strip()}
    return "*" in listed or unquoted(etag) in listed


def date(header: str | None) -> float | None:
    """Seconds since 1970 that a date in a header means; None where it is absent or no date."""
    try:
        found = parsedate_to_datetime(header or "")
    except (TypeError, ValueError):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def alternative_etag(request: Headers, response: Headers) -> str:
    """The ETag that conditions are about: X-Backend-Etag-Is-At names headers that may hold it, the first one found counts."""
    for name in request.get("X-Backend-Etag-Is-At", "").split(","):
        if found := response.get(name.strip()):
            return found
    return response.get("ETag", "")


def failed(method: str, request: Headers, response: Headers, etag: str | None = None) -> int:
    """304 or 412 where a condition of a request does not hold for what `response` tells of the object; 0 where all do."""
    if etag is None:
        etag = alternative_etag(request, response)
    wanted = request.get("If-None-Match")
    if etag and wanted and matches(wanted, etag):
        return 304 if method in ("GET", "HEAD") else 412
    wanted = request.get("If-Match")
    if etag and wanted and not matches(wanted, etag):
        return 412
    modified = date(response.get("Last-Modified"))
    if modified is not None:
        since = date(request.get("If-Modified-Since"))
        if since is not None and modified <= since:
            return 304
        since = date(request.get("If-Unmodified-Since"))
        if since is not None and modified > since:
            return 412
    return 0
