"""Revoked tokens: events in the database, and the same in memory, where every token is checked against them.

An event is about one token (by its audit id), or all tokens of a user, of an identity provider's users, or for a project or
domain, that were issued until then.
"""

import time
from functools import partial

from sqlalchemy import Connection, delete, select

from cumulet.core.db import after_commit
from cumulet.services.identity.claims import Claims
from cumulet.services.identity.tables import revocation

_events = select(revocation.c.kind, revocation.c.subject, revocation.c.revoked_at)


def microseconds() -> int:
    return time.time_ns() // 1000


class Revocations:
    """Every event that can still matter, by (kind, subject)."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, str], int] = {}

    def load(self, tx: Connection) -> None:
        self._events = {(kind, subject): at for kind, subject, at in tx.execute(_events)}

    def add(self, tx: Connection, kind: str, subject: str) -> None:
        """Void what was issued until now; in force everywhere once the unit of work is committed."""
        at = microseconds()
        tx.execute(delete(revocation).where(revocation.c.kind == kind, revocation.c.subject == subject))
        tx.execute(revocation.insert().values(kind=kind, subject=subject, revoked_at=at))
        after_commit(tx, partial(self._events.__setitem__, (kind, subject), at))

    def prune(self, tx: Connection, lifetime: float) -> None:
        """Forget the events that are older than any valid token."""
        until = microseconds() - int(lifetime * 1_000_000)
        tx.execute(delete(revocation).where(revocation.c.revoked_at < until))
        after_commit(tx, partial(self._forget, until))

    def _forget(self, until: int) -> None:
        self._events = {key: at for key, at in self._events.items() if at >= until}

    def voids(self, claims: Claims) -> bool:
        """Whether a token was revoked: itself, its user, where he comes from, or what it is for."""
        return (
            ("token", claims.audit_ids[0]) in self._events
            or (claims.federation is not None and self.until("idp", claims.federation.idp_id) >= claims.issued_at)
            or self.until("user", claims.user_id) >= claims.issued_at
            or (claims.scope != "" and self.until(claims.scope, claims.scope_id) >= claims.issued_at)
        )

    def until(self, kind: str, subject: str) -> int:
        """Until when the tokens of this subject are void (0: none is)."""
        return self._events.get((kind, subject), 0)
