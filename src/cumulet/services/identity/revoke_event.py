"""What was revoked: GET /v3/OS-REVOKE/events, for services that check tokens themselves; DELETE /v3/users/{id}/tokens.

The lists of revoked PKI tokens and their certificates, which upstream dropped, say so: GET /v3/auth/tokens/OS-PKI/revoked,
GET /v3/OS-SIMPLE-CERT/ca and /v3/OS-SIMPLE-CERT/certificates.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import Forbidden, Gone, Invalid, NotFound
from cumulet.services.identity.auth.issue import told_time
from cumulet.services.identity.calls import Ctx, target
from cumulet.services.identity.rules import ADMIN, AT_LARGE
from cumulet.services.identity.tables import revocation
from cumulet.services.identity.user import User

RULES = {
    "identity:list_revoke_events": f"rule:service_or_admin and {AT_LARGE}",
    "identity:revoke_user_tokens": f"{ADMIN} or user_id:%(target.user.id)s",
}
SUBJECTS = {"token": "audit_id", "user": "user_id", "project": "project_id", "domain": "domain_id"}


async def list_events(ctx: Ctx) -> Any:
    """List what was revoked, all or after the moment `since`: which tokens, by what they have in common."""
    since = _moment(ctx.request.query.get("since") or "")

    def look(tx: Connection) -> list[Any]:
        c = revocation.c
        return list(tx.execute(select(revocation).where(c.revoked_at > since).order_by(c.revoked_at)))

    events = [
        {
            SUBJECTS[row.kind]: row.subject,
            "issued_before": told_time(row.revoked_at),
            "revoked_at": told_time(row.revoked_at),
        }
        for row in await ctx.service.kernel.db.read(look)
    ]
    return {"events": events, "links": {"self": ctx.request.url, "previous": None, "next": None}}


def _moment(text: str) -> int:
    """Microseconds since 1970 of a time in ISO 8601 (UTC where it names no zone); 0 of nothing."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"Invalid input for since: '{text}' is no time such as 2026-01-31T09:15:00Z.") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)


async def revoke_all(ctx: Ctx, id: str) -> Response:
    """Void all tokens of a user: his own, for who cannot change his password, or anybody's as an admin."""
    user = await ctx.service.kernel.db.read_inline(db.first, User, User.table.c.id == id)
    ctx.require("identity:revoke_user_tokens", target(user))
    if user is None:
        raise NotFound("user", id)
    await ctx.service.write(ctx.service.revocations.add, "user", id)
    return Response(204)


async def list_revoked(ctx: Ctx) -> Any:
    """Refused: tokens are not kept, so there is no list of revoked ones."""
    raise Forbidden(
        "Tokens are not kept, so there is no list of revoked ones; what was revoked is in OS-REVOKE/events."
    )


async def show_certificate(ctx: Ctx) -> Any:
    """Dropped by upstream with the tokens that these certificates signed."""
    raise Gone("There are no PKI tokens any more, and no certificates of theirs.")


endpoints = [
    Endpoint("GET", "/v3/OS-REVOKE/events", list_events, "identity:list_revoke_events"),
    Endpoint("DELETE", "/v3/users/{id}/tokens", revoke_all),
    Endpoint("GET", "/v3/auth/tokens/OS-PKI/revoked", list_revoked, auth=False),
    Endpoint("GET", "/v3/OS-SIMPLE-CERT/ca", show_certificate, auth=False),
    Endpoint("GET", "/v3/OS-SIMPLE-CERT/certificates", show_certificate, auth=False),
]
