"""Comparing what the host runs with what the database says: at the start, and from time to time.

A server that stopped by itself is SHUTOFF, one that runs though it shall not is stopped, and what nobody knows is removed.
Servers are not started again after the host was: they show SHUTOFF, as upstream's default has it.
"""

import logging
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.core import db
from cumulet.core.types import now
from cumulet.services.compute.drivers import Power, ServerState
from cumulet.services.compute.server.resource import POWER, Server
from cumulet.services.compute.server.state import ALIVE, queue

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

log = logging.getLogger("cumulet.compute")

EVERY = 60.0
"""Seconds between two comparisons."""
C = Server.table.c


class Seen(Struct, frozen=True):
    """A row as it was before the host was asked."""

    id: str
    vm_state: str
    task_state: str | None
    power_state: int
    updated_at: str


class Reconciler:
    """Mends differences between the host and the database."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def compare(self) -> None:
        """One comparison. Rows are read on both sides of the look at the host, so that what changes meanwhile is let be."""
        database = self.compute.kernel.db
        before = await database.read(_rows)
        observed = await self.compute.hypervisor.observe()
        after = await database.read(_rows)
        for server_id in observed.keys() - before.keys() - after.keys():
            log.warning("server %s is on the host and not in the database: it is removed", server_id)
            await self.compute.hypervisor.remove_server(server_id)
        stale = [row for key, row in before.items() if after.get(key) == row and _differs(row, observed.get(key))]
        for row in stale:
            await database.run(self._mend, row, observed.get(row.id))

    async def hear(self, server_id: str, power: Power) -> None:
        """The hypervisor tells that a server's power changed without being asked to."""
        row = (await self.compute.kernel.db.read(_rows, server_id)).get(server_id)
        if row is not None:
            await self.compute.kernel.db.run(self._mend, row, ServerState(server_id, power))

    def _mend(self, tx: Connection, row: Seen, state: ServerState | None) -> None:
        power: Power = state.power if state else "shutdown"
        changes: dict[str, Any] = {"power_state": POWER[power]}
        if row.vm_state in ("active", "paused") and power in ("shutdown", "crashed"):
            log.info("server %s has stopped by itself", row.id)
            changes["vm_state"] = "stopped"
        where = (C.id == row.id, C.updated_at == row.updated_at, C.task_state.is_(None))
        if not db.update_where(tx, Server, where, **changes, updated_at=now()):
            return
        if row.vm_state == "stopped" and power == "running":
            log.info("server %s runs though it was shut off: it is stopped", row.id)
            db.update(tx, Server, row.id, task_state="powering-off")
            queue(tx, self.compute.kernel.operations, db.get(tx, Server, row.id), "server.stop")


def _differs(row: Seen, state: ServerState | None) -> bool:
    if row.task_state is not None or row.vm_state == "building":
        return False
    power = state.power if state else "shutdown"
    if row.vm_state == "error" and state is None:
        return False
    if row.vm_state == "stopped" and power in ("shutdown", "crashed"):
        return False
    return POWER[power] != row.power_state or (row.vm_state == "active" and power in ("shutdown", "crashed"))


def _rows(tx: Connection, id: str | None = None) -> dict[str, Seen]:
    query = select(C.id, C.vm_state, C.task_state, C.power_state, C.updated_at).where(ALIVE)
    if id is not None:
        query = query.where(C.id == id, C.task_state.is_(None), C.vm_state != "building")
    return {row.id: Seen(*row) for row in tx.execute(query)}
