"""The object server of a node: PUT, GET, HEAD, POST and DELETE of /device/partition/account/container/object.

As swift's: the later X-Timestamp wins and the earlier is a 409 that names it; a tombstone is a 404 that names its time; each
change is told to the containers that the request names before it is answered. Ranges and conditions are answered here too.
"""

import logging
import os
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from cumulet.api.http import File
from cumulet.core.errors import Invalid
from cumulet.core.tasks import to_the_end
from cumulet.services.object_store import conditional
from cumulet.services.object_store.message import Headers, Refusal, Response, refuse
from cumulet.services.object_store.names import HashSalt, Timestamp
from cumulet.services.object_store.node import BackendRequest, Nodes
from cumulet.services.object_store.storage import object_file, suffix_hashes
from cumulet.services.object_store.storage.devices import Devices, hash_directory
from cumulet.services.object_store.storage.disk_process import Gone
from cumulet.services.object_store.storage.hot import Hot
from cumulet.services.object_store.storage.intents import Intents
from cumulet.services.object_store.storage.object_changes import (
    Change,
    Delete,
    Deleted,
    Outcome,
    Put,
    Refused,
    Written,
    finish,
    make,
    may_put,
    place,
)
from cumulet.services.object_store.storage.object_conditions import etag_at, is_wanted_whole
from cumulet.services.object_store.storage.object_file import (
    INLINE,
    SYSMETA,
    ZERO,
    Absent,
    Metadata,
    NoSpace,
    Object,
    Torn,
    Writer,
)
from cumulet.services.object_store.storage.object_headers import (
    USERS,
    add_trailer,
    delete_at_of,
    headers_of,
    kept,
    length_of,
    new_metadata,
    parsed,
    sees_expired,
    timestamp_of,
    told_etag,
)
from cumulet.services.object_store.storage.object_stream import Stream
from cumulet.services.object_store.storage.object_updates import Named, Updates, overridden
from cumulet.services.object_store.storage.quarantine import quarantine

log = logging.getLogger("cumulet.object_store.object")

T = TypeVar("T")
SMALL = 256 << 10
"""A body up to this size is received before it is written, in one piece of work."""
HOT = 64 << 20
"""Bytes of small objects that are held in memory."""
CROWD = 4
"""Pieces of disk work at one time with which it pays to have the disk process."""
COLD, SLOW, WARMS = 0.002, 0.02, 1.0
"""A read that took so many seconds came from the disk, if the kernel has counted one; of file systems whose reads it does not
count, one that took SLOW. For so many seconds more, threads read."""


