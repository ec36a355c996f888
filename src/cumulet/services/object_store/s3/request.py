"""A request of S3 while it is served: who made it, what it is about, and what is asked of the layers further in for it.

Those are asked in swift's words: a bucket is a container of the signer's project, a key an object in it. What they refuse
becomes S3's error of the same meaning.
"""

import base64
import binascii
import re
import string
from collections.abc import AsyncIterator, Mapping
from email.header import Header
from hashlib import md5
from typing import Any
from urllib.parse import urlencode

from cumulet.api.http import Query, http_date
from cumulet.core.access import permits
from cumulet.core.context import Caller
from cumulet.services.identity.interface import AccessKey
from cumulet.services.object_store.message import Handler, Headers, Request, Response, ask, close, drain, stream
from cumulet.services.object_store.proxy.info import Info, container_info
from cumulet.services.object_store.s3.authorization import Signed
from cumulet.services.object_store.s3.errors import S3Error, invalid_argument
from cumulet.services.object_store.s3.xml import BadXml, Shape, parse

SEGMENTS = "+segments"
"""What follows a bucket's name in that of the container of its uploads' parts."""
SYSMETA = "X-Object-Sysmeta-S3api-"
BUCKET_SYSMETA = "X-Container-Sysmeta-S3api-"
ETAG_OVERRIDE = "X-Object-Sysmeta-Container-Update-Override-Etag"
MOST_DISCARDED = 128 * 2**20
LARGEST_NUMBER = 2**31 - 1
_PRINTABLE = set(string.printable)
_UNKEPT = set(' "),/;<=>?@[\\]{}')
"""A header of user metadata with one of these in its name is left out, as S3 does."""
_NOT_HANDED_ON = {
    "authorization", "connection", "content-length", "content-md5", "etag", "expect", "host", "transfer-encoding",
    "x-auth-token", "x-copy-from", "x-copy-from-account", "x-object-manifest", "x-service-token", "x-static-large-object",
    "x-symlink-target", "x-symlink-target-account", "x-timestamp", "trailer", "te", "destination", "destination-account",
}  # fmt: skip
CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
_SAME = {
    "accept-ranges", "content-length", "content-type", "content-range", "content-encoding", "content-disposition",
    "content-language", "etag", "last-modified", "x-robots-tag", "cache-control", "expires",
}  # fmt: skip
_RENAMED = {
    "x-object-version-id": "x-amz-version-id",
    "x-parts-count": "x-amz-mp-parts-count",
    "x-copied-from-version-id": "x-amz-copy-source-version-id",
}


def account_of(service: Any, caller: Caller) -> str:
    """The account whose containers a caller's buckets are: that of his project."""
    prefix = service.kernel.settings.object_reseller_prefixes.partition(",")[0].strip()
    return f"{prefix}_{caller.project_id}"


