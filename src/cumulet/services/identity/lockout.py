"""Who may not log in for now: lockout after wrong secrets, inactivity. What is counted is in the database."""

import time
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from cumulet.config import Settings
from cumulet.core.db import Database
from cumulet.services.identity.tables import failed_login
from cumulet.services.identity.user_option import has

NOBODY = ""
"""Under which failures are counted that lock nobody out: those of unknown users, and of users who are locked already."""
f = failed_login.c


async def counted(db: Database, settings: Settings, user: Any, right: bool) -> bool:
    """The outcome of an attempt to log in once it is counted: False as well where the user is locked out.

    The unit of work decides, so that of many attempts at once no more get through than of as many in turn; and whoever is
    meant, it writes one row for an attempt that failed.
    """
    if not settings.lockout_failure_attempts:
        return right
    known = user is not None and not has(user.option_values, "ignore_lockout_failure_attempts")
    arguments = (user.id if known else NOBODY, right, settings.lockout_failure_attempts, settings.lockout_duration)
    try:
        return await db.run(_count, *arguments)
    except IntegrityError:  # another attempt made the row in the meantime
        return await db.run(_count, *arguments)


def _count(tx: Connection, user_id: str, right: bool, limit: int, duration: int) -> bool:
    at = time.time_ns() // 1000
    row = tx.execute(select(f.failures, f.failed_at).where(f.user_id == user_id).with_for_update()).first()
    full = row is not None and user_id != NOBODY and row.failures >= limit
    locked = row is not None and full and (not duration or at < row.failed_at + duration * 1_000_000)
    if right and not locked:
        if row is not None and user_id != NOBODY:
            tx.execute(delete(failed_login).where(f.user_id == user_id))
        return True
    subject = NOBODY if locked else user_id
    failures = 1 if full and not locked else f.failures + 1
    if not tx.execute(
        update(failed_login).where(f.user_id == subject).values(failures=failures, failed_at=at)
    ).rowcount:
        tx.execute(insert(failed_login).values(user_id=subject, failures=1, failed_at=at))
    return False


def unlock(tx: Connection, user_id: str) -> None:
    """Forget the user's failures, as an administrator does who enables him (again)."""
    tx.execute(delete(failed_login).where(f.user_id == user_id))


def is_enabled(settings: Settings, user: Any) -> bool:
    """Whether the user is enabled, and has not been inactive for too long."""
    days = settings.disable_user_account_days_inactive
    last = user.last_active_at or (user.created_at or "")[:10]
    if not user.enabled or not days or not last or has(user.option_values, "ignore_user_inactivity"):
        return bool(user.enabled)
    return (datetime.now(UTC).date() - date.fromisoformat(last)).days < days


def today() -> str:
    return datetime.now(UTC).date().isoformat()
