"""Signatures of Amazon's protocols: EC2 versions 0, 1, 2 and 4, S3 versions 2 and 4. Pure functions for all who need them.

References: "Signature Version 2 signing process", "Signature Version 4" (both of the AWS General Reference), "Signing and
authenticating REST requests" and "Signature calculations: transferring a payload in multiple chunks" (of Amazon S3).
What cannot be a signed request is a `Malformed`; whether a signature is right is told by the `verifies_*` functions, which
take as long for a wrong one as for a right one.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from msgspec import Struct

V4 = "AWS4-HMAC-SHA256"
V4_CHUNK = "AWS4-HMAC-SHA256-PAYLOAD"
V4_TRAILER = "AWS4-HMAC-SHA256-TRAILER"
PARTS = {V4_CHUNK.encode(): 6, V4_TRAILER.encode(): 5}
"""What is signed of an upload in chunks after its seed, and of how many lines it is."""
NO_BYTES = hashlib.sha256(b"").hexdigest()
S3_SERVICES = ("s3", "iam", "sts")
"""The services whose version 4 signatures are taken as S3's."""


class Malformed(ValueError):
    """Something that no signer makes; the text says what is wrong."""


class Signed(Struct, frozen=True, kw_only=True):
    """A request as its signer saw it. `params` are those of the query string, or of a form that was posted; `headers` may be
    written in any case; `body_hash` is the SHA-256 of the body, in hexadecimal."""

    verb: str = ""
    host: str = ""
    path: str = ""
    params: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body_hash: str = ""

    def header(self, name: str) -> str | None:
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.strip().lower() == wanted), None)


class CredentialScope(Struct, frozen=True):
    """What a version 4 signature is good for: `AKID/20150830/us-east-1/ec2/aws4_request` after its first part."""

    date: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


class Authorization(Struct, frozen=True):
    """What a version 4 request says of its own signature, in its header or its query string."""

    access: str
    scope: CredentialScope
    signed_headers: tuple[str, ...]
    signature: str
    date: str  # as in X-Amz-Date


def equal(one: str, other: str) -> bool:
    """Whether two texts are the same, found out in a time that does not tell where they differ."""
    return hmac.compare_digest(_bytes(one), _bytes(other))


# ---- EC2 ----------------------------------------------------------------------------------------------------------------


def verifies_ec2(secret: str, request: Signed, signature: str) -> bool:
    """Whether `signature` is that of this EC2 request. Some clients sign the host without its port: both ways are right."""
    if equal(signature, ec2_signature(secret, request)):
        return True
    bare = host_without_port(request.host)
    if bare == request.host:
        return False
    headers = {key: bare if key.strip().lower() == "host" else value for key, value in request.headers.items()}
    other = Signed(
        verb=request.verb, host=bare, path=request.path, params=request.params, headers=headers,
        body_hash=request.body_hash,
    )  # fmt: skip
    return equal(signature, ec2_signature(secret, other))


def ec2_signature(secret: str, request: Signed) -> str:
    """The signature of an EC2 request, by the version it names."""
    version = request.params.get("SignatureVersion")
    match version:
        case "0":
            return _mac64(secret, _needed(request, "Action") + _needed(request, "Timestamp"), "sha1")
        case "1":
            return _mac64(secret, _concatenated(request.params), "sha1")
        case "2":
            return _ec2_version_2(secret, request)
        case None:
            return ec2_version_4(secret, request)
    raise Malformed(f"there is no signature version {version[:20]}; 0, 1, 2 and 4 are known")


def host_without_port(host: str) -> str:
    """A Host header's name or address alone; one of IPv6 stands in brackets."""
    end = host.rfind(":")
    return host[:end] if end > host.rfind("]") else host


def _needed(request: Signed, name: str) -> str:
    if name not in request.params:
        raise Malformed(f"the parameter {name} is missing")
    return request.params[name]


def _concatenated(params: Mapping[str, str]) -> str:
    names = sorted((name for name in params if name != "Signature"), key=str.lower)
    return "".join(name + params[name] for name in names)


def _ec2_version_2(secret: str, request: Signed) -> str:
    method = request.params.get("SignatureMethod", "HmacSHA256")
    digests = {"HmacSHA1": "sha1", "HmacSHA256": "sha256"}
    if method not in digests:
        raise Malformed(f"there is no signature method {method[:20]}; HmacSHA1 and HmacSHA256 are known")
    params = {**request.params, "SignatureMethod": method}
    query = canonical_query(params, leave_out="Signature")
    return _mac64(secret, f"{request.verb}\n{request.host}\n{request.path}\n{query}", digests[method])


def ec2_version_4(secret: str, request: Signed) -> str:
    """The version 4 signature of a request. The parameters of a POST are its body, and signed as that."""
    about = authorization(request)
    query = "" if request.verb.upper() == "POST" else canonical_query(request.params, leave_out="X-Amz-Signature")
    text = canonical_request(request, query, about.signed_headers)
    key = signing_key(secret, about.scope)
    return hmac.digest(key, _bytes(string_to_sign(about, text)), "sha256").hex()


# ---- version 4 ----------------------------------------------------------------------------------------------------------


