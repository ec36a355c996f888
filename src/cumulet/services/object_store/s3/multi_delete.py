"""Many objects deleted by one request: POST /bucket?delete.

Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

import asyncio
import logging

import msgspec

from cumulet.services.object_store.message import Response, drain
from cumulet.services.object_store.s3.checksum import announced
from cumulet.services.object_store.s3.errors import S3Error
from cumulet.services.object_store.s3.object import remove
from cumulet.services.object_store.s3.permission import bucket_acl
from cumulet.services.object_store.s3.request import S3Request, parsed, xml_reply
from cumulet.services.object_store.s3.told import LONGEST_KEY, MAX_DELETES
from cumulet.services.object_store.s3.xml import Shape, document, leaf, node, value

log = logging.getLogger(__name__)
AT_ONCE = 8
SHAPE: Shape = {
    "Quiet": ("?", None),
    "Object": (
        "+",
        {
            "Key": ("1", None),
            "VersionId": ("?", None),
            "ETag": ("?", None),
            "LastModifiedTime": ("?", None),
            "Size": ("?", None),
        },
    ),
}


async def delete_objects(s3: S3Request) -> Response:
    """Delete the objects that a document names; the reply tells of each of them."""
    wanted, quiet = await _wanted(s3)
    s3.key = ""
    refused = ""
    if s3.settled and not (await bucket_acl(s3)).allows(s3.user_id, "WRITE"):
        refused = "AccessDenied"
    try:
        await s3.ask("HEAD")
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        refused = error.code
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(key: str, version: str | None) -> str:
        async with turns:
            return await _delete(s3, key, version, quiet)

    if refused:
        told = [_failed(key, version, S3Error(refused)) for key, version in wanted]
    else:
        told = await asyncio.gather(*(one(key, version) for key, version in wanted))
    return xml_reply(document("DeleteResult", *told))


async def _wanted(s3: S3Request) -> tuple[list[tuple[str, str | None]], bool]:
    """(the keys and versions to delete, whether only failures are told of)."""
    data = await s3.read(min(2 * MAX_DELETES * LONGEST_KEY, 10 * 2**20))
    if not data:
        raise S3Error("MissingRequestBodyError")
    if not s3.etag and announced(s3.headers) is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
    s3.check_md5(data)
    found = parsed(data, "Delete", SHAPE)
    wanted = [(value(one, "Key"), one.findtext("VersionId")) for one in found.iterfind("Object")]
    if not all(key for key, _ in wanted):
        raise S3Error("UserKeyMustBeSpecified")
    if len(wanted) > MAX_DELETES:
        raise S3Error("MalformedXML")
    return wanted, value(found, "Quiet").strip().lower() == "true"


async def _delete(s3: S3Request, key: str, version: str | None, quiet: bool) -> str:
    version = version or None
    marker: list[str] = []
    try:
        response = await remove(s3, key, version)
        _check_parts(await drain(response))
        made = response.headers.get("X-Object-Version-Id")
        if made and version is None:
            marker = [leaf("DeleteMarker", "true"), leaf("DeleteMarkerVersionId", made)]
    except S3Error as error:
        if error.code != "NoSuchKey":
            return _failed(key, version, error)
    except Exception:
        log.exception("Deleting %s of %s failed", key, s3.bucket)
        return _failed(key, version, S3Error("InternalError"))
    told = [leaf("Key", key)] + ([leaf("VersionId", version)] if version else []) + marker
    return "" if quiet else node("Deleted", *told)


def _check_parts(told: bytes) -> None:
    """What the deletion of an object with its parts tells of those."""
    try:
        found = msgspec.json.decode(told) if told.strip() else {}
    except msgspec.DecodeError:
        return
    if isinstance(found, dict) and found.get("Errors"):
        raise S3Error("InternalError", "; ".join(": ".join(map(str, one)) for one in found["Errors"]))


def _failed(key: str, version: str | None, error: S3Error) -> str:
    told = [leaf("Key", key)] + ([leaf("VersionId", version)] if version else [])
    return node("Error", *told, leaf("Code", error.code), leaf("Message", error.message))
