"""What clients send that the parser would refuse, made fit for it before it is parsed.

Names in paths that are not percent-encoded (RFC 3986, 2.1, wants them to be, and many clients forget): they are encoded. And a
body whose length was not told, or is told in chunks and then does not come in any: the head is answered by itself, so that the
service can say what is wrong. aiohttp's fast parser also refuses by itself any method that it has no number for, so that a
service could neither serve its own (storage nodes call REPLICATE) nor say that there is none such: a request with another
method than the usual ones goes to aiohttp's other parser, which takes any (RFC 9110, 9.1).
"""

import asyncio
import re
from typing import Any

from aiohttp import web
from aiohttp.http_parser import HttpRequestParserPy
from aiohttp.web_protocol import RequestPayloadError

LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\r\n ]+) HTTP/1\.[01]\r\n")
NOT_ASCII = re.compile(rb"[\x80-\xff]")
LENGTH = re.compile(rb"\r\n(?:content-length|upgrade)[ \t]*:", re.IGNORECASE)
END = b"\r\n\r\n"
USUAL = frozenset((b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"COPY"))
LIMITS = ("max_line_size", "max_field_size", "max_headers", "auto_decompress")


class Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ("_body", "_limits", "_other", "_usual", "method")

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, **limits: Any) -> None:
        super().__init__(manager, loop=loop, **limits)
        self._limits = limits
        self._usual = self._parser
        self._other: Any = None
        self.method = (
            ""  # of the last request with an unusual one, as it was sent: the other parser makes it upper case
        )
        self._body: Any = None  # of the last request

    def data_received(self, data: bytes) -> None:
        if self._messages or (self._body is not None and not self._body.is_eof()):
            super().data_received(data)
            return
        line = LINE.match(data)  # a request begins here, unless this is a further part of its head
        if line is not None:
            if line[1] in USUAL:
                self._parser, self.method = self._usual, ""
            else:
                self._parser, self.method = self._any_method(), line[1].decode()
            if not line[2].isascii():
                data = b"".join((data[: line.start(2)], encoded(line[2]), data[line.end(2) :]))
            end = data.find(END) + len(END)
            if len(END) <= end < len(data) and not LENGTH.search(data, 0, end):
                super().data_received(data[:end])
                data = data[end:]
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


def method_of(raw: web.BaseRequest) -> str:
    """The method of a request, as it was sent: its case counts (RFC 9110, 9.1)."""
    told = raw.protocol.method if isinstance(raw.protocol, Protocol) else ""
    return told if told.upper() == raw.method else raw.method


def encoded(target: bytes) -> bytes:
    """A request's target in ASCII."""
    return NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target)
