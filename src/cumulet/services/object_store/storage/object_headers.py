"""What an object server reads from the headers of a request, keeps of them with the object, and tells in those of a reply."""

from cumulet.api.http import http_date
from cumulet.services.object_store.message import Headers, Refusal, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest
from cumulet.services.object_store.storage.object_file import SYSMETA, Metadata, Object
from cumulet.services.object_store.storage.object_updates import FALSE

KEPT = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "expires",
        "x-delete-at",
        "x-object-manifest",
        "x-robots-tag",
        "x-static-large-object",
    }
)
"""Headers that are kept with an object and sent with it."""
USERS = ("x-object-meta-", "x-object-transient-sysmeta-")
OURS = (*USERS, SYSMETA)


def timestamp_of(asked: Headers, *, needed: bool = True) -> Timestamp:
    """When a change is made. Refusal (400) where it is not told, and `needed`, or is no time."""
    told = asked.get("X-Timestamp")
    if told is None and not needed:
        return Timestamp.now()
    return parsed(told)


def parsed(told: str | None) -> Timestamp:
    """A time as it is told. Refusal (400)."""
    try:
        return Timestamp.parse(told or "")
    except ValueError:
        raise Refusal(refuse(400, f"Invalid X-Timestamp header: {told}")) from None


def delete_at_of(asked: Headers, timestamp: Timestamp) -> int:
    """When an object is to be deleted, in seconds since 1970; 0 for never. Refusal (400)."""
    told = asked.get("X-Delete-At")
    if not told:
        return 0
    if not (told.isascii() and told.isdigit()):
        raise Refusal(refuse(400, "Non-integer X-Delete-At"))
    replicated = asked.get("X-Backend-Replication", "false").lower() not in FALSE
    if int(told) < timestamp.seconds and not replicated:
        raise Refusal(refuse(400, "X-Delete-At in past"))
    return int(told)


def length_of(asked: Headers) -> int | None:
    """How long the body is, if it is told. Refusal (400)."""
    told = asked.get("Content-Length") or asked.get("X-Backend-Obj-Content-Length")
    if told is None:
        return None
    if not (told.isascii() and told.isdigit()):
        raise Refusal(refuse(400, "Bad Content-Length"))
    return int(told)


def sees_expired(asked: Headers) -> bool:
    """Whether objects whose time has come are there for whoever asks."""
    return _says_yes(asked, "X-Backend-Open-Expired") or _says_yes(asked, "X-Backend-Replication")


def _says_yes(asked: Headers, name: str) -> bool:
    return name in asked and asked[name].lower() not in FALSE


def kept(asked: Headers, prefixes: tuple[str, ...]) -> Metadata:
    """The headers of a request that are kept with the object."""
    more = asked.get("X-Backend-Replication-Headers", "").lower().split()
    found = {}
    for name, value in asked.items():
        low = name.lower()
        if low.startswith(prefixes) or low in KEPT or low in more:
            found[name.title()] = value
    return found


def new_metadata(request: BackendRequest, timestamp: Timestamp) -> Metadata:
    """The metadata of an object that is written, but for its length and its ETag."""
    metadata = kept(request.headers, OURS)
    metadata["X-Timestamp"] = timestamp.internal
    metadata["Content-Type"] = request.headers["Content-Type"]
    metadata["name"] = f"/{request.account}/{request.container}/{request.object}"
    return metadata


def add_trailer(metadata: Metadata, trailer: Headers) -> None:
    """Add what was only known at the end of the body."""
    for name, value in trailer.items():
        if name.lower().startswith(OURS):
            metadata[name.title()] = value


def told_etag(request: BackendRequest) -> str:
    """The MD5 that the data are said to have, if any."""
    told = request.trailer() if request.trailer is not None else Headers()
    return (told.get("Etag") or request.headers.get("Etag") or "").strip().strip('"').lower()


def headers_of(found: Object) -> Headers:
    """The headers that an object is sent with."""
    metadata = found.metadata
    headers = Headers({"Content-Type": metadata.get("Content-Type", "application/octet-stream")})
    for name, value in metadata.items():
        low = name.lower()
        if low.startswith(OURS) or low in KEPT:
            headers[name] = value
    timestamp = found.timestamp
    headers["Etag"] = f'"{metadata["ETag"]}"'
    headers["Last-Modified"] = http_date(timestamp.ceil)
    headers["X-Timestamp"] = timestamp.normal
    headers["X-Backend-Timestamp"] = timestamp.internal
    headers["X-Backend-Data-Timestamp"] = headers["X-Backend-Durable-Timestamp"] = found.data_timestamp.internal
    return headers
