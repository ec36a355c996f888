"""Objects: HEAD|GET|PUT|DELETE /bucket/key; with X-Amz-Copy-Source a PUT copies another object.

References: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from cumulet.services.object_store.conditional import spans
from cumulet.services.object_store.message import Headers, Response, close, drain
from cumulet.services.object_store.s3.acl import canned, from_headers, swift_headers
from cumulet.services.object_store.s3.bucket import listing
from cumulet.services.object_store.s3.errors import S3Error, invalid_argument
from cumulet.services.object_store.s3.permission import bucket_acl, object_acl
from cumulet.services.object_store.s3.request import (
    CONDITIONS,
    DELETE_MARKER,
    SYSMETA,
    S3Request,
    is_slo,
    shown_etag,
    translated,
    xml_reply,
)
from cumulet.services.object_store.s3.times import of_header
from cumulet.services.object_store.s3.told import LONGEST_KEY, MAX_PART_NUMBER
from cumulet.services.object_store.s3.xml import document, leaf

ETAG_IS_AT = "X-Backend-Etag-Is-At"
_OVERRIDES = ("content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding")
_OF_DATA = ("Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Expires", "Cache-Control",
            "X-Robots-Tag")  # fmt: skip


async def get_object(s3: S3Request) -> Response:
    """Send an object, a part of it, or a version of it."""
    headers = s3.client_headers()
    _look_for_own_etags(headers)
    number = part_number(s3, check_most=False)
    version = s3.param("versionId")
    if version not in (None, "null") and not (await s3.info()).sysmeta.get("versions-container"):
        raise S3Error("NoSuchVersion", Key=s3.key, VersionId=version or "")
    query = {} if version is None else {"version-id": version}
    if number is not None:
        query["part-number"] = str(number)
    try:
        response = await s3.ask(s3.method, headers=headers, query=query)
    except S3Error as error:
        if error.code == "InvalidRange" and number is not None:
            raise _no_such_part(number) from None
        raise
    shown = translated(response)
    if number is not None and not is_slo(response):
        if number != 1:
            await close(response)
            raise _no_such_part(number)
        length = int(shown.headers.get("Content-Length") or 0)
        shown.status = 206
        shown.headers["Content-Range"] = f"bytes 0-{length - 1}/{length}"
    for name in _OVERRIDES:
        if (value := s3.param(f"response-{name}")) is not None:
            shown.headers[name.title()] = value
    return shown


async def head_object(s3: S3Request) -> Response:
    """Tell of an object without its data."""
    shown = await get_object(s3)
    length = int(shown.headers.get("Content-Length") or 0)
    wanted = spans(s3.headers.get("Range"), length) if shown.status == 200 else None
    if wanted == []:
        raise S3Error("InvalidRange")
    if wanted and len(wanted) == 1:
        start, end = wanted[0]
        shown.status = 206
        shown.headers["Content-Range"] = f"bytes {start}-{end - 1}/{length}"
        shown.headers["Content-Length"] = str(end - start)
    return shown


def _look_for_own_etags(headers: Headers) -> None:
    """Conditions are about the entity tags that S3 tells, which are not swift's for what was uploaded in parts."""
    conditional = False
    for name in ("If-Match", "If-None-Match"):
        if name in headers:
            conditional = True
            plain = re.findall(r'([0-9a-f]{32})-N"?(?=,|\s|$)', headers[name])
            headers[name] = ", ".join([headers[name], *plain])
    if conditional:
        headers[ETAG_IS_AT] = f"{SYSMETA}Etag"


def part_number(s3: S3Request, *, check_most: bool = True) -> int | None:
    """The part that is asked for, if one is."""
    told = s3.param("partNumber")
    if told is None:
        return None
    if "Range" in s3.headers:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    number = int(told) if re.fullmatch(r"\s*\+?[0-9]{1,18}\s*", told) else 0
    if number < 1 or (check_most and number > MAX_PART_NUMBER):
        raise _bad_part_number(told)
    return number


def _bad_part_number(told: str) -> S3Error:
    message = f"Part number must be an integer between 1 and {MAX_PART_NUMBER}, inclusive"
    return invalid_argument("partNumber", told, message)


