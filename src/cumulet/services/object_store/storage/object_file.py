"""Objects as files: how one is laid down, found again and taken away. Blocking: to be called in a thread.

A hash directory `<device>/objects[-N]/<partition>/<suffix>/<hash>` holds `<timestamp>.data` (the bytes, then a footer with
the metadata), `<timestamp>.meta` (metadata of a later POST) and `<timestamp>.ts` (a tombstone): swift's tree. The footer is
JSON, its length, its CRC-32 and a magic at the very end of the file; a file that lacks it was torn. A file has no name until it
is whole; then it is linked into place, and one sync makes it and its name last (`Writer.commit`, ADR 14). What it replaces goes
after that: a power cut in between leaves both, of which the new one may be torn and is put aside.
"""

import contextlib
import errno
import os
import struct
from dataclasses import dataclass, field
from hashlib import md5
from zlib import crc32

import msgspec

from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.storage.file_systems import names_last_with_files

TAIL = struct.Struct("<II8s")
MAGIC = b"CUMULET\x01"
SPARE = 8192
"""Bytes read from the end of a large file at once: most footers are smaller."""
INLINE = 1 << 16
"""Objects up to this size are read as a whole."""
WHOLE = INLINE + SPARE + 1
SOON = 1 << 20
"""Bytes that are on the disk within a moment."""
ZERO = Timestamp(0)
KEPT_FROM_DATA = frozenset({"content-length", "deleted", "etag", "x-static-large-object"})
SYSMETA = "x-object-sysmeta-"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Metadata = dict[str, str]

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Metadata).decode


class Absent(Exception):
    """There is no such object. `timestamp` says since when, where a tombstone or its end tells; `metadata` is that of an
    object whose time has come; `unknown`: nothing was ever heard of it."""

    def __init__(self, timestamp: Timestamp = ZERO, metadata: Metadata | None = None, *, unknown: bool = False) -> None:
        super().__init__(timestamp)
        self.timestamp = timestamp
        self.metadata = metadata or {}
        self.unknown = unknown


class Torn(Exception):
    """The file at `path` is not what was once written, and is to be put aside (`quarantine.py`)."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = path


class NoSpace(Exception):
    """The device is full."""


class OpenFile:
    """A file that stays readable whatever happens to its name, until nobody refers to it any more."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def __del__(self) -> None:
        os.close(self.fd)


@dataclass(slots=True)
class Files:
    """What counts of the names in a hash directory, and what is obsolete."""

    data: str = ""
    meta: str = ""
    content_type: str = ""  # the .meta that has the newest content type, where that is another one
    tombstone: str = ""
    obsolete: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Object:
    """An object as it is now. `metadata` is what clients see: that of the data with that of the last POST. The body is in
    `body` where it is small, else in `file`."""

    data_timestamp: Timestamp
    timestamp: Timestamp
    content_type_timestamp: Timestamp
    metadata: Metadata
    data_metadata: Metadata
    posted: Metadata | None
    length: int
    path: str = ""
    body: bytes | None = None
    file: OpenFile | None = None


def stamp(name: str) -> Timestamp:
    """The timestamp that a file is named by."""
    return Timestamp.parse(name.rpartition(".")[0].partition("-")[0])


def content_type_stamp(name: str) -> Timestamp:
    """When the content type was set that a .meta file holds: its name tells how long before the file itself."""
    told, _, earlier = name.rpartition(".")[0].partition("-")
    return Timestamp(Timestamp.parse(told).ticks - int(earlier, 16)) if earlier else ZERO


def choose(names: list[str]) -> Files:
    """What counts: the newest tombstone or data, and the newest metadata after that data."""
    found = Files()
    datas, tombstones, metas = [], [], []
    for name in names:
        kind = name.rpartition(".")[2]
        if kind == "data":
            datas.append(name)
        elif kind == "ts":
            tombstones.append(name)
        elif kind == "meta":
            metas.append(name)
    if len(datas) == 1 and not tombstones and not metas:
        found.data = datas[0]
        return found
    data = max(datas, key=stamp, default="")
    tombstone = max(tombstones, key=stamp, default="")
    if tombstone and (not data or stamp(tombstone) >= stamp(data)):
        found.tombstone, last = tombstone, stamp(tombstone)
    else:
        found.data, last = data, stamp(data) if data else ZERO
    later = [name for name in metas if stamp(name) > last]
    found.meta = max(later, key=stamp, default="")
    typed = max((name for name in later if "-" in name), key=content_type_stamp, default="")
    if typed and content_type_stamp(typed) > content_type_stamp(found.meta):
        found.content_type = typed
    keep = {found.data, found.meta, found.tombstone, found.content_type}
    found.obsolete = [name for name in (*datas, *tombstones, *metas) if name not in keep]
    return found


