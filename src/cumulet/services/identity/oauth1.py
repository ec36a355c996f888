"""Signed requests of OAuth 1.0 (RFC 5849): what they say, and whether their signature is right. Pure functions.

What is no such request is a `Malformed`. Signed are the method, the URL, and the parameters of the query, of a form that is
sent, and of the header `Authorization`; the key is the consumer's secret and that of the token, if there is one.
"""

import base64
import hmac
import re
import time
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from msgspec import Struct

LIFETIME = 600
"""Seconds by which a request's timestamp may differ from now, and for which its nonce is remembered."""
MACS = {"HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256", "HMAC-SHA512": "sha512"}
PLAINTEXT = "PLAINTEXT"
FORM = "application/x-www-form-urlencoded"
_PARAMETER = re.compile(r'\s*([^\s=,"]+)\s*=\s*(?:"([^"]*)"|([^\s,"]*))\s*(?:,|$)')
_TIMESTAMP = re.compile(r"[0-9]{10}", re.ASCII)


class Malformed(ValueError):
    """Something that is no signed request; the text says what is wrong."""


class Signed(Struct, frozen=True, kw_only=True):
    """A signed request. `protocol` are the parameters of the header, by name; `others` those of the query and of a form."""

    method: str
    url: str
    protocol: dict[str, str]
    others: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """A parameter of the header, "" where it is not there."""
        return self.protocol.get(name, "")


def read(method: str, url: str, authorization: str, query: str = "", form: str = "") -> Signed:
    """The request as it was signed. `url` is that which the client called, without its query."""
    others = (*parse_qsl(query, keep_blank_values=True), *parse_qsl(form, keep_blank_values=True))
    if any(name.startswith("oauth_") for name, _ in others):
        raise Malformed("the parameters of OAuth stand in the header Authorization, and nowhere else")
    try:
        base_url(url)
    except ValueError:
        raise Malformed("the header Host names no host") from None
    return Signed(method=method, url=url, protocol=parse_header(authorization), others=others)


def parse_header(text: str) -> dict[str, str]:
    """The parameters of a header `Authorization: OAuth ...`, the realm left out (section 3.5.1)."""
    scheme, _, rest = text.partition(" ")
    if scheme.lower() != "oauth":
        raise Malformed("a header Authorization of the scheme OAuth is expected")
    found: dict[str, str] = {}
    at = 0
    while at < len(rest):
        match = _PARAMETER.match(rest, at)
        if match is None:
            raise Malformed('the parameters of the header Authorization are written name="value", with commas between')
        name = unquote(match[1])
        if name in found:
            raise Malformed(f"the parameter {name[:40]} is there twice")
        found[name] = unquote(match[2] if match[2] is not None else match[3])
        at = match.end()
    found.pop("realm", None)
    return found


def check(request: Signed, now: float | None = None) -> None:
    """Malformed where a parameter is missing that all such requests have, or has a value that cannot be (section 3.2)."""
    for name in ("oauth_consumer_key", "oauth_signature_method", "oauth_signature", "oauth_timestamp", "oauth_nonce"):
        if not request.get(name):
            raise Malformed(f"the parameter {name} is missing")
    if request.get("oauth_signature_method") not in (*MACS, PLAINTEXT):
        raise Malformed(f"the signature method is none of {', '.join((*MACS, PLAINTEXT))}")
    if request.protocol.get("oauth_version", "1.0") != "1.0":
        raise Malformed("the version is not 1.0")
    if not _TIMESTAMP.fullmatch(request.get("oauth_timestamp")):
        raise Malformed("the timestamp is not in seconds since 1970")
    if abs((now or time.time()) - int(request.get("oauth_timestamp"))) > LIFETIME:
        raise Malformed(f"the timestamp differs from now by more than {LIFETIME} seconds")


def verifies(request: Signed, consumer_secret: str, token_secret: str = "") -> bool:
    """Whether the signature is that of the holder of these secrets. It takes as long for a wrong one."""
    method = request.get("oauth_signature_method")
    key = f"{escaped(consumer_secret)}&{escaped(token_secret)}".encode()
    if method == PLAINTEXT:
        right = key
    elif method in MACS:
        right = base64.b64encode(hmac.digest(key, base_string(request).encode(), MACS[method]))
    else:
        return False
    return hmac.compare_digest(right, request.get("oauth_signature").encode(errors="surrogatepass"))


def base_string(request: Signed) -> str:
    """What is signed (section 3.4.1)."""
    signed = [(name, value) for name, value in request.protocol.items() if name != "oauth_signature"]
    parameters = normalized([*signed, *request.others])
    return "&".join(map(escaped, (request.method.upper(), base_url(request.url), parameters)))


def base_url(url: str) -> str:
    """The URL as it is signed: scheme and host in lower case, the port only where it is not the scheme's own, no query."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), parts.netloc.lower()
    own = {"http": ":80", "https": ":443"}.get(scheme)
    if own is not None:
        host = host.removesuffix(own)
    return f"{scheme}://{host}{parts.path or '/'}"


def normalized(parameters: Sequence[tuple[str, str]]) -> str:
    """Parameters in the order and the quoting in which they are signed."""
    return "&".join(f"{name}={value}" for name, value in sorted((escaped(n), escaped(v)) for n, v in parameters))


def escaped(text: str) -> str:
    """Everything in percent but letters, digits and -._~ (section 3.6)."""
    return quote(text, safe="~", errors="surrogatepass")


class Nonces:
    """The requests of the last while, so that each is taken once (section 3.3). At most `size` are remembered."""

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._seen: dict[tuple[str, ...], float] = {}

    def take(self, request: Signed, now: float | None = None) -> bool:
        """Whether this is the first time; it is remembered for as long as its timestamp is good."""
        moment = now or time.time()
        names = ("oauth_consumer_key", "oauth_token", "oauth_timestamp", "oauth_nonce")
        key = tuple(map(request.get, names))
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] > moment and len(self._seen) < self._size:
                break
            del self._seen[oldest]
        if key in self._seen:
            return False
        self._seen[key] = moment + 2 * LIFETIME
        return True
