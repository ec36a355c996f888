"""Container sync, the side that synchronises: what has changed in a container of this node is done in the one that its
X-Container-Sync-To names.

Each of a container's nodes first does its share of the new changes, by the hash of the name. Changes between the two points
that a database keeps are done by all of them, in case another one has failed: most are found there already.
Reference: https://docs.openstack.org/swift/latest/overview_container_sync.html
"""

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from uuid import uuid4

import aiohttp

from cumulet.api.http import Query
from cumulet.core.tasks import in_thread
from cumulet.services.object_store.layers.container_sync import AUTH, KEY, TIMESTAMP, TO
from cumulet.services.object_store.message import Headers, Request, Response, chunks, close
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.storage.container_rows import Row, since
from cumulet.services.object_store.storage.container_server import is_deleted
from cumulet.services.object_store.storage.database import Database, Info, Missing
from cumulet.services.object_store.storage.databases import CONTAINERS
from cumulet.services.object_store.sync_realms import SyncError, Target, signature

if TYPE_CHECKING:
    from cumulet.services.object_store.inside import Inside

log = logging.getLogger("cumulet.object_store.sync")

BATCH = 100
"""Rows that are looked at together."""
CONCURRENCY = 8
TIMEOUT = aiohttp.ClientTimeout(total=None, connect=5, sock_read=60)
PRIVATE = ("x-backend-", "x-object-sysmeta-", "x-object-transient-sysmeta-")
OWN = frozenset({"date", "last-modified", "accept-ranges", "content-range", "x-trans-id", "x-openstack-request-id"})
"""Headers of an object's reply that are not the object's."""


class Failed(Exception):
    """A change was not done there; the text says why. It is tried again."""


class ContainerSyncer:
    def __init__(self, service: "Inside") -> None:
        self.service = service
        self._without: dict[str, tuple[float, float]] = {}
        """Databases that are not synchronised, and when they were written last."""

    async def run(self) -> None:
        """One pass over the containers of this node."""
        catalogue = self.service.host.catalogue
        assert catalogue is not None
        async with aiohttp.ClientSession(timeout=TIMEOUT, auto_decompress=False) as session:
            for device in self.service.host.devices.names():
                for partition, name in await in_thread(self._named, device):
                    await self._container(
                        session, device, partition, catalogue.databases.at(CONTAINERS, device, partition, name)
                    )

    def _named(self, device: str) -> list[tuple[int, str]]:
        """The databases that are, or may by now be, synchronised."""
        catalogue = self.service.host.catalogue
        assert catalogue is not None
        found = []
        for partition, name in catalogue.databases.names(CONTAINERS, device):
            path = catalogue.databases.path(CONTAINERS, device, partition, name)
            if self._without.get(path) != _written(path):
                found.append((partition, name))
        return found

    async def _container(self, session: aiohttp.ClientSession, device: str, partition: int, database: Database) -> None:
        written = _written(database.name)
        try:
            info = await database.ask()
        except Missing:
            return
        said, key = (info.metadata.get(name, ("", ""))[0] for name in (TO, KEY))
        if not said or not key or is_deleted(info):
            self._without[database.name] = written
            return
        devices = self.service.rings.container.devices(partition)
        here = [one.name == device and self.service.cluster.is_here("container", one) for one in devices]
        if True not in here:
            return
        name = f"{info.account}/{info.container}"
        if info.metadata.get("X-Container-Sysmeta-Versions-Container", ("", ""))[0]:
            log.warning("%s keeps versions, and is not synchronised", name)
            return
        try:
            target = self.service.realms.target(said)
        except SyncError as error:
            log.error("%s cannot be synchronised: %s", name, error)
            return
        if target is not None:
            await Pass(self.service, session, database, info, target, key).run(here.index(True), len(devices))


