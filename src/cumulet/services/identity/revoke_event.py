"""What was revoked, for services that check tokens themselves: GET /v3/OS-REVOKE/events."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from cumulet.api.http import Endpoint
from cumulet.core.errors import Invalid
from cumulet.services.identity.auth.issue import told_time
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.rules import undomained
from cumulet.services.identity.tables import revocation

RULES = {"identity:list_revoke_events": undomained("rule:service_or_admin")}


async def list_revoke_events(ctx: Ctx) -> Any:
    """List what voids tokens: one of them, or all that were issued until then to a user, or for a project or domain."""
    since = _moment(ctx.request.query.get("since"))
    c = revocation.c

    def look(tx: Connection) -> list[Row[Any]]:
        statement = select(c.kind, c.subject, c.revoked_at).where(c.revoked_at > since).order_by(c.revoked_at)
        return list(tx.execute(statement))

    events = [_shown(row.kind, row.subject, row.revoked_at) for row in await ctx.service.kernel.db.read(look)]
    return {"events": events, "links": {"self": ctx.request.url, "previous": None, "next": None}}


def _shown(kind: str, subject: str, revoked_at: int) -> dict[str, str]:
    name = "audit_id" if kind == "token" else f"{kind}_id"
    at = told_time(revoked_at)
    return {name: subject, "issued_before": at, "revoked_at": at}


def _moment(text: str | None) -> int:
    """A moment that the query names, in microseconds since 1970; 0 where it names none."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return int(moment.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise Invalid(f"invalidate date format {text[:64]}; one is written like 2026-01-31T09:15:00Z") from None


endpoints = [Endpoint("GET", "/v3/OS-REVOKE/events", list_revoke_events, "identity:list_revoke_events")]
