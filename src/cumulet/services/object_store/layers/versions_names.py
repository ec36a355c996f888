"""How versions are named: those of a container's objects lie in a hidden container, by the name of the object and the time when
they were made, counted backwards, so that the last one comes first in a listing.

These are the names that swift uses: a \\0 begins and divides what no client may name.
"""

from cumulet.services.object_store.message import Refusal, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.values import parts_of_reserved, reserved

LAST_TICK = 999_999_999_999_999
"""Times are counted backwards from here."""
DELETE_MARKER = "application/x-deleted;swift_versions_deleted=1"
"""The content type of a version that says that the object was deleted then."""
ENABLED, VERSIONS = "X-Container-Sysmeta-Versions-Enabled", "X-Container-Sysmeta-Versions-Container"
IS_VERSION_LINK = "X-Object-Sysmeta-Versions-Symlink"
"""Of an object in the user's container that stands for a version."""
VERSION_ID = "X-Object-Version-Id"
NULL = "null"
"""The version that an object has which lies in the user's container itself."""


def hidden_container(container: str) -> str:
    """Where the versions of a container's objects lie; ValueError for one that is hidden itself."""
    return reserved("versions", container)


def container_of(hidden: str) -> str:
    """The inverse of `hidden_container`; another name stays as it is."""
    try:
        kind, container = parts_of_reserved(hidden)
    except ValueError:
        return hidden
    return container if kind == "versions" else hidden


def version_of(at: Timestamp) -> str:
    """The id of a version made at a time."""
    return at.normal


def name_of(object: str, version: str) -> str:
    """The name of a version of an object; ValueError where there can be no such version."""
    return reserved(object, _inverse(Timestamp.parse(version)).internal)


def prefix_of(object: str) -> str:
    """What the names of all versions of an object begin with."""
    return reserved(object, "")


def parse(name: str) -> tuple[str, str | None]:
    """The object and the version that a name stands for; where it is no such name, itself and None."""
    try:
        object, inverse = parts_of_reserved(name)
        return object, _inverse(Timestamp.parse(inverse)).internal
    except ValueError:
        return name, None


def _inverse(at: Timestamp) -> Timestamp:
    if at.offset:
        raise ValueError("a time with an offset has no inverse")
    return Timestamp(LAST_TICK - at.ticks)


def check(version: str, *, null: bool = True) -> None:
    """Refusal (400) unless there may be such a version."""
    if null and version == NULL:
        return
    try:
        _inverse(Timestamp.parse(version))
    except ValueError:
        raise Refusal(refuse(400, "Invalid version parameter")) from None
