"""Changes of small objects, each in one piece: what is asked for, what came of it, and the work itself.

The work is blocking. A thread of this program does it, or the disk process (`disk_process.py`), to which these are sent as
messages; so this module imports little, and nothing of what requests are made of.
"""

from collections.abc import Callable
from functools import partial
from hashlib import md5

from msgspec import Struct

from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.storage import object_file
from cumulet.services.object_store.storage.intents import Note, write_note
from cumulet.services.object_store.storage.object_file import ZERO, Absent, Metadata, Object, Writer, make_last

LARGE = 4 << 20
"""Bytes of a file whose removal takes milliseconds."""


NOWHERE: Note = ("", 0)


class Put(Struct, tag=True, array_like=True):
    """An object whose body is there as a whole. `unwanted`: entity tags of If-None-Match; `etag`: that which the client told,
    if any; `note`: where it is noted that this goes on; `again`: a process that ended before it said so may have done it."""

    directory: str
    temporary: str
    timestamp: Timestamp
    unwanted: frozenset[str]
    etag: str
    metadata: Metadata
    data: bytes
    note: Note = NOWHERE
    again: bool = False


class Written(Struct, tag=True, array_like=True):
    """An object is in its place. Of what it replaced: when that was to end (seconds since 1970, 0 for never), and whether its
    file is still to be removed, because that takes long. Where nothing had been heard of the object before, `first` has the
    time of change of its directory when it was put there (nanoseconds), and its inode."""

    etag: str
    old_delete_at: int = 0
    untidy: bool = False
    first: tuple[int, int] | None = None


class Delete(Struct, tag=True, array_like=True):
    """An object that is to go. `delete_at`: only if this is its X-Delete-At, in the client's words."""

    directory: str
    temporary: str
    timestamp: Timestamp
    name: str
    delete_at: str | None
    note: Note = NOWHERE
    again: bool = False


class Deleted(Struct, tag=True, array_like=True):
    """What came of a deletion: the status, what was last said of the object before, and of its metadata what counts after."""

    status: int
    last: Timestamp
    content_type: str = ""
    old_delete_at: int = 0


class Refused(Exception):
    """It may not be: the status, and what was last said of the object where that is why (409)."""

    def __init__(self, status: int, last: Timestamp = ZERO, text: str = "") -> None:
        super().__init__(status, text)
        self.status = status
        self.last = last
        self.text = text


Change = Put | Delete
Outcome = Written | Deleted


def make(change: Change) -> Outcome:
    """Refused, NoSpace, Torn, OSError."""
    return put(change) if isinstance(change, Put) else delete(change)


def may_put(read: Callable[[], Object], timestamp: Timestamp, unwanted: frozenset[str]) -> tuple[Metadata, bool]:
    """The metadata of the object that is replaced, if it may be; whether nothing was heard of it yet. Refused."""
    metadata: Metadata = {}
    new = False
    try:
        found = read()
        metadata, last = found.metadata, found.data_timestamp
    except Absent as absent:
        last, new = absent.timestamp, absent.unknown
    if metadata and ("*" in unwanted or metadata["ETag"] in unwanted):
        raise Refused(412)
    if last >= timestamp:
        raise Refused(409, last)
    return metadata, new


def takes_long_to_remove(old: Metadata) -> bool:
    """Whether an object's file is so large that nobody should wait until it is gone. One that stays because of a crash goes
    with the next change of the object, when its suffix is hashed, or with old tombstones, which is once a day at least."""
    return int(old.get("Content-Length") or 0) > LARGE


def put(change: Put) -> Written:
    """Write an object. Refused: 409, 412, or 422 where the data are not what the ETag says."""
    read = partial(object_file.read, change.directory, now=change.timestamp)
    if change.again and _is_there(change, read):
        make_last(change.directory, f"{change.timestamp.internal}.data", change.temporary)
        object_file.clean(change.directory)
        return Written(md5(change.data, usedforsecurity=False).hexdigest())
    old, new = may_put(read, change.timestamp, change.unwanted)
    etag = md5(change.data, usedforsecurity=False).hexdigest()
    if change.etag not in ("", etag):
        raise Refused(422)
    metadata = change.metadata | {"ETag": etag, "Content-Length": str(len(change.data))}
    writer = Writer(change.temporary)
    write_note(change.note, change.directory)
    return finish(writer, [change.data], change.directory, change.timestamp, metadata, old, new=new)


def finish(
    writer: Writer,
    pieces: list[bytes],
    directory: str,
    timestamp: Timestamp,
    metadata: Metadata,
    old: Metadata,
    *,
    new: bool,
) -> Written:
    """Write what is left of an object, with its metadata, and give it its name. `old`, `new`: what `may_put` told."""
    untidy = takes_long_to_remove(old)
    try:
        writer.write([*pieces, object_file.footer(metadata)])
        place(writer, directory, f"{timestamp.internal}.data", timestamp, new=new, tidy=not (new or untidy))
    finally:
        writer.close()
    return Written(metadata["ETag"], int(old.get("X-Delete-At") or 0), untidy, writer.placed if new else None)


def place(
    writer: Writer, directory: str, name: str, timestamp: Timestamp, *, new: bool = False, tidy: bool = True
) -> None:
    """Give what was written its name, for good, and take away what it replaces. Refused (409)."""
    if not writer.commit(directory, name, new=new):
        raise Refused(409, timestamp)
    if tidy:
        object_file.clean(directory)


def delete(change: Delete) -> Deleted:
    """Write a tombstone, where what is there is older. Refused: 404, 409 or 412 where X-If-Delete-At says so."""
    metadata: Metadata = {}
    status = 404
    try:
        found = object_file.read(change.directory, now=change.timestamp)
        last, metadata = found.data_timestamp, found.metadata
        status = 204 if last < change.timestamp else 409
    except Absent as absent:
        last, metadata = absent.timestamp, absent.metadata
    if change.again and last == change.timestamp and not metadata:
        make_last(change.directory, f"{change.timestamp.internal}.ts", change.temporary)
        object_file.clean(change.directory)
        return Deleted(204, ZERO)
    if change.delete_at is not None:
        _must_end(change, last, metadata)
        status = 204
    if last < change.timestamp:
        writer = Writer(change.temporary)
        try:
            writer.write([object_file.encode({"X-Timestamp": change.timestamp.internal, "name": change.name})])
            write_note(change.note, change.directory)
            place(writer, change.directory, f"{change.timestamp.internal}.ts", change.timestamp)
        finally:
            writer.close()
    return Deleted(status, last, metadata.get("Content-Type", ""), int(metadata.get("X-Delete-At") or 0))


def _must_end(change: Delete, last: Timestamp, metadata: Metadata) -> None:
    """Refused, unless the object's time is the one that it is to be deleted for."""
    wanted = change.delete_at or ""
    if not wanted.isdigit():
        raise Refused(400, text="Bad X-If-Delete-At header value")
    if last == ZERO:
        raise Refused(404)
    if last >= change.timestamp:
        raise Refused(409)
    if int(metadata.get("X-Delete-At") or 0) != int(wanted):
        raise Refused(412, text="X-If-Delete-At and X-Delete-At do not match")


def _is_there(change: Put, read: Callable[[], Object]) -> bool:
    """Whether the object is what was to be written."""
    try:
        found = read()
    except Absent:
        return False
    etag = md5(change.data, usedforsecurity=False).hexdigest()
    return found.data_timestamp == change.timestamp and found.data_metadata == change.metadata | {
        "ETag": etag,
        "Content-Length": str(len(change.data)),
    }
