"""A user's own password: POST /v3/users/{id}/password."""

from typing import Any

from msgspec import Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.fields import Password
from cumulet.services.identity.login import check_password
from cumulet.services.identity.password_rule import check_age, check_form, last_hashes, password_columns, remember
from cumulet.services.identity.user import User, refuse_foreign

RULES: dict[str, str] = {}
"""None: whoever knows the password may change it."""


class NewPassword(Struct, forbid_unknown_fields=True):
    original_password: str
    password: Password


class PasswordChange(Struct):
    user: NewPassword


async def change_password(ctx: Ctx, id: str, body: PasswordChange) -> Response:
    """Change a user's password, by who knows the one he has. An expired one will do. His tokens are void."""
    service, new = ctx.service, body.user.password
    settings, database = service.kernel.settings, service.kernel.db
    user: Any = await database.read_inline(db.first, User, User.table.c.id == id)
    await _check_original(ctx, user, body.user.original_password)
    check_form(settings, new)
    check_age(settings, user)
    user = await database.read_inline(db.get, User, id)  # the login may have renewed the hash
    if await service.passwords.is_one_of(await database.read_inline(last_hashes, settings, user), new):
        raise Invalid(
            "The new password cannot be identical to a previous password: the last"
            f" {settings.unique_last_password_count} must be different."
        )
    columns = password_columns(settings, user.option_values, await service.passwords.hash(new), own=True)

    def store(tx: Connection) -> None:
        c = User.table.c
        if not db.update_where(tx, User, (c.id == id, c.password_hash == user.password_hash), **columns):
            raise Conflict("The password was changed by another request at the same time.")
        remember(tx, settings, user)
        service.revocations.add(tx, "user", id)
        db.note(tx, "user", "updated", id)

    await service.write(store)
    return Response(204)


async def _check_original(ctx: Ctx, user: Any, password: str) -> None:
    """Unauthorized unless this is the user's password; Forbidden where it is, but lives in a directory."""
    foreign = user is not None and user.local_id is not None
    directory = await ctx.service.directories.of(user.domain_id) if foreign else None
    if directory is not None:
        await directory.login(password, id=user.local_id)
        refuse_foreign(user)
    await check_password(ctx.service, user, password, expired_too=True)


endpoints = [
    Endpoint("POST", "/v3/users/{id}/password", change_password, body=PasswordChange, status=204, auth=False),
]
