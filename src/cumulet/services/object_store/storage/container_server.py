"""The container server: containers, and what is in them.

    PUT|POST|HEAD|GET|DELETE /device/partition/account/container
    PUT|DELETE               /device/partition/account/container/object   from object servers: a row
    UPDATE                   /device/partition/account/container          many rows at once
    REPLICATE                /device/partition/hash                       from other nodes (`replication.py`)

A container is deleted where its DELETE is later than its PUT and nothing is in it; what was stays known for a while, so that
an older PUT that comes late does not bring it back.
Reference: https://docs.openstack.org/api-ref/object-store/#containers
"""

import asyncio
from email.utils import formatdate

import msgspec

from cumulet.services.object_store.message import Headers, Refusal, Response, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest, Device
from cumulet.services.object_store.storage import container_rows
from cumulet.services.object_store.storage.container_rows import Row, delete_row, put_row
from cumulet.services.object_store.storage.database import ZERO, Database, Info, Missing, Unit
from cumulet.services.object_store.storage.database_server import (
    AUTO_CREATE,
    DatabaseServer,
    PolicyName,
    cleared,
    keep_metadata,
    metadata_of,
    number,
    parse_timestamp,
    said_yes,
    timestamp,
    told_metadata,
)
from cumulet.services.object_store.storage.databases import CONTAINERS, Databases
from cumulet.services.object_store.storage.listing import Source, Wanted, listing
from cumulet.services.object_store.storage.replication import replicate
from cumulet.services.object_store.storage.reports import Reports

SAVED = frozenset(
    {"x-container-read", "x-container-write", "x-container-sync-key", "x-container-sync-to", "x-versions-location"}
)
"""Headers that are kept, beside metadata."""
NOTHING = Info("")
_decode_rows = msgspec.json.Decoder(list[dict[str, str | int | None]]).decode