class Pass:
    """The changes of one container."""

    def __init__(
        self,
        service: "Inside",
        session: aiohttp.ClientSession,
        database: Database,
        info: Info,
        target: Target,
        key: str,
    ) -> None:
        self.service = service
        self.session = session
        self.database = database
        self.info = info
        self.target = target
        self.key = key

    async def run(self, position: int, nodes: int) -> None:
        end = time.monotonic() + self.service.kernel.settings.object_sync_time
        first, second = self.info.sync_points
        failed: int | None = None
        while second < first and time.monotonic() < end:
            rows = [row for row in await self._since(second) if row[0] <= first]
            if not rows:
                break
            done = await self._all([row for _, row in rows])
            for (number, _), good in zip(rows, done, strict=True):
                if not good and failed is None:
                    failed = second
                second = number
            await self._keep(None, second if failed is None else failed)
        while time.monotonic() < end:
            rows = await self._since(first)
            if not rows:
                break
            await self._all([row for _, row in rows if self._share(row.name, nodes) == position])
            first = rows[-1][0]
            await self._keep(first, None)

    def _share(self, name: str, nodes: int) -> int:
        digest = self.service.salt.digest(self.info.account, self.info.container, name)
        return int.from_bytes(digest[:4], "big") % nodes

    async def _since(self, point: int) -> list[tuple[int, Row]]:
        return await self.database.read(lambda conn: since(conn, point, BATCH))

    async def _keep(self, first: int | None, second: int | None) -> None:
        """Remember how far it is; if the container is synchronised to elsewhere by now, that begins anew."""
        said = self.info.metadata.get(TO)
        await self.database.write(
            lambda unit: (
                unit.change(
                    sync_points=(
                        unit.info.sync_points[0] if first is None else first,
                        unit.info.sync_points[1] if second is None else second,
                    )
                )
                if unit.info.metadata.get(TO) == said
                else None
            )
        )

    async def _all(self, rows: list[Row]) -> list[bool]:
        limit = asyncio.Semaphore(CONCURRENCY)

        async def one(row: Row) -> bool:
            async with limit:
                try:
                    await (self._delete(row) if row.deleted else self._put(row))
                except (Failed, aiohttp.ClientError, TimeoutError, OSError) as error:
                    log.warning("%s/%s/%s: %s", self.info.account, self.info.container, row.name, error)
                    return False
                return True

        return await asyncio.gather(*map(one, rows))

    async def _delete(self, row: Row) -> None:
        headers = self._signed("DELETE", row.name, Timestamp.parse(row.data_at))
        async with self.session.delete(self._url(row.name), headers=headers) as reply:
            if reply.status not in (200, 204, 404, 409):
                raise Failed(f"its delete was answered with {reply.status}")

    async def _put(self, row: Row) -> None:
        at = Timestamp.parse(row.meta_at)
        if await self._is_there(row.name, at):
            return
        response = await self._read(row)
        try:
            told = response.headers
            if "X-Object-Sysmeta-Versions-Symlink" in told:
                return
            if not response.ok or Timestamp.parse(told.get(TIMESTAMP, "0")) < Timestamp(at.ticks):
                raise Failed(f"the object was read with {response.status}, or is not the latest one")
            headers = Headers(
                (name, value)
                for name, value in told.items()
                if name.lower() not in OWN and not name.lower().startswith(PRIVATE)
            )
            headers["Etag"] = told.get("Etag", "").strip('"')
            headers.extend(self._signed("PUT", row.name, Timestamp.parse(told[TIMESTAMP])))
            async with self.session.put(self._url(row.name), headers=headers, data=chunks(response)) as reply:
                if reply.status not in (201, 202, 409):
                    raise Failed(f"its upload was answered with {reply.status}")
        finally:
            await close(response)

    async def _is_there(self, name: str, at: Timestamp) -> bool:
        async with self.session.head(self._url(name), headers=self._signed("HEAD", name, at)) as reply:
            if reply.status == 404:
                return False
            if reply.status != 200:
                raise Failed(f"whether it is there was answered with {reply.status}")
            return Timestamp(at.ticks) <= Timestamp.parse(reply.headers.get(TIMESTAMP, "0"))

    async def _read(self, row: Row) -> Response:
        """The object as it is kept: a symlink as such, a manifest and not what it stands for."""
        request = Request(
            "GET",
            self.info.account,
            self.info.container,
            row.name,
            Headers({"X-Newest": "true", "X-Backend-Storage-Policy-Index": str(row.policy)}),
            Query("symlink=get"),
            settled=True,
            source="container_sync",
        )
        return await self.service.inner(request)

    def _url(self, name: str) -> str:
        return f"{self.target.url}/{quote(name)}"

    def _signed(self, method: str, name: str, at: Timestamp) -> dict[str, str]:
        headers = {TIMESTAMP: at.internal}
        if not self.target.realm:
            return headers | {KEY: self.key}
        nonce = uuid4().hex
        path = f"{urlsplit(self.target.url).path}/{quote(name)}"
        signed = signature(method, path, at.internal, nonce, self.target.key, self.key)
        return headers | {AUTH: f"{self.target.realm} {nonce} {signed}"}


def _written(path: str) -> tuple[float, float]:
    """When a database was written last, its log included."""
    return _modified(path), _modified(f"{path}-wal")


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0.0
