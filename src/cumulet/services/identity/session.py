"""What a token means now: its user, its scope and the roles he has there. Read anew whenever something may have changed."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, and_, bindparam, select

from cumulet.core.context import AccessRule, Caller
from cumulet.core.errors import Unauthorized
from cumulet.services.identity.assignments import RoleRef, roles_on
from cumulet.services.identity.claims import Claims
from cumulet.services.identity.project import Project
from cumulet.services.identity.revocation import Revocations
from cumulet.services.identity.user import User


class Domain(Struct, frozen=True):
    id: str
    name: str


class UserRef(Struct, frozen=True):
    domain: Domain
    id: str
    name: str
    password_expires_at: str | None


class ProjectRef(Struct, frozen=True):
    domain: Domain
    id: str
    name: str


class Lent(Struct, frozen=True, kw_only=True):
    """What a delegation gives to whoever holds a token by its leave.

    `shown` is what the token's body says of it. With `restricted` the holder may make no delegations himself, with
    `access_rules` those requests only. A trust's token is void with those of its trustor and trustee. `expires_at` is the
    delegation's end, in microseconds since 1970: no token by its leave is valid longer.
    """

    roles: tuple[RoleRef, ...]
    shown: Mapping[str, Any]
    restricted: bool = False
    access_rules: tuple[AccessRule, ...] | None = None
    trustor_id: str | None = None
    trustee_id: str | None = None
    expires_at: int | None = None


Lender = Callable[[Connection, Claims], Lent]
"""Reads a delegation (`claims.via_id`) as it is now; Unauthorized where it is gone or has expired, Forbidden where it is there
and gives nothing any more."""


class Session(Struct, frozen=True, kw_only=True):
    """A valid token, resolved. Exactly one of project, domain and system is set, or none."""

    claims: Claims
    user: UserRef
    project: ProjectRef | None = None
    domain: Domain | None = None
    system: bool = False
    roles: tuple[RoleRef, ...] = ()
    lent: Lent | None = None

    def caller(self, token: str) -> Caller:
        project, lent = self.project, self.lent
        return Caller(
            user_id=self.user.id,
            user_name=self.user.name,
            user_domain_id=self.user.domain.id,
            project_id=project.id if project else None,
            project_name=project.name if project else "",
            project_domain_id=project.domain.id if project else None,
            domain_id=self.domain.id if self.domain else None,
            system=self.system,
            roles=frozenset(role.name.lower() for role in self.roles),
            token=token,
            delegation=self.claims.via,
            delegation_id=self.claims.via_id,
            restricted=lent is not None and lent.restricted,
            trustor_id=lent.trustor_id if lent is not None else None,
            trustee_id=lent.trustee_id if lent is not None else None,
            access_rules=lent.access_rules if lent is not None else None,
        )


_home, _above = Project.table.alias("home"), Project.table.alias("domain")
_u, _p, _h, _a = User.table.c, Project.table.c, _home.c, _above.c
_user = (
    select(_u.id, _u.name, _u.password_expires_at, _h.id.label("domain_id"), _h.name.label("domain_name"))
    .join_from(User.table, _home, _h.id == _u.domain_id)
    .where(_u.id == bindparam("user_id"), _u.enabled, _h.enabled, _h.is_domain)
)
# With what the token is for: one statement finds out that all of them are there and enabled.
_with_domain = _user.add_columns(_p.id.label("scope_id"), _p.name.label("scope_name")).join(
    Project.table, and_(_p.id == bindparam("scope_id"), _p.is_domain, _p.enabled)
)
_with_project = (
    _user.add_columns(_p.id.label("scope_id"), _p.name.label("scope_name"))
    .add_columns(_a.id.label("scope_domain_id"), _a.name.label("scope_domain_name"))
    .join(Project.table, and_(_p.id == bindparam("scope_id"), _p.enabled))
    .join(_above, and_(_a.id == _p.domain_id, _a.enabled, _a.is_domain))
)
_found = {"": _user, "system": _user, "domain": _with_domain, "project": _with_project}


def resolve(tx: Connection, claims: Claims, revocations: Revocations, lenders: Mapping[str, Lender]) -> Session:
    """What the token means; Unauthorized where user or scope is gone or disabled, or he holds no role there any more."""
    row = tx.execute(_found[claims.scope], {"user_id": claims.user_id, "scope_id": claims.scope_id}).first()
    if row is None or revocations.until("domain", row.domain_id) >= claims.issued_at:
        raise Unauthorized()
    user = UserRef(Domain(row.domain_id, row.domain_name), row.id, row.name, row.password_expires_at)
    if not claims.scope:
        return Session(claims=claims, user=user)
    lent = lenders[claims.via](tx, claims) if claims.via else None
    roles = lent.roles if lent is not None else own_roles(tx, claims)
    if not roles or (lent is not None and _voided(lent, claims, revocations)):
        raise Unauthorized()
    if claims.scope == "system":
        return Session(claims=claims, user=user, system=True, roles=roles, lent=lent)
    if claims.scope == "domain":
        return Session(claims=claims, user=user, domain=Domain(row.scope_id, row.scope_name), roles=roles, lent=lent)
    if revocations.until("domain", row.scope_domain_id) >= claims.issued_at:
        raise Unauthorized()
    project = ProjectRef(Domain(row.scope_domain_id, row.scope_domain_name), row.scope_id, row.scope_name)
    return Session(claims=claims, user=user, project=project, roles=roles, lent=lent)


def _voided(lent: Lent, claims: Claims, revocations: Revocations) -> bool:
    """Whether the tokens of one whom the delegation binds were revoked since."""
    return any(
        user_id is not None and revocations.until("user", user_id) >= claims.issued_at
        for user_id in (lent.trustor_id, lent.trustee_id)
    )


def own_roles(tx: Connection, claims: Claims) -> tuple[RoleRef, ...]:
    """The roles that the token's user has himself where the token is for, those of his provider's groups included."""
    groups = claims.federation.group_ids if claims.federation is not None else ()
    return tuple(roles_on(tx, claims.user_id, claims.scope, claims.scope_id, groups))
