"""Whether a bucket keeps versions: GET|PUT /bucket?versioning.

Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketVersioning.html
"""

from cumulet.services.object_store.message import Response
from cumulet.services.object_store.s3.errors import S3Error
from cumulet.services.object_store.s3.request import S3Request, xml_reply
from cumulet.services.object_store.s3.xml import Shape, document, leaf, value

LARGEST = 10240
SHAPE: Shape = {"Status": ("?", None), "MfaDelete": ("?", None)}


async def get_versioning(s3: S3Request) -> Response:
    """Show whether a bucket keeps versions; nothing where it never did."""
    s3.key = ""
    found = await s3.ask("HEAD")
    enabled = found.headers.get("X-Container-Sysmeta-Versions-Enabled", "")
    told = [leaf("Status", "Enabled" if enabled.lower() == "true" else "Suspended")] if enabled else []
    return xml_reply(document("VersioningConfiguration", *told))


async def put_versioning(s3: S3Request) -> Response:
    """Begin to keep versions, or stop it."""
    s3.key = ""
    found = await s3.xml("VersioningConfiguration", SHAPE, LARGEST)
    status = value(found, "Status") if found is not None else ""
    if status not in ("Enabled", "Suspended"):
        raise S3Error("MalformedXML")
    if value(found, "MfaDelete", "Disabled") != "Disabled":
        raise S3Error("NotImplemented", "MFA Delete is not supported.")
    await s3.ask("POST", headers={"X-Versions-Enabled": "true" if status == "Enabled" else "false"})
    return Response(200)