def _no_such_part(number: int) -> S3Error:
    return _bad_part_number(str(number)) if number > MAX_PART_NUMBER else S3Error("InvalidPartNumber")


# ---- writing ------------------------------------------------------------------------------------------------------------


async def put_object(s3: S3Request) -> Response:
    """Store an object, or copy one."""
    check_key(s3)
    if "X-Amz-Copy-Source" in s3.headers and "X-Amz-Copy-Source-Range" in s3.headers:
        told = s3.headers["X-Amz-Copy-Source-Range"]
        raise invalid_argument("x-amz-copy-source-range", told, "Illegal copy header")
    own = await acl_headers(s3)
    if "X-Amz-Copy-Source" in s3.headers:
        return await _copy(s3, own)
    headers = data_headers(s3)
    headers.update(own)
    if not headers.get("Content-Type"):
        headers["Content-Type"] = "binary/octet-stream"
    return translated(await s3.ask("PUT", headers=headers, body=s3.body), status=200)


def check_key(s3: S3Request) -> None:
    if len(s3.key.encode()) > LONGEST_KEY:
        raise S3Error("KeyTooLongError")


def data_headers(s3: S3Request) -> Headers:
    """The client's headers of a body that is stored: how long it is, and its MD5."""
    headers = s3.client_headers()
    if s3.length is not None:
        headers["Content-Length"] = str(s3.length)
    elif "Transfer-Encoding" in s3.headers:
        headers["Transfer-Encoding"] = s3.headers["Transfer-Encoding"]
    if s3.etag:
        headers["Etag"] = s3.etag
    if s3.chunked:
        kept = [part.strip() for part in headers.get("Content-Encoding", "").split(",")]
        headers.popall("Content-Encoding", None)
        if told := ", ".join(part for part in kept if part and part != "aws-chunked"):
            headers["Content-Encoding"] = told
    return headers


async def acl_headers(s3: S3Request, name: str = "Acl") -> dict[str, str]:
    """The ACL that a new object is to have, as it is kept with it."""
    told = s3.headers.get("X-Amz-Acl")
    if not s3.settings.s3_acl:
        if told is not None:
            swift_headers(told)  # objects have none of their own, but a wrong one is refused
        return {}
    owner = (await bucket_acl(s3)).owner
    acl = from_headers(s3.headers, owner, s3.user_id) or canned("private", owner, s3.user_id)
    return {f"{SYSMETA}{name}": acl.encode()}


class Source:
    """What is copied: its bucket, key and version, and what a HEAD told of it."""

    def __init__(self, bucket: str, key: str, version: str, head: Response) -> None:
        self.bucket, self.key, self.version, self.head = bucket, key, version, head

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Copy-From": quote(f"/{self.bucket}/{self.key}")}

    @property
    def query(self) -> dict[str, str]:
        return {"version-id": self.version} if self.version else {}


async def copy_source(s3: S3Request) -> Source:
    """The object that is to be copied, if the caller may read it and it is as he wants it to be."""
    told = s3.headers["X-Amz-Copy-Source"]
    path, _, tail = told.partition("?")
    asked = parse_qsl(tail, keep_blank_values=True)
    if asked and (len(asked) > 1 or asked[0][0] != "versionId"):
        raise invalid_argument("X-Amz-Copy-Source", told, "Unsupported copy source parameter.")
    bucket, _, key = unquote_to_bytes(path).decode(errors="replace").removeprefix("/").partition("/")
    version = asked[0][1] if asked else ""
    if s3.settled and not (await object_acl(s3, bucket, key, version)).allows(s3.user_id, "READ"):
        raise S3Error("AccessDenied")
    headers = Headers({name: s3.headers[f"X-Amz-Copy-Source-{name}"] for name in CONDITIONS
                       if f"X-Amz-Copy-Source-{name}" in s3.headers})  # fmt: skip
    _look_for_own_etags(headers)
    head = await s3.ask("HEAD", bucket, key, headers=headers, query={"version-id": version} if version else {})
    if head.status == 304:
        raise S3Error("PreconditionFailed")
    return Source(bucket, key, version, head)