class ContainerServer(DatabaseServer):
    def __init__(self, databases: Databases, policy_name: PolicyName, reports: Reports) -> None:
        super().__init__(databases, policy_name)
        self.kind = CONTAINERS
        self.reports = reports
        self.methods = {
            "PUT": self.put,
            "POST": self.post,
            "HEAD": self.head,
            "GET": self.get,
            "DELETE": self.delete,
            "UPDATE": self.update,
            "REPLICATE": self.replicate,
            "PUT/": self.put_object,
            "DELETE/": self.delete_object,
        }

    async def put(self, request: BackendRequest) -> Response:
        """Make a container, or say that it was made later; metadata is kept either way."""
        at = timestamp(request).internal
        policy = self.policy(request)
        self.room(request)
        new = policy if policy is not None else int(request.headers.get("X-Backend-Storage-Policy-Default") or 0)
        metadata = metadata_of(request.headers, "container", SAVED, at)
        database = self.database(request)

        def work(unit: Unit) -> bool:
            created = _update_or_create(unit, at, new, policy)
            _set_metadata(unit, metadata)
            return created

        first = Info(
            request.account, request.container, created_at=at, put_timestamp=at, status_changed_at=at, policy=new
        )
        created = await database.write(work, first)
        await self._report(request, database)
        told = {"X-Backend-Storage-Policy-Index": str((await database.ask()).policy)}
        return Response(201 if created else 202, b"", told)

    async def post(self, request: BackendRequest) -> Response:
        """Change the metadata."""
        at = timestamp(request).internal
        self.room(request)
        metadata = metadata_of(request.headers, "container", SAVED, at)

        def work(unit: Unit) -> None:
            if is_deleted(unit.info):
                raise Refusal(refuse(404))
            if at > unit.info.put_timestamp and not said_yes(request, "X-Backend-No-Timestamp-Update"):
                unit.change(put_timestamp=at)
            _set_metadata(unit, metadata)

        await self.database(request).write(work)
        return Response(204)

    async def head(self, request: BackendRequest) -> Response:
        """What a container is: from memory, if anything has asked before."""
        database = self.database(request)
        headers = database.memo if database.info is not None else None
        if headers is None:
            try:
                info = await database.ask()
            except Missing:
                info = NOTHING
            if is_deleted(info):
                return Response(404, b"", _timestamps(info))
            headers = database.memo = _headers(info)
        return Response(204, b"", headers.copy())

    async def get(self, request: BackendRequest) -> Response:
        """A listing: JSON, whatever the client wants (the proxy's listing layer makes that of it)."""
        wanted = Wanted.asked(request.query, reserved=said_yes(request, "X-Backend-Allow-Reserved-Names"))
        policy = self.policy(request)
        database = self.database(request)
        try:
            info = await database.ask()
        except Missing:
            info = NOTHING
        if is_deleted(info):
            return Response(404, b"", _timestamps(info))
        chosen = info.policy if policy is None else policy
        source = Source("object", "policy = :policy AND deleted = 0", {"policy": chosen}, "listed")
        body = await database.read(lambda conn: listing(conn, source, wanted))
        headers = Headers(_headers(info))
        headers["X-Backend-Record-Type"] = "object"
        headers["X-Backend-Record-Storage-Policy-Index"] = str(chosen)
        headers["Content-Type"] = "application/json; charset=utf-8"
        return Response(200, body, headers)

    async def delete(self, request: BackendRequest) -> Response:
        """Delete an empty container."""
        at = timestamp(request).internal
        database = self.database(request)

        def work(unit: Unit) -> bool:
            info = unit.info
            if info.total.objects:
                raise Refusal(refuse(409))
            existed = info.put_timestamp > ZERO and not is_deleted(info)
            unit.change(metadata=cleared(info, at))
            if info.delete_timestamp < at:
                unit.change(delete_timestamp=at, status="DELETED", status_changed_at=at)
            if not is_deleted(unit.info):
                raise Refusal(refuse(409))
            return existed

        existed = await database.write(work)
        await self._report(request, database)
        return Response(204) if existed else refuse(404)

    async def put_object(self, request: BackendRequest) -> Response:
        """An object was written, or its content type or its metadata changed."""
        headers = request.headers
        at = timestamp(request)
        policy = self.policy(request) or 0
        later = {
            name: parse_timestamp(headers[header], header).internal
            for name, header in (("type_at", "X-Content-Type-Timestamp"), ("meta_at", "X-Meta-Timestamp"))
            if header in headers
        }
        row = put_row(
            request.object,
            policy,
            at.internal,
            number(request, "X-Size"),
            headers.get("X-Content-Type", ""),
            headers.get("X-Etag", ""),
            **later,
        )
        await self._merge(request, at, policy, [row])
        return Response(201)

    async def delete_object(self, request: BackendRequest) -> Response:
        """An object was deleted."""
        at = timestamp(request)
        policy = self.policy(request) or 0
        await self._merge(request, at, policy, [delete_row(request.object, policy, at.internal)])
        return Response(204)

    async def update(self, request: BackendRequest) -> Response:
        """Rows of many objects, as swift's merge_items has them."""
        at = timestamp(request)
        policy = self.policy(request) or 0
        data = b"".join([piece async for piece in request.body]) if request.body else b""
        try:
            rows = [_row(item) for item in _decode_rows(data)]
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            return refuse(400, f"The body must be a list of rows: {error}")
        await self._merge(request, at, policy, rows)
        return Response(202)

    async def replicate(self, request: BackendRequest) -> Response:
        """Another node tells of its copy."""
        reply, database = await replicate(self.databases, self.kind, request)
        if reply.ok:
            info = await database.ask()
            self.reports.changed(info.account, info.container, database)
        return reply

    async def _merge(self, request: BackendRequest, at: Timestamp, policy: int, rows: list[Row]) -> None:
        database = self.database(request)
        new = None
        told = request.headers.get("X-Backend-Auto-Create")
        if said_yes(request, "X-Backend-Auto-Create") if told else request.account.startswith(AUTO_CREATE):
            made = Timestamp(at.ticks).internal
            new = Info(
                request.account,
                request.container,
                created_at=made,
                put_timestamp=made,
                status_changed_at=made,
                policy=policy,
            )
        await database.write(lambda unit: container_rows.apply(unit, rows), new, lasts=not request.told_again)
        self.reports.changed(request.account, request.container, database)

    async def _report(self, request: BackendRequest, database: Database) -> None:
        """Tell the account at once; Refusal (404) where there is no such account anywhere."""
        info = await database.ask()
        devices = _account_devices(request.headers)
        if not devices:
            self.reports.changed(request.account, request.container, database)
            return
        partition = request.headers.get("X-Account-Partition", "")
        if not partition.isdigit():
            raise Refusal(refuse(400, f"X-Account-Partition must be a number, not '{partition}'."))
        override = said_yes(request, "X-Account-Override-Deleted")
        replies = await asyncio.gather(
            *(self.reports.tell(device, int(partition), info, override) for device in devices)
        )
        if all(reply.status == 404 for reply in replies):
            raise Refusal(refuse(404))
        if all(reply.ok for reply in replies):
            self.reports.told(database, info)
        else:
            self.reports.changed(request.account, request.container, database)


