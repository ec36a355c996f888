"""DELETE /servers/{id}, the actions forceDelete and (for failed builds) `server.abandon`, and their operations."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER
from cumulet.core import db
from cumulet.core.operations import Finish, Operation
from cumulet.core.types import now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.addresses import forget_addresses
from cumulet.services.compute.server.build import load_server
from cumulet.services.compute.server.instance_action import finished
from cumulet.services.compute.server.password import forget_password
from cumulet.services.compute.server.resize import keeper_of
from cumulet.services.compute.server.resource import Server, ServerPort
from cumulet.services.compute.server.state import begin, check_lock, get_server

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

DELETE = "os_compute_api:servers:delete"
FORCE = "os_compute_api:os-deferred-delete:force"
RULES = {DELETE: ADMIN_OR_OWNER_MEMBER, FORCE: ADMIN_OR_OWNER_MEMBER}


async def delete_server(ctx: Ctx, id: str) -> Response:
    """Delete a server, whatever is being done to it."""

    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        check_lock(ctx, server)
        if server.task_state != "deleting":
            begin(tx, ctx, server, "server.delete", "delete", supersede=True, task_state="deleting")

    await ctx.service.kernel.db.run(unit)
    return Response(204)


async def force_delete(ctx: Ctx, id: str, body: Any) -> Response:
    """Delete a server at once."""
    await delete_server(ctx, id)
    return Response(202)


class Remover:
    """Removes servers from the host and gives back what they had."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def _clear(self, server: Server, ports: list[ServerPort]) -> None:
        compute = self.compute
        await compute.snapshots.drop(server)
        await compute.hypervisor.remove_server(server.id)
        for port in ports:
            await self.release_port(port.port_id, server.id, own=port.own)
        await compute.placement.release(keeper_of(server.id))
        await compute.placement.release(server.id)

    async def release_port(self, port_id: str, server_id: str, *, own: bool) -> None:
        """Take a port from a server: one that was made for it goes, another goes back to whom it belongs."""
        if own:
            await self.compute.network.delete_port(port_id)
        else:
            await self.compute.network.unbind(port_id, server_id)

    async def delete(self, operation: Operation) -> Finish:
        """Leave nothing of the server but its row, which is kept for lists of changes."""
        server, ports = await self.compute.kernel.db.read(load_server, operation.resource_id)
        await self._clear(server, ports)

        def finish(tx: Connection) -> None:
            moment = now()
            db.update(
                tx, Server, server.id, vm_state="deleted", task_state=None, power_state=0, terminated_at=moment,
                deleted_at=moment, updated_at=moment, locked=False,
            )  # fmt: skip
            forget_addresses(tx, server.id)
            forget_password(tx, server.id)
            db.remove_where(tx, ServerPort, ServerPort.table.c.server_id == server.id)
            finished(tx, operation, server.host)

        return finish

    async def abandon(self, operation: Operation) -> Finish:
        """Give back what a failed build took; the row stays, in ERROR."""
        server, ports = await self.compute.kernel.db.read(load_server, operation.resource_id)
        await self._clear(server, ports)

        def finish(tx: Connection) -> None:
            forget_addresses(tx, server.id)
            db.remove_where(tx, ServerPort, ServerPort.table.c.server_id == server.id)
            db.update(tx, Server, server.id, host=None, node=None, power_state=0, addresses={})

        return finish


endpoints = [
    Endpoint("DELETE", "/v2.1/servers/{id}", delete_server, DELETE, status=204, resource=Server),
    Endpoint("POST", "/v2.1/servers/{id}/action", force_delete, FORCE, Any, action="forceDelete"),
]
