"""What was done to a server, when and by whom.

GET /servers/{id}/os-instance-actions · GET .../{request_id}
"""

from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_READER
from cumulet.api.query import Listing
from cumulet.api.resource import SORT, Resource, hidden, read
from cumulet.core import db
from cumulet.core.db.store import load
from cumulet.core.errors import Invalid, NotFound
from cumulet.core.operations import Operation
from cumulet.core.types import Id, Str255, Time, new_id, now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.resource import Server

LIST = "os_compute_api:os-instance-actions:list"
SHOW = "os_compute_api:os-instance-actions:show"
EVENTS = "os_compute_api:os-instance-actions:events"
DETAILS = "os_compute_api:os-instance-actions:events:details"
RULES = {LIST: ADMIN_OR_OWNER_READER, SHOW: ADMIN_OR_OWNER_READER, EVENTS: ADMIN, DETAILS: ADMIN}


class Event(Struct):
    """One step of an action."""

    event: str
    start_time: str
    finish_time: str | None = None
    result: str | None = None
    traceback: str | None = None
    host: str | None = None


class InstanceAction(Resource, table="compute_instance_action", key="instanceAction", plural="instanceActions"):
    """One thing that was done to a server."""

    id: Id = hidden("A key of its own.")
    action: Str255 = read("What was done.")
    server_id: Id = read("The server.", wire="instance_uuid", index=True)
    request_id: Str255 = read("The request that asked for it.")
    user_id: Str255 = read("Who asked.")
    project_id: Str255 = read("For which project.")
    start_time: Time = read("When it began.", use=SORT)
    message: Str255 | None = read("`Error` if it failed.", None)
    updated_at: Time = read("When it last changed.", since=(2, 58))
    events: list[Event] = hidden("Its steps.", [])


def record(tx: Connection, server_id: str, action: str, request_id: str, user_id: str, project_id: str) -> None:
    """Note the begin of an action, in the transaction that begins it."""
    moment = now()
    db.insert(
        tx,
        InstanceAction.new(
            id=new_id(), action=action, server_id=server_id, request_id=request_id, user_id=user_id,
            project_id=project_id, start_time=moment, updated_at=moment,
        ),
    )  # fmt: skip


def finished(tx: Connection, operation: Operation, host: str | None, error: str | None = None) -> None:
    """Note the end of what an operation did."""
    where = (
        InstanceAction.table.c.server_id == operation.resource_id,
        InstanceAction.table.c.request_id == operation.request_id,
    )
    action = db.first(tx, InstanceAction, *where)
    if action is None:
        return
    moment = now()
    step = Event(
        f"compute_{operation.kind.replace('.', '_')}", operation.created_at, moment, "Error" if error else "Success",
        error, host,
    )  # fmt: skip
    changes: dict[str, Any] = {"message": "Error"} if error else {}
    db.update_where(tx, InstanceAction, where, events=[*action.events, step], updated_at=moment, **changes)


def _server(tx: Connection, ctx: Ctx, id: str) -> None:
    """Refuse servers out of the caller's reach; since 2.21 deleted ones are shown too."""
    columns = Server.table.c
    where = [columns.id == id]
    if not ctx.caller.is_admin:
        where.append(columns.project_id == ctx.caller.project_id)
    if ctx.version < (2, 21):
        where.append(columns.deleted_at.is_(None))
    if tx.execute(select(columns.id).where(*where)).first() is None:
        raise NotFound(message=f"Instance {id} could not be found.")


async def list_actions(ctx: Ctx, id: str) -> Any:
    """List what was done to a server, the newest first."""
    await ctx.service.kernel.db.read_inline(_server, ctx, id)
    columns = InstanceAction.table.c
    extra = [columns.server_id == id]
    if ctx.version >= (2, 58) and (since := ctx.request.query.get("changes-since")):
        extra.append(columns.updated_at >= plain_time(since))
    if ctx.version >= (2, 66) and (before := ctx.request.query.get("changes-before")):
        extra.append(columns.updated_at <= plain_time(before))
    listing = Listing(sort=(("start_time", "desc"),), ignore=frozenset({"changes-since", "changes-before"}))
    page: dict[str, Any] = await list_page(ctx, InstanceAction, lambda c: (), listing=listing, extra=extra)
    if "instanceActions_links" in page:
        page["links"] = page.pop("instanceActions_links")
    return page


async def show_action(ctx: Ctx, id: str, request_id: str) -> Any:
    """Show one thing that was done to a server, with its steps for those who may see them."""

    def look(tx: Connection) -> InstanceAction:
        _server(tx, ctx, id)
        columns = InstanceAction.table.c
        row = tx.execute(
            select(InstanceAction.table).where(columns.server_id == id, columns.request_id == request_id)
        ).first()
        if row is None:
            raise NotFound(message=f"Action for request_id {request_id} on instance {id} not found")
        return load(InstanceAction, row)

    action = await ctx.service.kernel.db.read_inline(look)
    shown: dict[str, Any] = {
        f.wire: getattr(action, f.name) if f.convert is None else f.convert(getattr(action, f.name))
        for f in InstanceAction.at("show", ctx.version)
    }
    full = ctx.allows(EVENTS)
    if full or ctx.version >= (2, 51):
        shown["events"] = [_step(ctx, step, action.project_id, full) for step in action.events]
    return {"instanceAction": shown}


def _step(ctx: Ctx, step: Event, project_id: str, full: bool) -> dict[str, Any]:
    finish = step.finish_time[:19] + "Z" if step.finish_time else None
    shown: dict[str, Any] = {
        "event": step.event,
        "start_time": step.start_time[:19] + "Z",
        "finish_time": finish,
        "result": step.result,
    }
    if full:
        shown["traceback"] = step.traceback
    if ctx.version >= (2, 62):
        from hashlib import sha224

        shown["hostId"] = sha224(f"{project_id}{step.host}".encode()).hexdigest() if step.host else ""
        if full:
            shown["host"] = step.host
    if ctx.version >= (2, 84) and ctx.allows(DETAILS):
        shown["details"] = step.traceback
    return shown


def plain_time(text: str) -> str:
    """A moment given by a client (ISO 8601) as a stored `Time`."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise Invalid(f"Invalid input for a time: '{text}' is not a 'date-time'") from None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds")


endpoints = [
    Endpoint("GET", "/v2.1/servers/{id}/os-instance-actions", list_actions, LIST, resource=InstanceAction),
    Endpoint("GET", "/v2.1/servers/{id}/os-instance-actions/{request_id}", show_action, SHOW, resource=InstanceAction),
]