class ObjectServer:
    """The objects of this node's devices."""

    def __init__(self, devices: Devices, salt: HashSalt, nodes: Nodes) -> None:
        self.devices = devices
        self.salt = salt
        self.updates = Updates(devices, salt, nodes)
        self.intents = Intents(devices)
        self.hot = Hot(HOT)
        self._cold_until = 0.0
        self._verbs: dict[str, Callable[[BackendRequest], Awaitable[Response]]] = {
            "PUT": self.put,
            "GET": self.get,
            "HEAD": self.get,
            "POST": self.post,
            "DELETE": self.delete,
            "REPLICATE": self.replicate,
        }

    async def handle(self, request: BackendRequest) -> Response:
        verb = self._verbs.get(request.method)
        if verb is None:
            return refuse(405, Allow=", ".join(self._verbs))
        if not self.devices.usable(request.device):
            return refuse(507, f"The device {request.device} is not there.")
        try:
            return await verb(request)
        except Refusal as refusal:
            return refusal.response
        except NoSpace:
            return refuse(507, f"The device {request.device} is full.")
        except OSError as error:
            log.exception("%s %s on %s failed", request.method, request.object, request.device)
            return refuse(507, f"The device {request.device} fails: {error.strerror}")

    async def replicate(self, request: BackendRequest) -> Response:
        """The hashes of a partition; of the suffixes that are named, whose files have just been brought, reckoned anew."""
        directory = f"{self.devices.objects(request.device, request.policy)}/{request.partition}"
        named = tuple(part for part in request.account.split("-") if part)
        found = await self.devices.threads.run(_hashes, directory, named)
        return Response(200, suffix_hashes.encode(found), {"Content-Type": "application/json"})

    async def _make(self, named: Named, change: Change) -> Any:
        """Have a change made. Once its container has been told, `intents.settled` has to be said. Refusal, NoSpace."""
        if not self.intents.begun(named.device):
            await self.devices.threads.run(self.intents.begin, named.device)
        change.note = self.intents.reserve(change.directory)
        try:
            return await self._made(named, change)
        except BaseException as error:
            self._settled(change.directory)
            if isinstance(error, Refused):
                raise Refusal(_refused(error)) from None
            raise

    async def _made(self, named: Named, change: Change) -> Outcome:
        """By the disk process where that runs, else by a thread."""
        threads, process = self.devices.threads, self.devices.process
        if threads.busy >= CROWD:
            process.start()
        offered = process.offer(change)
        if offered is not None:
            try:
                outcome = await offered
            except (Gone, Torn):
                change.again = True
            else:
                if suffix_hashes.is_noted(change.directory):
                    await threads.run(suffix_hashes.changed, change.directory)
                return outcome
        made: Outcome = await threads.run(self._make_here, named, change)
        return made

    def _settled(self, directory: str) -> bool:
        """A change is made, and told: what is held of the object is not so any more. Whether it was the only one meanwhile."""
        self.hot.drop(directory)
        return self.intents.settled(directory)

    def _make_here(self, named: Named, change: Change) -> Outcome:
        while True:
            try:
                outcome = make(change)
            except Torn as torn:
                self._put_aside(named, change.directory, torn)
            else:
                suffix_hashes.changed(change.directory)
                return outcome

    def _named(self, request: BackendRequest) -> tuple[Named, str]:
        digest, directory = self._hashed(request)
        policy = request.policy
        return Named(request.device, policy, request.account, request.container, request.object, digest), directory

    def _hashed(self, request: BackendRequest) -> tuple[str, str]:
        """The object's digest, and the directory of its files."""
        digest = self.salt.name(request.account, request.container, request.object)
        return digest, hash_directory(self.devices.objects(request.device, request.policy), request.partition, digest)

    def _read(
        self, named: Named, directory: str, *, now: Timestamp, expired: bool = False, body: bool = False
    ) -> Object:
        """The object. What is torn is put aside: then it is as it was before that, or not there any more."""
        while True:
            try:
                return object_file.read(directory, now=now, expired=expired, body=body)
            except Torn as torn:
                if not self._put_aside(named, directory, torn):
                    raise Absent from None

    def _put_aside(self, named: Named, directory: str, torn: Torn) -> bool:
        """Quarantine what is torn; whether there is an object still."""
        log.error("quarantined: %s", str(torn))
        left = quarantine(directory, self.devices.quarantined(named.device, named.policy), torn)
        suffix_hashes.changed(directory)
        return left

    async def get(self, request: BackendRequest) -> Response:
        asked = request.headers
        now = timestamp_of(asked, needed=False)
        whole = request.method == "GET"
        _, directory = self._hashed(request)
        held = self.hot.get(directory)
        if held is not None and (not whole or held.found.body is not None):
            found, headers = held.found, held.headers.copy()
            if object_file.has_ended(found, now) and not sees_expired(asked):
                return _absent(asked, Absent(found.timestamp))
        else:
            try:
                found, seen = await self._fetch(self._named(request)[0], directory, now, sees_expired(asked), whole)
            except Absent as absent:
                return _absent(asked, absent)
            headers = headers_of(found)
            if found.file is None:
                self.hot.put(directory, seen, found, headers.copy())
        if not (whole and "Range" in asked) and not _has_conditions(asked):
            headers["Content-Length"] = str(found.length)
            return Response(200, _part(found, 0, found.length) if whole else b"", headers)
        return conditional.answer(
            request.method,
            asked,
            headers,
            found.length,
            lambda start, end: Response(200, _part(found, start, end)),
            etags=(etag_at(asked, found.metadata),),
            ranges=not is_wanted_whole(asked, found.metadata),
        )

    async def _fetch(
        self, named: Named, directory: str, now: Timestamp, expired: bool, body: bool
    ) -> tuple[Object, os.stat_result]:
        """Read at once: where the kernel has the files in memory that takes a tenth of a millisecond, less than handing it to
        a thread. Once it took longer, threads do it for a while: the disk is at work."""
        begun = time.monotonic()
        if begun < self._cold_until:
            read: tuple[Object, os.stat_result] = await self.devices.threads.run(
                self._get, named, directory, now, expired, body
            )
            return read
        blocks = _blocks_read()
        try:
            return self._get(named, directory, now, expired, body)
        finally:
            took = (ended := time.monotonic()) - begun
            if took > COLD and (took > SLOW or _blocks_read() != blocks):
                self._cold_until = ended + WARMS

    def _get(
        self, named: Named, directory: str, now: Timestamp, expired: bool, body: bool
    ) -> tuple[Object, os.stat_result]:
        """The object, and what its directory was like before it was read."""
        try:
            seen = os.stat(directory)
        except FileNotFoundError:
            raise Absent(unknown=True) from None
        return self._read(named, directory, now=now, expired=expired, body=body), seen

    async def put(self, request: BackendRequest) -> Response:
        asked = request.headers
        timestamp = timestamp_of(asked)
        delete_at = delete_at_of(asked, timestamp)
        if "Content-Type" not in asked:
            return refuse(400, "No content type")
        length = length_of(asked)
        named, directory = self._named(request)
        body = _received(request.body)
        pieces: list[bytes] = []
        size = 0
        data: bytes | None = None
        if length is None or length <= SMALL:
            async for piece in body:
                pieces.append(piece)
                size += len(piece)
                if size > SMALL:
                    break
        metadata = new_metadata(request, timestamp)
        if size > SMALL or (length or 0) > SMALL:
            lay_down = await self._receive(request, named, directory, timestamp, metadata, pieces, body, length)
        else:
            if length is not None and size != length:
                return refuse(499)
            data = b"".join(pieces)
            lay_down = partial(self._put_small, request, named, directory, timestamp, metadata, data)
        await to_the_end(self._lay_down(lay_down, request, named, directory, metadata, delete_at, timestamp, data))
        return Response(201, b"", {"Etag": metadata["ETag"], "X-Backend-Timestamp": timestamp.internal})

    async def _lay_down(
        self,
        lay_down: Callable[[], Awaitable[Written]],
        request: BackendRequest,
        named: Named,
        directory: str,
        metadata: Metadata,
        delete_at: int,
        timestamp: Timestamp,
        data: bytes | None,
    ) -> None:
        """Put the object in its place, and tell its container: both or neither. `data` are there of a small one."""
        written = await lay_down()
        if written.untidy:
            self.devices.threads.run(object_file.clean, directory)  # and nobody waits for it
        metadata["ETag"] = written.etag
        await self._told_of_put(request, named, metadata, written.old_delete_at, delete_at, timestamp)
        alone = self._settled(directory)
        if alone and written.first and data is not None and len(data) <= INLINE:
            self.hot.wrote(directory, written.first, object_file.written(timestamp, metadata, data))

    async def _put_small(
        self,
        request: BackendRequest,
        named: Named,
        directory: str,
        timestamp: Timestamp,
        metadata: Metadata,
        data: bytes,
    ) -> Written:
        """Write an object whose body is there already."""
        if self.devices.crowded(named.device, len(data)):
            raise NoSpace
        if request.trailer is not None:
            add_trailer(metadata, request.trailer())
        metadata["Content-Length"] = str(len(data))
        unwanted = conditional.tags(request.headers.get("If-None-Match"))
        temporary = self.devices.temporary(named.device, named.policy)
        change = Put(directory, temporary, timestamp, unwanted, told_etag(request), metadata, data)
        written: Written = await self._make(named, change)
        return written

    async def _receive(
        self,
        request: BackendRequest,
        named: Named,
        directory: str,
        timestamp: Timestamp,
        metadata: Metadata,
        pieces: list[bytes],
        body: AsyncIterator[bytes],
        length: int | None,
    ) -> Callable[[], Awaitable[Written]]:
        """Write a large body to a file that has no name yet; what is to be done to give it one."""
        threads = self.devices.threads
        old, new = await threads.run(self._may_put, request, named, directory, timestamp)
        writer: Writer = await threads.run(Writer, self.devices.temporary(named.device, named.policy), length or 0)
        try:
            size, etag = await Stream(threads, writer).run(pieces, body)
            if length is not None and size != length:
                raise Refusal(refuse(499))
            if request.trailer is not None:
                add_trailer(metadata, request.trailer())
            if told_etag(request) not in ("", etag):
                raise Refusal(refuse(422))
            metadata |= {"ETag": etag, "Content-Length": str(size)}
        except BaseException:
            await threads.run(writer.close)
            raise
        named_so = partial(finish, writer, [], directory, timestamp, metadata, old, new=new)
        return partial(threads.run, self._noted, directory, named_so)

    def _may_put(
        self, request: BackendRequest, named: Named, directory: str, timestamp: Timestamp
    ) -> tuple[Metadata, bool]:
        """The metadata of the object that is replaced, if it may be; whether nothing was heard of it yet. Refusal, NoSpace."""
        if self.devices.crowded(named.device, length_of(request.headers) or 0):
            raise NoSpace
        unwanted = conditional.tags(request.headers.get("If-None-Match"))
        try:
            return may_put(partial(self._read, named, directory, now=timestamp), timestamp, unwanted)
        except Refused as refused:
            raise Refusal(_refused(refused)) from None

    def _noted(self, directory: str, place: Callable[[], T]) -> T:
        """Have a file get its name. Once its container has been told, `intents.settled` has to be said."""
        self.intents.note(directory)
        try:
            placed = place()
            suffix_hashes.changed(directory)
        except BaseException as error:
            self.intents.settled(directory)
            if isinstance(error, Refused):
                raise Refusal(_refused(error)) from None
            raise
        return placed

    async def _told_of_put(
        self,
        request: BackendRequest,
        named: Named,
        metadata: Metadata,
        old_delete_at: int,
        delete_at: int,
        timestamp: Timestamp,
    ) -> None:
        asked = request.headers
        if delete_at or old_delete_at:
            await self.updates.schedule(named, asked, metadata, old_delete_at, delete_at, timestamp)
        told = {
            "X-Size": metadata["Content-Length"],
            "X-Content-Type": metadata["Content-Type"],
            "X-Timestamp": metadata["X-Timestamp"],
            "X-Etag": metadata["ETag"],
        }
        trailer = request.trailer() if request.trailer is not None else Headers()
        await self.updates.tell("PUT", named, asked, overridden(told, asked, trailer))

    async def post(self, request: BackendRequest) -> Response:
        return await to_the_end(self._posted(request))

    async def _posted(self, request: BackendRequest) -> Response:
        asked = request.headers
        timestamp = timestamp_of(asked)
        delete_at = delete_at_of(asked, timestamp)
        named, directory = self._named(request)
        typed = timestamp if "Content-Type" in asked else ZERO
        if typed and "Content-Type-Timestamp" in asked:
            typed = parsed(asked["Content-Type-Timestamp"])
        try:
            found, posted = await self.devices.threads.run(self._post, request, named, directory, timestamp, typed)
        except Absent as absent:
            return _absent(asked, absent)
        old_delete_at = int(found.metadata.get("X-Delete-At") or 0)
        if timestamp > found.timestamp and (delete_at or old_delete_at):
            await self.updates.schedule(named, asked, found.data_metadata, old_delete_at, delete_at, timestamp)
        kind = posted.get("Content-Type") or found.metadata["Content-Type"]
        kind_at = posted.get("Content-Type-Timestamp") or found.content_type_timestamp.internal
        shown = kind
        _, mark, size = found.data_metadata["Content-Type"].partition(";swift_bytes=")
        if mark and kind_at != found.data_timestamp.internal and mark not in shown:
            shown += mark + size
        told = {
            "X-Size": found.metadata["Content-Length"],
            "X-Content-Type": shown,
            "X-Timestamp": found.data_timestamp.internal,
            "X-Content-Type-Timestamp": kind_at,
            "X-Meta-Timestamp": posted["X-Timestamp"],
            "X-Etag": found.metadata["ETag"],
        }
        await self.updates.tell("PUT", named, asked, overridden(told, found.metadata))
        self._settled(directory)
        headers = Headers({"X-Backend-Content-Type": kind, "X-Backend-Timestamp": timestamp.internal})
        headers.extend((name, value) for name, value in found.metadata.items() if name.lower().startswith(SYSMETA))
        return Response(202, b"", headers)

    def _post(
        self, request: BackendRequest, named: Named, directory: str, timestamp: Timestamp, typed: Timestamp
    ) -> tuple[Object, Metadata]:
        """Write what is said of an object now: the object as it was, and what was written."""
        asked = request.headers
        found = self._read(named, directory, now=timestamp, expired=sees_expired(asked))
        if found.timestamp >= timestamp and found.content_type_timestamp >= typed:
            raise Refusal(_conflict(found.timestamp))
        if timestamp > found.timestamp:
            posted = {"X-Timestamp": timestamp.internal} | kept(asked, USERS)
        else:
            timestamp = found.timestamp
            posted = dict(found.posted or {"X-Timestamp": timestamp.internal})
        written: Timestamp | None = None
        if typed > found.content_type_timestamp:
            written = typed
            posted |= {"Content-Type": asked["Content-Type"], "Content-Type-Timestamp": typed.internal}
        elif found.content_type_timestamp != found.data_timestamp:
            written = found.content_type_timestamp
            posted |= {
                "Content-Type": found.metadata["Content-Type"],
                "Content-Type-Timestamp": written.internal,
            }
        posted["name"] = f"/{named.account}/{named.container}/{named.object}"
        writer = Writer(self.devices.temporary(named.device, named.policy))
        try:
            writer.write([object_file.encode(posted)])
            name = object_file.meta_name(timestamp, written)
            self._noted(directory, partial(place, writer, directory, name, timestamp))
        finally:
            writer.close()
        return found, posted

    async def delete(self, request: BackendRequest) -> Response:
        return await to_the_end(self._deleted(request))

    async def _deleted(self, request: BackendRequest) -> Response:
        asked = request.headers
        timestamp = timestamp_of(asked)
        named, directory = self._named(request)
        change = Delete(
            directory,
            self.devices.temporary(named.device, named.policy),
            timestamp,
            f"/{named.account}/{named.container}/{named.object}",
            asked.get("X-If-Delete-At"),
        )
        deleted: Deleted = await self._make(named, change)
        if deleted.last < timestamp:
            if deleted.old_delete_at:
                await self.updates.schedule(named, asked, {}, deleted.old_delete_at, 0, timestamp)
            await self.updates.tell("DELETE", named, asked, {"X-Timestamp": timestamp.internal})
        self._settled(directory)
        headers = {
            "X-Backend-Timestamp": max(deleted.last, timestamp).internal,
            "X-Backend-Content-Type": deleted.content_type,
        }
        if deleted.status == 204:
            return Response(204, b"", headers)
        reply = refuse(deleted.status)
        reply.headers.update(headers)
        return reply


CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")


def _blocks_read() -> int:
    """What this thread has had read from disks: one that waited for a processor, or the interpreter's lock, has not."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock


def _hashes(directory: str, brought: tuple[str, ...]) -> suffix_hashes.Hashes:
    for suffix in brought:
        suffix_hashes.sync(f"{directory}/{suffix}")
    return suffix_hashes.hashes(directory, brought)


async def _received(body: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    """A body; a client that hangs up is a refusal, not a failure of the disk."""
    if body is not None:
        try:
            async for piece in body:
                yield piece
        except (OSError, Invalid) as error:
            raise Refusal(refuse(499)) from error


def _has_conditions(asked: Headers) -> bool:
    for name in CONDITIONS:  # noqa: SIM110 - any() would make a generator for each read
        if name in asked:
            return True
    return False


def _refused(refused: Refused) -> Response:
    told = {"X_Backend_Timestamp": refused.last.internal} if refused.last != ZERO else {}
    return refuse(refused.status, refused.text, **told)


def _conflict(last: Timestamp) -> Response:
    return refuse(409, X_Backend_Timestamp=last.internal)


def _absent(asked: Headers, absent: Absent) -> Response:
    status = conditional.condition(asked, (), None, 404) or 404
    headers = {"X_Backend_Timestamp": absent.timestamp.internal} if absent.timestamp != ZERO else {}
    return refuse(status, **headers)


def _part(found: Object, start: int, end: int) -> Any:
    if found.body is not None:
        return found.body[start:end]
    assert found.file is not None
    return File(found.path, start, end - start, found.file)
