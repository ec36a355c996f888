"""Who may do what to buckets and objects by S3's own ACLs, where the setting `s3_acl` is on.

Where it is off, who may do what is asked of identity's layer, by roles and by swift's ACLs, and nothing is asked here.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html
"""

from cumulet.services.object_store.s3.acl import Acl, decode
from cumulet.services.object_store.s3.errors import S3Error
from cumulet.services.object_store.s3.request import BUCKET_SYSMETA, SYSMETA, S3Request


async def check_permission(s3: S3Request, need: str, on: str) -> None:
    """Let the request in, or refuse it. With `on` of "either" it is about the object where a key is named."""
    if not s3.settings.s3_acl or need == "CREATE":
        return  # buckets are made by those who may do all in the project's account
    s3.settled = True
    if not need or not s3.bucket:
        return
    if on == "object" or (on == "either" and s3.key):
        acl = await object_acl(s3)
    else:
        acl = await bucket_acl(s3)
    if not acl.allows(s3.user_id, need):
        raise S3Error("AccessDenied")


async def bucket_acl(s3: S3Request, bucket: str = "") -> Acl:
    """The ACL of a bucket; NoSuchBucket where there is none."""
    found = await s3.info(bucket)
    return decode(found.headers.get(f"{BUCKET_SYSMETA}Acl", ""))


async def object_acl(s3: S3Request, bucket: str = "", key: str = "", version: str = "") -> Acl:
    """The ACL of an object, or of a version of it; NoSuchKey where there is none."""
    version = version or ("" if key else s3.param("versionId") or "")
    query = {"version-id": version} if version else {}
    response = await s3.ask("HEAD", bucket or s3.bucket, key or s3.key, query=query, trusted=True)
    return decode(response.headers.get(f"{SYSMETA}Acl", ""))
