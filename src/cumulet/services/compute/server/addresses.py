"""The addresses that are kept with a server: brought up to date when it is built, and by networking's events.

Events may be lost; `refresh_all` at the start and from time to time finds what they would have told.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from cumulet.core import db
from cumulet.core.operations import Operations
from cumulet.core.types import now
from cumulet.services.compute.server.resource import Address, GroupName, Server, ServerAddress, ServerPort
from cumulet.services.compute.server.state import queue
from cumulet.services.network.interface import PortInfo

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

BATCH = 200


def addresses_of(infos: Sequence[PortInfo]) -> dict[str, list[Address]]:
    """Fixed and floating addresses of ports, by network name."""
    found: dict[str, list[Address]] = {}
    for info in infos:
        listed = found.setdefault(info.network_name, [])
        for fixed in info.fixed_ips:
            listed.append(Address(fixed.version, fixed.ip_address, "fixed", info.mac_address))
            listed += [Address(4, floating, "floating", info.mac_address) for floating in fixed.floating_ips]
    return found


def group_names(infos: Sequence[PortInfo]) -> list[GroupName]:
    return list(dict.fromkeys(GroupName(name) for info in infos for name in info.security_group_names))


def cache_addresses(tx: Connection, server_id: str, infos: Sequence[PortInfo]) -> None:
    """Keep the addresses and group names of a server's ports with its row, and index the fixed ones."""
    table, columns = Server.table, Server.table.c
    row = tx.execute(select(columns.addresses, columns.groups).where(columns.id == server_id)).first()
    if row is None:
        return
    addresses, names = addresses_of(infos), group_names(infos)
    if row.addresses != addresses or row.groups != names:
        moved = table.update().where(columns.id == server_id)
        tx.execute(moved.values(addresses=addresses, groups=names, updated_at=now()))
    wanted = {(info.network_id, fixed.ip_address) for info in infos for fixed in info.fixed_ips}
    mine = ServerAddress.table.c
    there = {(a.network_id, a.address) for a in db.find(tx, ServerAddress, mine.server_id == server_id)}
    for network_id, address in there - wanted:
        db.remove_where(tx, ServerAddress, mine.network_id == network_id, mine.address == address)
    for network_id, address in sorted(wanted - there):
        db.remove_where(tx, ServerAddress, mine.network_id == network_id, mine.address == address)
        db.insert(tx, ServerAddress(network_id=network_id, address=address, server_id=server_id))


def forget_addresses(tx: Connection, server_id: str) -> None:
    db.remove_where(tx, ServerAddress, ServerAddress.table.c.server_id == server_id)


class AddressBook:
    """Keeps servers' addresses true to networking's."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def hear(self, event: str, payload: Any) -> None:
        """An event of networking."""
        if event == "port.addresses":
            await self.refresh(payload["device_ids"])
        elif event == "port.deleted":
            operations = self.compute.kernel.operations
            await self.compute.kernel.db.run(_drop_port, operations, payload["device_id"], payload["port_id"])
            await self.refresh([payload["device_id"]])

    async def refresh(self, server_ids: Sequence[str]) -> None:
        """Read the ports of these servers again."""
        known = await self.compute.kernel.db.read(_live, list(server_ids))
        if not known:
            return
        found = await self.compute.network.ports_of(known)
        await self.compute.kernel.db.run(_store, {key: found.get(key, []) for key in known})

    async def refresh_all(self) -> None:
        """Read the ports of every server again."""
        every = await self.compute.kernel.db.read(_all_live)
        for start in range(0, len(every), BATCH):
            await self.refresh(every[start : start + BATCH])


def _settled() -> tuple[Any, ...]:
    """Servers that have been built; while one is being built its operation looks after its addresses."""
    columns = Server.table.c
    return columns.deleted_at.is_(None), columns.launched_at.is_not(None)


def _live(tx: Connection, ids: list[str]) -> list[str]:
    return list(tx.execute(select(Server.table.c.id).where(Server.table.c.id.in_(ids), *_settled())).scalars())


def _all_live(tx: Connection) -> list[str]:
    return list(tx.execute(select(Server.table.c.id).where(*_settled())).scalars())


def _store(tx: Connection, found: dict[str, list[PortInfo]]) -> None:
    columns = ServerPort.table.c
    for server_id, infos in found.items():
        ports = tx.execute(select(columns.port_id, columns.position).where(columns.server_id == server_id))
        order = {row.port_id: row.position for row in ports}
        cache_addresses(tx, server_id, sorted(infos, key=lambda info: order.get(info.id, len(order))))


def _drop_port(tx: Connection, operations: Operations, server_id: str, port_id: str) -> None:
    """A port is gone: so is its card, if the server is not going itself."""
    columns = ServerPort.table.c
    port = db.first(tx, ServerPort, columns.server_id == server_id, columns.port_id == port_id)
    if port is None:
        return
    server = db.get(tx, Server, server_id)
    if server.vm_state in ("active", "paused", "stopped", "resized") and server.task_state != "deleting":
        queue_detach(tx, operations, port)
    db.remove_where(tx, ServerPort, columns.port_id == port_id)


def queue_detach(tx: Connection, operations: Operations, port: ServerPort) -> None:
    """Have a card taken from its server, whom nobody has asked for it."""
    server = db.get(tx, Server, port.server_id)
    queue(tx, operations, server, "server.detach_port", args={"port_id": port.port_id, "own": port.own})