async def _copy(s3: S3Request, own: dict[str, str]) -> Response:
    source = await copy_source(s3)
    replace = s3.headers.get("X-Amz-Metadata-Directive", "COPY") == "REPLACE"
    if (source.bucket, source.key) == (s3.bucket, s3.key) and not replace and not source.version:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
            "metadata, storage class, website redirect location or encryption attributes.",
        )
    headers = s3.client_headers(conditions=False)
    if replace:
        headers["X-Fresh-Metadata"] = "True"
        if not headers.get("Content-Type"):
            headers["Content-Type"] = "binary/octet-stream"
    else:
        for name in [*_OF_DATA, *(name for name in headers if name.lower().startswith("x-object-meta-"))]:
            headers.popall(name, None)
    headers.update({**own, **source.headers})
    return copied(await s3.ask("PUT", headers=headers, query=source.query, body=b""), "CopyObjectResult")


def copied(response: Response, root: str) -> Response:
    """The reply to a copy, which tells of the new object in its body."""
    shown = translated(response)
    etag, modified = shown_etag(response), of_header(response.headers.get("Last-Modified"))
    body = document(root, leaf("LastModified", modified), leaf("ETag", f'"{etag}"'))
    reply = xml_reply(body)
    for name in ("x-amz-version-id", "x-amz-copy-source-version-id"):
        if name in shown.headers:
            reply.headers[name] = shown.headers[name]
    return reply


# ---- deleting -----------------------------------------------------------------------------------------------------------


async def delete_object(s3: S3Request) -> Response:
    """Delete an object, or a version of it; that there is none is told to nobody."""
    version = s3.param("versionId")
    if version not in (None, "null") and not (await s3.info()).sysmeta.get("versions-container"):
        return Response(204, b"", {"x-amz-version-id": version or ""})
    try:
        response = await remove(s3, s3.key, version)
    except S3Error as error:
        if error.code != "NoSuchKey":
            raise
        await s3.info()
        return Response(204)
    shown = translated(response, status=204)
    shown.body = b""
    for name in ("Content-Length", "Content-Type", "ETag"):
        shown.headers.popall(name, None)
    return shown


async def remove(s3: S3Request, key: str, version: str | None) -> Response:
    """Delete an object with its parts; NoSuchKey where there is none."""
    query = {}
    try:
        query = await _with_parts(s3, key, version)
    except S3Error as error:
        if error.code != "NoSuchKey":
            raise
    if version is not None:
        query |= {"version-id": version, "symlink": "get"}
    try:
        response = await s3.ask("DELETE", s3.bucket, key, headers={"Accept": "application/json"}, query=query)
    except S3Error as error:
        if error.code == "NoSuchKey" and version not in (None, "null"):
            await _restore_missing(s3, key)
        raise
    if "multipart-manifest" in query:
        response.body = await drain(response)  # only then the parts are gone
    if response.headers.get("X-Object-Current-Version-Id") == "null":
        return await _restore(s3, key) or response
    return response


async def _with_parts(s3: S3Request, key: str, version: str | None) -> dict[str, str]:
    """What the deletion of an object takes, if it is one of parts."""
    query = {"symlink": "get"} if version is None else {"symlink": "get", "version-id": version}
    found = await s3.ask("HEAD", s3.bucket, key, query=query)
    if not is_slo(found):
        return {}
    return {"multipart-manifest": "delete", **({"async": "on"} if found.headers.get(f"{SYSMETA}Etag") else {})}


async def _restore_missing(s3: S3Request, key: str) -> None:
    """Of a delete that was cut off: its version is gone, but the one before is not yet the latest."""
    try:
        await s3.ask("HEAD", s3.bucket, key, query={"symlink": "get"})
    except S3Error as error:
        if error.code != "NoSuchKey":
            raise
        await _restore(s3, key)


async def _restore(s3: S3Request, key: str) -> Response | None:
    """The version before the one that was deleted becomes the latest, as S3 has it."""
    found: list[dict[str, Any]] = await listing(s3, s3.bucket, {"prefix": key, "versions": "true"})
    for one in found:
        if one.get("name") != key or one.get("content_type") == DELETE_MARKER:
            return None
        try:
            response = await s3.ask("PUT", s3.bucket, key, query={"version-id": one["version_id"]}, body=b"")
        except S3Error as error:
            if error.code not in ("PreconditionFailed", "NoSuchBucket"):
                raise
        else:
            response.status = 204
            return response
    return None
