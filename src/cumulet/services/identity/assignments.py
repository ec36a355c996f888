"""Which roles a user has where: rules without a resource, called inside units of work."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from msgspec import Struct
from sqlalchemy import CTE, Connection, Row, Select, and_, bindparam, literal, or_, select

from cumulet.services.identity.project import Project, of_user
from cumulet.services.identity.role import Role
from cumulet.services.identity.tables import assignment, implied_role

a = assignment.c


class RoleRef(Struct, frozen=True):
    id: str
    name: str


_implications = select(implied_role.c.prior_role_id, implied_role.c.implied_role_id)


@cache
def _held(deep: bool, grouped: bool) -> CTE:
    """The roles that a user has somewhere, and all that they imply: `deep` where there may be something above, `grouped` with
    groups that are named for him."""
    p = Project.table.c
    who = of_user(bindparam("user_id"))
    if grouped:
        named_groups = a.actor_id.in_(bindparam("groups", expanding=True))
        who = or_(who, and_(a.actor_type == "group", named_groups))
    where = and_(a.target_type == bindparam("target_type"), a.target_id == bindparam("target_id"), ~a.inherited)
    if deep:
        parent = select(p.parent_id.label("id")).where(p.parent_id.is_not(None))
        above = parent.where(p.id == bindparam("target_id")).cte("above", recursive=True)
        above = above.union(parent.where(p.id == above.c.id))
        where = or_(where, and_(a.inherited, a.target_id.in_(select(above.c.id))))
    held = select(a.role_id.label("id")).where(who, where).cte("held", recursive=True)
    return held.union(select(implied_role.c.implied_role_id).where(implied_role.c.prior_role_id == held.c.id))


@cache
def _held_ids(deep: bool, grouped: bool) -> Select[tuple[str]]:
    return select(_held(deep, grouped).c.id)


@cache
def _held_roles(deep: bool, grouped: bool) -> Select[tuple[str, str]]:
    c, held = Role.table.c, _held(deep, grouped)
    return select(c.id, c.name).where(c.id == held.c.id, c.domain_id == "").order_by(c.name)


def roles_on(
    tx: Connection, user_id: str, target_type: str, target_id: str, groups: Sequence[str] = ()
) -> list[RoleRef]:
    """Every role that a user has on a project, a domain or the system: his own, his groups', inherited, implied.

    `groups` are further groups that he is in for now. A domain's own roles count for what they imply only, as upstream has
    it.
    """
    return [RoleRef(row.id, row.name) for row in _asked(tx, _held_roles, user_id, target_type, target_id, groups)]


def role_ids_on(tx: Connection, user_id: str, target_type: str, target_id: str, groups: Sequence[str] = ()) -> set[str]:
    """The ids of the same roles, and those of the domains' own."""
    return {row.id for row in _asked(tx, _held_ids, user_id, target_type, target_id, groups)}


def _asked(
    tx: Connection,
    statement: Callable[[bool, bool], Select[Any]],
    user_id: str,
    target_type: str,
    target_id: str,
    groups: Sequence[str],
) -> Sequence[Row[Any]]:
    where = {"user_id": user_id, "target_type": target_type, "target_id": target_id}
    more = {"groups": groups} if groups else {}
    return tx.execute(statement(target_type == "project", bool(groups)), {**where, **more}).all()


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


def _above() -> Any:
    """SELECT of the ids above a project, nearest first."""
    c, parent = Project.table.c, Project.table.alias("parent")
    tree = select(c.parent_id.label("id"), literal(1).label("level")).where(c.id == bindparam("id")).cte(recursive=True)
    higher = select(parent.c.parent_id, tree.c.level + 1).where(parent.c.id == tree.c.id)
    tree = tree.union_all(higher)
    return select(tree.c.id).where(tree.c.id.is_not(None)).order_by(tree.c.level)


_ancestors = _above()


def ancestors(tx: Connection, project_id: str) -> list[str]:
    """The ids of what is above a project, its domain last."""
    return list(tx.execute(_ancestors, {"id": project_id}).scalars())
