"""Whether a user may log in with a secret. Every refusal that comes before the secret was right is the same 401 after the same
work, so that nothing can be told from it or from the time it took."""

import time
from typing import TYPE_CHECKING, Any

from cumulet.core import db
from cumulet.core.errors import Unauthorized
from cumulet.services.identity.lockout import counted, is_enabled, today
from cumulet.services.identity.password_rule import is_expired
from cumulet.services.identity.user import User

if TYPE_CHECKING:
    from cumulet.services.identity.runtime import IdentityRuntime


async def check_password(service: "IdentityRuntime", user: Any, password: str, *, expired_too: bool = False) -> None:
    """Unauthorized unless this is the password of the user (a row of `User`, or None), and he may log in with it.

    With `expired_too` a password that has expired will do: who has one may still change it.
    """
    started = time.perf_counter()
    stored = None if user is None else user.password_hash
    right = await service.passwords.verify(stored, password)
    try:
        await admit(service, user, right)
    except Unauthorized:
        await service.passwords.even_out(started)
        raise
    if is_expired(user) and not expired_too:
        raise Unauthorized(f"The password is expired and needs to be changed for user: {user.id}.")
    if service.passwords.is_outdated(user.password_hash):
        await _renew(service, user, password)


async def admit(service: "IdentityRuntime", user: Any, right: bool) -> None:
    """Unauthorized unless the secret was right and its user is neither locked out nor disabled. Wrong ones are counted."""
    right = await counted(service.kernel.db, service.kernel.settings, user, right)
    if user is None or not right:
        raise Unauthorized()
    await welcome(service, user)


async def welcome(service: "IdentityRuntime", user: Any) -> None:
    """Unauthorized where the user, who has shown that he is who, is disabled or was away for too long; else he is here."""
    settings = service.kernel.settings
    if not is_enabled(settings, user):
        raise Unauthorized()
    if settings.disable_user_account_days_inactive and user.last_active_at != today():
        await service.kernel.db.run(db.update, User, user.id, last_active_at=today())


async def _renew(service: "IdentityRuntime", user: Any, password: str) -> None:
    """Replace a hash that was imported, or made with older parameters, by one of the same password."""
    hashed = await service.passwords.hash(password)
    where = (User.table.c.id == user.id, User.table.c.password_hash == user.password_hash)
    await service.kernel.db.run(lambda tx: db.update_where(tx, User, where, password_hash=hashed))
