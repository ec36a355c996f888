"""What goes when something goes: roles held, memberships, credentials, delegations, limits, associations. Called inside
units of work.

The resources refer to one another in circles, so their tables are taken by name here.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, or_, select, update

from cumulet.core.db import metadata, note
from cumulet.services.identity.federation.tables import federated_user, timed_membership
from cumulet.services.identity.tables import (
    SYSTEM,
    application_credential_role,
    application_credential_rule,
    assignment,
    domain_option,
    endpoint_group_of_project,
    endpoint_of_project,
    failed_login,
    implied_role,
    membership,
    password_history,
    policy_association,
    trust_role,
    used_passcode,
)

a = assignment.c


def forget_user(tx: Connection, id: str) -> None:
    _forget_actor(tx, id)
    for table in (membership, password_history, failed_login, used_passcode, timed_membership, federated_user):
        tx.execute(delete(table).where(table.c.user_id == id))
    credential, access_token = metadata.tables["identity_credential"], metadata.tables["identity_access_token"]
    tx.execute(delete(credential).where(credential.c.user_id == id))
    tx.execute(delete(access_token).where(access_token.c.authorizing_user_id == id))
    trust = _columns("trust")
    remove_trusts(tx, or_(trust.trustor_user_id == id, trust.trustee_user_id == id))
    forget_programs(tx, id)


def forget_programs(tx: Connection, user_id: str) -> None:
    """Remove a user's application credentials and their access rules."""
    remove_application_credentials(tx, _columns("application_credential").user_id == user_id)
    rule = metadata.tables["identity_access_rule"]
    tx.execute(delete(rule).where(rule.c.user_id == user_id))


def forget_group(tx: Connection, id: str) -> None:
    _forget_actor(tx, id)
    tx.execute(delete(membership).where(membership.c.group_id == id))
    tx.execute(delete(timed_membership).where(timed_membership.c.group_id == id))


def forget_role(tx: Connection, id: str) -> None:
    tx.execute(delete(assignment).where(a.role_id == id))
    tx.execute(
        delete(implied_role).where(or_(implied_role.c.prior_role_id == id, implied_role.c.implied_role_id == id))
    )
    given = select(trust_role.c.trust_id).where(trust_role.c.role_id == id)
    remove_trusts(tx, _columns("trust").id.in_(given))
    lent = application_credential_role.c
    given = select(lent.application_credential_id).where(lent.role_id == id)
    remove_application_credentials(tx, _columns("application_credential").id.in_(given))


def forget_project(tx: Connection, id: str) -> None:
    """The same for a project or a domain."""
    tx.execute(delete(assignment).where(a.target_id == id, a.target_id != SYSTEM))
    credential, user = metadata.tables["identity_credential"], metadata.tables["identity_user"]
    tx.execute(delete(credential).where(credential.c.project_id == id))
    access_token = metadata.tables["identity_access_token"]
    tx.execute(delete(access_token).where(access_token.c.project_id == id))
    tx.execute(update(user).where(user.c.default_project_id == id).values(default_project_id=None))
    remove_trusts(tx, _columns("trust").project_id == id)
    remove_application_credentials(tx, _columns("application_credential").project_id == id)
    limit = metadata.tables["identity_limit"]
    tx.execute(delete(limit).where(limit.c.owner_id == id))
    tx.execute(delete(domain_option).where(domain_option.c.domain_id == id))
    for association in (endpoint_of_project, endpoint_group_of_project):
        tx.execute(delete(association).where(association.c.project_id == id))


def forget_endpoints(tx: Connection, *where: ColumnElement[bool]) -> None:
    """Remove endpoints, and what is associated with them."""
    endpoint = metadata.tables["identity_endpoint"]
    gone = select(endpoint.c.id).where(*where)
    for association in (endpoint_of_project, policy_association):
        tx.execute(delete(association).where(association.c.endpoint_id.in_(gone)))
    tx.execute(delete(endpoint).where(*where))


def forget_service(tx: Connection, id: str) -> None:
    tx.execute(delete(policy_association).where(policy_association.c.service_id == id))


def forget_regions(tx: Connection, ids: list[str]) -> None:
    tx.execute(delete(policy_association).where(policy_association.c.region_id.in_(ids)))


def forget_policy(tx: Connection, id: str) -> None:
    tx.execute(delete(policy_association).where(policy_association.c.policy_id == id))


def remove_trusts(tx: Connection, *where: ColumnElement[bool]) -> int:
    """Remove trusts with those made by them, however far; how many were meant themselves. Their tokens are void with that."""
    table = metadata.tables["identity_trust"]
    meant = ids = list(tx.execute(select(table.c.id).where(*where)).scalars())
    while ids:
        tx.execute(delete(trust_role).where(trust_role.c.trust_id.in_(ids)))
        tx.execute(delete(table).where(table.c.id.in_(ids)))
        _note_removed(tx, "trust", ids)
        ids = list(tx.execute(select(table.c.id).where(table.c.redelegated_trust_id.in_(ids))).scalars())
    return len(meant)


def remove_application_credentials(tx: Connection, *where: ColumnElement[bool]) -> int:
    """Remove application credentials; how many there were. Their tokens are void with that."""
    table = metadata.tables["identity_application_credential"]
    ids = list(tx.execute(select(table.c.id).where(*where)).scalars())
    if ids:
        for linked in (application_credential_role, application_credential_rule):
            tx.execute(delete(linked).where(linked.c.application_credential_id.in_(ids)))
        tx.execute(delete(table).where(table.c.id.in_(ids)))
        _note_removed(tx, "application_credential", ids)
    return len(ids)


def _note_removed(tx: Connection, kind: str, ids: list[str]) -> None:
    for id in ids:
        note(tx, kind, "deleted", id)


def _forget_actor(tx: Connection, id: str) -> None:
    tx.execute(delete(assignment).where(a.actor_id == id))


def _columns(kind: str) -> Any:
    return metadata.tables[f"identity_{kind}"].c
