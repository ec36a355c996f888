"""Tokens by the leave of a trust (scope `OS-TRUST:trust`): for the trustee, or in the trustor's name."""

from functools import partial
from typing import Any

from sqlalchemy import Connection, select

from cumulet.core import db
from cumulet.core.errors import Forbidden, Invalid, NotFound, Unauthorized
from cumulet.services.identity.assignments import imply, named, role_ids_on
from cumulet.services.identity.auth.place import Place
from cumulet.services.identity.claims import TRUST, Claims
from cumulet.services.identity.fields import has_ended, microseconds_of
from cumulet.services.identity.project import Project
from cumulet.services.identity.session import Lent
from cumulet.services.identity.trust import Trust, pedigree, role_ids, usable
from cumulet.services.identity.user import User

NOTHING_GIVEN = "Trustee has no delegated roles."

_domain = Project.table.alias("domain")
_active = (
    select(User.table.c.id)
    .join_from(User.table, _domain, _domain.c.id == User.table.c.domain_id)
    .where(User.table.c.enabled, _domain.c.enabled)
)


def trusted_place(tx: Connection, user_id: str, asked: dict[str, Any]) -> Place:
    """What a token by a trust is for: Unauthorized where the trust has ended, Forbidden where it is not the user's or gives
    nothing now."""
    id = asked.get("id")
    if not isinstance(id, str):
        raise Invalid("Expecting to find id in OS-TRUST:trust. The server could not comply with the request.")
    try:
        trust = usable(tx, id)
    except NotFound:
        raise Unauthorized() from None
    if trust.trustee_user_id != user_id:
        raise Forbidden("User is not a trustee.")
    if trust.project_id is None:
        raise Forbidden(NOTHING_GIVEN)
    _check_agents(tx, pedigree(tx, trust))
    return Place(
        "project",
        trust.project_id,
        via=TRUST,
        via_id=trust.id,
        user_id=trust.trustor_user_id if trust.impersonation else "",
        spend=None if trust.remaining_uses is None else partial(_spend, id=trust.id),
    )


def _spend(tx: Connection, id: str) -> None:
    """Take one of the uses that are left."""
    c = Trust.table.c
    if not db.update_where(tx, Trust, (c.id == id, c.remaining_uses > 0), remaining_uses=c.remaining_uses - 1):
        raise Forbidden(f"No remaining uses for trust: {id}.")


def lend_by_trust(tx: Connection, claims: Claims) -> Lent:
    """See `session.Lender`. The token is for whom and for where the trust says; all that it gives must still be the trustor's,
    and the first trustor's of its chain."""
    trust = db.first(tx, Trust, Trust.table.c.id == claims.via_id)
    if trust is None or trust.project_id is None or has_ended(trust.expires_at):
        raise Unauthorized()
    trustor, trustee = trust.trustor_user_id, trust.trustee_user_id
    if (claims.user_id, claims.scope_id) != (trustor if trust.impersonation else trustee, trust.project_id):
        raise Unauthorized()
    chain = pedigree(tx, trust)
    _check_agents(tx, chain)
    given = imply(tx, set(role_ids(tx, trust.id)))
    for trustor_id in {trustor, chain[-1].trustor_user_id}:
        if not given <= role_ids_on(tx, trustor_id, "project", trust.project_id):
            raise Forbidden(NOTHING_GIVEN)
    shown = {
        "id": trust.id,
        "impersonation": trust.impersonation,
        "trustor_user": {"id": trustor},
        "trustee_user": {"id": trustee},
    }
    return Lent(
        roles=tuple(named(tx, given)),
        shown={"OS-TRUST:trust": shown},
        trustor_id=trustor,
        trustee_id=trustee,
        expires_at=None if trust.expires_at is None else microseconds_of(trust.expires_at),
    )


def _check_agents(tx: Connection, chain: list[Trust]) -> None:
    """Forbidden unless all who are in the chain, and their domains, are enabled."""
    trust = chain[0]
    agents = {*(t.trustor_user_id for t in chain), *(t.trustee_user_id for t in chain)}
    active = set(tx.execute(_active.where(User.table.c.id.in_(agents))).scalars())
    if trust.trustor_user_id not in active:
        raise Forbidden("Trustor is disabled.")
    if not agents <= active:
        raise Forbidden("One of the trust agents is disabled or deleted")
