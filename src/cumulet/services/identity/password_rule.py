"""What security compliance asks of a password when it is set: its form, its age, its history, and when it expires.

Settings and their meaning are upstream's (`keystone/conf/security_compliance.py`). An administrator may set any password that
has the right form; who changes his own must wait out the minimum age and may not go back to one of his last.
"""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from cumulet.config import Settings
from cumulet.core.errors import Invalid
from cumulet.core.types import now, timestamp
from cumulet.services.identity.tables import password_history
from cumulet.services.identity.user_option import has

DAY = 24 * 3600 * 1_000_000
h = password_history.c


def check_form(settings: Settings, password: str | None) -> None:
    """Invalid unless the password matches the operator's expression."""
    if settings.password_regex and password is not None and not re.match(settings.password_regex, password):
        wanted = settings.password_regex_description or settings.password_regex
        raise Invalid(f"The password does not match the requirements: {wanted}.")


def password_columns(
    settings: Settings, options: dict[str, Any] | None, hashed: str | None, *, own: bool = False
) -> dict[str, Any]:
    """The columns of a user who gets a password now: from an administrator, or by his `own` choice."""
    at = datetime.now(UTC)
    expires: str | None = None
    if hashed is not None:
        if settings.password_expires_days and not has(options, "ignore_password_expiry"):
            end = at + timedelta(days=settings.password_expires_days)
            expires = timestamp(end.replace(microsecond=0))
        first = settings.change_password_upon_first_use and not own
        if first and not has(options, "ignore_change_password_upon_first_use"):
            expires = timestamp(at)
    return {
        "password_hash": hashed,
        "password_created_at": time.time_ns() // 1000,
        "password_self_service": own,
        "password_expires_at": expires,
    }


def is_expired(user: Any) -> bool:
    """Whether the user must change his password before it is good for anything else."""
    expires = user.password_expires_at
    return expires is not None and expires <= now() and not has(user.option_values, "ignore_password_expiry")


def check_age(settings: Settings, user: Any) -> None:
    """Invalid where the user may not change his own password: at all, or yet."""
    if has(user.option_values, "lock_password"):
        raise Invalid(
            "You cannot change your password, since its option lock_password is set; an administrator can reset it."
        )
    if not user.password_self_service or user.password_created_at is None:
        return
    left = user.password_created_at + settings.minimum_password_age * DAY - time.time_ns() // 1000
    if left > 0:
        raise Invalid(
            f"You cannot change your password at this time due to the minimum password age: a password must be used for"
            f" {settings.minimum_password_age} day(s). Try again in {left // DAY} day(s), or have an administrator reset it."
        )


def last_hashes(tx: Connection, settings: Settings, user: Any) -> list[str]:
    """The hashes that a new password of the user's own choice may not match, the present one first."""
    wanted = settings.unique_last_password_count
    if not wanted:
        return []
    past = select(h.hash).where(h.user_id == user.id).order_by(h.created_at.desc()).limit(wanted)
    present = [] if user.password_hash is None else [user.password_hash]
    return [*present, *tx.execute(past).scalars()][:wanted]


def remember(tx: Connection, settings: Settings, user: Any) -> None:
    """Put the user's present password into his history, as it is about to be replaced; forget what is older than matters."""
    kept = settings.unique_last_password_count - 1  # the new one counts as well
    if kept > 0 and user.password_hash is not None:
        newest = tx.execute(select(h.created_at).where(h.user_id == user.id).order_by(h.created_at.desc()).limit(1))
        at = max(user.password_created_at or 0, (newest.scalar() or 0) + 1)
        tx.execute(insert(password_history).values(user_id=user.id, created_at=at, hash=user.password_hash))
    times = select(h.created_at).where(h.user_id == user.id).order_by(h.created_at.desc()).offset(max(kept, 0))
    old = list(tx.execute(times.limit(1000)).scalars())
    if old:
        tx.execute(delete(password_history).where(h.user_id == user.id, h.created_at <= max(old)))
