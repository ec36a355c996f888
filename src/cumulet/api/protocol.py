"""What clients send that the parser would refuse, made fit for it before it is parsed.

Names in paths that are not percent-encoded (RFC 3986, 2.1, wants them to be, and many clients forget): they are encoded. And a
body whose length was not told, or is told in chunks and then does not come in any: the head is answered by itself, so that the
service can say what is wrong.
"""

import re

from aiohttp import web

LINE = re.compile(rb"[A-Z]+ ([^\r\n ]+) HTTP/1\.[01]\r\n")
NOT_ASCII = re.compile(rb"[\x80-\xff]")
LENGTH = re.compile(rb"\r\n(?:content-length|upgrade)[ \t]*:", re.IGNORECASE)
END = b"\r\n\r\n"


class Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        if self._current_request is None and not self._messages:
            line = LINE.match(data)
            if line is not None:
                if not line[1].isascii():
                    data = b"".join((data[: line.start(1)], encoded(line[1]), data[line.end(1) :]))
                end = data.find(END) + len(END)
                if len(END) <= end < len(data) and not LENGTH.search(data, 0, end):
                    super().data_received(data[:end])
                    data = data[end:]
        super().data_received(data)


class WebServer(web.Server):
    """Makes the connections."""

    def __call__(self) -> Protocol:
        return Protocol(self, loop=self._loop, **self._kwargs)


def encoded(target: bytes) -> bytes:
    """A request's target in ASCII."""
    return NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target)
