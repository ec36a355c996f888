"""Brings to containers the updates that could not be delivered when they were due (`async_pending.py`)."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from itertools import islice

from cumulet.core.tasks import in_thread
from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.names import HashSalt, Timestamp, partition
from cumulet.services.object_store.node import BackendRequest, Device, Nodes, Rings
from cumulet.services.object_store.storage import async_pending
from cumulet.services.object_store.storage.async_pending import Update
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.object_updates import moved

log = logging.getLogger("cumulet.object_store.updater")

AT_ONCE = 8
"""Updates on their way at one time."""
BATCH = 100


class Updater:
    """Delivers what waits on this node's devices. `delivered` and `failed` count since the start."""

    def __init__(
        self, devices: Devices, salt: HashSalt, nodes: Nodes, rings: Callable[[], Rings], *, reclaim_age: float
    ) -> None:
        self.devices = devices
        self.salt = salt
        self.nodes = nodes
        self.rings = rings
        self.reclaim_age = reclaim_age
        self.delivered = self.failed = 0

    async def run(self) -> None:
        """One round over all devices."""
        for device in await in_thread(self.devices.names):
            for policy in self.rings().objects:
                found = async_pending.waiting(self.devices.pending(device, policy))
                while batch := await in_thread(_next, found):
                    for start in range(0, len(batch), AT_ONCE):
                        await asyncio.gather(
                            *(self._bring(device, policy, *one) for one in batch[start : start + AT_ONCE])
                        )

    async def _bring(self, device: str, policy: int, path: str, update: Update | None) -> None:
        if update is None:
            log.error("%s is no update: removed", path)
            await in_thread(os.unlink, path)
            return
        told = await self.tell(update)
        if told is None:
            self.delivered += 1
            await in_thread(async_pending.forget, path)
            return
        self.failed += 1
        age = Timestamp.now().seconds - Timestamp.parse(path.rpartition("-")[2]).seconds
        if age > self.reclaim_age:
            log.warning("an update of /%s/%s is given up", update.account, update.container)
            await in_thread(async_pending.forget, path)
        elif told != update:
            await in_thread(async_pending.rewrite, path, self.devices.temporary(device, policy), told)

    async def tell(self, update: Update) -> Update | None:
        """Tell every copy of the container that was not told yet. None if all of them know it now, else what is left."""
        account, container = update.target
        ring = self.rings().container
        number = partition(self.salt.digest(account, container), ring.power)
        waiting = [device for device in ring.devices(number) if _place(device) not in update.sent]
        replies = await asyncio.gather(
            *(
                self.nodes.call(
                    device,
                    BackendRequest(
                        "container",
                        update.method,
                        device.name,
                        number,
                        account,
                        container,
                        update.object,
                        Headers(update.headers),
                    ),
                )
                for device in waiting
            )
        )
        for reply in replies:
            if reply.status == 301:
                return moved(update, reply.headers.get("Location", ""))
        done = [_place(device) for device, reply in zip(waiting, replies, strict=True) if reply.ok]
        if len(done) == len(waiting):
            return None
        return update.but(sent=[*update.sent, *done])


def _next(found: Iterator[tuple[str, Update | None]]) -> list[tuple[str, Update | None]]:
    return list(islice(found, BATCH))


def _place(device: Device) -> str:
    return f"{device.address}:{device.port}/{device.name}"
