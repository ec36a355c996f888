"""multipart/form-data (RFC 7578) as it arrives: part after part, the data of each in pieces, nothing kept."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Literal

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from cumulet.services.object_store.message import Headers

MOST_HEADERS, LONGEST_HEADER = 32, 8192


class FormError(Exception):
    """What arrives is no such form; the text says what is wrong."""


def boundary_of(content_type: str | None) -> bytes | None:
    """The boundary that a Content-Type names; None where it is not that of a form with parts."""
    kind, options = options_of((content_type or "").encode("utf-8", "surrogateescape"))
    boundary = options.get("boundary")
    return boundary.encode() if kind == "multipart/form-data" and boundary else None


def options_of(header: bytes) -> tuple[str, dict[str, str]]:
    """A header such as Content-Disposition, in what it says and its options. UTF-8, as browsers send it; FormError else."""
    kind, options = parse_options_header(header.decode("latin-1"))
    try:
        return kind.decode(), {name.decode(): value.decode() for name, value in options.items()}
    except UnicodeDecodeError:
        raise FormError("a name is not encoded in UTF-8") from None


class Part:
    """One part; `options` are those of its Content-Disposition. What is not read of it is passed over."""

    def __init__(self, form: "Form", headers: Headers, options: dict[str, str]) -> None:
        self.headers = headers
        self.options = options
        self._form = form
        self._ended = False

    async def data(self) -> AsyncIterator[bytes]:
        while not self._ended:
            piece = await self._form.next_event()
            if isinstance(piece, bytes):
                yield piece
            else:
                self._ended = True

    async def text(self, longest: int) -> str:
        """The data as text, cut off after `longest` bytes."""
        found = b""
        async for piece in self.data():
            found += piece[: longest - len(found)]
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise FormError("a value is not encoded in UTF-8") from None

    async def skip(self) -> None:
        async for _ in self.data():
            pass


Event = bytes | tuple[Headers, bytes] | Literal["end of part", "end of form"]
"""Data of a part, or the headers of the next one (and its Content-Disposition, raw), or an end."""


class Form:
    def __init__(self, body: AsyncIterator[bytes], boundary: bytes) -> None:
        self._body = body
        self._events: deque[Event] = deque()
        self._headers, self._disposition = Headers(), b""
        self._name, self._value = b"", b""
        self._begun = self._ended = False
        try:
            self._parser = self._make_parser(boundary)
        except ValueError as error:
            raise FormError(str(error)) from None

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_begin,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": lambda: self._events.append((self._headers, self._disposition)),
                "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
                "on_part_end": lambda: self._events.append("end of part"),
                "on_end": self._on_end,
            },
            max_header_count=MOST_HEADERS,
            max_header_size=LONGEST_HEADER,
        )

    def _on_begin(self) -> None:
        self._headers, self._disposition, self._begun = Headers(), b"", True

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._headers[self._name.decode("latin-1")] = self._value.decode("utf-8", "replace")
        self._name, self._value = b"", b""

    def _on_end(self) -> None:
        self._ended = True

    async def parts(self) -> AsyncIterator[Part]:
        while True:
            event = await self.next_event()
            if event == "end of form":
                return
            if isinstance(event, tuple):
                kind, options = options_of(event[1])
                part = Part(self, event[0], options if kind == "form-data" else {})
                yield part
                await part.skip()

    async def next_event(self) -> Event:
        """FormError where the data ends without a last boundary."""
        while not self._events:
            if self._ended:
                return "end of form"
            piece = await anext(self._body, None)
            if piece is None:
                raise FormError("it ends before its last boundary" if self._begun else "invalid starting boundary")
            try:
                self._parser.write(piece)
            except MultipartParseError as error:
                raise FormError(str(error) if self._begun else "invalid starting boundary") from None
        return self._events.popleft()
