"""The end of an upload in parts: POST /bucket/key?uploadId makes an object of them.

Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
"""

import time
from hashlib import md5
from typing import Any
from urllib.parse import quote

import msgspec

from cumulet.services.object_store.message import Headers, Response
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.s3.completed import made_of
from cumulet.services.object_store.s3.errors import S3Error, not_implemented
from cumulet.services.object_store.s3.multipart import forget, parts_of_upload, upload_head
from cumulet.services.object_store.s3.request import ETAG_OVERRIDE, SEGMENTS, SYSMETA, S3Request, translated, xml_reply
from cumulet.services.object_store.s3.told import SMALLEST_PART
from cumulet.services.object_store.s3.xml import Shape, document, leaf, value

LARGEST = 4 * 2**20
_CHECKSUMS: Shape = {f"Checksum{name}": ("?", None) for name in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")}
SHAPE: Shape = {"Part": ("+", {"PartNumber": ("1", None), "ETag": ("1", None), **_CHECKSUMS})}
_KEPT = ("Content-Encoding", "Content-Language", "Content-Disposition", "Expires", "Cache-Control")


async def complete_upload(s3: S3Request) -> Response:
    """Make an object of the parts of an upload. Doing it twice is no error."""
    s3.need_key()
    info = await s3.info()
    if s3.headers.get("If-None-Match", "*") != "*" or any(
        name in s3.headers for name in ("If-Match", "If-Modified-Since", "If-Unmodified-Since")
    ):
        raise not_implemented("Conditional uploads are not supported.")
    upload = s3.param("uploadId") or ""
    head, going_on = await upload_head(s3)
    if going_on and float(head.headers.get("X-Backend-Timestamp", "0").partition("_")[0]) > time.time():
        raise S3Error("ServiceUnavailable")  # the upload would outlive its own end
    found = await s3.xml("CompleteMultipartUpload", SHAPE, LARGEST)
    if found is None:
        raise S3Error("InvalidRequest", "You must specify at least one part")
    wanted = _wanted(found, upload)
    etag = _etag([one for _, one in wanted])
    made = None if going_on else head
    if going_on and info.sysmeta.get("versions-container"):
        # Of one that was cut off here before no second version is made: both would have the same parts.
        begun = Timestamp.parse(head.headers.get("X-Timestamp", "0")).iso
        made = await made_of(s3.app, s3.account, s3.bucket, s3.key, upload, begun=begun, versions=True)
    before = made.headers.get(f"{SYSMETA}Etag", "") if made is not None else ""
    if before and before != etag:
        raise S3Error("NoSuchUpload", UploadId=upload)
    version = ""
    if not before:
        manifest = await _manifest(s3, upload, wanted)
        response = await _put(s3, upload, manifest, _headers(s3, head, upload, etag))
        version = translated(response).headers.get("x-amz-version-id", "")
    if going_on:
        await forget(s3, f"{s3.key}/{upload}")
    location = f"{s3.front.base_url}{quote(s3.front.raw_path, safe='/%~')}"
    told = (leaf("Location", location), leaf("Bucket", s3.bucket), leaf("Key", s3.key), leaf("ETag", f'"{etag}"'))
    reply = xml_reply(document("CompleteMultipartUploadResult", *told))
    if version:
        reply.headers["x-amz-version-id"] = version
    return reply


def _wanted(found: Any, upload: str) -> list[tuple[int, str]]:
    """The numbers and entity tags of the parts, as a document lists them."""
    wanted: list[tuple[int, str]] = []
    for one in found.iterfind("Part"):
        told, etag = value(one, "PartNumber").strip(), value(one, "ETag").strip().strip('"')
        if not told.isascii() or not told.isdigit():
            raise S3Error("MalformedXML")
        if wanted and int(told) <= wanted[-1][0]:
            raise S3Error("InvalidPartOrder", UploadId=upload)
        if len(etag) != 32 or set(etag) - set("0123456789abcdef"):
            raise S3Error("InvalidPart", UploadId=upload, PartNumber=told, ETag=etag)
        wanted.append((int(told), etag))
    return wanted


def _etag(etags: list[str]) -> str:
    """The entity tag of what is made of parts: the MD5 of theirs, and how many they are."""
    return f"{md5(b''.join(map(bytes.fromhex, etags)), usedforsecurity=False).hexdigest()}-{len(etags)}"


async def _manifest(s3: S3Request, upload: str, wanted: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """The parts as a manifest lists them; refused where one is too small or is not what was told."""
    known = {one["number"]: one for one in await parts_of_upload(s3)}
    manifest: list[dict[str, Any]] = []
    for position, (number, etag) in enumerate(wanted):
        name = f"{s3.key}/{upload}/{number}"
        entry: dict[str, Any] = {"path": f"/{s3.bucket}{SEGMENTS}/{name}", "etag": etag}
        size = await _size(s3, name, known.get(number), upload)
        if size < SMALLEST_PART and position < len(wanted) - 1:
            raise S3Error("EntityTooSmall", f"Each part but the last must have at least {SMALLEST_PART} bytes.")
        manifest.append(entry)
    return manifest


async def _size(s3: S3Request, name: str, listed: dict[str, Any] | None, upload: str) -> int:
    """The bytes of a part. The listing of what a node could not be told of in time may lack it for a while."""
    if listed is not None:
        return int(listed["bytes"])
    try:
        found = await s3.ask("HEAD", s3.bucket + SEGMENTS, name)
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchBucket"):
            raise S3Error("InvalidPart", UploadId=upload, PartNumber=name.rpartition("/")[2]) from None
        raise
    return int(found.headers.get("Content-Length") or 0)


def _headers(s3: S3Request, head: Response, upload: str, etag: str) -> Headers:
    """The new object's headers: what was told when the upload began."""
    headers = Headers({"Accept": "application/json", f"{SYSMETA}Upload-Id": upload, f"{SYSMETA}Etag": etag})
    # The manifest's own entity tag is put before it by the layer that stores manifests.
    headers[ETAG_OVERRIDE] = f"; s3_etag={etag}"
    for name, told in head.headers.items():
        if name.lower().startswith("x-object-meta-"):
            headers[name] = told
    for name in _KEPT:
        if name in head.headers:
            headers[name] = head.headers[name]
    kind = head.headers.get(f"{SYSMETA}Has-Content-Type")
    if kind == "yes":
        headers["Content-Type"] = head.headers.get(f"{SYSMETA}Content-Type", "")
    elif kind is None and "Content-Type" in head.headers:
        headers["Content-Type"] = head.headers["Content-Type"]
    if "If-None-Match" in s3.headers:
        headers["If-None-Match"] = s3.headers["If-None-Match"]
    if acl := head.headers.get(f"{SYSMETA}Tmpacl"):
        headers[f"{SYSMETA}Acl"] = acl
    return headers


async def _put(s3: S3Request, upload: str, manifest: list[dict[str, Any]], headers: Headers) -> Response:
    body = msgspec.json.encode(manifest)
    try:
        return await s3.ask("PUT", headers=headers, query={"multipart-manifest": "put"}, body=body)
    except S3Error as error:
        if error.code == "InvalidRequest" and ("Etag Mismatch" in error.message or "404 Not Found" in error.message):
            raise S3Error("InvalidPart", UploadId=upload) from None
        raise
