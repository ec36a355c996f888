"""Finding servers, checking what may be done to them now, and beginning to do it."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection

from cumulet.core import db
from cumulet.core.errors import Conflict
from cumulet.core.operations import Operation, Operations
from cumulet.core.types import now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.instance_action import finished, record
from cumulet.services.compute.server.resource import POWER, Fault, Server, ServerPort

ALIVE: ColumnElement[bool] = Server.table.c.deleted_at.is_(None)
_PROJECT = Server.table.c.project_id
UNLOCK_OVERRIDE = "os_compute_api:os-lock-server:unlock:unlock_override"


def reach(ctx: Ctx) -> tuple[ColumnElement[bool], ...]:
    """The servers that the caller may act on: those of his project, or all for an admin; deleted ones never."""
    return (ALIVE,) if ctx.caller.is_admin else (ALIVE, ctx.caller.project_id == _PROJECT)


def get_server(tx: Connection, ctx: Ctx, id: str) -> Server:
    """A server within the caller's reach; NotFound else."""
    return db.get(tx, Server, id, *reach(ctx))


def ports_of(tx: Connection, server_id: str) -> list[ServerPort]:
    """The server's network cards, in order."""
    columns = ServerPort.table.c
    return db.find(tx, ServerPort, columns.server_id == server_id, order=(columns.position, columns.port_id))


def check_lock(ctx: Ctx, server: Server) -> None:
    """Refuse to change a locked server, but to admins."""
    if server.locked and not ctx.caller.is_admin:
        raise Conflict(f"Instance {server.id} is locked")


def check_state(
    server: Server, verb: str, vm_states: Iterable[str], task_states: Iterable[str | None] = (None,)
) -> None:
    """Refuse what cannot be done in the server's present state, in upstream's words."""
    states = frozenset(vm_states)
    if states and server.vm_state not in states:
        raise Conflict(f"Cannot '{verb}' instance {server.id} while it is in vm_state {server.vm_state}")
    if server.task_state not in frozenset(task_states):
        raise Conflict(f"Cannot '{verb}' instance {server.id} while it is in task_state {server.task_state}")


def begin(
    tx: Connection,
    ctx: Ctx,
    server: Server,
    kind: str,
    action: str,
    *,
    args: dict[str, Any] | None = None,
    supersede: bool = False,
    **changes: Any,
) -> None:
    """Write the server's new state, note the action, and queue the operation that carries it out."""
    db.update(tx, Server, server.id, updated_at=now(), **changes)
    record(tx, server.id, action, ctx.request_id, ctx.caller.user_id, server.project_id)
    queue(tx, ctx.service.kernel.operations, server, kind, ctx.request_id, args=args, supersede=supersede)


def queue(
    tx: Connection,
    operations: Operations,
    server: Server,
    kind: str,
    request_id: str = "",
    *,
    args: dict[str, Any] | None = None,
    supersede: bool = False,
) -> None:
    """Queue an operation on a server."""
    operations.add(
        tx, kind, server.id, args, project_id=server.project_id, user_id=server.user_id, request_id=request_id,
        supersede=supersede,
    )  # fmt: skip


def settle(tx: Connection, operation: Operation, *, power: str | None = None, **changes: Any) -> None:
    """Bring the server of an operation that has ended to its new state, and note the end of the action."""
    if power is not None:
        changes["power_state"] = POWER[power]
    db.update(tx, Server, operation.resource_id, updated_at=now(), task_state=None, **changes)
    finished(tx, operation, changes.get("host"))


def fault_of(error: BaseException) -> Fault:
    """What a server in ERROR says of the cause."""
    return Fault(
        code=500, created=f"{now()[:19]}Z", message=str(error)[:255] or type(error).__name__, details=repr(error)
    )


def break_down(tx: Connection, operation: Operation, error: BaseException) -> None:
    """Bring the server of an operation that has failed for good to ERROR, with the cause."""
    changes = {"vm_state": "error", "task_state": None, "fault": fault_of(error), "updated_at": now()}
    db.update(tx, Server, operation.resource_id, **changes)
    finished(tx, operation, None, str(error))


def give_up(tx: Connection, operation: Operation, error: BaseException) -> None:
    """Leave the server as it was before an operation that has failed for good."""
    db.update(tx, Server, operation.resource_id, task_state=None, updated_at=now())
    finished(tx, operation, None, str(error))
