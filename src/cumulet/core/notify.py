"""Notifications: what services tell the world of what happened, in the shape of oslo.messaging's.

They are published on the bus, on the topic `notifications`, after the commit of what they tell of; a crash in between loses
them, as it does upstream. Where nobody listens nothing is made: ask `listened` first.

`cadf_event` makes the events of audits. References: oslo.messaging, "Notifier" and "message envelope 2.0"; DMTF DSP0262.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from cumulet.core.bus import Bus
from cumulet.core.context import Context

TOPIC = "notifications"
ENVELOPE = "2.0"

CADF = "http://schemas.dmtf.org/cloud/audit/1.0/event"
ACCOUNT_USER = "service/security/account/user"
SECURITY = "service/security"
SUCCESS, FAILURE = "success", "failure"


def listened(bus: Bus) -> bool:
    """Whether anybody hears notifications."""
    return bus.heard(TOPIC)


async def publish(
    bus: Bus,
    publisher: str,
    event: str,
    payload: Mapping[str, Any],
    ctx: Context[Any] | None = None,
    *,
    priority: str = "INFO",
) -> None:
    """Tell whoever listens of an event. `publisher` is the service and its host, as in `identity.node1`."""
    if listened(bus):
        await bus.publish(TOPIC, event, message(publisher, event, payload, ctx, priority=priority))


def message(
    publisher: str, event: str, payload: Mapping[str, Any], ctx: Context[Any] | None = None, *, priority: str = "INFO"
) -> dict[str, Any]:
    """A notification as oslo.messaging has it on the wire, without its envelope. No token is in it."""
    made: dict[str, Any] = {
        "message_id": str(uuid.uuid4()),
        "publisher_id": publisher,
        "event_type": event,
        "priority": priority,
        "payload": payload,
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "_unique_id": uuid.uuid4().hex,
    }
    if ctx is not None:
        caller = ctx.caller
        made |= {
            "_context_request_id": ctx.request_id,
            "_context_global_request_id": global_request_id(ctx),
            "_context_user_id": caller.user_id or None,
            "_context_project_id": caller.project_id,
            "_context_domain_id": caller.domain_id,
            "_context_roles": sorted(caller.roles),
        }
    return made


def envelope(message: Mapping[str, Any]) -> dict[str, str]:
    """A notification in its envelope, for a transport that leaves the program."""
    return {"oslo.version": ENVELOPE, "oslo.message": msgspec.json.encode(message).decode()}


def unpacked(enveloped: Mapping[str, str]) -> dict[str, Any]:
    """The notification that an envelope holds; ValueError if it is of another version."""
    if enveloped.get("oslo.version") != ENVELOPE:
        raise ValueError(f"a message in an envelope of version {ENVELOPE} is expected")
    return msgspec.json.decode(enveloped["oslo.message"], type=dict[str, Any])


def global_request_id(ctx: Context[Any]) -> str | None:
    """The id that a chain of requests has in common, if the client sent one."""
    found: str | None = ctx.request.headers.get("X-OpenStack-Request-ID") if ctx.request is not None else None
    return found


# ---- CADF ---------------------------------------------------------------------------------------------------------------


def cadf_event(
    action: str,
    outcome: str,
    *,
    initiator: Mapping[str, Any],
    target: Mapping[str, Any],
    observer: Mapping[str, Any],
    reason: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """An event of kind `activity`: who (`initiator`) did what (`action`) to what (`target`), and who saw it (`observer`)."""
    event = {
        "typeURI": CADF,
        "eventType": "activity",
        "id": str(uuid.uuid4()),
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+0000"),
        "action": action,
        "outcome": outcome,
        "initiator": initiator,
        "target": target,
        "observer": observer,
    }
    if reason is not None:
        event["reason"] = reason
    return event | more


def resource(type_uri: str, id: str | None, **more: Any) -> dict[str, Any]:
    """A resource of a CADF event; what is None is left out."""
    return {"typeURI": type_uri, "id": id or str(uuid.uuid4()), **{k: v for k, v in more.items() if v is not None}}


def initiator(ctx: Context[Any] | None, user_id: str = "", user_name: str = "") -> dict[str, Any]:
    """Who made the request: the caller, or the user named, who may not be a caller yet. Without a context: the program."""
    if ctx is None:
        return resource(SECURITY, "cumulet", name="cumulet")
    caller, request = ctx.caller, ctx.request
    id = user_id or caller.user_id
    host = None
    if request is not None:
        host = {"address": request.remote, "agent": request.headers.get("User-Agent") or ""}
    return resource(
        ACCOUNT_USER,
        id or "unknown",
        user_id=id or None,
        username=user_name or caller.user_name or None,
        project_id=caller.project_id,
        domain_id=caller.domain_id,
        host=host,
        request_id=ctx.request_id,
        global_request_id=global_request_id(ctx),
    )
