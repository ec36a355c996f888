"""The small words of object storage's headers and settings: lists, and a refusal of whoever is not known."""

from collections.abc import Iterable
from urllib.parse import quote, unquote

from cumulet.services.object_store.message import Headers, Request, Response, refuse


def listed(text: str) -> tuple[str, ...]:
    """The words of a setting that is a list with commas."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


def unauthorized(request: Request, text: str, scheme: str = "Swift") -> Response:
    """401, with the challenge that clients of object storage expect."""
    realm = quote(request.account) or "unknown"
    return refuse(401, text, WWW_Authenticate=f'{scheme} realm="{realm}"')


def requested_path(request: Request) -> str:
    """The path as the client sent it, decoded: unlike `request.path` with the slash at its end."""
    return unquote(request.raw_path)


class Patterns:
    """A set of header names, of which some end in `*` and stand for all that begin so."""

    def __init__(self, names: Iterable[str]) -> None:
        low = [name.lower() for name in names]
        self.exact = frozenset(name for name in low if not name.endswith("*"))
        self.begins = tuple(name[:-1] for name in low if name.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self.exact or name.startswith(self.begins)


def drop(headers: Headers, unwanted: Patterns, kept: Patterns) -> None:
    """Take headers out, save those that are `kept` nevertheless."""
    for name in {name.lower() for name in headers}:
        if name in unwanted and name not in kept:
            headers.popall(name)
