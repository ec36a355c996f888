"""Method `password`: a user, by id or by name and domain, and his password."""

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, bindparam, select

from cumulet.core.errors import Invalid
from cumulet.services.identity.auth.method import Proof, decoded
from cumulet.services.identity.auth.scope import DomainRef, domain_named
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.login import check_password
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.user import User


class UserLogin(Struct):
    password: str
    id: str | None = None
    name: str | None = None
    domain: DomainRef | None = None


class PasswordMethod(Struct):
    user: UserLogin


async def prove_password(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """Verify the password, in the database or by the directory of the user's domain. It takes as long where there is no such
    user."""
    login = decoded(payload, PasswordMethod, "password").user
    # The time is taken first: a change of the password while this one is verified voids the token as well.
    at = microseconds()
    if login.id is None and (login.name is None or login.domain is None):
        raise Invalid(
            "Expecting to find id, or name and domain, in user. The server could not comply with the request."
        )
    service = ctx.service
    user, domain_id = await service.kernel.db.read_inline(_meant, login)
    foreign = user is None or user.local_id is not None
    directory = await service.directories.of(domain_id) if foreign or login.id is None else None
    if directory is None:
        await check_password(service, user, login.password)
        return Proof(user_id=user.id, methods=("password",), issued_at=at)
    who = {"name": login.name or ""} if login.id is None else {"id": user.local_id}
    return Proof(user_id=await directory.login(login.password, **who), methods=("password",), issued_at=at)


def user_named(tx: Connection, login: Any) -> Any:
    """The user that a login names by his id, or by his name and domain; None where there is none."""
    return _meant(tx, login)[0]


_c = User.table.c
_by_id = select(User.table).where(_c.id == bindparam("id"))
_by_name = select(User.table).where(_c.name == bindparam("name"), _c.domain_id == bindparam("domain_id"))


def _meant(tx: Connection, login: Any) -> tuple[Any, str | None]:
    """The row of the user that a login names, and the domain to look for him in."""
    if login.id is not None:
        user = tx.execute(_by_id, {"id": login.id}).first()
        return user, None if user is None else user.domain_id
    domain_id = login.domain.id if login.domain.id is not None else domain_named(tx, login.domain) or ""
    return tx.execute(_by_name, {"name": login.name, "domain_id": domain_id}).first(), domain_id
