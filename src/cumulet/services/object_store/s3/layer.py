"""S3's API on the port of swift's: requests that are signed as Amazon's, or name a bucket in their host.

GET / lists buckets; /bucket and /bucket/key are what their names say, with sub-resources in the query string (`?acl`). All
other requests are swift's, and handed on untouched.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

import hashlib
import logging
import re
from collections.abc import Awaitable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from cumulet.services.object_store.message import Handler, Refusal, Request, Response
from cumulet.services.object_store.s3 import authorization, cors
from cumulet.services.object_store.s3.authorization import UNSIGNED, Signed
from cumulet.services.object_store.s3.body import STREAMS, UNKNOWN_STREAMS, Chunks, checked, hashed, held_back
from cumulet.services.object_store.s3.checksum import announced
from cumulet.services.object_store.s3.errors import S3Error, invalid_argument, not_implemented
from cumulet.services.object_store.s3.lifecycle_work import Lifecycles
from cumulet.services.object_store.s3.names import valid_bucket
from cumulet.services.object_store.s3.permission import check_permission
from cumulet.services.object_store.s3.request import S3Request, md5_of
from cumulet.services.object_store.s3.routes import find
from cumulet.services.object_store.s3.told import TOLD

_SHA256 = re.compile("[0-9a-fA-F]{64}")


METHODS = {"GET", "HEAD", "PUT", "POST", "DELETE"}
_MEANT = {
    403: "AccessDenied",
    408: "RequestTimeout",
    499: "RequestTimeout",
    503: "ServiceUnavailable",
    507: "ServiceUnavailable",
}
log = logging.getLogger("cumulet.object_store.s3")


class S3:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.service, self.app = service, app
        settings = service.kernel.settings
        domains = [domain.strip().lower() for domain in settings.s3_domains.split(",") if domain.strip()]
        self.domains = [domain if domain.startswith(".") else f".{domain}" for domain in domains]
        service.told["s3api"] = {**TOLD, "s3_acl": settings.s3_acl}
        work = Lifecycles(service, app)
        service.kernel.tasks.every("lifecycle of S3 buckets", settings.s3_lifecycle_interval, work.apply_all)

    def __call__(self, request: Request) -> Awaitable[Response]:
        access = authorization.access_key(request)
        if access is None:
            if request.method == "OPTIONS" and "Origin" in request.headers:
                return cors.preflight(self, request)
            return self.app(request)
        return self._signed(request, access)

    async def _signed(self, request: Request, access: str) -> Response:
        try:
            if request.method == "OPTIONS":
                return await cors.preflight(self, request, access)
            response = await self._serve(request)
        except Exception as error:  # noqa: BLE001 - it is logged, and told in S3's words
            response = _refused(error, request).reply(request.transaction)
            if request.method == "HEAD":
                response.body, response.headers["Content-Length"] = b"", "0"
        response.headers["x-amz-id-2"] = response.headers["x-amz-request-id"] = request.transaction
        return response

    def bucket_in_host(self, request: Request) -> str:
        """The bucket that the host's name begins with; "" where it names none."""
        if not self.domains:
            return ""
        host = request.headers.get("Host", "").rpartition(":")
        name = host[0] if host[1] and host[2].isdigit() else request.headers.get("Host", "")
        return next((name[: -len(domain)] for domain in self.domains if name.endswith(domain)), "")

    def place(self, request: Request) -> tuple[str, str]:
        """(the bucket, the key) of a request."""
        try:
            path = unquote_to_bytes(request.raw_path).decode()
        except UnicodeDecodeError:
            raise S3Error("InvalidURI", URI=quote(request.raw_path)) from None
        bucket = self.bucket_in_host(request)
        if bucket:
            return bucket, path[1:]
        bucket, _, key = path.removeprefix("/").partition("/")
        if bucket and not valid_bucket(bucket, self.service.kernel.settings.s3_dns_names):
            raise S3Error("InvalidBucketName", BucketName=bucket)
        return bucket, key

    async def _serve(self, request: Request) -> Response:
        settings = self.service.kernel.settings
        if request.method not in METHODS:
            raise S3Error("MethodNotAllowed", Method=request.method)
        signed = authorization.signed(request, self.bucket_in_host(request), settings.s3_location)
        bucket, key = self.place(request)
        length = _check_headers(request)
        kind = await _check_payload(request, signed, length)
        checksum = announced(request.headers) if request.method in ("PUT", "POST") else None
        etag = md5_of(request.headers.get("Content-MD5"))
        access = await self.service.identity.access_key(signed.access)
        if access is None or not signed.verified(access):
            raise signed.mismatch()
        s3 = S3Request(self.service, self.app, request, signed, access, bucket, key)
        s3.length, s3.body, s3.etag = length, request.body, etag
        if request.method in ("PUT", "POST"):
            _install(s3, kind, checksum)
        if s3.body is not None and not s3.length and s3.length is not None and request.method in ("PUT", "POST"):
            async for _ in s3.body:
                pass  # of what holds nothing, only that it was signed so is to be found out
            s3.body = None
        s3.check_access_rules()
        route = find(s3)
        await check_permission(s3, route.need, route.on)
        response = await route.serve(s3)
        if "Origin" in request.headers and s3.bucket:
            await cors.decorate(s3, response)
        return response