def read(directory: str, *, now: Timestamp, expired: bool = False, body: bool = False) -> Object:
    """The object in a hash directory; `expired`: even if its time has come; `body`: with its data. Absent, Torn."""
    for _ in range(10):
        try:
            names = os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            raise Absent(unknown=True) from None
        files = choose(names)
        try:
            if not files.data:
                raise Absent(stamp(files.tombstone) if files.tombstone else ZERO)
            found = _assemble(directory, files, body)
        except FileNotFoundError:  # replaced while we looked: look again
            continue
        except ValueError:
            raise Torn(f"{directory}/{files.data}", "is not named by a time") from None
        if not expired and has_ended(found, now):
            raise Absent(found.timestamp, found.metadata)
        return found
    raise Absent


def has_ended(found: Object, now: Timestamp) -> bool:
    """Whether an object's time has come."""
    ends = found.metadata.get("X-Delete-At")
    return ends is not None and int(ends) * 100_000 <= now.ticks


def written(timestamp: Timestamp, metadata: Metadata, data: bytes) -> Object:
    """A small object as `read` would find it, of which this is what has just been written."""
    return Object(timestamp, timestamp, timestamp, metadata, metadata, None, len(data), body=data)


def _assemble(directory: str, files: Files, body: bool) -> Object:
    path = f"{directory}/{files.data}"
    data, length, content, handle = read_data(path, body)
    made = stamp(files.data)
    if not files.meta:
        return Object(made, made, made, data, data, None, length, path, content, handle)
    posted = read_meta(f"{directory}/{files.meta}")
    if files.content_type:
        typed = read_meta(f"{directory}/{files.content_type}")
        posted |= {name: typed[name] for name in ("Content-Type", "Content-Type-Timestamp") if name in typed}
    merged = dict(posted)
    for name, value in data.items():
        low = name.lower()
        if low in KEPT_FROM_DATA or low.startswith(SYSMETA):
            merged[name] = value
    typed_at = Timestamp.parse(posted.get("Content-Type-Timestamp", "0"))
    if typed_at <= made:
        typed_at = made
        merged["Content-Type"] = data["Content-Type"]
        merged.pop("Content-Type-Timestamp", None)
    return Object(made, stamp(files.meta), typed_at, merged, data, posted, length, path, content, handle)


def read_data(path: str, body: bool) -> tuple[Metadata, int, bytes | None, OpenFile | None]:
    """Metadata, length, and the body of a .data file, or the open file where that is large. Torn; a small body too is held
    against its MD5."""
    handle = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    start = 0
    end = os.pread(handle.fd, WHOLE, 0) if body else b""
    size = len(end)
    if not body or size == WHOLE:
        size = os.fstat(handle.fd).st_size
        start = max(0, size - SPARE)
        end = os.pread(handle.fd, size - start, start)
    if len(end) < TAIL.size:
        raise Torn(path, "has no footer")
    length, checksum, magic = TAIL.unpack_from(end, len(end) - TAIL.size)
    whole = length + TAIL.size
    if magic != MAGIC or whole > size:
        raise Torn(path, "has no footer")
    if whole > len(end):
        start = size - whole
        end = os.pread(handle.fd, whole, start)
    footer = end[len(end) - whole : len(end) - TAIL.size]
    if crc32(footer) != checksum:
        raise Torn(path, "has a footer that is not what was written")
    metadata = decode(footer)
    told = size - whole
    if metadata.get("Content-Length") != str(told):
        raise Torn(path, "is not as long as its footer says")
    if not body:
        return metadata, told, None, None
    if start == 0 and told <= INLINE:
        content = end[:told]
        if md5(content, usedforsecurity=False).hexdigest() != metadata["ETag"]:
            raise Torn(path, f"does not have the MD5 {metadata['ETag']} that it was stored with")
        return metadata, told, content, None
    return metadata, told, None, handle


def read_meta(path: str) -> Metadata:
    """What a .meta or a .ts file holds. Torn."""
    with open(path, "rb") as file:
        held = file.read()
    try:
        return decode(held)
    except msgspec.DecodeError as error:
        raise Torn(path, f"cannot be read: {error}") from None


def footer(metadata: Metadata) -> bytes:
    """What is written after the bytes of an object."""
    told = encode(metadata)
    return told + TAIL.pack(len(told), crc32(told), MAGIC)


