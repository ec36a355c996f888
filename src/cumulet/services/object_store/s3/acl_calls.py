"""ACLs of buckets and objects: GET|PUT /bucket?acl, GET|PUT /bucket/key?acl.

With the setting `s3_acl` they are S3's own; else those of buckets are swift's, and objects have none.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketAcl.html
"""

from typing import Any
from urllib.parse import quote

from cumulet.services.object_store.message import Headers, Response
from cumulet.services.object_store.s3.acl import (
    SHAPE,
    Acl,
    Grant,
    from_headers,
    from_xml,
    swift_headers,
    swift_headers_of,
)
from cumulet.services.object_store.s3.errors import S3Error, not_implemented
from cumulet.services.object_store.s3.permission import bucket_acl, object_acl
from cumulet.services.object_store.s3.request import BUCKET_SYSMETA, SYSMETA, S3Request, is_slo, parsed, xml_reply

LARGEST = 200 * 1024


async def get_acl(s3: S3Request) -> Response:
    """Show the ACL of a bucket or an object."""
    if s3.settings.s3_acl:
        acl = await (object_acl(s3) if s3.key else bucket_acl(s3))
        return xml_reply(acl.xml())
    response = await s3.ask("HEAD")
    grants = [Grant(s3.user_id, "FULL_CONTROL")]
    if is_public(response.headers.get("X-Container-Read")):
        grants.append(Grant("AllUsers", "READ"))
    if is_public(response.headers.get("X-Container-Write")):
        grants.append(Grant("AllUsers", "WRITE"))
    return xml_reply(Acl(s3.user_id, tuple(grants)).xml())


def is_public(acl: str | None) -> bool:
    """Whether swift's ACL lets everybody in, wherever he comes from."""
    return ".r:*" in (part.strip() for part in (acl or "").split(","))


async def put_acl(s3: S3Request) -> Response:
    """Set the ACL of a bucket or an object."""
    if s3.settings.s3_acl:
        return await _put_own(s3)
    if s3.key:
        raise not_implemented("Objects have no ACLs of their own here; their bucket's holds for them.")
    data, wanted = await s3.read(LARGEST), s3.headers.get("X-Amz-Acl")
    if wanted is not None and data:
        raise S3Error("UnexpectedContent")
    if wanted is None and not data:
        raise S3Error("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
    headers = swift_headers_of(_document(data)) if data else swift_headers(wanted or "")
    await s3.ask("POST", headers={"X-Container-Read": "", "X-Container-Write": "", **headers})
    return Response(200, b"", {"Location": s3.bucket})


def _document(data: bytes) -> Any:
    """An ACL that a client sent. It may have a document type, as with swift; what names things to make or to delete may not."""
    return parsed(data, "AccessControlPolicy", SHAPE, "MalformedACLError", typed=True)


async def _put_own(s3: S3Request) -> Response:
    owner = (await bucket_acl(s3)).owner
    before = await object_acl(s3) if s3.key else Acl(owner)
    data = await s3.read(LARGEST)
    wanted = from_headers(s3.headers, owner, before.owner)
    if wanted is None:
        if not data:
            raise S3Error("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
        wanted = from_xml(_document(data))
    elif data:
        raise S3Error("UnexpectedContent")
    if wanted.owner != before.owner:
        raise S3Error("AccessDenied")  # a bucket or an object is not given away
    if not s3.key:
        await s3.ask("POST", headers={f"{BUCKET_SYSMETA}Acl": wanted.encode()})
        return Response(200)
    # System metadata of an object is set with its data only: it is copied onto itself, one of parts as a list of its parts.
    now = await s3.ask("HEAD")
    headers = Headers({"X-Copy-From": quote(f"/{s3.bucket}/{s3.key}"), "Content-Length": "0"})
    headers[f"{SYSMETA}Acl"] = wanted.encode()
    await s3.ask("PUT", headers=headers, query={"multipart-manifest": "get"} if is_slo(now) else {}, body=b"")
    return Response(200)
