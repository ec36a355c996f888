"""What identity tells of itself: `identity.<kind>.<created|updated|deleted>` after each change, `identity.authenticate` after
each login that was tried, as CADF events or, with `notification_format = basic`, changes with their object's ID alone.

Changes are seen where rows are written (`core/db/changes.py`), so a resource need not tell of itself. Who made them is the
context of the request that is being served.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

import msgspec

from cumulet.api.http import Response
from cumulet.core import notify
from cumulet.core.context import Context
from cumulet.core.db.changes import Change
from cumulet.core.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from cumulet.services.identity.runtime import IdentityRuntime

SERVICE = "identity"
KINDS: Mapping[str, tuple[str, str]] = {
    "user": ("user", "data/security/account/user"),
    "group": ("group", "data/security/group"),
    "project": ("project", "data/security/project"),
    "domain": ("domain", "data/security/domain"),
    "role": ("role", "data/security/role"),
    "region": ("region", "data/security/region"),
    "service": ("service", "data/security/service"),
    "endpoint": ("endpoint", "data/security/endpoint"),
    "policy": ("policy", "data/security/policy"),
    "credential": ("credential", "data/security/credential"),
    "trust": ("OS-TRUST:trust", "data/security/trust"),
    "consumer": ("OS-OAUTH1:consumer", "data/security/account"),
    "access_token": ("OS-OAUTH1:access_token", "data/security/credential"),
    "request_token": ("OS-OAUTH1:request_token", "data/security/credential"),
    "application_credential": ("application_credential", "data/security/credential"),
}
"""The kinds that are told of: upstream's name for each, and what it is to CADF."""
ASSIGNMENT = "role_assignment"

Handler = Callable[..., Awaitable[Response]]


async def tell_changes(service: "IdentityRuntime", changes: Iterable[Change], ctx: Context[Any] | None) -> None:
    """Publish what was changed in one unit of work: one notification for each object."""
    observer = await _observer(service)
    for change in _merged(changes):
        name, uri = KINDS.get(change.kind, (ASSIGNMENT, notify.ACCOUNT_USER))
        payload: dict[str, Any]
        if change.kind == ASSIGNMENT:  # upstream has it as an event of CADF alone
            payload = _event(observer, f"{change.operation}.{name}", ctx, uri, None, change.about)
        elif service.kernel.settings.notification_format == "cadf":
            about = {"resource_info": change.id, **change.about}
            payload = _event(observer, f"{change.operation}.{name}", ctx, uri, change.id, about)
        else:
            payload = {"resource_info": change.id, **change.about}
            if ctx is not None:
                payload["request_id"] = ctx.request_id
        await notify.publish(
            service.kernel.bus, _publisher(service), f"{SERVICE}.{name}.{change.operation}", payload, ctx
        )


def audited(handler: Handler) -> Handler:
    """A call that gives tokens, which tells of each time that it refuses one (`auth/issue.py` tells of those it gives)."""

    @wraps(handler)
    async def call(ctx: Context["IdentityRuntime"], **arguments: Any) -> Response:
        try:
            response = await handler(ctx, **arguments)
        except (Unauthorized, Forbidden) as error:
            status = 403 if isinstance(error, Forbidden) else 401
            await _tell_refusal(ctx, status, error.message or type(error).__name__)
            raise
        if response.status in (401, 403):
            await _tell_refusal(ctx, response.status, "more is to be shown" if response.status == 401 else "refused")
        return response

    return call


async def _tell_refusal(ctx: Context["IdentityRuntime"], status: int, why: str) -> None:
    if notify.listened(ctx.service.kernel.bus):
        reason = {"reasonType": why, "reasonCode": str(status)}
        await tell_login(ctx.service, ctx, notify.FAILURE, *await _claimed(ctx), reason=reason)


async def tell_token(ctx: Context["IdentityRuntime"], user_id: str) -> None:
    """Publish that somebody was given a token."""
    if notify.listened(ctx.service.kernel.bus):
        await tell_login(ctx.service, ctx, notify.SUCCESS, user_id)


async def tell_login(
    service: "IdentityRuntime",
    ctx: Context[Any],
    outcome: str,
    user_id: str = "",
    user_name: str = "",
    *,
    reason: Mapping[str, str] | None = None,
) -> None:
    """Publish that somebody has shown who he is, or has failed to."""
    event = notify.cadf_event(
        "authenticate",
        outcome,
        initiator=notify.initiator(ctx, user_id, user_name),
        target=notify.resource(notify.ACCOUNT_USER, user_id),
        observer=await _observer(service),
        reason=reason,
    )
    await notify.publish(service.kernel.bus, _publisher(service), f"{SERVICE}.authenticate", event, ctx)


def _merged(changes: Iterable[Change]) -> list[Change]:
    """One change for each object: what was made and then changed was made, what was removed in the end was removed. A domain
    is stored as a project, and is told of as a domain."""
    found: dict[tuple[str, str], Change] = {}
    for change in changes:
        key = (change.kind, change.id)
        before = found.get(key)
        if before is None or change.operation == "deleted":
            found[key] = change
    domains = {id for kind, id in found if kind == "domain"}
    told = [c for c in found.values() if c.kind in KINDS or c.kind == ASSIGNMENT]
    return [c for c in told if c.kind != "project" or c.id not in domains]


def _event(
    observer: Mapping[str, Any],
    action: str,
    ctx: Context[Any] | None,
    uri: str,
    id: str | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    return notify.cadf_event(
        action,
        notify.SUCCESS,
        initiator=notify.initiator(ctx),
        target=notify.resource(uri, id),
        observer=observer,
        **about,
    )


async def _observer(service: "IdentityRuntime") -> dict[str, Any]:
    """Identity itself, as the catalogue knows it."""
    catalog = await service.catalog()
    id = next((row.service_id for row in catalog.rows if row.service_type == SERVICE), None)
    return notify.resource(notify.SECURITY, id or _publisher(service))


def _publisher(service: "IdentityRuntime") -> str:
    return f"{SERVICE}.{service.kernel.settings.hostname}"


class _User(msgspec.Struct):
    id: str = ""
    name: str = ""


class _Method(msgspec.Struct):
    user: _User = msgspec.field(default_factory=_User)


async def _claimed(ctx: Context[Any]) -> tuple[str, str]:
    """Who somebody said that he was, by id and name, as far as his request tells."""
    try:
        body = msgspec.json.decode(await ctx.request.read(), type=dict[str, dict[str, Any]])
        for method in body["auth"]["identity"].values():
            if isinstance(method, dict) and "user" in method:
                user = msgspec.convert(method, _Method).user
                return user.id, user.name
    except (msgspec.ValidationError, msgspec.DecodeError, KeyError, AttributeError):
        pass
    return "", ""
