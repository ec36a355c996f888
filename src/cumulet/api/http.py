"""Requests, responses and endpoints as services see them. No service ever sees the server behind (`api/server.py`)."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from cumulet.api.resource import ANY, Version
from cumulet.core.errors import Invalid, TooLarge

encode_json = msgspec.json.Encoder().encode
MAX_BODY = 1 << 20
"""Bytes of a request body that is read as a whole; data (images, objects) is streamed."""
MAX_DEPTH = 64
"""Levels of lists and objects in a body: many more than any call takes, and few enough for whatever walks through them."""
TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Query:
    """The query string: names with one or more values, in order."""

    __slots__ = ("pairs", "raw")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.pairs: list[tuple[str, str]] = parse_qsl(raw, keep_blank_values=True) if raw else []

    def get(self, name: str, default: str | None = None) -> str | None:
        """The last value of `name`."""
        for key, value in reversed(self.pairs):
            if key == name:
                return value
        return default

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.pairs)

    def grouped(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for key, value in self.pairs:
            groups.setdefault(key, []).append(value)
        return groups

    def replaced(self, **changes: str | None) -> str:
        """The query string with some values set (None: left out)."""
        pairs = [(k, v) for k, v in self.pairs if k not in changes]
        return urlencode(pairs + [(k, v) for k, v in changes.items() if v is not None])


@lru_cache(maxsize=64)
def http_date(seconds: int) -> str:
    """Wed, 21 Oct 2015 07:28:00 GMT. Every reply says what time it is, so it is made out once a second."""
    return formatdate(seconds, usegmt=True)


class Wire(Protocol):
    """What a request asks of the server behind it: its body, in pieces."""

    def chunks(self) -> AsyncIterator[bytes]: ...

    def at_hand(self) -> bytes | None:
        """What of the body has come and was not read yet: nothing after its end, None where it has to be waited for."""
        ...


class Request:
    """One HTTP request. `path` is decoded, `raw_path` is what was sent; `headers` look-ups ignore case; `remote` is the peer's
    address."""

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        wire: Wire,
        *,
        base_url: str = "",
        remote: str = "",
        port: int = 0,
        raw_path: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.raw_path = raw_path or quote(path)
        self.headers = headers
        self.base_url = base_url
        self.remote = remote
        self.port = port
        self._query = query
        self._parsed: Query | None = None
        self._wire = wire
        self._body: bytes | None = None

    @property
    def query(self) -> Query:
        """The query string, taken apart when it is first asked for. (A cached_property would lock for each request.)"""
        if self._parsed is None:
            self._parsed = Query(self._query)
        return self._parsed

    @property
    def url(self) -> str:
        return f"{self.base_url}{self.path}{'?' if self._query else ''}{self._query}"

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, in pieces of bounded size; reading begins (and 100-continue is sent) with the first."""
        return self._wire.chunks()

    def at_hand(self) -> bytes | None:
        """The next piece of the body, if nobody has to wait for it: that of a small one comes with its headers, mostly. None
        where one has to wait, by `chunks`; nothing after the end."""
        return self._wire.at_hand()

    async def read(self, limit: int = MAX_BODY) -> bytes:
        """The whole body, which is JSON wherever it is read as a whole; TooLarge over `limit` bytes, Invalid if it is not
        UTF-8 or has more than MAX_DEPTH levels."""
        if self._body is None:
            if int(self.headers.get("Content-Length", 0)) > limit:
                raise TooLarge(f"The request body is larger than the {limit} bytes that are taken here.")
            parts, size = [], 0
            async for chunk in self.chunks():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"The request body is larger than the {limit} bytes that are taken here.")
                parts.append(chunk)
            self._body = _checked(b"".join(parts))
        return self._body

    async def json(self, type: Any = Any) -> Any:
        """The body as JSON of `type`."""
        try:
            return msgspec.json.decode(await self.read(), type=type)
        except msgspec.DecodeError as error:
            raise Invalid(f"The request body is not what this call takes: {error}") from None


def _checked(data: bytes) -> bytes:
    """`data`, if it is text that can be taken apart safely."""
    try:
        data.decode()
    except UnicodeDecodeError:
        raise Invalid("Malformed request body: it is not encoded in UTF-8.") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        brackets = TEXTS.sub(b"", data).translate(None, NO_BRACKETS)
        for _ in range(MAX_DEPTH):
            brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if brackets:
            raise Invalid(f"Malformed request body: not JSON, or nested deeper than the {MAX_DEPTH} levels taken here.")
    return data


