"""Starting, stopping, restarting and pausing: the actions, and the operations behind them.

POST /servers/{id}/action: os-start, os-stop, reboot, pause, unpause
"""

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER
from cumulet.core.errors import Conflict
from cumulet.core.operations import Finish, Operation
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.resource import Server
from cumulet.services.compute.server.state import begin, check_lock, check_state, get_server, settle

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

RULES = {
    f"os_compute_api:{name}": ADMIN_OR_OWNER_MEMBER
    for name in ("servers:start", "servers:stop", "servers:reboot", "os-pause-server:pause", "os-pause-server:unpause")
}

REBOOTABLE = frozenset({"active", "stopped", "paused", "error"})
HARD_TASKS = frozenset({None, "rebooting", "rebooting_hard", "reboot_started", "pausing", "unpausing"})


class Reboot(Struct, forbid_unknown_fields=True):
    type: Literal["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]


async def _power(
    ctx: Ctx, id: str, verb: str, vm_states: tuple[str, ...], task: str, kind: str, action: str
) -> Response:
    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        check_lock(ctx, server)
        check_launched(server, verb)
        check_state(server, verb, vm_states)
        begin(tx, ctx, server, kind, action, task_state=task)

    await ctx.service.kernel.db.run(unit)
    return Response(202)


def check_launched(server: Server, verb: str) -> None:
    """Refuse what a server that never ran cannot do."""
    if server.launched_at is None and server.vm_state != "building":
        raise Conflict(f"Cannot '{verb}' instance {server.id} which has never been active")


async def start_server(ctx: Ctx, id: str, body: Any) -> Response:
    """Start a server that is shut off."""
    return await _power(ctx, id, "start", ("stopped",), "powering-on", "server.start", "start")


async def stop_server(ctx: Ctx, id: str, body: Any) -> Response:
    """Shut a server off."""
    return await _power(ctx, id, "stop", ("active", "error"), "powering-off", "server.stop", "stop")


async def pause_server(ctx: Ctx, id: str, body: Any) -> Response:
    """Halt a server's processors."""
    return await _power(ctx, id, "pause", ("active",), "pausing", "server.pause", "pause")


async def unpause_server(ctx: Ctx, id: str, body: Any) -> Response:
    """Let a paused server go on."""
    return await _power(ctx, id, "unpause", ("paused",), "unpausing", "server.unpause", "unpause")


async def reboot_server(ctx: Ctx, id: str, body: Reboot) -> Response:
    """Restart a server: SOFT asks the guest, HARD starts the machine anew."""
    hard = body.type.upper() == "HARD"

    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        check_lock(ctx, server)
        check_launched(server, "reboot")
        check_state(server, "reboot", REBOOTABLE if hard else ("active",), HARD_TASKS if hard else (None, "rebooting"))
        task = "rebooting_hard" if hard else "rebooting"
        begin(tx, ctx, server, "server.reboot", "reboot", args={"hard": hard}, task_state=task)

    await ctx.service.kernel.db.run(unit)
    return Response(202)


class Power:
    """Carries out the power operations."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def start(self, operation: Operation) -> Finish:
        spec = await self.compute.builder.current_spec(operation.resource_id)
        await self.compute.hypervisor.ensure_server(spec)
        await self._ports(spec.nics, "ACTIVE")
        return lambda tx: settle(tx, operation, power="running", vm_state="active", fault=None)

    async def stop(self, operation: Operation) -> Finish:
        await self.compute.hypervisor.ensure_stopped(operation.resource_id)
        return lambda tx: settle(tx, operation, power="shutdown", vm_state="stopped", fault=None)

    async def reboot(self, operation: Operation) -> Finish:
        spec = await self.compute.builder.current_spec(operation.resource_id)
        await self.compute.hypervisor.reboot(spec, hard=bool(operation.args.get("hard")))
        await self._ports(spec.nics, "ACTIVE")
        return lambda tx: settle(tx, operation, power="running", vm_state="active", fault=None)

    async def pause(self, operation: Operation) -> Finish:
        await self.compute.hypervisor.pause(operation.resource_id)
        return lambda tx: settle(tx, operation, power="paused", vm_state="paused")

    async def unpause(self, operation: Operation) -> Finish:
        await self.compute.hypervisor.unpause(operation.resource_id)
        return lambda tx: settle(tx, operation, power="running", vm_state="active")

    async def _ports(self, nics: tuple[Any, ...], status: str) -> None:
        if nics:
            await self.compute.network.set_port_status([nic.port_id for nic in nics], status)


ACTION = "/v2.1/servers/{id}/action"
endpoints = [
    Endpoint("POST", ACTION, start_server, "os_compute_api:servers:start", Any, action="os-start"),
    Endpoint("POST", ACTION, stop_server, "os_compute_api:servers:stop", Any, action="os-stop"),
    Endpoint("POST", ACTION, reboot_server, "os_compute_api:servers:reboot", Reboot, action="reboot"),
    Endpoint("POST", ACTION, pause_server, "os_compute_api:os-pause-server:pause", Any, action="pause"),
    Endpoint("POST", ACTION, unpause_server, "os_compute_api:os-pause-server:unpause", Any, action="unpause"),
]
