"""Method `password`: a user, by id or by name and domain, and his password."""

from functools import cache
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Select, bindparam, select

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


_c = User.table.c
_row = select(_c.id, _c.password_hash, _c.enabled)
_by_id = _row.where(_c.id == bindparam("id"))


@cache
def _by_name(domain_by_id: bool) -> Select[Any]:
    return _row.where(_c.name == bindparam("name"), in_domain(_c.domain_id, domain_by_id))


def _login_row(tx: Connection, login: UserLogin) -> Any:
    if login.id is not None:
        return tx.execute(_by_id, {"id": login.id}).first()
    assert login.domain is not None
    by_id, domain = login.domain.named
    return tx.execute(_by_name(by_id), {"name": login.name, "domain": domain}).first()
