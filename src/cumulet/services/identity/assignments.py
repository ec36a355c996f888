"""Which roles a user has where: rules without a resource, called inside units of work."""

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import Connection, and_, bindparam, or_, select

from cumulet.services.identity.project import Project, of_user
from cumulet.services.identity.role import Role
from cumulet.services.identity.tables import assignment, implied_role

a = assignment.c


class RoleRef(Struct, frozen=True):
    id: str
    name: str


_held = select(a.role_id).where(
    or_(
        of_user(bindparam("user_id")),
        and_(a.actor_type == "group", a.actor_id.in_(bindparam("groups", expanding=True))),
    ),
    or_(
        and_(a.target_type == bindparam("target_type"), a.target_id == bindparam("target_id"), ~a.inherited),
        and_(a.target_id.in_(bindparam("above", expanding=True)), a.inherited),
    ),
)
_implications = select(implied_role.c.prior_role_id, implied_role.c.implied_role_id)


def roles_on(
    tx: Connection, user_id: str, target_type: str, target_id: str, groups: Sequence[str] = ()
) -> list[RoleRef]:
    """Every role that a user has on a project, a domain or the system: his own, his groups', inherited, implied.

    `groups` are further groups that he is in for now. A domain's own roles count for what they imply only, as upstream has
    it.
    """
    held = role_ids_on(tx, user_id, target_type, target_id, groups)
    return named(tx, held) if held else []


def role_ids_on(tx: Connection, user_id: str, target_type: str, target_id: str, groups: Sequence[str] = ()) -> set[str]:
    """The ids of the same roles, and those of the domains' own."""
    above = ancestors(tx, target_id) if target_type == "project" else []
    where = {"user_id": user_id, "target_type": target_type, "target_id": target_id, "above": above, "groups": groups}
    held = set(tx.execute(_held, where).scalars())
    return imply(tx, held) if held else held


def imply(tx: Connection, held: set[str]) -> set[str]:
    """The roles and all that they imply, however far."""
    implications: dict[str, set[str]] = {}
    for prior, implied in tx.execute(_implications):
        implications.setdefault(prior, set()).add(implied)
    found, new = set(held), set(held)
    while new:
        new = set().union(*(implications.get(role, set()) for role in new)) - found
        found |= new
    return found


def named(tx: Connection, ids: set[str]) -> list[RoleRef]:
    """Those of the roles that are the cloud's own, with their names."""
    c = Role.table.c
    return [
        RoleRef(*row)
        for row in tx.execute(select(c.id, c.name).where(c.id.in_(ids), c.domain_id == "").order_by(c.name))
    ]


def ancestors(tx: Connection, project_id: str) -> list[str]:
    """The ids of what is above a project, its domain last."""
    c = Project.table.c
    parent = select(c.parent_id).where(c.id == bindparam("id"))
    found: list[str] = []
    above = tx.execute(parent, {"id": project_id}).scalar()
    while above:
        found.append(above)
        above = tx.execute(parent, {"id": above}).scalar()
    return found
