"""What values of headers and query strings mean: yes and no, parameters, paths, kinds of replies, names that only the program
may use.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote

from cumulet.api.http import Query
from cumulet.services.object_store.message import Headers, Refusal, Request, refuse
from cumulet.services.object_store.names import Timestamp

YES = frozenset({"true", "1", "yes", "on", "t", "y"})
PARAMETER = re.compile(r'\s*;\s*([^\s;=]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^;]*))?')
ACCEPTED = re.compile(r"\s*([^\s/;,]+)/([^\s/;,]+)\s*((?:;[^,]*)?)$")

RESERVED = "\0"
"""Begins and divides the names that no client may use (hidden containers of versions, and what lies in them)."""


def is_true(value: str | None) -> bool:
    """Whether a header or a parameter says yes."""
    return value is not None and value.strip().lower() in YES


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """`text/plain; charset=utf-8` as (text/plain, {charset: utf-8}); the hashes of listings have the same form."""
    head, semicolon, tail = value.partition(";")
    return head.strip(), {name: text.strip() for name, text in PARAMETER.findall(semicolon + tail)}


def joined(head: str, found: dict[str, str]) -> str:
    """The inverse of `parameters`."""
    return head + "".join(f"; {name}={value}" for name, value in found.items())


def unquoted(etag: str) -> str:
    """An ETag without its quotation marks."""
    return etag[1:-1] if len(etag) > 1 and etag[0] == etag[-1] == '"' else etag


def appended(headers: Headers, name: str, value: str) -> None:
    """Add to a header that is a list."""
    headers[name] = f"{headers[name]},{value}" if headers.get(name) else value


def queried(query: Query, **changes: str | None) -> Query:
    """A query string with some values set or, with None, left out; `_` stands for `-`."""
    return Query(query.replaced(**{name.replace("_", "-"): value for name, value in changes.items()}))


def best_match(accept: str | None, kinds: Sequence[str]) -> str | None:
    """Which of `kinds` an Accept header likes best (RFC 9110, 12.5.1): the first where it does not matter, None where it takes
    none of them. ValueError where the header is not understood."""
    if not accept:
        return kinds[0]
    wishes: list[tuple[float, int, str, str]] = []
    for part in accept.split(","):
        match = ACCEPTED.match(part)
        if match is None:
            raise ValueError(f"no media type: {part}")
        family, form, rest = match.groups()
        quality = float(parameters(rest)[1].get("q", "1"))
        if quality > 0:
            wishes.append((quality, (family != "*") + (form != "*"), family, form))
    for _, _, family, form in sorted(wishes, key=lambda wish: wish[:2], reverse=True):
        for kind in kinds:
            one, other = kind.split("/")
            if family in ("*", one) and form in ("*", other):
                return kind
    return None


def object_path(request: Request, header: str) -> tuple[str, str]:
    """Container and object that a header names (Destination, X-Copy-From, X-Symlink-Target); Refusal (412) else."""
    path = unquote(request.headers[header]).removeprefix("/")
    container, slash, object = path.partition("/")
    if not (container and slash and object):
        wanted = f"{header} header must be of the form <container name>/<object name>"
        raise Refusal(refuse(412, wanted))
    return container, object


def account_name(value: str) -> str:
    """The account that a header names; Refusal (412) where it is none."""
    name = unquote(value)
    if not name:
        raise Refusal(refuse(412, "Account name cannot be empty"))
    if "/" in name:
        raise Refusal(refuse(412, "Account name cannot contain slashes"))
    return name


def container_name(value: str) -> str:
    """The container that a header names; Refusal (412) where it is none."""
    name = unquote(value)
    if not name:
        raise Refusal(refuse(412, "Container name cannot be empty"))
    if "/" in name:
        raise Refusal(refuse(412, "Container name cannot contain slashes"))
    return name


def reserved(*parts: str) -> str:
    """A name that only the program uses, of parts that users know; ValueError where one of them is such a name already."""
    if any(RESERVED in part for part in parts):
        raise ValueError("a reserved name cannot be part of another one")
    return RESERVED + RESERVED.join(parts)


def parts_of_reserved(name: str) -> list[str]:
    """The inverse of `reserved`; ValueError where it is a name of users."""
    if not name.startswith(RESERVED):
        raise ValueError(f"not reserved: {name}")
    return name.split(RESERVED)[1:]


def timestamp(request: Request) -> Timestamp:
    """When a request counts as made: what X-Timestamp says, which is set to now where nobody has set it. So a layer knows the
    time that the core will write."""
    told = request.headers.get("X-Timestamp")
    if told is None:
        now = Timestamp.now()
        request.headers["X-Timestamp"] = now.internal
        return now
    return Timestamp.parse(told)
