"""What containers are told of an object that was written, changed or deleted: the rows of listings, and the entries of the
queue of objects that are to be deleted at a time. What cannot be delivered is kept (`async_pending.py`).

The proxy says with each request which copies of the container this node is to tell (X-Container-Host, -Device, -Partition).
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.names import HashSalt, Timestamp
from cumulet.services.object_store.node import BackendRequest, Device, Nodes
from cumulet.services.object_store.storage import async_pending, expiring
from cumulet.services.object_store.storage.async_pending import Update
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.object_file import Metadata, NoSpace

log = logging.getLogger("cumulet.object_store.object")

PATIENCE = 1.0
"""Seconds that a request waits for more than one container; the updates go on without it."""
OVERRIDES = ("x-backend-container-update-override-", "x-object-sysmeta-container-update-override-")
FALSE = frozenset({"false", "f", "0", "no", "off", "n"})


@dataclass(frozen=True, slots=True)
class Named:
    """The object that a request is about, and where this node keeps it."""

    device: str
    policy: int
    account: str
    container: str
    object: str
    digest: str


class Updates:
    """Brings updates to containers."""

    def __init__(self, devices: Devices, salt: HashSalt, nodes: Nodes) -> None:
        self.devices = devices
        self.salt = salt
        self.nodes = nodes
        self._going: set[asyncio.Task[None]] = set()

    async def tell(self, method: str, named: Named, asked: Headers, told: Mapping[str, str]) -> None:
        """Tell the containers that the request names of the object's row."""
        hosts, partition = _listed(asked.get("X-Container-Host")), asked.get("X-Container-Partition")
        names = _listed(asked.get("X-Container-Device"))
        if not hosts or not partition:
            return
        if len(hosts) != len(names):
            log.error(
                "no container is told of %s: there are %d hosts and %d devices", named.digest, len(hosts), len(names)
            )
            return
        path = unquote(asked.get("X-Backend-Quoted-Container-Path", "")) or asked.get("X-Backend-Container-Path", "")
        update = Update(method, named.account, named.container, named.object, dict(told), path)
        wanted = {"X-Backend-Storage-Policy-Index": str(named.policy), "X-Trans-Id": asked.get("X-Trans-Id", "-")}
        await self._bring(named, update, wanted, hosts, names, int(partition))

    async def _bring(
        self, named: Named, update: Update, headers: dict[str, str], hosts: list[str], names: list[str], partition: int
    ) -> None:
        update.headers.update(headers)
        if len(hosts) == 1:
            await self._one(named, update, _device(hosts[0], names[0]), partition)
            return
        tasks = [
            asyncio.create_task(self._one(named, update, _device(host, name), partition))
            for host, name in zip(hosts, names, strict=True)
        ]
        for task in tasks:
            self._going.add(task)
            task.add_done_callback(self._going.discard)
        _, late = await asyncio.wait(tasks, timeout=PATIENCE)
        if late:  # what is only in memory would not outlive this process
            await self.keep(named, update)

    async def _one(self, named: Named, update: Update, device: Device, partition: int) -> None:
        account, container = update.target
        request = BackendRequest(
            "container",
            update.method,
            device.name,
            partition,
            account,
            container,
            update.object,
            Headers(update.headers),
            told_again=True,  # `recovery.py` does
        )
        try:
            reply = await self.nodes.call(device, request)
        except BaseException:
            await self.keep(named, update)
            raise
        if reply.ok:
            return
        if reply.status == 301:
            update = moved(update, reply.headers.get("Location", ""))
        else:
            log.warning("%s/%s answered %d; the update is kept for later", device.address, device.name, reply.status)
        await self.keep(named, update)

    async def keep(self, named: Named, update: Update) -> None:
        """Leave an update to the updater."""
        digest = self.salt.name(update.account, update.container, update.object)
        timestamp = update.headers.get("X-Meta-Timestamp") or update.headers["X-Timestamp"]
        directory = self.devices.pending(named.device, named.policy)
        temporary = self.devices.temporary(named.device, named.policy)
        work = self.devices.threads.run(async_pending.save, directory, temporary, digest, timestamp, update)
        try:
            await asyncio.shield(work)
        except NoSpace:
            log.error("an update of /%s/%s is lost: %s is full", update.account, update.container, named.device)

    async def schedule(
        self, named: Named, asked: Headers, metadata: Metadata, old: int, new: int, timestamp: Timestamp
    ) -> None:
        """Move an object's entry in the queue from the time it was to be deleted to the one it is now; 0 is never."""
        if asked.get("X-Backend-Replication", "false").lower() not in FALSE:
            return
        if new:
            await self._enqueue(named, asked, metadata, new, timestamp)
        if old and old != new and asked.get("X-Backend-Clean-Expiring-Object-Queue", "t").lower() not in FALSE:
            update = self.entry("DELETE", named, old, timestamp, {})
            await self.keep(named, update)

    async def _enqueue(self, named: Named, asked: Headers, metadata: Metadata, at: int, timestamp: Timestamp) -> None:
        if "X-Delete-At-Host" not in asked:
            return  # enough other nodes are told to
        hosts, names = _listed(asked["X-Delete-At-Host"]), _listed(asked.get("X-Delete-At-Device"))
        partition = asked.get("X-Delete-At-Partition")
        update = self.entry("PUT", named, at, timestamp, metadata, asked.get("X-Delete-At-Container", ""))
        if not (hosts and partition and len(hosts) == len(names)):
            await self.keep(named, update)
            return
        await self._bring(named, update, {}, hosts, names, int(partition))

    def entry(
        self, method: str, named: Named, at: int, timestamp: Timestamp, metadata: Metadata, container: str = ""
    ) -> Update:
        """The update of an object's entry in the queue of a time."""
        path = (named.account, named.container, named.object)
        container = container or expiring.queue_container(self.salt, at, *path)
        headers = {"X-Backend-Storage-Policy-Index": "0", "X-Timestamp": timestamp.internal}
        if method == "PUT":
            headers |= {
                "X-Size": "0",
                "X-Etag": "d41d8cd98f00b204e9800998ecf8427e",
                "X-Content-Type": f"{expiring.CONTENT_TYPE};swift_expirer_bytes={metadata['Content-Length']}",
                "X-Content-Type-Timestamp": metadata["X-Timestamp"],
            }
        return Update(method, expiring.ACCOUNT, container, expiring.entry(at, *path), headers)

    async def settle(self) -> None:
        """Wait for updates that still go on."""
        if self._going:
            await asyncio.wait(self._going)


def moved(update: Update, location: str) -> Update:
    """An update that belongs to another container: a part of the one that it was for, which has been divided."""
    path = "/".join(unquote(location).strip("/").split("/")[:2])
    return update.but(container_path=path, sent=[]) if path.count("/") == 1 else update


def overridden(told: dict[str, str], *sources: Mapping[str, str]) -> dict[str, str]:
    """What a container is told, where layers say that it is to be told something else (of an encrypted object, say)."""
    for prefix in OVERRIDES:
        for source in sources:
            for name, value in source.items():
                if name.lower().startswith(prefix):
                    told["X-" + name[len(prefix) :].title()] = value
    return told


def _listed(header: str | None) -> list[str]:
    return [part.strip() for part in header.split(",")] if header else []


def _device(host: str, name: str) -> Device:
    address, _, port = host.rpartition(":")
    return Device(-1, name, address.strip("[]"), int(port))