class Handle(Protocol):
    """A file that is open."""

    def fileno(self) -> int: ...


@dataclass(frozen=True)
class File:
    """A reply's body that is part of a file: `length` bytes from `offset`. Of one that is `opened` already, whatever became of
    the name in the meantime; whoever opened it sees to it that it is closed once nothing refers to it any more."""

    path: Path | str
    offset: int
    length: int
    opened: Handle | None = None


class WebSocket(Protocol):
    """The server's end of a websocket (RFC 6455), binary messages only."""

    async def receive(self) -> bytes | None:
        """The next message; None once the peer has closed."""
        ...

    async def send(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Upgrade:
    """A reply's body that turns the connection into a websocket and hands it to `serve`."""

    serve: Callable[[WebSocket], Awaitable[None]]
    protocols: tuple[str, ...] = ("binary",)


@dataclass
class Response:
    """A reply. A `body` that is neither bytes nor a file nor a stream, of bytes or of files, is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: MutableMapping[str, str] = field(default_factory=dict)

    @property
    def is_data(self) -> bool:
        """Whether the body is sent as it is."""
        return isinstance(self.body, (bytes, File, Upgrade)) or hasattr(self.body, "__aiter__")

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> "Response":
        return cls(status, encode_json(value), {"Content-Type": "application/json", **headers})


@dataclass(frozen=True)
class Endpoint:
    """One call of an API: method and path, who serves it, who may make it, what it takes.

    `path` may hold `{name}` (one segment) and, at its end, `{name:rest}` (all that is left); they reach the handler as
    keyword arguments. `body` is a Resource (decoded in `mode`), a msgspec Struct, or None; it reaches the handler as `body`.
    `action` is the one key of the body that chooses this endpoint among those of the same path (`{"reboot": ...}`).
    `policy` is the rule checked before anything is read; `auth=False` lets anybody in. A call `beyond_rules` may be made with
    any token, whatever its access rules say.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[Any]]
    policy: str = ""
    body: Any = None
    mode: str = "create"
    status: int = 200
    action: str = ""
    since: Version = ANY
    until: Version = (99, 999)
    auth: bool = True
    beyond_rules: bool = False
    resource: Any = None  # the Resource whose table the call serves, for the documentation

    @property
    def doc(self) -> str:
        return (self.handler.__doc__ or "").strip()


class Node:
    """A segment of the routes' tree."""

    __slots__ = ("children", "methods", "parameter", "rest")

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.parameter: Node | None = None
        self.rest: Node | None = None
        self.methods: dict[str, list[Endpoint]] = {}


class Router:
    """Finds the endpoints of a path. Fixed segments win over parameters."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._root = Node()
        self._names: dict[int, tuple[str, ...]] = {}
        for endpoint in endpoints:
            self._add(endpoint)

    def _add(self, endpoint: Endpoint) -> None:
        node, names = self._root, []
        for segment in endpoint.path.strip("/").split("/"):
            if segment.startswith("{") and segment.endswith(":rest}"):
                names.append(segment[1:-6])
                node.rest = node.rest or Node()
                node = node.rest
            elif segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or Node()
                node = node.parameter
            elif segment:
                node = node.children.setdefault(segment, Node())
        node.methods.setdefault(endpoint.method, []).append(endpoint)
        self._names[id(endpoint)] = tuple(names)

    def find(self, path: str) -> tuple[dict[str, list[Endpoint]], list[str]] | None:
        """(the endpoints of each method, the values of the path's parameters), or None."""
        node, values = self._root, []
        segments = list(filter(None, path.split("/")))
        for position, segment in enumerate(segments):
            child = node.children.get(segment)
            if child is None:
                if node.parameter is None:
                    if node.rest is None:
                        return None
                    values.append("/".join(path.lstrip("/").split("/")[position:]))
                    return node.rest.methods, values
                child = node.parameter
                values.append(segment)
            node = child
        return (node.methods, values) if node.methods else None

    def names(self, endpoint: Endpoint) -> tuple[str, ...]:
        return self._names[id(endpoint)]
