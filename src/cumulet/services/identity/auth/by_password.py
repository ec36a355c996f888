"""Method `password`: a user, by id or by name and domain, and his password."""

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.core.errors import Invalid, Unauthorized
from cumulet.services.identity.auth.method import Proof, decoded
from cumulet.services.identity.auth.scope import DomainRef, in_domain
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.fields import Password
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.user import User


class UserLogin(Struct):
    password: Password
    id: str | None = None
    name: str | None = None
    domain: DomainRef | None = None


class PasswordMethod(Struct):
    user: UserLogin


async def prove_password(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """Verify the password. It takes as long where there is no such user."""
    login = decoded(payload, PasswordMethod, "password").user
    # The time is taken first: a change of the password while this one is verified voids the token as well.
    at = microseconds()
    if login.id is None and (login.name is None or login.domain is None):
        raise Invalid(
            "Expecting to find id, or name and domain, in user. The server could not comply with the request."
        )
    row = await ctx.service.kernel.db.read_inline(_login_row, login)
    right = await ctx.service.passwords.verify(row.password_hash if row is not None else None, login.password)
    if row is None or not right or not row.enabled:
        raise Unauthorized()
    return Proof(user_id=row.id, methods=("password",), issued_at=at)


def _login_row(tx: Connection, login: UserLogin) -> Any:
    c = User.table.c
    statement = select(c.id, c.password_hash, c.enabled)
    if login.id is not None:
        return tx.execute(statement.where(c.id == login.id)).first()
    assert login.domain is not None
    return tx.execute(statement.where(c.name == login.name, in_domain(c.domain_id, login.domain))).first()