def authorization(request: Signed) -> Authorization:
    """What a version 4 request says of its signature: in `Authorization`, or in the query string."""
    header = request.header("Authorization")
    if header is not None and header.startswith(V4):
        parts = dict(part.strip().partition("=")[::2] for part in header[len(V4) :].split(","))
        date = request.header("X-Amz-Date") or request.params.get("X-Amz-Date")
    elif request.params.get("X-Amz-Algorithm") == V4:
        names = ("Credential", "SignedHeaders", "Signature")
        parts = {name: request.params[f"X-Amz-{name}"] for name in names if f"X-Amz-{name}" in request.params}
        date = request.params.get("X-Amz-Date") or request.header("X-Amz-Date")
    else:
        raise Malformed("this is a signature of no version that is known here")
    for name in ("Credential", "SignedHeaders"):
        if not parts.get(name):
            raise Malformed(f"the signature says no {name}")
    access, *scope = parts["Credential"].split("/")
    found = credential_scope("/".join(scope))
    if date is None or not date.startswith(found.date):
        raise Malformed("the date of the request (X-Amz-Date) is not that of the credential's scope")
    return Authorization(access, found, tuple(parts["SignedHeaders"].split(";")), parts.get("Signature", ""), date)


def credential_scope(text: str) -> CredentialScope:
    """The scope that is written as `20150830/us-east-1/ec2/aws4_request`."""
    parts = text.split("/")
    if len(parts) != 4 or parts[3] != "aws4_request" or not parts[0]:
        raise Malformed("a credential's scope is date, region, service and aws4_request, with slashes between")
    return CredentialScope(*parts[:3])


def canonical_request(request: Signed, query: str, signed_headers: tuple[str, ...]) -> str:
    """The text whose hash is signed. A signed header that did not come is left out, so that the signature is wrong."""
    sent = {key.strip().lower(): " ".join(value.split()) for key, value in request.headers.items()}
    lines = "".join(f"{name}:{sent[name]}\n" for name in signed_headers if name in sent)
    names = ";".join(signed_headers)
    return "\n".join((request.verb.upper(), request.path, query, lines, names, request.body_hash))


def canonical_query(params: Mapping[str, str], leave_out: str = "") -> str:
    """The parameters in the order and the quoting in which they are signed."""
    quoted = sorted((_quoted(name), _quoted(value)) for name, value in params.items() if name != leave_out)
    return "&".join(f"{name}={value}" for name, value in quoted)


def string_to_sign(about: Authorization, canonical: str) -> str:
    """What is signed of a request, from its canonical form."""
    hashed = hashlib.sha256(_bytes(canonical)).hexdigest()
    return f"{V4}\n{about.date}\n{about.scope}\n{hashed}"


def signing_key(secret: str, scope: CredentialScope) -> bytes:
    """The key of all signatures of one scope."""
    key = _bytes(f"AWS4{secret}")
    for part in (scope.date, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, _bytes(part), "sha256")
    return key


# ---- S3 -----------------------------------------------------------------------------------------------------------------


def verifies_s3(secret: str, signed: bytes, signature: str) -> bool:
    """Whether `signature` is that of the string that an S3 request was signed by."""
    return equal(signature, s3_signature(secret, signed))


def s3_signature(secret: str, signed: bytes) -> str:
    """The signature of an S3 request's string to sign: version 4 where it begins so, else the older one. The first signature
    of an upload in chunks (its seed) is made in the same way."""
    if not signed.startswith(b"AWS4"):
        return base64.b64encode(hmac.digest(_bytes(secret), signed, "sha1")).decode()
    lines = signed.split(b"\n")
    if len(lines) != 4 or lines[0] != V4.encode():
        raise Malformed(f"a string to sign of version 4 is {V4}, date, scope and hash, each on a line")
    return hmac.digest(signing_key(secret, _s3_scope(lines[2])), signed, "sha256").hex()


def _s3_scope(line: bytes) -> CredentialScope:
    try:
        scope = credential_scope(line.decode())
    except UnicodeDecodeError:
        raise Malformed("a credential's scope is text") from None
    if scope.service not in S3_SERVICES:
        raise Malformed(f"the signature is for another service than {', '.join(S3_SERVICES)}")
    return scope


def verifies_s3_part(secret: str, signed: bytes, signature: str) -> bool:
    """Whether `signature` is that of a chunk's or a trailer's string to sign."""
    lines = signed.split(b"\n")
    if len(lines) != PARTS.get(lines[0]):
        raise Malformed("what is signed of an upload in chunks has a kind, date, scope and hashes, each on a line")
    return equal(signature, hmac.digest(signing_key(secret, _s3_scope(lines[2])), signed, "sha256").hex())


def chunk_signature(key: bytes, date: str, scope: CredentialScope, previous: str, chunk: bytes) -> str:
    """The signature of one chunk of an upload, which builds on that of the chunk before (at first: on the seed)."""
    hashed = hashlib.sha256(chunk).hexdigest()
    text = f"{V4_CHUNK}\n{date}\n{scope}\n{previous}\n{NO_BYTES}\n{hashed}"
    return hmac.digest(key, _bytes(text), "sha256").hex()


# ---- time ---------------------------------------------------------------------------------------------------------------


def signed_at(request: Signed) -> datetime | None:
    """When a request was signed, if it says so in what is signed: `Timestamp` of versions 0 to 2, the date of version 4."""
    is_old = "SignatureVersion" in request.params
    text = request.params.get("Timestamp") if is_old else authorization(request).date
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed("the time of signing is no time of ISO 8601") from None


def is_fresh(moment: datetime | None, seconds: float, now: datetime | None = None) -> bool:
    """Whether a request that was signed then is still good. One that names no time was meant to last."""
    return moment is None or (now or datetime.now(UTC)) - moment <= timedelta(seconds=seconds)


# ---- the parts ----------------------------------------------------------------------------------------------------------


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~", errors="surrogatepass")


def _mac64(secret: str, text: str, digest: str) -> str:
    return base64.b64encode(hmac.digest(_bytes(secret), _bytes(text), digest)).decode()
