"""Which handler serves a request of S3, and which permission of which ACL it needs (`permission.py`)."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from cumulet.services.object_store.message import Response
from cumulet.services.object_store.s3 import (
    acl_calls,
    bucket,
    cors,
    lifecycle,
    listing,
    multipart,
    subresource,
    versioning,
)
from cumulet.services.object_store.s3 import object as objects
from cumulet.services.object_store.s3.complete import complete_upload
from cumulet.services.object_store.s3.errors import S3Error, not_implemented
from cumulet.services.object_store.s3.multi_delete import delete_objects
from cumulet.services.object_store.s3.request import S3Request


class Route(NamedTuple):
    """`on` is what the permission is needed on: the bucket or the object."""

    serve: Callable[[S3Request], Awaitable[Response]]
    need: str = ""
    on: str = "bucket"


UNSUPPORTED = {
    "accelerate", "analytics", "attributes", "encryption", "intelligent-tiering", "inventory", "legal-hold", "metrics",
    "notification", "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment",
    "restore", "retention", "select", "torrent", "website",
}  # fmt: skip
"""Sub-resources that are refused. Without that a request about one would be taken as one about the bucket itself."""

PRECEDENCE = (
    "acl", "delete", "location", "logging", "partNumber", "uploadId", "uploads", "versioning", "tagging", "object-lock",
    "cors", "lifecycle",
)  # fmt: skip

ROUTES: dict[str, dict[str, Route]] = {
    "SERVICE": {"GET": Route(bucket.list_buckets)},
    "BUCKET": {
        "HEAD": Route(bucket.head_bucket, "READ"),
        "GET": Route(listing.list_objects, "READ"),
        "PUT": Route(bucket.create_bucket, "CREATE"),
        "DELETE": Route(bucket.delete_bucket, "OWNER"),
        "POST": Route(subresource.refuse),
    },
    "OBJECT": {
        "HEAD": Route(objects.head_object, "READ", "object"),
        "GET": Route(objects.get_object, "READ", "object"),
        "PUT": Route(objects.put_object, "WRITE"),
        "DELETE": Route(objects.delete_object, "WRITE"),
        "POST": Route(subresource.refuse),
    },
    "acl": {
        "GET": Route(acl_calls.get_acl, "READ_ACP", "either"),
        "PUT": Route(acl_calls.put_acl, "WRITE_ACP", "either"),
    },
    "delete": {"POST": Route(delete_objects)},
    "location": {"GET": Route(subresource.get_location, "OWNER")},
    "logging": {"GET": Route(subresource.get_logging, "OWNER"), "PUT": Route(subresource.put_logging)},
    "part": {"PUT": Route(multipart.upload_part, "WRITE")},
    "uploadId": {
        "GET": Route(multipart.list_parts, "READ"),
        "DELETE": Route(multipart.abort_upload, "WRITE"),
        "POST": Route(complete_upload, "WRITE"),
    },
    "uploads": {"GET": Route(multipart.list_uploads, "READ"), "POST": Route(multipart.create_upload, "WRITE")},
    "versioning": {"GET": Route(versioning.get_versioning, "READ"), "PUT": Route(versioning.put_versioning, "WRITE")},
    "tagging": {
        "GET": Route(subresource.get_tagging, "READ", "either"),
        "PUT": Route(subresource.refuse),
        "DELETE": Route(subresource.refuse),
    },
    "object-lock": {"GET": Route(subresource.get_object_lock, "READ"), "PUT": Route(subresource.refuse)},
    "cors": {
        "GET": Route(cors.get_cors, "OWNER"),
        "PUT": Route(cors.put_cors, "OWNER"),
        "DELETE": Route(cors.delete_cors, "OWNER"),
    },
    "lifecycle": {
        "GET": Route(lifecycle.get_lifecycle, "OWNER"),
        "PUT": Route(lifecycle.put_lifecycle, "OWNER"),
        "DELETE": Route(lifecycle.delete_lifecycle, "OWNER"),
    },
}

_NAMES = {
    "delete": "MULTI_OBJECT_DELETE", "logging": "LOGGING_STATUS", "uploadId": "UPLOAD", "object-lock": "OBJECT_LOCK",
}  # fmt: skip


def find(s3: S3Request) -> Route:
    """The route of a request; S3Error where there is none."""
    asked = {name for name, _ in s3.front.query.pairs}
    if asked & UNSUPPORTED:
        raise not_implemented()
    resource = next((name for name in PRECEDENCE if name in asked), "")
    if not s3.bucket:
        resource = "SERVICE"
    elif resource == "partNumber":
        resource = "part" if s3.method == "PUT" else "OBJECT"
    resource = resource or ("OBJECT" if s3.key else "BUCKET")
    route = ROUTES[resource].get(s3.method)
    if route is None:
        raise S3Error("MethodNotAllowed", Method=s3.method, ResourceType=_NAMES.get(resource, resource.upper()))
    return route