def is_deleted(info: Info) -> bool:
    never = info.put_timestamp == ZERO
    return not info.own.objects and (never or info.delete_timestamp > info.put_timestamp)


def _update_or_create(unit: Unit, at: str, new: int, policy: int | None) -> bool:
    """Whether the container is there only now; Refusal (409) where it cannot be: another policy, or deleted later."""
    info = unit.info
    recreated = not unit.fresh and is_deleted(info)
    if recreated:
        unit.change(policy=new)
    elif policy is not None and policy != info.policy:
        raise Refusal(refuse(409, X_Backend_Storage_Policy_Index=str(info.policy)))
    if at > info.put_timestamp:
        unit.change(put_timestamp=at)
    if is_deleted(unit.info):
        raise Refusal(refuse(409))
    if recreated:
        unit.change(status="", status_changed_at=at)
    return recreated or unit.fresh


def _set_metadata(unit: Unit, metadata: dict[str, tuple[str, str]]) -> None:
    target = metadata.get("X-Container-Sync-To")
    before = unit.info.metadata.get("X-Container-Sync-To", ("", ""))
    if keep_metadata(unit, metadata) and target is not None and target[0] != before[0]:
        unit.change(sync_points=(-1, -1))


def _timestamps(info: Info) -> dict[str, str]:
    return {
        "X-Backend-Timestamp": info.created_at,
        "X-Backend-PUT-Timestamp": info.put_timestamp,
        "X-Backend-DELETE-Timestamp": info.delete_timestamp,
        "X-Backend-Status-Changed-At": info.status_changed_at,
        "X-Backend-Storage-Policy-Index": str(info.policy),
    }


def _headers(info: Info) -> Headers:
    put = Timestamp.parse(info.put_timestamp)
    headers = Headers(_timestamps(info))
    headers.extend(
        {
            "X-Container-Object-Count": str(info.own.objects),
            "X-Container-Bytes-Used": str(info.own.bytes),
            "X-Timestamp": Timestamp.parse(info.created_at).normal,
            "X-PUT-Timestamp": put.normal,
            "X-Backend-Sharding-State": "unsharded",
            "Last-Modified": formatdate(put.ceil, usegmt=True),
        }
    )
    headers.extend(told_metadata(info))
    return headers


def _account_devices(headers: Headers) -> list[Device]:
    hosts = [host.strip() for host in headers.get("X-Account-Host", "").split(",") if host.strip()]
    names = [name.strip() for name in headers.get("X-Account-Device", "").split(",") if name.strip()]
    if len(hosts) != len(names):
        raise Refusal(refuse(400, "X-Account-Host and X-Account-Device must name as many hosts as devices."))
    devices = []
    for host, name in zip(hosts, names, strict=True):
        address, _, port = host.rpartition(":")
        if not port.isdigit():
            raise Refusal(refuse(400, f"X-Account-Host must be address:port, not '{host}'."))
        devices.append(Device(-1, name, address.strip("[]"), int(port)))
    return devices


def _row(item: dict[str, str | int | None]) -> Row:
    at = Timestamp.parse(str(item["created_at"]).partition("+")[0]).internal
    name, policy = str(item["name"]), int(item.get("storage_policy_index") or 0)
    if item.get("deleted"):
        return delete_row(name, policy, at)
    later = {
        mine: Timestamp.parse(str(item[theirs])).internal
        for mine, theirs in (("type_at", "ctype_timestamp"), ("meta_at", "meta_timestamp"))
        if item.get(theirs)
    }
    return put_row(
        name, policy, at, int(item.get("size") or 0), str(item.get("content_type") or ""), str(item["etag"]), **later
    )