class S3Request:
    """What handlers get. `body` is the data taken out of its chunks, `length` how much of it there is (None: not told)."""

    def __init__(
        self, service: Any, app: Handler, front: Request, signed: Signed, key: AccessKey, bucket: str, name: str
    ) -> None:
        self.service, self.app, self.front = service, app, front
        self.signed, self.access = signed, key
        self.bucket, self.key = bucket, name
        self.caller = key.caller
        self.account = account_of(service, self.caller)
        self.user_id = f"{self.caller.project_name}:{self.caller.user_name}"
        self.headers, self.method = front.headers, front.method
        self.length: int | None = None
        self.body: AsyncIterator[bytes] | None = None
        self.chunked = False  # the body came in chunks with heads of their own
        self.etag = ""  # the MD5 that the client told, in hexadecimal
        self.failed: S3Error | None = None  # what the body turned out to be
        self.settled = False  # S3's own ACLs have let the request in: nobody else is asked

    @property
    def settings(self) -> Any:
        return self.service.kernel.settings

    def param(self, name: str) -> str | None:
        """A parameter of the query string."""
        return self.front.query.get(name)

    def number(self, name: str, default: int, most: int = LARGEST_NUMBER) -> int:
        """A parameter that is a number, cut down to `most`."""
        told = self.param(name)
        if told is None:
            return default
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", told) or int(told) > LARGEST_NUMBER:
            raise invalid_argument(name, told, f"Provided {name} not an integer or within integer range")
        if int(told) < 0:
            raise invalid_argument(name, told, f"Argument {name} must be an integer between 0 and {LARGEST_NUMBER}")
        return min(int(told), most)

    def check_access_rules(self) -> None:
        """Refuse what the leave by which the access key was made is not good for."""
        rules = self.caller.access_rules
        path = "/".join(part for part in ("/v1", self.account, self.bucket, self.key) if part)
        if rules is not None and not permits(rules, ("object-store", "swift"), self.method, path):
            raise S3Error("AccessDenied")

    def need_key(self) -> None:
        if not self.key:
            raise S3Error("InvalidRequest", "A key must be specified")

    # ---- the body -------------------------------------------------------------------------------------------------------

    async def read(self, most: int) -> bytes:
        """The whole body, which is a document of at most so many bytes."""
        encoding = [part.strip() for part in self.headers.get("Transfer-Encoding", "").split(",") if part.strip()]
        if encoding and encoding != ["chunked"]:
            raise S3Error("NotImplemented", "Of transfer encodings only chunked is taken.", Header="Transfer-Encoding")
        if self.length is not None and self.length > most:
            await self._discard()
            raise S3Error("MalformedXML")
        if self.body is None or (not encoding and not self.length):
            return b""
        parts, size = [], 0
        async for piece in self.body:
            size += len(piece)
            if size > most:
                raise S3Error("MalformedXML")
            parts.append(piece)
        return b"".join(parts)

    async def _discard(self) -> None:
        """Let a client finish what nobody reads: most understand a reply only then. Whoever sends very much is cut off."""
        seen = 0
        if self.front.body is not None and (self.length or 0) <= MOST_DISCARDED:
            async for piece in self.front.body:
                seen += len(piece)
                if seen > MOST_DISCARDED:
                    return

    async def xml(self, root: str, shape: Shape, most: int, code: str = "MalformedXML") -> Any:
        """The body as a document; None where there is no body."""
        data = await self.read(most)
        if not data:
            return None
        self.check_md5(data)
        return parsed(data, root, shape, code)

    def check_md5(self, data: bytes) -> None:
        """Refuse a document whose MD5 is not what was told."""
        if self.etag and md5(data, usedforsecurity=False).hexdigest() != self.etag:
            raise S3Error("BadDigest", ExpectedDigest=self.headers.get("Content-MD5", ""))

    async def noting(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The body; that it turned out to be wrong is not forgotten, whatever those make of it who read it."""
        try:
            async for piece in body:
                yield piece
        except S3Error as error:
            self.failed = error
            raise

    # ---- what is asked further in ---------------------------------------------------------------------------------------

    def client_headers(self, *, conditions: bool = True) -> Headers:
        """The client's own headers in swift's words."""
        found = Headers()
        for name, value in self.headers.items():
            low = name.lower()
            if low.startswith("x-amz-meta-"):
                if not _UNKEPT & set(name):
                    kept = "X-Object-Meta-" + name[11:].replace("_", "=5F")
                    found[kept] = f"{found[kept]},{kept_text(value)}" if kept in found else kept_text(value)
            elif low.startswith(("x-amz-", "x-backend-")) or low in _NOT_HANDED_ON or "sysmeta" in low:
                continue
            else:
                found[name] = value
        if not conditions:
            for name in (*CONDITIONS, "Range"):
                found.pop(name, None)
        return found

    async def ask(
        self, method: str, bucket: str | None = None, key: str | None = None, *, headers: Any = (),
        query: Mapping[str, str] | None = None, body: AsyncIterator[bytes] | bytes | None = None, trusted: bool = False,
    ) -> Response:  # fmt: skip
        """Ask what is further in; its reply, or S3's error for it. Where neither bucket nor key is named it is about those
        of the request."""
        bucket = self.bucket if bucket is None else bucket
        key = (self.key if bucket == self.bucket else "") if key is None else key
        told = Headers(headers)
        if isinstance(body, bytes):
            told["Content-Length"] = str(len(body))
            body = stream(body)
        asked = self.front.sub(
            method, source="S3", trusted=trusted or self.settled, account=self.account, container=bucket, object=key,
            headers=told, query=Query(urlencode(query or {})), body=body, version="v1", caller=self.caller,
            owner=trusted or self.settled,
        )  # fmt: skip
        response = await ask(self.app, asked)
        if self.failed is not None:
            raise self.failed
        if response.status in _FINE or response.ok:
            if method == "PUT" and bucket and not key and response.status == 202:
                await close(response)
                raise await self._taken(bucket)
            return response
        raise await self._refusal(method, bucket, key, asked, response)

    async def info(self, bucket: str = "") -> Info:
        """What is known of a bucket; NoSuchBucket where there is none."""
        bucket = bucket or self.bucket
        found = await container_info(self.app, self._about(), bucket, self.account)
        if found.status == 404:
            raise S3Error("NoSuchBucket", BucketName=bucket)
        if not found.ok:
            raise S3Error("ServiceUnavailable")
        return found

    def _about(self) -> Request:
        return self.front.sub("HEAD", source="S3", trusted=True, account=self.account, version="v1", caller=self.caller)

    async def _taken(self, bucket: str) -> S3Error:
        """There is a bucket of this name already."""
        owner = owner_of((await self.info(bucket)).sysmeta.get("s3api-acl", ""))
        code = "BucketAlreadyOwnedByYou" if owner in ("", self.user_id) else "BucketAlreadyExists"
        return S3Error(code, BucketName=bucket)

    async def _refusal(self, method: str, bucket: str, key: str, asked: Request, response: Response) -> S3Error:
        status, text = response.status, (await drain(response)).decode(errors="replace")
        if status == 404:
            return await self._missing(method, bucket, key)
        if key and (code := _OBJECT.get((method, status)) or _OBJECT.get(("", status))):
            if status == 422 and "Etag" in asked.headers:
                return S3Error(code, ExpectedDigest=asked.headers["Etag"])
            if status in (408, 499):
                return S3Error(code, headers={"Connection": "close"})
            return S3Error(code, text if "quota" in text.lower() else "")
        if bucket and not key and method == "DELETE" and status == 409:
            return S3Error("BucketNotEmpty")
        if status == 400:
            for name in ("X-Delete-At", "X-Delete-After"):
                if name in text:
                    return invalid_argument(name, self.headers.get(name, ""), text)
            return S3Error("InvalidRequest", text)
        if status == 401:
            return self.signed.mismatch()
        return S3Error(_ANY.get(status, "InternalError"), "" if status in _ANY else f"unexpected status code {status}")

    async def _missing(self, method: str, bucket: str, key: str) -> S3Error:
        """404: of what?"""
        if not bucket:
            return S3Error("AccessDenied")
        if key and method == "DELETE":
            return S3Error("NoSuchKey", Key=key)
        if key and method != "PUT":
            if not bucket.endswith(SEGMENTS):
                await self.info(bucket)
            return S3Error("NoSuchKey", Key=key)
        return S3Error("NoSuchBucket", BucketName=bucket)


_FINE = {304}
_OBJECT = {
    ("", 412): "PreconditionFailed",
    ("PUT", 422): "BadDigest",
    ("PUT", 413): "EntityTooLarge",
    ("PUT", 411): "MissingContentLength",
    ("PUT", 408): "RequestTimeout",
    ("PUT", 499): "RequestTimeout",
    ("GET", 409): "BrokenMPU",
}
_ANY = {
    403: "AccessDenied",
    409: "ServiceUnavailable",
    412: "PreconditionFailed",
    413: "EntityTooLarge",
    416: "InvalidRange",
    429: "SlowDown",
    498: "SlowDown",
    503: "ServiceUnavailable",
    507: "ServiceUnavailable",
}


def parsed(data: bytes, root: str, shape: Shape, code: str = "MalformedXML", *, typed: bool = False) -> Any:
    """A document that a client sent; refused where it is none of this shape."""
    try:
        return parse(data, root, shape, typed=typed)
    except BadXml:
        raise S3Error(code) from None


def owner_of(acl: str) -> str:
    """The owner that a stored ACL names."""
    found = re.match(r'\{"Owner":"((?:[^"\\]|\\.)*)"', acl)
    return found[1] if found else ""


def kept_text(value: str) -> str:
    """User metadata as it is stored: other than plain text in the form of RFC 2047, as S3 does."""
    if set(value) <= _PRINTABLE:
        return value
    text = value.encode(errors="surrogateescape").decode(errors="replace")
    coded = Header(text, "UTF-8").encode()
    return re.sub(r"=\?utf-8\?([qb])\?", lambda found: f"=?UTF-8?{found[1].upper()}?", coded)


def md5_of(told: str | None) -> str:
    """A Content-MD5 in hexadecimal; "" where there is none."""
    value = (told or "").strip("".join(map(chr, range(33))))
    if not value:
        return ""
    if not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", value):
        raise S3Error("InvalidDigest", ContentMD5=value)
    try:
        found = base64.b64decode(value)
    except binascii.Error:
        raise S3Error("InvalidDigest", ContentMD5=value) from None
    if len(found) != 16:
        raise S3Error("InvalidDigest", ContentMD5=value)
    return found.hex()


# ---- replies ------------------------------------------------------------------------------------------------------------


def is_slo(response: Response) -> bool:
    """Whether an object is made of others by a manifest."""
    return response.headers.get("X-Static-Large-Object", "").lower() in ("true", "1", "yes", "on", "t", "y")


def translated(response: Response, *, status: int | None = None) -> Response:
    """A reply with its headers in S3's words."""
    headers = Headers()
    for name, value in response.headers.items():
        low = name.lower()
        if low.startswith("x-object-meta-"):
            headers["x-amz-meta-" + low[14:].replace("=5f", "_")] = value
        elif low in _SAME or low.startswith("access-control-"):
            headers[name] = value
        elif low in _RENAMED:
            headers[_RENAMED[low]] = value
        elif low == "x-delete-at" and value.isdigit():
            headers["x-amz-expiration"] = f'expiry-date="{http_date(int(value))}", rule-id="swift-object-expiration"'
        elif low == "x-backend-content-type" and value == DELETE_MARKER:
            headers["x-amz-delete-marker"] = "true"
        elif low == "x-backend-crypto-cipher" and value == "AES_CTR_256":
            headers["x-amz-server-side-encryption"] = "AES256"
    etag = shown_etag(response)
    headers.popall("Etag", None)
    if etag:
        headers["ETag"] = f'"{etag}"'
    return Response(response.status if status is None else status, response.body, headers)


DELETE_MARKER = "application/x-deleted;swift_versions_deleted=1"


def shown_etag(response: Response) -> str:
    """The entity tag of an object as S3 tells it: of one that was uploaded in parts that of the parts, with their number."""
    own = response.headers.get(f"{SYSMETA}Etag", "")
    if own:
        return own
    etag = response.headers.get("Etag", "").strip('"')
    return f"{etag}-N" if etag and is_slo(response) else etag


def xml_reply(body: bytes, status: int = 200, **headers: str) -> Response:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, body, {"Content-Type": "application/xml", **told})