def _refused(error: Exception, request: Request) -> S3Error:
    """Whatever was raised while a request was served, as S3's error."""
    if isinstance(error, S3Error):
        return error
    if isinstance(error, Refusal):
        return S3Error(_MEANT.get(error.response.status, "InvalidRequest"))
    log.exception("%s %s failed, transaction %s", request.method, request.raw_path, request.transaction)
    return S3Error("InternalError")


def _check_headers(request: Request) -> int | None:
    """Refuse headers that nothing can be done with; the Content-Length."""
    headers = request.headers
    told = headers.get("Content-Length")
    if told is not None and not (told.isascii() and told.isdigit()):
        raise invalid_argument("Content-Length", told)
    if request.method == "PUT" and (
        any(name in headers for name in ("If-Match", "If-Modified-Since", "If-Unmodified-Since"))
        or headers.get("If-None-Match", "*") != "*"
    ):
        raise not_implemented("Conditional object PUTs are not supported.")
    source = headers.get("X-Amz-Copy-Source")
    if source is not None and not all(unquote_to_bytes(source).partition(b"?")[0].lstrip(b"/").partition(b"/")[::2]):
        raise invalid_argument(
            "x-amz-copy-source", source, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        )
    directive = headers.get("X-Amz-Metadata-Directive", "COPY")
    if directive not in ("COPY", "REPLACE"):
        raise invalid_argument("x-amz-metadata-directive", directive, "Unknown metadata directive.")
    if headers.get("X-Amz-Storage-Class", "STANDARD") != "STANDARD":
        raise S3Error("InvalidStorageClass")
    if "X-Amz-Mfa" in headers:
        raise not_implemented("MFA Delete is not supported.")
    if "X-Amz-Website-Redirect-Location" in headers:
        raise not_implemented("Website redirection is not supported.")
    return None if told is None else int(told)


def _check_encryption(s3: S3Request) -> None:
    wanted = s3.headers.get("X-Amz-Server-Side-Encryption")
    if wanted is None:
        return
    if wanted not in ("aws:kms", "AES256"):
        message = "The encryption method specified is not supported"
        raise invalid_argument("x-amz-server-side-encryption", wanted, message)
    encryption = s3.service.told_admin.get("encryption", {})
    if wanted != "AES256" or not encryption.get("enabled"):
        raise not_implemented("Server-side encryption is not supported.")


async def _check_payload(request: Request, signed: Signed, length: int | None) -> str:
    """What the signature says of the body: its SHA-256, or one of the words that stand for one; "" where it says nothing."""
    told = request.headers.get("X-Amz-Content-SHA256", "")
    must = signed.version == 4 and not signed.in_query
    if not told:
        if must:
            raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
        return ""
    if told in STREAMS or told in UNKNOWN_STREAMS:
        decoded = request.headers.get("X-Amz-Decoded-Content-Length", "").strip()
        if not re.fullmatch("-?[0-9]{1,18}", decoded):
            raise S3Error("MissingContentLength")
        if int(decoded) < 0:
            raise invalid_argument("x-amz-decoded-content-length", decoded)
        if not must:
            await _refuse_stream(request, told, int(decoded), length or 0)
        if told in UNKNOWN_STREAMS:
            raise not_implemented(f"Streams of the kind {told} cannot be verified here.")
    elif told != UNSIGNED and not _SHA256.fullmatch(told) and must:
        raise invalid_argument(
            "x-amz-content-sha256",
            told,
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        )
    return told


async def _refuse_stream(request: Request, told: str, decoded: int, length: int) -> None:
    """Only headers can sign an upload in chunks."""
    if decoded < length:
        raise S3Error("IncompleteBody", NumberBytesExpected=str(decoded), NumberBytesProvided=str(length))
    found = hashlib.sha256()
    if request.body is not None:
        async for piece in request.body:
            found.update(piece)
    raise S3Error(
        "XAmzContentSHA256Mismatch", ClientComputedContentSHA256=told, S3ComputedContentSHA256=found.hexdigest()
    )


def _install(s3: S3Request, kind: str, checksum: Any) -> None:
    """Make the body of a request what handlers read: the data alone, and refused where it is not as it was signed."""
    _check_encryption(s3)
    if "X-Amz-Tagging" in s3.headers:
        raise not_implemented("Object tagging is not supported.")
    trailers: dict[str, str] = {}
    if kind in STREAMS:
        s3.length, s3.chunked = int(s3.headers["X-Amz-Decoded-Content-Length"]), True
        stream = Chunks(s3.front.body, s3.length, kind, s3.signed, s3.access, checksum)
        s3.body, trailers = stream.pieces(), stream.trailers
    elif checksum is not None and not checksum.value:
        raise S3Error("MalformedTrailerError")
    elif kind not in ("", UNSIGNED) and s3.length is not None:
        s3.body = hashed(s3.front.body, s3.length, kind)
    else:
        s3.body = s3.front.body
    if checksum is not None and s3.body is not None and (s3.method == "PUT" or s3.param("delete") is not None):
        s3.body = checked(s3.body, checksum, trailers)
    if s3.body is not None and s3.body is not s3.front.body:
        s3.body = s3.noting(held_back(s3.body))