def meta_name(timestamp: Timestamp, typed: Timestamp | None) -> str:
    """The name of a .meta file, which tells when the content type in it was set."""
    earlier = f"-{timestamp.ticks - typed.ticks:x}" if typed else ""
    return f"{timestamp.internal}{earlier}.meta"


class Writer:
    """A file on its way: under no name until `commit`. NoSpace where the device has no room."""

    def __init__(self, temporary: str, size: int = 0) -> None:
        self.path, self.fd = "", -1
        self.placed: tuple[int, int] | None = (
            None  # the directory it got its name in: its time of change then, its inode
        )
        self.temporary = temporary
        self.size = self._synced = 0
        try:
            self.fd = _nameless(temporary)
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace from None
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
            self.path = f"{temporary}/{os.urandom(16).hex()}"
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if size:
            try:
                os.posix_fallocate(self.fd, 0, size)
            except OSError as error:
                self.close()
                if error.errno in FULL:
                    raise NoSpace from None
                raise

    def write(self, pieces: list[bytes]) -> None:
        try:
            left = sum(map(len, pieces))
            while left:
                done = os.writev(self.fd, pieces)
                left -= done
                self.size += done
                if left:
                    pieces = _rest(pieces, done)
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace from None
            raise

    @property
    def unsynced(self) -> int:
        """Bytes that the disk was not told to keep yet."""
        return self.size - self._synced

    def sync(self) -> None:
        """Have the disk keep what has been written so far."""
        size = self.size
        os.fdatasync(self.fd)
        self._synced = max(self._synced, size)

    def commit(self, directory: str, name: str, *, new: bool = False) -> bool:
        """Give the file its name, for good; False where that name is taken. `new`: the directory was not there just now.

        The sync of a file that has just been linked makes its name last too, and the directories made for it before, in one
        write of the file system's journal. Much data is synced before, or it would be seen for long before it lasts."""
        try:
            if self.unsynced > SOON:
                os.fdatasync(self.fd)
            if new:
                make_hash_directory(directory)
            if not self._link(directory, name):
                return False
            self._sync(f"{directory}/{name}")
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace from None
            raise
        finally:
            self.close()
        return True

    def _link(self, directory: str, name: str) -> bool:
        source = self.path or f"/proc/self/fd/{self.fd}"
        while True:
            try:
                # Python follows the link in /proc only with a directory's descriptor, which counts for relative paths alone
                os.link(source, f"{directory}/{name}", dst_dir_fd=self.fd, follow_symlinks=True)
            except FileExistsError:
                return False
            except FileNotFoundError:  # the directory was empty and has just been removed, or a parent of it was
                with contextlib.suppress(FileNotFoundError):
                    make_directories(directory)
            else:
                told = os.stat(directory)
                self.placed = told.st_mtime_ns, told.st_ino
                return True

    def _sync(self, path: str) -> None:
        try:
            _sync_with_name(self.fd, os.path.dirname(path), self.temporary)
        except OSError:  # nobody was promised anything yet
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            if self.path:
                os.unlink(self.path)

    def __del__(self) -> None:
        self.close()


def make_last(directory: str, name: str, temporary: str) -> None:
    """Have the disk keep a file that somebody else has named, perhaps without waiting for that."""
    handle = OpenFile(os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC))
    _sync_with_name(handle.fd, directory, temporary)


def _sync_with_name(handle: int, directory: str, temporary: str) -> None:
    """`temporary` lies on the same file system: what is asked of that is asked once."""
    os.fsync(handle)
    if not names_last_with_files(temporary):
        sync_directory(directory)


def _nameless(temporary: str) -> int:
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(temporary, flags, 0o600)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(temporary)  # and never the device itself
        return os.open(temporary, flags, 0o600)


def _rest(pieces: list[bytes], done: int) -> list[bytes]:
    """What is left of pieces of which `done` bytes have been written."""
    for position, piece in enumerate(pieces):
        if done < len(piece):
            return [piece[done:], *pieces[position + 1 :]]
        done -= len(piece)
    return []


def make_directories(directory: str) -> None:
    """A directory and what it lies in. They last as soon as the directory is synced once something is in it: file systems with
    a journal write down what came before together with what is synced."""
    try:
        os.mkdir(directory)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directories(os.path.dirname(directory))
        make_directories(directory)


def make_hash_directory(directory: str) -> None:
    """A hash directory of which nothing is known: most often its suffix directory is not there either."""
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.mkdir(os.path.dirname(directory))
    make_directories(directory)


def sync_directory(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean(directory: str) -> None:
    """Remove what is obsolete."""
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(directory)
        if len(names) > 1:
            for name in choose(names).obsolete:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{directory}/{name}")
