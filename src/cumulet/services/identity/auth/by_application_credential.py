"""Method `application_credential`: one of a user's application credentials, by id or by its name and the user, and its
secret. The token is for the project of the credential, and for nothing else."""

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.core import db
from cumulet.core.context import AccessRule as Allowed
from cumulet.core.errors import Invalid, Unauthorized
from cumulet.services.identity.application_credential import ApplicationCredential, role_ids, rules_of
from cumulet.services.identity.assignments import named, role_ids_on
from cumulet.services.identity.auth.method import Proof, decoded
from cumulet.services.identity.auth.scope import DomainRef, domain_named
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.claims import APPLICATION_CREDENTIAL, Claims
from cumulet.services.identity.fields import Password, has_ended, microseconds_of
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.session import Lent
from cumulet.services.identity.user import User


class Owner(Struct):
    id: str | None = None
    name: str | None = None
    domain: DomainRef | None = None


class ApplicationCredentialMethod(Struct):
    secret: Password
    id: str | None = None
    name: str | None = None
    user: Owner | None = None


async def prove_application_credential(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """Verify the secret. It takes as long where there is no such credential; a user named beside its id says nothing."""
    login = decoded(payload, ApplicationCredentialMethod, APPLICATION_CREDENTIAL)
    at = microseconds()
    if login.id is None and (login.name is None or not _tells(login.user)):
        raise Invalid(
            "Expecting to find id, or name and user, in application_credential. The server could not comply with the request."
        )
    row = await ctx.service.kernel.db.read_inline(_login_row, login)
    right = await ctx.service.passwords.verify(row.secret_hash if row is not None else None, login.secret)
    if row is None or not right or has_ended(row.expires_at):
        raise Unauthorized()
    return Proof(
        user_id=row.user_id,
        methods=(APPLICATION_CREDENTIAL,),
        issued_at=at,
        via=APPLICATION_CREDENTIAL,
        via_id=row.id,
        scope=("project", row.project_id),
    )


def _tells(user: Owner | None) -> bool:
    return user is not None and (user.id is not None or (user.name is not None and user.domain is not None))


def _login_row(tx: Connection, login: ApplicationCredentialMethod) -> Any:
    c, u = ApplicationCredential.table.c, User.table.c
    statement = select(c.id, c.user_id, c.project_id, c.secret_hash, c.expires_at)
    if login.id is not None:
        return tx.execute(statement.where(c.id == login.id)).first()
    assert login.user is not None
    statement = statement.where(c.name == login.name)
    if login.user.id is not None:
        return tx.execute(statement.where(c.user_id == login.user.id)).first()
    assert login.user.domain is not None
    domain_id = domain_named(tx, login.user.domain)
    owner = select(u.id).where(u.name == login.user.name, u.domain_id == domain_id)
    return tx.execute(statement.where(c.user_id.in_(owner))).first() if domain_id else None


def lend_by_application_credential(tx: Connection, claims: Claims) -> Lent:
    """See `session.Lender`. Of its roles it gives those that its user still has."""
    credential = db.first(tx, ApplicationCredential, ApplicationCredential.table.c.id == claims.via_id)
    if credential is None:
        raise Unauthorized()
    if (claims.user_id, claims.scope, claims.scope_id) != (credential.user_id, "project", credential.project_id):
        raise Unauthorized()
    held = role_ids_on(tx, claims.user_id, claims.scope, claims.scope_id)
    rules = rules_of(tx, [credential.id]).get(credential.id, [])
    shown: dict[str, Any] = {
        "id": credential.id,
        "name": credential.name,
        "restricted": not credential.unrestricted,
    }
    if rules:
        shown["access_rules"] = [{"id": r.id, "service": r.service, "path": r.path, "method": r.method} for r in rules]
    return Lent(
        roles=tuple(named(tx, held & set(role_ids(tx, credential.id)))),
        shown={APPLICATION_CREDENTIAL: shown},
        restricted=not credential.unrestricted,
        access_rules=tuple(Allowed(r.service, r.method, r.path) for r in rules) or None,
        expires_at=None if credential.expires_at is None else microseconds_of(credential.expires_at),
    )
