"""Buckets: GET /, HEAD|PUT|DELETE /bucket.

A bucket is a container of the signer's project. The parts of its uploads are in a container beside it, which goes with it.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
"""

import asyncio
from typing import Any

import msgspec

from cumulet.services.object_store.message import Headers, Response, drain
from cumulet.services.object_store.s3.acl import canned, from_headers, swift_headers
from cumulet.services.object_store.s3.errors import S3Error
from cumulet.services.object_store.s3.names import valid_bucket
from cumulet.services.object_store.s3.permission import bucket_acl
from cumulet.services.object_store.s3.request import BUCKET_SYSMETA, SEGMENTS, S3Request, translated, xml_reply
from cumulet.services.object_store.s3.times import in_xml
from cumulet.services.object_store.s3.xml import Shape, document, leaf, node, value

LARGEST = 10240
_PAGE = 10_000
_CREATED: Shape = {"LocationConstraint": ("?", None)}
_UNKNOWN_DATE = "2009-02-03T16:45:09.000Z"


def owner_xml(user: str) -> str:
    return node("Owner", leaf("ID", user), leaf("DisplayName", user))


async def listing(s3: S3Request, bucket: str, query: dict[str, str]) -> list[dict[str, Any]]:
    """A page of what is in the account (bucket "") or in a bucket."""
    response = await s3.ask("GET", bucket, "", query={"format": "json", **query})
    data = await drain(response)
    return msgspec.json.decode(data, type=list[dict[str, Any]]) if data else []


async def list_buckets(s3: S3Request) -> Response:
    """List the project's buckets."""
    marker, told = "", []
    while page := await listing(s3, "", {"marker": marker, "limit": str(_PAGE)}):
        known = [one for one in page if valid_bucket(one["name"], s3.settings.s3_dns_names)]
        if s3.settled:
            known = await _own(s3, known)
        told += [node("Bucket", leaf("Name", one["name"]), leaf("CreationDate", _created(one))) for one in known]
        marker = page[-1]["name"]
        if len(page) < _PAGE:
            break
    return xml_reply(document("ListAllMyBucketsResult", owner_xml(s3.user_id), node("Buckets", *told)))


async def _own(s3: S3Request, buckets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the buckets that are the caller's own by S3's ACLs. What is known of them is remembered for a while."""
    turns = asyncio.Semaphore(8)

    async def owner(bucket: str) -> str:
        async with turns:
            try:
                return (await bucket_acl(s3, bucket)).owner
            except S3Error:
                return ""

    owners = await asyncio.gather(*(owner(one["name"]) for one in buckets))
    return [one for one, who in zip(buckets, owners, strict=True) if who == s3.user_id]


def _created(container: dict[str, Any]) -> str:
    """When a bucket was made is not kept; when it was last changed is told, which s3cmd and others take as well."""
    changed = container.get("last_modified")
    return in_xml(changed) if changed else _UNKNOWN_DATE


async def head_bucket(s3: S3Request) -> Response:
    """Whether there is a bucket."""
    found = translated(await s3.ask("HEAD"), status=200)
    found.headers["x-amz-bucket-region"] = s3.settings.s3_location
    found.headers.popall("Content-Length", None)
    return found


async def create_bucket(s3: S3Request) -> Response:
    """Make a bucket."""
    found = await s3.xml("", _CREATED, LARGEST)
    location = s3.settings.s3_location
    if found is not None and value(found, "LocationConstraint", "" if len(found) else location) not in (
        location,
        location.lower(),
    ):
        raise S3Error("InvalidLocationConstraint")
    told = s3.headers.get("X-Amz-Acl")
    headers = s3.client_headers(conditions=False)
    if s3.settings.s3_acl:
        acl = from_headers(s3.headers, s3.user_id, s3.user_id) or canned("private", s3.user_id, s3.user_id)
        await s3.ask("PUT", headers=headers)
        # Only now, so that the ACL of a bucket that was there before is not replaced.
        await s3.ask("POST", headers={f"{BUCKET_SYSMETA}Acl": acl.encode()}, trusted=True)
    else:
        await s3.ask("PUT", headers=Headers([*headers.items(), *(swift_headers(told) if told else {}).items()]))
    return Response(200, b"", {"Location": f"/{s3.bucket}"})


async def delete_bucket(s3: S3Request) -> Response:
    """Remove a bucket, which must be empty, with what is left of its uploads."""
    found = await s3.ask("HEAD")
    if int(found.headers.get("X-Container-Object-Count") or 0):
        versioned = found.headers.get("X-Container-Sysmeta-Versions-Enabled")
        raise S3Error(
            "BucketNotEmpty", "All versions of the bucket's objects must be deleted first." if versioned else ""
        )
    await _delete_parts(s3)
    return translated(await s3.ask("DELETE"), status=204)


async def _delete_parts(s3: S3Request) -> None:
    parts = s3.bucket + SEGMENTS
    try:
        while page := await listing(s3, parts, {}):
            for one in page:
                try:
                    await s3.ask("DELETE", parts, one["name"])
                except S3Error as error:
                    if error.code != "NoSuchKey":
                        raise
        await s3.ask("DELETE", parts, "")
    except S3Error as error:
        if error.code == "BucketNotEmpty":
            raise S3Error("ServiceUnavailable") from None
        if error.code != "NoSuchBucket":
            raise
