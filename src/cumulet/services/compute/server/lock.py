"""Locking servers against changes by their owners, and setting a server's state by hand.

POST /servers/{id}/action: lock, unlock, os-resetState
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MEMBER
from cumulet.core import db
from cumulet.core.errors import Forbidden, Invalid
from cumulet.core.types import now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.instance_action import record
from cumulet.services.compute.server.resource import Server
from cumulet.services.compute.server.state import get_server

LOCK, UNLOCK = "os_compute_api:os-lock-server:lock", "os_compute_api:os-lock-server:unlock"
OVERRIDE = "os_compute_api:os-lock-server:unlock:unlock_override"
RESET = "os_compute_api:os-admin-actions:reset_state"
RULES = {LOCK: ADMIN_OR_OWNER_MEMBER, UNLOCK: ADMIN_OR_OWNER_MEMBER, OVERRIDE: ADMIN, RESET: ADMIN}


class Lock(Struct, forbid_unknown_fields=True):
    locked_reason: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class Reset(Struct, forbid_unknown_fields=True):
    state: Literal["active", "error"]


async def lock_server(ctx: Ctx, id: str, body: Any) -> Response:
    """Lock a server: only admins may change it then."""
    reason = None
    if ctx.version >= (2, 73) and body is not None:
        reason = _reason(body)

    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        by = "owner" if server.project_id == ctx.caller.project_id and not ctx.caller.is_admin else "admin"
        db.update(tx, Server, id, locked=True, locked_by=by, locked_reason=reason, updated_at=now())
        record(tx, id, "lock", ctx.request_id, ctx.caller.user_id, server.project_id)

    await ctx.service.kernel.db.run(unit)
    return Response(202)


def _reason(body: Any) -> str | None:
    import msgspec

    try:
        return msgspec.convert(body, Lock).locked_reason
    except msgspec.ValidationError as error:
        raise Invalid(f"Invalid input: {error}") from None


async def unlock_server(ctx: Ctx, id: str, body: Any) -> Response:
    """Unlock a server; what an admin locked only admins unlock."""

    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        if server.locked_by == "admin" and not ctx.allows(OVERRIDE):
            raise Forbidden(rule=OVERRIDE)
        db.update(tx, Server, id, locked=False, locked_by=None, locked_reason=None, updated_at=now())
        record(tx, id, "unlock", ctx.request_id, ctx.caller.user_id, server.project_id)

    await ctx.service.kernel.db.run(unit)
    return Response(202)


async def reset_state(ctx: Ctx, id: str, body: Reset) -> Response:
    """Set a server's state by hand; what is being done to it is let go on."""

    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        db.update(tx, Server, id, vm_state=body.state, task_state=None, updated_at=now())
        record(tx, id, "reset_state", ctx.request_id, ctx.caller.user_id, server.project_id)

    await ctx.service.kernel.db.run(unit)
    return Response(202)


ACTION = "/v2.1/servers/{id}/action"
endpoints = [
    Endpoint("POST", ACTION, lock_server, LOCK, Any, action="lock"),
    Endpoint("POST", ACTION, unlock_server, UNLOCK, Any, action="unlock"),
    Endpoint("POST", ACTION, reset_state, RESET, Reset, action="os-resetState"),
]
