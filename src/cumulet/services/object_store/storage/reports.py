"""What containers report to their accounts: how much is in them.

A change is reported soon after it, many at once; whoever asks this node for an account is answered when what is known here has
been reported. What could not be delivered stays known as not reported (the container's row says what its account was told
last), and is tried again.
"""

import asyncio
import logging
from typing import Protocol

from cumulet.core.tasks import Tasks
from cumulet.services.object_store.message import Headers, Response
from cumulet.services.object_store.names import HashSalt, Timestamp, partition
from cumulet.services.object_store.node import BackendRequest, Device, Kind, Nodes, Rings
from cumulet.services.object_store.policies import Policies
from cumulet.services.object_store.storage.database import Database, Info, Missing, Reported

log = logging.getLogger("cumulet.object_store.reports")

SOON = 0.25
"""Seconds in which changes are collected before they are reported."""
AT_ONCE = 64
"""Containers whose reports are on their way at the same time."""


class Cluster(Protocol):
    """What is needed of the cluster: where databases lie."""

    rings: Rings
    salt: HashSalt
    policies: Policies

    def is_here(self, kind: Kind, device: Device) -> bool: ...


class Reports:
    def __init__(self, cluster: Cluster, nodes: Nodes, tasks: Tasks) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._tasks = tasks
        self._waiting: dict[str, dict[str, Database]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._scheduled = False
        self._failed: dict[str, Database] = {}
        """Those whose account could not be told everywhere, by the name of their file."""

    def changed(self, account: str, container: str, database: Database) -> None:
        """Report a container's counts soon."""
        self._waiting.setdefault(account, {})[container] = database
        if not self._scheduled:
            self._scheduled = True
            self._tasks.spawn("object store: report to accounts", self._soon())

    async def settle(self, account: str) -> None:
        """Return when what is known here of an account's containers has been reported."""
        if account in self._waiting or account in self._locks:
            await self._deliver(account)

    async def tell(self, device: Device, part: int, info: Info, override: bool = False) -> Response:
        """Report one container to one copy of its account."""
        own = info.own
        headers = Headers(
            {
                "X-Timestamp": Timestamp.now().internal,
                "X-Put-Timestamp": info.put_timestamp,
                "X-Delete-Timestamp": info.delete_timestamp,
                "X-Object-Count": str(own.objects),
                "X-Bytes-Used": str(own.bytes),
                "X-Backend-Storage-Policy-Index": str(info.policy),
            }
        )
        if override:
            headers["X-Account-Override-Deleted"] = "yes"
        ask = BackendRequest("account", "PUT", device.name, part, info.account, info.container, headers=headers)
        return await self._nodes.call(device, ask)

    def told(self, database: Database, info: Info) -> None:
        """An account knows what `info` says; the file says so with its next change."""
        database.reported = reported(info)

    async def deliver(self) -> None:
        """Report all that waits."""
        for account in list(self._waiting):
            await self._deliver(account)

    async def again(self) -> None:
        """Try again what could not be delivered."""
        failed, self._failed = self._failed, {}
        for database in failed.values():
            await self._report(database)

    async def check(self, database: Database) -> None:
        """Report a container if its account was told something else last, or nothing."""
        info = await database.ask()
        if database.reported != reported(info):
            await self._report(database)

    async def _soon(self) -> None:
        await asyncio.sleep(SOON)
        self._scheduled = False
        await self.deliver()

    async def _deliver(self, account: str) -> None:
        lock = self._locks.setdefault(account, asyncio.Lock())
        async with lock:
            containers = list(self._waiting.pop(account, {}).values())
            for first in range(0, len(containers), AT_ONCE):
                await asyncio.gather(*(self._report(database) for database in containers[first : first + AT_ONCE]))
        if account not in self._waiting and not lock.locked():
            self._locks.pop(account, None)

    async def _report(self, database: Database) -> None:
        """Report one container to all copies of its account; remember it where not all of them know it now."""
        try:
            info = await database.ask()
        except Missing:
            return
        except Exception as error:  # noqa: BLE001 - it is tried again
            log.warning("a container's counts cannot be read: %s", error)
            return
        if database.reported == reported(info):
            return
        ring = self._cluster.rings.account
        part = partition(self._cluster.salt.digest(info.account), ring.power)
        replies = await asyncio.gather(*(self.tell(device, part, info) for device in ring.devices(part)))
        if all(reply.ok or reply.status == 404 for reply in replies):
            self.told(database, info)
        else:
            self._failed[database.name] = database


def reported(info: Info) -> Reported:
    return info.put_timestamp, info.delete_timestamp, info.own.objects, info.own.bytes, info.sequence
