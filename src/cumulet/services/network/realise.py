"""What makes the dataplane match the database.

touch(tx, ...)   in the unit of work that changes something: a durable operation for each network (`net:<id>`) and router
                 (`router:<id>`) that looks different now, unless one is queued already and has not begun to run
the operation    reads the whole wanted state in one unit of work and has the driver make it so, or remove it
start()          everything is made again, and what the host has beyond the database is removed
compare()        from time to time: what differs is mended
realise(ids)     the same for somebody who must wait for it (a server that is to be plugged in)

Many who want the same network at the same time share one look at the database and one call of the driver: whoever comes
before the look is served by it (a hundred servers built at once on one network are not a hundred times its ports).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, select

from cumulet.api.http import Request, Response
from cumulet.api.server import Server
from cumulet.core.kernel import Kernel
from cumulet.core.operations import Finish, Operation
from cumulet.core.operations import table as operations
from cumulet.core.types import now
from cumulet.services.network import wanted
from cumulet.services.network.drivers import Dataplane, DataplaneError, Router
from cumulet.services.network.drivers.simulated import SimulatedDataplane
from cumulet.services.network.floating_ip import FLOATING
from cumulet.services.network.network import NETWORKS
from cumulet.services.network.port import PORTS
from cumulet.services.network.router import INTERFACE, ROUTERS
from cumulet.services.network.security_group import members
from cumulet.services.network.security_group_rule import RULE

log = logging.getLogger("cumulet.network")

ATTEMPTS = 8
EVERY = 300.0
"""Seconds between two comparisons of the host with the database."""
LONG_LOOK, LONGEST_REST = 0.005, 0.25
"""Seconds of reading from which a network is large, and that the next look at it is put off at most."""
NET, ROUTER = "network.realise", "router.realise"
PREFIX = {NET: "net:", ROUTER: "router:"}

AnswerMetadata = Callable[[str, Request], Awaitable[Response]]

_waiting = select(operations.c.resource_id).where(
    operations.c.resource_id.in_(bindparam("ids", expanding=True)), operations.c.state == "queued"
)
_referring = (
    select(members.c.network_id)
    .join(RULE, RULE.c.security_group_id == members.c.security_group_id)
    .where(RULE.c.remote_group_id.in_(bindparam("groups", expanding=True)))
    .distinct()
)
_of_groups = (
    select(members.c.network_id).where(members.c.security_group_id.in_(bindparam("groups", expanding=True))).distinct()
)
_routers_of = (
    select(PORTS.c.device_id)
    .where(PORTS.c.network_id == bindparam("network"), PORTS.c.device_owner.in_([INTERFACE, "network:router_gateway"]))
    .distinct()
)


class Realiser:
    """Brings networks and routers of this host into being, and keeps the metadata service listening in them."""

    def __init__(self, kernel: Kernel, dataplane: Dataplane, server: Server, metadata: AnswerMetadata) -> None:
        self._kernel = kernel
        self._dataplane = dataplane
        self._server = server
        self._metadata = metadata
        self._locks: dict[str, asyncio.Lock] = {}
        self._coming: dict[str, asyncio.Task[None]] = {}  # by network: the next look, which has not begun
        self._making: set[asyncio.Task[None]] = set()
        self._rested: dict[str, float] = {}  # by network: when (monotonic) the next look may begin
        self._known: dict[str, wanted.Known] = {}  # by network: the ports as they were read last
        self._present: set[str] = set()  # networks that were made in this life of the program
        self._listening: dict[str, Any] = {}

    async def start(self) -> None:
        """Have everything made again, and what is not ours to have removed."""
        await self._dataplane.start()
        self._kernel.operations.register(NET, self._run_network, attempts=ATTEMPTS, on_failure=_network_failed)
        self._kernel.operations.register(ROUTER, self._run_router, attempts=ATTEMPTS, on_failure=_router_failed)
        seen = await self._dataplane.observe()

        def everything(tx: Connection) -> None:
            networks, routers = _stored(tx)
            self._queue(tx, ROUTER, seen.routers - routers.keys())
            self._queue(tx, NET, networks.keys() | seen.networks)
            self._queue(tx, ROUTER, routers)

        await self._kernel.db.run(everything)

    async def compare(self) -> None:
        """Mend what differs from the database though nobody changed it there: what was ended or removed on the host by
        other hands, and what could not be made when it was tried. What is as it should be costs a look."""
        seen = await self._dataplane.observe()

        def differences(tx: Connection) -> tuple[set[str], set[str]]:
            networks, routers = _stored(tx)
            bad = {key for key, status in [*networks.items(), *routers.items()] if status == "ERROR"}
            self._queue(tx, ROUTER, seen.routers - routers.keys())
            self._queue(tx, NET, (networks.keys() ^ seen.networks) | (networks.keys() & bad))
            self._queue(tx, ROUTER, (routers.keys() - seen.routers) | (routers.keys() & bad))
            return networks.keys() & seen.networks - bad, routers.keys() & seen.routers - bad

        networks, routers = await self._kernel.db.run(differences)
        for make, kind, ids in ((self.make_network, NET, networks), (self.make_router, ROUTER, routers)):
            for one in sorted(ids):
                try:
                    await make(one)
                except DataplaneError as error:
                    log.warning("%s of %s: %s; it is tried again", kind, one, error)
                    await self._kernel.db.run(self._queue, kind, [one])

    async def stop(self) -> None:
        """Let go of the metadata sockets; the networks stay as they are."""
        for task in self._making:
            task.cancel()
        await asyncio.gather(*self._making, return_exceptions=True)
        for network_id in list(self._listening):
            await self._hush(network_id)
        await self._dataplane.stop()

    # ---- what is to be done ---------------------------------------------------------------------------------------------

    def touch(self, tx: Connection, networks: Iterable[str], groups: Collection[str] | None = ()) -> None:
        """These networks look different now, and so do those whose rules refer to members of these groups."""
        ids = set(networks)
        if groups:
            ids.update(tx.execute(_referring, {"groups": list(groups)}).scalars())
        self._queue(tx, NET, ids)

    def touch_groups(self, tx: Connection, groups: Collection[str]) -> None:
        """The rules of these groups are other ones now."""
        if groups:
            self._queue(tx, NET, set(tx.execute(_of_groups, {"groups": list(groups)}).scalars()))

    def touch_routers(self, tx: Connection, routers: Iterable[str | None]) -> None:
        self._queue(tx, ROUTER, {r for r in routers if r})

    def touch_routers_of(self, tx: Connection, network_id: str) -> None:
        """Every router with a leg on this network looks different now."""
        self._queue(tx, ROUTER, set(tx.execute(_routers_of, {"network": network_id}).scalars()))

    def _queue(self, tx: Connection, kind: str, ids: Collection[str]) -> None:
        if not ids:
            return
        names = {PREFIX[kind] + one: one for one in sorted(ids)}
        queued = set(tx.execute(_waiting, {"ids": list(names)}).scalars())
        for name, one in names.items():
            if name not in queued:
                self._kernel.operations.add(tx, kind, name, {"id": one})

    # ---- doing it -------------------------------------------------------------------------------------------------------

    async def realise(self, network_ids: Sequence[str]) -> None:
        """Return once these networks are on the host as they are stored. DataplaneError where they cannot be."""
        for network_id in network_ids:
            await self.make_network(network_id)

    async def _run_network(self, operation: Operation) -> None:
        await self.make_network(operation.args["id"])

    async def _run_router(self, operation: Operation) -> Finish | None:
        return await self.make_router(operation.args["id"])

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def make_network(self, network_id: str) -> None:
        """Make the network on the host what is stored of it now, or is by the time it is looked at."""
        task = self._coming.get(network_id)
        if task is None:
            task = self._coming[network_id] = asyncio.get_running_loop().create_task(self._make_network(network_id))
            self._making.add(task)
            task.add_done_callback(self._making.discard)
        await asyncio.shield(task)  # who is cancelled leaves it to the others

    async def _make_network(self, network_id: str) -> None:
        async with self._lock(network_id):
            await asyncio.sleep(max(0.0, self._rested.pop(network_id, 0.0) - time.monotonic()))
            del self._coming[network_id]  # from here on, what changes may be missed: the next one is for the next look
            found = await self._look(network_id)
            if found is None:
                await self._hush(network_id)
                await self._dataplane.remove_network(network_id)
                self._known.pop(network_id, None)
                self._present.discard(network_id)
                return
            self._known[network_id] = found.known
            await self._dataplane.ensure_network(found.spec)
            self._present.add(network_id)
            if any(subnet.dhcp_address for subnet in found.spec.subnets):
                await self._listen(network_id)
            else:
                await self._hush(network_id)
        if found.internal_ports or found.failed:
            await self._kernel.db.run(_made, found)

    async def _look(self, network_id: str) -> wanted.Wanted | None:
        """Read what is wanted. Where that is much to read, the next look waits: it will serve more who want it."""
        started = time.monotonic()
        found = await self._kernel.db.read(wanted.network, network_id, self._known.get(network_id, {}))
        ended = time.monotonic()
        if ended - started > LONG_LOOK:
            self._rested[network_id] = ended + min(3 * (ended - started), LONGEST_REST)
        return found

    async def make_router(self, router_id: str) -> Finish | None:
        """Make the router on the host what is stored of it, and before it the networks of its legs."""
        async with self._lock(router_id):
            spec = await self._kernel.db.read(wanted.router, router_id)
            if spec is None:
                await self._dataplane.remove_router(router_id)
                return None
            legs = [*spec.interfaces, *([spec.gateway] if spec.gateway else [])]
            await self.realise([leg.network_id for leg in legs if leg.network_id not in self._present])
            await self._dataplane.ensure_router(spec)
        return partial(_router_made, spec)

    # ---- metadata -------------------------------------------------------------------------------------------------------

    async def _listen(self, network_id: str) -> None:
        if network_id in self._listening or isinstance(self._dataplane, SimulatedDataplane):
            return
        sock = await self._dataplane.metadata_socket(network_id)
        self._listening[network_id] = await self._server.listen(partial(self._metadata, network_id), sock)

    async def _hush(self, network_id: str) -> None:
        runner = self._listening.pop(network_id, None)
        if runner is not None:
            await self._server.close(runner)


def _stored(tx: Connection) -> tuple[dict[str, str], dict[str, str]]:
    """The networks that anything is on, and the routers: id -> status."""
    used = NETWORKS.c.id.in_(select(PORTS.c.network_id).distinct()) | NETWORKS.c.external
    networks = tx.execute(select(NETWORKS.c.id, NETWORKS.c.status).where(used))
    routers = tx.execute(select(ROUTERS.c.id, ROUTERS.c.status))
    return {row.id: row.status for row in networks}, {row.id: row.status for row in routers}


def _made(tx: Connection, found: wanted.Wanted) -> None:
    waiting = (PORTS.c.id.in_(found.internal_ports), PORTS.c.status == "DOWN")
    tx.execute(PORTS.update().where(*waiting).values(status="ACTIVE"))
    if found.failed:
        tx.execute(NETWORKS.update().where(NETWORKS.c.id == found.spec.id).values(status="ACTIVE"))


def _router_made(spec: Router, tx: Connection) -> None:
    tx.execute(ROUTERS.update().where(ROUTERS.c.id == spec.id, ROUTERS.c.status == "ERROR").values(status="ACTIVE"))
    if not spec.floating_ips:
        return
    down = (
        FLOATING.c.id.in_([f.id for f in spec.floating_ips]),
        FLOATING.c.status != "ACTIVE",
        FLOATING.c.port_id.is_not(None),
    )
    tx.execute(FLOATING.update().where(*down).values(status="ACTIVE", updated_at=now()))


def _network_failed(tx: Connection, operation: Operation, error: BaseException) -> None:
    log.error("network %s could not be made: %s", operation.args["id"], error)
    tx.execute(NETWORKS.update().where(NETWORKS.c.id == operation.args["id"]).values(status="ERROR"))


def _router_failed(tx: Connection, operation: Operation, error: BaseException) -> None:
    log.error("router %s could not be made: %s", operation.args["id"], error)
    behind = FLOATING.c.router_id == operation.args["id"]
    tx.execute(FLOATING.update().where(behind).values(status="ERROR"))
    tx.execute(ROUTERS.update().where(ROUTERS.c.id == operation.args["id"]).values(status="ERROR"))
