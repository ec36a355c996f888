"""What names, metadata and sizes may be: checked before anything is asked of a node, and told by GET /info.

Reference: https://docs.openstack.org/swift/latest/overview_policies.html, "swift-constraints" in swift.conf
"""

from typing import Any

from cumulet.services.object_store.message import Request, Response, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import Kind

MOST_FILE = 5368709122
MOST_META_NAME, MOST_META_VALUE, MOST_META, MOST_META_SIZE = 128, 256, 90, 4096
MOST_HEADER = 8192
MOST_ACCOUNT_NAME, MOST_CONTAINER_NAME, MOST_OBJECT_NAME = 256, 256, 1024
MOST_LISTED = 10_000
MOST_HEADERS = MOST_META + 36
VERSIONS = ("v1", "v1.0")
LAST = 9_999_999_999
"""The latest time that X-Delete-At may name: ten digits."""

TOLD: dict[str, Any] = {
    "max_file_size": MOST_FILE,
    "max_meta_name_length": MOST_META_NAME,
    "max_meta_value_length": MOST_META_VALUE,
    "max_meta_count": MOST_META,
    "max_meta_overall_size": MOST_META_SIZE,
    "max_header_size": MOST_HEADER,
    "max_object_name_length": MOST_OBJECT_NAME,
    "container_listing_limit": MOST_LISTED,
    "account_listing_limit": MOST_LISTED,
    "max_account_name_length": MOST_ACCOUNT_NAME,
    "max_container_name_length": MOST_CONTAINER_NAME,
    "extra_header_count": 0,
}


def check_metadata(request: Request, kind: Kind) -> Response | None:
    """Whether the metadata that a request sets is within the limits."""
    prefix = f"x-{kind}-meta-"
    count = size = 0
    for header, value in request.headers.items():
        if len(value) > MOST_HEADER:
            return refuse(400, f"Header value too long: {header[:MOST_META_NAME]}")
        if not header.lower().startswith(prefix):
            continue
        name = header[len(prefix) :]
        sized = len(value.encode()) - 2 * value.count("\ufffd")  # which stands for a byte that was no UTF-8
        if not name:
            return refuse(400, "Metadata name cannot be empty")
        if kind != "object" and "\ufffd" in value:
            return refuse(400, "Metadata must be valid UTF-8")
        count += 1
        size += len(name) + sized
        if len(name) > MOST_META_NAME:
            return refuse(400, f"Metadata name too long: {prefix}{name}")
        if sized > MOST_META_VALUE:
            return refuse(400, f"Metadata value longer than {MOST_META_VALUE}: {prefix}{name}")
        if count > MOST_META:
            return refuse(400, f"Too many metadata items; max {MOST_META}")
        if size > MOST_META_SIZE:
            return refuse(400, f"Total metadata too large; max {MOST_META_SIZE}")
    return None


def check_length(name: str, kind: Kind) -> Response | None:
    """Whether a name is short enough."""
    most = {"account": MOST_ACCOUNT_NAME, "container": MOST_CONTAINER_NAME, "object": MOST_OBJECT_NAME}[kind]
    length = len(name.encode())
    if length > most:
        refusal = refuse(400, f"{kind.capitalize()} name length of {length} longer than {most}")
        if kind != "object":
            refusal.headers["Content-Type"] = "text/html; charset=UTF-8"
        return refusal
    return None


OWN_TYPE = "X-Backend-Content-Type-Overridden"
"""Says that parameters of a Content-Type that begin with swift_ are the program's own; no client may set such."""


def check_type(request: Request) -> Response | None:
    """Whether a content type is one that clients may set."""
    told = request.headers.get("Content-Type", "")
    if "\ufffd" in told:
        return refuse(400, "Invalid Content-Type")
    own = "swift_" in told and any(part.lstrip().startswith("swift_") for part in told.split(";")[1:])
    if own and OWN_TYPE not in request.headers:
        return refuse(400, "Invalid Content-Type, swift_* is not a valid parameter name.")
    return None


def check_upload(request: Request) -> Response | None:
    """Whether the headers of a PUT of an object are in order: its size is known or it is sent in chunks."""
    length = request.length
    encoding = request.headers.get("Transfer-Encoding")
    if encoding is not None and "," in encoding:
        return refuse(501, "Of transfer codings only chunked is known.")
    if encoding is not None and encoding.strip().lower() != "chunked":
        return refuse(400, "Invalid Transfer-Encoding header value: only chunked is known.")
    if length is not None and length > MOST_FILE:
        return refuse(413, "Your request is too large.")
    if length is None and encoding is None:
        return refuse(411, "Missing Content-Length header.")
    return (
        check_length(request.object, "object")
        or check_delete_at(request)
        or check_type(request)
        or check_metadata(request, "object")
    )


def check_delete_at(request: Request) -> Response | None:
    """Turn X-Delete-After into X-Delete-At, which must be in the time to come."""
    headers = request.headers
    now = Timestamp.parse(headers["X-Timestamp"]).seconds
    after = headers.pop("X-Delete-After", None)
    if after is not None:
        try:
            at = max(0, min(LAST, int(now + int(after))))
        except (ValueError, OverflowError):
            return refuse(400, "Non-integer X-Delete-After")
        if at <= now:
            return refuse(400, "X-Delete-After in past")
        headers["X-Delete-At"] = f"{at:010d}"
    told = headers.get("X-Delete-At")
    if told:
        try:
            at = max(0, min(LAST, int(told)))
        except ValueError:
            return refuse(400, "Non-integer X-Delete-At")
        if at <= now:
            return refuse(400, "X-Delete-At in past")
        headers["X-Delete-At"] = f"{at:010d}"
    elif told is not None:
        return refuse(400, "Non-integer X-Delete-At")
    return None
