"""Uploads in parts: GET|POST /bucket?uploads, PUT /bucket/key?partNumber&uploadId, GET|DELETE /bucket/key?uploadId.

In a container beside the bucket's, `key/upload` stands for an upload and holds what is to become the object's metadata, and
`key/upload/number` is a part. When an upload is completed (`complete.py`) its parts stay where they are, and the object is a
manifest of them: a static large object.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

import re
import secrets
from typing import Any
from urllib.parse import quote

from cumulet.services.object_store.conditional import spans
from cumulet.services.object_store.message import Headers, Response
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.s3.bucket import listing, owner_xml
from cumulet.services.object_store.s3.completed import made_of
from cumulet.services.object_store.s3.errors import S3Error, invalid_argument
from cumulet.services.object_store.s3.listing import text_param
from cumulet.services.object_store.s3.object import (
    acl_headers,
    check_key,
    copied,
    copy_source,
    data_headers,
    part_number,
)
from cumulet.services.object_store.s3.request import (
    ETAG_OVERRIDE,
    SEGMENTS,
    SYSMETA,
    S3Request,
    translated,
    xml_reply,
)
from cumulet.services.object_store.s3.times import in_xml
from cumulet.services.object_store.s3.told import MAX_KEYS, MAX_PARTS_LISTED
from cumulet.services.object_store.s3.xml import document, leaf, node

_PART = re.compile(r"/[0-9]{1,5}$")
_RANGE = re.compile(r"bytes=\d+-\d+|bytes=\d+-|bytes=-\d+", re.ASCII)


async def upload_head(s3: S3Request) -> tuple[Response, bool]:
    """(what is kept of an upload, whether it is still going on); NoSuchUpload where there is none, or another object took
    the place of the one that it became."""
    upload = s3.param("uploadId") or ""
    try:
        return await s3.ask("HEAD", s3.bucket + SEGMENTS, f"{s3.key}/{upload}"), True
    except S3Error as error:
        if error.code not in ("NoSuchKey", "NoSuchBucket", "InvalidRequest", "PreconditionFailed"):
            raise
    try:
        found = await s3.ask("HEAD")
        if upload and found.headers.get(f"{SYSMETA}Upload-Id") == upload:
            return found, False
    except S3Error as error:
        if error.code != "NoSuchKey":
            raise
    raise S3Error("NoSuchUpload", UploadId=upload)


async def create_upload(s3: S3Request) -> Response:
    """Begin an upload."""
    s3.need_key()
    info = await s3.info()
    check_key(s3)
    headers = s3.client_headers(conditions=False)
    own = await acl_headers(s3, "Tmpacl")
    kind = headers.get("Content-Type", "")
    headers[f"{SYSMETA}Has-Content-Type"] = "yes" if kind else "no"
    if kind:
        headers[f"{SYSMETA}Content-Type"] = kind
    headers["Content-Type"] = "application/directory"
    headers.update(own)
    parts = s3.bucket + SEGMENTS
    try:
        await s3.info(parts)
    except S3Error as error:
        if error.code != "NoSuchBucket":
            raise
        same = ("X-Storage-Policy", "X-Container-Read", "X-Container-Write")
        try:
            await s3.ask("PUT", parts, "", headers={name: info.headers[name] for name in same if name in info.headers})
        except S3Error as taken:
            if not taken.code.startswith("BucketAlready"):
                raise
    upload = secrets.token_urlsafe(36)
    await s3.ask("PUT", parts, f"{s3.key}/{upload}", headers=headers, body=b"")
    told = (leaf("Bucket", s3.bucket), leaf("Key", s3.key), leaf("UploadId", upload))
    return xml_reply(document("InitiateMultipartUploadResult", *told))


async def upload_part(s3: S3Request) -> Response:
    """Store a part, or copy one from an object."""
    s3.need_key()
    await s3.info()
    if s3.param("uploadId") is None:
        raise invalid_argument("ResourceType", "partNumber", "Unexpected query string parameter")
    number = part_number(s3)
    await upload_head(s3)
    parts, name = s3.bucket + SEGMENTS, f"{s3.key}/{s3.param('uploadId')}/{number}"
    if "X-Amz-Copy-Source" in s3.headers:
        return await _copy_part(s3, parts, name)
    given = data_headers(s3)
    kept = ("Content-Length", "Transfer-Encoding", "Etag", "Content-Type")
    headers = {header: given[header] for header in kept if header in given}
    return translated(await s3.ask("PUT", parts, name, headers=headers, body=s3.body), status=200)


async def _copy_part(s3: S3Request, parts: str, name: str) -> Response:
    source = await copy_source(s3)
    headers = Headers(source.headers)
    # The part is no manifest, whatever its source was.
    for header in (f"{SYSMETA}Etag", "X-Object-Sysmeta-Slo-Etag", "X-Object-Sysmeta-Slo-Size", ETAG_OVERRIDE):
        headers[header] = ""
    told = s3.headers.get("X-Amz-Copy-Source-Range")
    if told is not None:
        if not _RANGE.fullmatch(told.replace(" ", "")):
            raise invalid_argument(
                "x-amz-source-range",
                told,
                "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
                "zero-based offsets of the first and last bytes to copy",
            )
        size = int(source.head.headers.get("Content-Length") or 0)
        if not spans(told, size):
            message = f"Range specified is not valid for source object of size: {size}"
            raise invalid_argument("x-amz-source-range", told, message)
        headers["Range"] = told
    response = await s3.ask("PUT", parts, name, headers=headers, query=source.query, body=b"")
    return copied(response, "CopyPartResult")


async def parts_of_upload(s3: S3Request) -> list[dict[str, Any]]:
    """All parts of an upload, by their numbers."""
    parts, prefix = s3.bucket + SEGMENTS, f"{s3.key}/{s3.param('uploadId')}/"
    found: list[dict[str, Any]] = []
    marker = ""
    while page := await listing(s3, parts, {"prefix": prefix, "delimiter": "/", "marker": marker}):
        found += [one for one in page if _PART.search(one.get("name", ""))]
        marker = page[-1].get("name") or page[-1].get("subdir") or ""
    for one in found:
        one["number"] = int(one["name"].rpartition("/")[2])
    return sorted(found, key=lambda one: one["number"])


async def list_parts(s3: S3Request) -> Response:
    """List the parts of an upload."""
    s3.need_key()
    await s3.info()
    encoding = _encoding(s3)
    await upload_head(s3)
    limit = s3.number("max-parts", MAX_PARTS_LISTED, MAX_PARTS_LISTED)
    after = s3.number("part-number-marker", 0)
    found = [one for one in await parts_of_upload(s3) if one["number"] > after]
    truncated, found = len(found) > limit, found[:limit]
    owner = owner_xml(s3.user_id)
    told = [
        leaf("Bucket", s3.bucket),
        leaf("Key", quote(s3.key, safe="/~") if encoding else s3.key),
        leaf("UploadId", s3.param("uploadId") or ""),
        owner.replace("Owner>", "Initiator>"),
        owner,
        leaf("StorageClass", "STANDARD"),
        leaf("PartNumberMarker", str(after)),
        leaf("NextPartNumberMarker", str(found[-1]["number"] if found else 0)),
        leaf("MaxParts", str(limit)),
        *([leaf("EncodingType", encoding)] if encoding else []),
        leaf("IsTruncated", "true" if truncated else "false"),
    ]
    for one in found:
        told.append(
            node(
                "Part",
                leaf("PartNumber", str(one["number"])),
                leaf("LastModified", in_xml(one["last_modified"])),
                leaf("ETag", f'"{one["hash"]}"'),
                leaf("Size", str(one["bytes"])),
            )
        )
    return xml_reply(document("ListPartsResult", *told))


def _encoding(s3: S3Request) -> str:
    encoding = s3.param("encoding-type")
    if encoding not in (None, "url"):
        raise invalid_argument("encoding-type", encoding or "", "Invalid Encoding Method specified in Request")
    return encoding or ""


async def abort_upload(s3: S3Request) -> Response:
    """End an upload; its parts are deleted. Until they are it can be aborted again, if this is cut off."""
    s3.need_key()
    info = await s3.info()
    upload = s3.param("uploadId") or ""
    head, going_on = await upload_head(s3)
    if not going_on:
        raise S3Error("NoSuchUpload", UploadId=upload)
    begun = Timestamp.parse(head.headers.get("X-Timestamp", "0")).iso
    versions = bool(info.sysmeta.get("versions-container"))
    if await made_of(s3.app, s3.account, s3.bucket, s3.key, upload, begun=begun, versions=versions):
        await forget(s3, f"{s3.key}/{upload}")
        raise S3Error("NoSuchUpload", UploadId=upload)
    await _forget_parts(s3)
    await forget(s3, f"{s3.key}/{upload}")
    await _forget_parts(s3)  # what has come meanwhile
    return Response(204)


async def _forget_parts(s3: S3Request) -> None:
    for one in await parts_of_upload(s3):
        await forget(s3, one["name"])


async def forget(s3: S3Request, name: str) -> None:
    """Delete a part, or what stands for an upload, if it is there."""
    try:
        await s3.ask("DELETE", s3.bucket + SEGMENTS, name)
    except S3Error as error:
        if error.code != "NoSuchKey":
            raise


async def list_uploads(s3: S3Request) -> Response:
    """List the uploads that are going on in a bucket."""
    if s3.key:
        raise S3Error("InvalidRequest", "Key is not expected for the GET method ?uploads subresource")
    await s3.info()
    encoding = _encoding(s3)
    key_marker, upload_marker = text_param(s3, "key-marker"), text_param(s3, "upload-id-marker")
    prefix, delimiter = text_param(s3, "prefix"), text_param(s3, "delimiter")
    limit = s3.number("max-uploads", MAX_KEYS, MAX_KEYS)
    marker = f"{key_marker}/{upload_marker or '~'}" if key_marker else ""
    uploads, prefixes, truncated = await _uploads(s3, marker, prefix, delimiter, limit)

    def name(value: str) -> str:
        return quote(value, safe="/~") if encoding else value

    last = uploads[-1] if len(uploads) > 1 or (uploads and truncated) else None
    told = [
        leaf("Bucket", s3.bucket),
        leaf("KeyMarker", name(key_marker)),
        leaf("UploadIdMarker", upload_marker),
        leaf("NextKeyMarker", name(last["key"]) if last else ""),
        leaf("NextUploadIdMarker", last["upload"] if last else ""),
        *([leaf("Delimiter", name(delimiter))] if s3.param("delimiter") is not None else []),
        *([leaf("Prefix", name(prefix))] if s3.param("prefix") is not None else []),
        leaf("MaxUploads", str(limit)),
        *([leaf("EncodingType", encoding)] if encoding else []),
        leaf("IsTruncated", "true" if truncated else "false"),
    ]
    owner = owner_xml(s3.user_id)
    for one in uploads:
        told.append(
            node(
                "Upload",
                leaf("Key", name(one["key"])),
                leaf("UploadId", one["upload"]),
                owner.replace("Owner>", "Initiator>"),
                owner,
                leaf("StorageClass", "STANDARD"),
                leaf("Initiated", in_xml(one["last_modified"])),
            )
        )
    told += [node("CommonPrefixes", leaf("Prefix", name(one))) for one in prefixes]
    return xml_reply(document("ListMultipartUploadsResult", *told))


async def _uploads(
    s3: S3Request, marker: str, prefix: str, delimiter: str, limit: int
) -> tuple[list[dict[str, Any]], list[str], bool]:
    """(the uploads, the prefixes, whether there are more)."""
    found: list[dict[str, Any]] = []
    prefixes: dict[str, None] = {}
    while len(found) <= limit:
        try:
            page = await listing(s3, s3.bucket + SEGMENTS, {"marker": marker, "prefix": prefix})
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            break
        if not page:
            break
        marker = page[-1]["name"]
        for one in page:
            if _PART.search(one["name"]):
                continue
            key, _, upload = one["name"].rpartition("/")
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end >= 0:
                prefixes[key[: end + len(delimiter)]] = None
            else:
                found.append({"key": key, "upload": upload, "last_modified": one["last_modified"]})
    return found[:limit], sorted(prefixes), len(found) > limit
