"""The account server: accounts, and which containers are in them.

    PUT|POST|HEAD|GET|DELETE /device/partition/account
    PUT                      /device/partition/account/container   from container servers: how much is in it
    REPLICATE                /device/partition/hash                from other nodes (`replication.py`)

A deleted account stays known until all that was in it has been removed (`reaper.py`); until then it cannot be made again.
Reference: https://docs.openstack.org/api-ref/object-store/#accounts
"""

import msgspec

from cumulet.services.object_store.message import Headers, Refusal, Response, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest
from cumulet.services.object_store.storage import account_rows
from cumulet.services.object_store.storage.account_rows import Row
from cumulet.services.object_store.storage.database import Info, Unit
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
from cumulet.services.object_store.storage.databases import ACCOUNTS, Databases
from cumulet.services.object_store.storage.listing import Source, Wanted, listing
from cumulet.services.object_store.storage.replication import replicate
from cumulet.services.object_store.storage.reports import Reports

_encode = msgspec.json.Encoder().encode


class AccountServer(DatabaseServer):
    def __init__(self, databases: Databases, policy_name: PolicyName, reports: Reports) -> None:
        super().__init__(databases, policy_name)
        self.kind = ACCOUNTS
        self.reports = reports
        self.methods = {
            "PUT": self.put,
            "POST": self.post,
            "HEAD": self.head,
            "GET": self.get,
            "DELETE": self.delete,
            "REPLICATE": self.replicate,
            "PUT/": self.put_container,
        }

    async def put(self, request: BackendRequest) -> Response:
        """Make an account; 403 where it was deleted and is not yet forgotten."""
        at = timestamp(request).internal
        self.room(request)
        metadata = metadata_of(request.headers, "account", frozenset(), at)
        database = self.database(request)

        def work(unit: Unit) -> bool:
            if is_gone(unit.info):
                raise Refusal(_deleted(unit.info, 403, "Recently deleted"))
            created = unit.fresh or is_deleted(unit.info)
            if at > unit.info.put_timestamp:
                unit.change(put_timestamp=at)
            if is_deleted(unit.info):
                raise Refusal(refuse(409))
            keep_metadata(unit, metadata)
            return created

        first = Info(request.account, created_at=at, put_timestamp=at, status_changed_at=at)
        created = await database.write(work, first)
        return Response(201 if created else 202)

    async def post(self, request: BackendRequest) -> Response:
        """Change the metadata."""
        at = timestamp(request).internal
        self.room(request)
        metadata = metadata_of(request.headers, "account", frozenset(), at)

        def work(unit: Unit) -> None:
            if is_deleted(unit.info):
                raise Refusal(_deleted(unit.info, 404))
            keep_metadata(unit, metadata)

        await self.database(request).write(work)
        return Response(204)

    async def head(self, request: BackendRequest) -> Response:
        """What an account is, with all that containers on this node have to report."""
        info = await self._asked(request)
        return Response(204, b"", self._headers(info))

    async def get(self, request: BackendRequest) -> Response:
        """The containers: JSON, whatever the client wants (the proxy's listing layer makes that of it)."""
        wanted = Wanted.asked(request.query, reserved=said_yes(request, "X-Backend-Allow-Reserved-Names"))
        info = await self._asked(request)
        source = Source("container", "deleted = 0", {}, self._row(info))
        body = await self.database(request).read(lambda conn: listing(conn, source, wanted))
        headers = self._headers(info)
        headers["Content-Type"] = "application/json; charset=utf-8"
        return Response(200, body, headers)

    async def delete(self, request: BackendRequest) -> Response:
        """Delete an account, with all that is in it: the reaper removes that."""
        at = timestamp(request).internal

        def work(unit: Unit) -> Response:
            info = unit.info
            if is_deleted(info):
                return _deleted(info, 404)
            unit.change(metadata=cleared(info, at))
            if info.delete_timestamp < at:
                unit.change(delete_timestamp=at, status="DELETED", status_changed_at=at)
            return _deleted(unit.info, 204)

        return await self.database(request).write(work)

    async def put_container(self, request: BackendRequest) -> Response:
        """A container was made or deleted, or counts differently now."""
        headers = request.headers
        row = Row(
            request.container,
            parse_timestamp(headers.get("X-Put-Timestamp", ""), "X-Put-Timestamp").internal,
            parse_timestamp(headers.get("X-Delete-Timestamp", ""), "X-Delete-Timestamp").internal,
            timestamp(request).internal if "X-Timestamp" in headers else Timestamp.now().internal,
            number(request, "X-Object-Count"),
            number(request, "X-Bytes-Used"),
            request.policy,
        )
        override = said_yes(request, "X-Account-Override-Deleted")

        def work(unit: Unit) -> None:
            if is_deleted(unit.info) and not override:
                raise Refusal(refuse(404))
            account_rows.apply(unit, [row])

        new = None
        if request.account.startswith(AUTO_CREATE):
            new = Info(
                request.account,
                created_at=row.counted_at,
                put_timestamp=row.counted_at,
                status_changed_at=row.counted_at,
            )
        await self.database(request).write(work, new)
        return Response(204 if row.deleted else 201)

    async def replicate(self, request: BackendRequest) -> Response:
        """Another node tells of its copy."""
        return (await replicate(self.databases, self.kind, request))[0]

    async def _asked(self, request: BackendRequest) -> Info:
        await self.reports.settle(request.account)
        info = await self.database(request).ask()
        if is_deleted(info):
            raise Refusal(_deleted(info, 404))
        return info

    def _headers(self, info: Info) -> Headers:
        total = info.total
        headers = Headers(
            {
                "X-Account-Container-Count": str(total.containers),
                "X-Account-Object-Count": str(total.objects),
                "X-Account-Bytes-Used": str(total.bytes),
                "X-Timestamp": Timestamp.parse(info.created_at).normal,
                "X-PUT-Timestamp": Timestamp.parse(info.put_timestamp).normal,
                "X-Backend-Status-Changed-At": info.status_changed_at,
            }
        )
        for policy, stat in sorted(info.stats.items()):
            name = self.policy_name(policy)
            if name is not None:
                prefix = f"X-Account-Storage-Policy-{name}-"
                headers[prefix + "Container-Count"] = str(stat.containers)
                headers[prefix + "Object-Count"] = str(stat.objects)
                headers[prefix + "Bytes-Used"] = str(stat.bytes)
        headers.extend(told_metadata(info))
        return headers

    def _row(self, info: Info) -> str:
        """The expression that makes a container's JSON: the names of the policies are known here alone."""
        cases = ""
        for policy in info.stats:
            if (name := self.policy_name(policy)) is not None:
                told = _encode(name).decode().replace("'", "''")
                cases += f" WHEN {policy} THEN ',\"storage_policy\":{told}}}'"
        end = f"CASE policy{cases} ELSE '}}' END" if cases else "'}'"
        at = (
            "strftime('%Y-%m-%dT%H:%M:%S', substr(put_timestamp, 1, 10), 'unixepoch')"
            " || '.' || substr(put_timestamp, 12, 5) || '0'"
        )
        fields = f"'name', name, 'count', objects, 'bytes', bytes, 'last_modified', {at}"
        return f"rtrim(json_object({fields}), '}}') || {end}"


def is_gone(info: Info) -> bool:
    """Whether somebody deleted the account."""
    return info.status == "DELETED" or info.delete_timestamp > info.put_timestamp


def is_deleted(info: Info) -> bool:
    return info.status == "DELETED" or (not info.total.containers and info.delete_timestamp > info.put_timestamp)


def _deleted(info: Info, status: int, text: str = "") -> Response:
    told = {"X-Account-Status": "Deleted"} if is_gone(info) else {}
    if status == 204:
        return Response(204, b"", told)
    return refuse(status, text, **{name.replace("-", "_"): value for name, value in told.items()})
