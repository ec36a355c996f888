"""What clients send that the parser would refuse, made fit for it before it is parsed.

Names in paths that are not percent-encoded (RFC 3986, 2.1, wants them to be, and many clients forget): they are encoded. And a
body whose length was not told, or is told in chunks and then does not come in any: the head is answered by itself, so that the
service can say what is wrong. aiohttp's fast parser also refuses by itself any method that it has no number for, so that a
service could neither serve its own (storage nodes call REPLICATE) nor say that there is none such: a request with another
method than the usual ones goes to aiohttp's other parser, which takes any (RFC 9110, 9.1). Names of fields that are no tokens
are put by where a service takes them (`field_names.py`).

All that is done to the head of a request, and only where one begins for certain: nobody can have a part of a head or of a body
taken for a request by sending it in pieces. So a head is held until it is whole, and the bytes of bodies are counted. After
requests that came together with others nothing is done until it is clear again where one begins.
"""

import asyncio
import logging
import re
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestPayloadError

from cumulet.api.field_names import FreeNames

log = logging.getLogger("cumulet.server")

LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\r\n ]+) HTTP/1\.[01]\r\n")
BEGUN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?: [^\r\n ]*(?: [HTP/1.0]*\r?)?)?")
"""A part of such a line."""
NOT_ASCII = re.compile(rb"[\x80-\xff]")
LENGTH = re.compile(rb"\r\n(?:content-length|upgrade)[ \t]*:", re.IGNORECASE)
END = b"\r\n\r\n"
MOST_HELD = 64 << 10
"""Bytes of a head that is not whole yet. A longer one is left to the parser as it is."""
USUAL = frozenset((b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"COPY"))
LIMITS = ("max_line_size", "max_field_size", "max_headers", "auto_decompress")
UNCLEAR, LOST = -1, -2
"""Where the next request begins is not clear yet, or never again on this connection."""


class Protocol(web.RequestHandler):
    """One connection. `free`: names of fields that need be no tokens; `put_by`: there was one."""

    __slots__ = ("_body", "_held", "_last", "_left", "_limits", "_other", "_usual", "free", "method", "put_by")

    def __init__(
        self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, free: FreeNames | None = None, **limits: Any
    ) -> None:
        super().__init__(manager, loop=loop, **limits)
        self._limits = limits
        self._usual = self._parser
        self._other: Any = None
        self.method = (
            ""  # of the last request with an unusual one, as it was sent: the other parser makes it upper case
        )
        self.free = free
        self.put_by = False
        self._body: Any = None  # of the last request
        self._left = 0  # bytes of it that are still to come; 0: a request begins; or one of the two words above
        self._held = b""  # of a head that is not whole yet
        self._last = b""  # the last few bytes that came while it is UNCLEAR

    def log_exception(self, *args: Any, **more: Any) -> None:
        """What a client sends that is no HTTP is no fault of the program: it is told in one line."""
        error = more.get("exc_info")
        if isinstance(error, HttpProcessingError):
            peer = self.transport.get_extra_info("peername") if self.transport is not None else None
            log.info(
                "%s sent what is no HTTP: %s", peer[0] if peer else "a client", error.message.strip().split("\n")[0]
            )
        else:
            super().log_exception(*args, **more)

    def data_received(self, data: bytes) -> None:
        """What begins a request is parsed once its head is whole."""
        if self._left or not data:
            if 0 < len(data) <= self._left:
                self._left -= len(data)
                super().data_received(data)
            else:
                self._go_on(data)
            return
        held = len(self._held)
        if held:
            data, self._held = self._held + data, b""
        end = data.find(END, max(held - len(END), 0)) + len(END)
        line = LINE.match(data)
        if end < len(END) and len(data) <= MOST_HELD and (line or BEGUN.fullmatch(data)):
            self._held = data
        elif end < len(END) or line is None:
            self._parse(data)
            self._look(data)
        elif line[1] in USUAL and self._parser is self._usual and self.free is None and line[2].isascii():
            self._parse_request(data, end)
        else:
            fit = self._fit(line, data, end)
            self._parse_request(fit, end + len(fit) - len(data))

    def _go_on(self, data: bytes) -> None:
        super().data_received(data)  # which is nothing where the parser is to go on with what it has
        if self._messages:
            self._body = self._messages[-1][1]
        if data and self._left != LOST:
            self._look(self._last + data[-len(END) :])

    def _fit(self, line: re.Match[bytes], data: bytes, end: int) -> bytes:
        """A request whose head ends at `end` in a form that its parser takes, which is made the one in use."""
        if not self._messages and (self._body is None or self._body.is_eof()):  # the one in use has nothing left
            if line[1] in USUAL:
                self._parser, self.method = self._usual, ""
            else:
                self._parser, self.method = self._any_method(), line[1].decode()
        if self.free is not None and (free := self.free.put_by(data, end)) is not data:
            data, self.put_by = free, True
        if not line[2].isascii():
            data = b"".join((data[: line.start(2)], encoded(line[2]), data[line.end(2) :]))
        return data

    def _parse_request(self, data: bytes, end: int) -> None:
        before, rest = len(self._messages), b""
        if end < len(data) and not LENGTH.search(data, 0, end):
            data, rest = data[:end], data[end:]
        super().data_received(data)
        left = UNCLEAR
        if len(self._messages) == before + 1:
            message, self._body = self._messages[-1]
            if end == len(data) and self._body is EMPTY_PAYLOAD and not getattr(message, "upgrade", True):
                left = 0
            else:
                left = self._body_left(len(data) - end)
        if rest:
            self._parse(rest)
            left = min(left, UNCLEAR)
        self._left, self._last = left, b""
        if left == UNCLEAR:
            self._look(rest or data)

    def _body_left(self, seen: int) -> int:
        """How much of the last request's body comes after the `seen` bytes of it: as the parser says, whose word counts."""
        message: Any
        message, body = self._messages[-1]
        if getattr(message, "upgrade", True):  # an error has none
            return LOST
        if message.chunked:
            return UNCLEAR
        length = 0 if body is EMPTY_PAYLOAD else int(message.headers["Content-Length"])
        return max(length - seen, UNCLEAR)

    def _look(self, data: bytes) -> None:
        """Find out whether a request begins after `data`. All but a body of a told length ends with an empty line: what ends so
        while no body is under way is whole."""
        self._last, self._left = data[-len(END) :], UNCLEAR
        if self._messages and getattr(self._messages[-1][0], "upgrade", True):
            self._left = LOST
        elif self._last == END and len(self._messages) < self._max_msg_queue_size:  # of more the parser keeps some back
            self._left = 0 if self._body is None or self._body.is_eof() else UNCLEAR

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]

    def _any_method(self) -> Any:
        """The parser that takes every method."""
        if self._other is None:
            self._other = HttpRequestParserPy(
                self,
                self._loop,
                self._read_bufsize,
                payload_exception=RequestPayloadError,
                max_msg_queue_size=self._max_msg_queue_size,
                **{name: self._limits[name] for name in LIMITS if name in self._limits},
            )
        return self._other


class WebServer(web.Server):
    """Makes the connections."""

    def __call__(self) -> Protocol:
        return Protocol(self, loop=self._loop, **self._kwargs)


def encoded(target: bytes) -> bytes:
    """A request's target in ASCII."""
    return NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target)
