"""What layers say of the conditions and ranges of a request for an object whose data they have changed (encrypted, say)."""

from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.storage.object_file import Metadata


def etag_at(asked: Headers, metadata: Metadata) -> str:
    """The ETag that conditions are held against: the one that a layer has kept under another name, else the object's."""
    if told := asked.get("X-Backend-Etag-Is-At"):
        known = {name.lower(): value for name, value in metadata.items()}
        for name in told.lower().split(","):
            if found := known.get(name.strip()):
                return found
    return metadata["ETag"]


def is_wanted_whole(asked: Headers, metadata: Metadata) -> bool:
    """Whether a layer wants an object with such metadata whole, whatever range was asked for."""
    told = asked.get("X-Backend-Ignore-Range-If-Metadata-Present")
    if not told:
        return False
    names = {name.strip().lower() for name in told.split(",")}
    return any(name.lower() in names for name in metadata)
