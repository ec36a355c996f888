"""Names of header fields that are no tokens, for services that take them (`Service.free_names`).

HTTP's grammar has some characters in no name (RFC 9110, 5.1 and 5.6.2), and the parser refuses a head with one; there are
APIs that let clients name metadata by them all the same. Behind the prefixes that a service asks for, a name may have any
printable character of ASCII but the colon: before a head is parsed such a name is put by, in a form of tokens alone behind
MARK, and the service gets what was sent.

No other header can come of this, however a client uses it: what is put back begins with one of the prefixes and has a
character that no other name may have. Nor does it move the end of a line, which is in neither.
"""

import re
from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote

from multidict import CIMultiDict

MARK = "x-name-of-no-token-"
SAFE = "!#$&'*+-.^_`|~"
"""What stands for itself behind MARK, beside letters and digits: all of a token's but `%`, which marks the others."""
NO_TOKEN = re.compile(rb'["(),/;<=>?@\[\\\]{}]')


class FreeNames:
    """The names that begin with one of these prefixes."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        begins = b"|".join(re.escape(prefix.encode()) for prefix in prefixes)
        name = rb"(?:%s)[!-9;-~]+" % begins
        self._name = re.compile(name, re.IGNORECASE)
        self._line = re.compile(rb"\r\n(%s):" % name, re.IGNORECASE)

    def put_by(self, data: bytes, end: int) -> bytes:
        """A request whose head ends at `end`, as the parser takes it as far as such names go."""
        if not self._line.search(data, 0, end):
            return data
        return self._line.sub(_form, data[:end]) + data[end:]

    def put_back(self, headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
        """Headers with their names as they were sent."""
        return CIMultiDict((self._sent(name) if name.startswith(MARK) else name, value) for name, value in headers)

    def _sent(self, name: str) -> str:
        sent = unquote(name.removeprefix(MARK), errors="surrogateescape").encode(errors="surrogateescape")
        return sent.decode() if self._name.fullmatch(sent) and NO_TOKEN.search(sent) else name


def _form(line: re.Match[bytes]) -> bytes:
    name = line[1]
    return b"\r\n%s%s:" % (MARK.encode(), quote_from_bytes(name, SAFE).encode()) if NO_TOKEN.search(name) else line[0]
