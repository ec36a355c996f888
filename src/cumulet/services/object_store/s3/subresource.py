"""Small parts of buckets and objects: GET /bucket?location, ?logging, ?tagging, ?object-lock. What they would set is not there.

Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html
"""

from cumulet.services.object_store.message import Response
from cumulet.services.object_store.s3.errors import S3Error, not_implemented
from cumulet.services.object_store.s3.request import S3Request, xml_reply
from cumulet.services.object_store.s3.xml import document, text


async def refuse(s3: S3Request) -> Response:
    """What nobody can do here."""
    raise not_implemented()


async def get_location(s3: S3Request) -> Response:
    """The region of a bucket; S3's first one has no name."""
    s3.key = ""
    await s3.ask("HEAD")
    region = s3.settings.s3_location
    return xml_reply(document("LocationConstraint", "" if region == "us-east-1" else text(region)))


async def get_logging(s3: S3Request) -> Response:
    """Where a bucket's requests are logged: nowhere."""
    if s3.key:
        raise S3Error("NoLoggingStatusForKey")
    await s3.ask("HEAD")
    return xml_reply(document("BucketLoggingStatus"))


async def put_logging(s3: S3Request) -> Response:
    """Requests are not logged into buckets."""
    if s3.key:
        raise S3Error("NoLoggingStatusForKey")
    raise not_implemented()


async def get_tagging(s3: S3Request) -> Response:
    """The tags of a bucket or an object: there are none."""
    await s3.ask("HEAD")
    return xml_reply(document("Tagging", "<TagSet/>"))


async def get_object_lock(s3: S3Request) -> Response:
    """Objects are not locked here."""
    s3.key = ""
    await s3.ask("HEAD")
    raise S3Error("ObjectLockConfigurationNotFoundError", BucketName=s3.bucket)
