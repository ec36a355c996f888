"""Names of headers that are no tokens, as nodes send them to each other.

Clients may name metadata in any letters (X-Object-Meta-Größe) and by other characters where their server takes that; HTTP's own
grammar does not (RFC 9110, 5.1), and parsers refuse it. Between nodes such a name is percent-encoded behind a prefix.
"""

import re
from urllib.parse import quote, unquote

from cumulet.services.object_store.message import Headers

PREFIX = "X-Backend-Quoted-"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def packed(headers: Headers) -> Headers:
    """As they are sent."""
    if not headers or _TOKEN.fullmatch("".join(headers)):
        return headers
    return Headers((name if _TOKEN.fullmatch(name) else PREFIX + quote(name), value) for name, value in headers.items())


def unpacked(headers: Headers) -> Headers:
    """As they were meant."""
    if not any(name.startswith(PREFIX) for name in headers):
        return headers
    return Headers((unquote(name.removeprefix(PREFIX)), value) for name, value in headers.items())
