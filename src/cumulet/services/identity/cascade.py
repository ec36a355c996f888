"""What goes when something goes: roles held, memberships, credentials. Called inside units of work.

The resources refer to one another in circles, so their tables are taken by name here.
"""

from sqlalchemy import Connection, delete, or_, update

from cumulet.core.db import metadata
from cumulet.services.identity.tables import (
    SYSTEM,
    assignment,
    failed_login,
    implied_role,
    membership,
    password_history,
    used_passcode,
)

a = assignment.c


def forget_user(tx: Connection, id: str) -> None:
    _forget_actor(tx, id)
    for table in (membership, password_history, failed_login, used_passcode):
        tx.execute(delete(table).where(table.c.user_id == id))
    credential = metadata.tables["identity_credential"]
    tx.execute(delete(credential).where(credential.c.user_id == id))


def forget_group(tx: Connection, id: str) -> None:
    _forget_actor(tx, id)
    tx.execute(delete(membership).where(membership.c.group_id == id))


def forget_role(tx: Connection, id: str) -> None:
    tx.execute(delete(assignment).where(a.role_id == id))
    tx.execute(
        delete(implied_role).where(or_(implied_role.c.prior_role_id == id, implied_role.c.implied_role_id == id))
    )


def forget_project(tx: Connection, id: str) -> None:
    """The same for a project or a domain."""
    tx.execute(delete(assignment).where(a.target_id == id, a.target_id != SYSTEM))
    credential, user = metadata.tables["identity_credential"], metadata.tables["identity_user"]
    tx.execute(delete(credential).where(credential.c.project_id == id))
    tx.execute(update(user).where(user.c.default_project_id == id).values(default_project_id=None))


def _forget_actor(tx: Connection, id: str) -> None:
    tx.execute(delete(assignment).where(a.actor_id == id))
