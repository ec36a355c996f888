"""The users here who stand for users elsewhere: made at their first login, put into groups and projects at each."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, and_, delete, insert, select

from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, NotFound, Unauthorized
from cumulet.core.types import new_hex_id, now
from cumulet.services.identity.federation.rules import DomainRef, MappedProject
from cumulet.services.identity.federation.tables import federated_user, timed_membership
from cumulet.services.identity.project import Project, insert_project
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.role import Role
from cumulet.services.identity.tables import assignment
from cumulet.services.identity.user import User, remove_user

MINUTE = 60_000_000
"""Microseconds of one."""
NAME_LENGTH = 255

f, t, u = federated_user.c, timed_membership.c, User.table.c


class Visitor(Struct, frozen=True, kw_only=True):
    """Somebody whom a provider vouches for, as the rules see him. Domains are ids by now."""

    idp_id: str
    protocol_id: str
    unique_id: str
    name: str
    email: str = ""
    domain_id: str
    group_ids: tuple[str, ...] = ()
    projects: tuple[tuple[str, MappedProject], ...] = ()  # with the ids of their domains
    in_step: bool = False  # he keeps no role on any other project
    ttl: int = 0  # for how many minutes he stays in the groups


def domain_of(tx: Connection, ref: DomainRef | None, default: str) -> str:
    """The id of the domain that the rules mean; NotFound where there is none."""
    if ref is None:
        return default
    c = Project.table.c
    where = c.id == ref.id if ref.id else c.name == ref.name
    found: str | None = tx.execute(select(c.id).where(where, c.is_domain)).scalar()
    if found is None:
        raise NotFound("domain", ref.id or ref.name)
    return found


def _known(tx: Connection, visitor: Visitor) -> Any:
    joined = select(u.id, u.name, u.extra, f.made).join_from(federated_user, User.table, f.user_id == u.id)
    where = and_(f.idp_id == visitor.idp_id, f.protocol_id == visitor.protocol_id, f.unique_id == visitor.unique_id)
    return tx.execute(joined.where(where)).first()


def settled(tx: Connection, visitor: Visitor) -> str | None:
    """The id of his user, if a login changes nothing of it."""
    row = _known(tx, visitor)
    if row is None or visitor.projects or visitor.in_step or visitor.ttl or not _up_to_date(row, visitor):
        return None
    return str(row.id) if _groups(tx, row.id, visitor.idp_id) == set(visitor.group_ids) else None


def _up_to_date(row: Any, visitor: Visitor) -> bool:
    if visitor.email and (row.extra or {}).get("email") != visitor.email:
        return False
    return not row.made or row.name in (visitor.name, _longer(visitor))


def shadow(tx: Connection, service: Any, visitor: Visitor) -> tuple[str, int]:
    """Make or bring up to date the user who stands for the visitor; his id, and when that was: what is revoked later is void.

    Unauthorized where his provider was disabled or removed in the meantime.
    """
    _check_origin(tx, visitor)
    row = _known(tx, visitor)
    if row is None:
        user_id = _make(tx, visitor)
    else:
        user_id = row.id
        if not _up_to_date(row, visitor):
            name = _free_name(tx, visitor, user_id) if row.made else row.name
            extra = {**(row.extra or {}), **({"email": visitor.email} if visitor.email else {})}
            db.update(tx, User, user_id, name=name, extra=extra)
    _remember_groups(tx, service, user_id, visitor, new=row is None)
    if visitor.projects or visitor.in_step:
        _give_projects(tx, user_id, visitor)
    return user_id, microseconds()


def _check_origin(tx: Connection, visitor: Visitor) -> None:
    provider = db.metadata.tables["identity_provider"].c
    protocol = db.metadata.tables["identity_federation_protocol"].c
    statement = select(protocol.id).where(
        protocol.id == visitor.protocol_id,
        protocol.idp_id == provider.id,
        provider.id == visitor.idp_id,
        provider.enabled,
    )
    if tx.execute(statement).first() is None:
        raise Unauthorized()


def _make(tx: Connection, visitor: Visitor) -> str:
    extra = {"email": visitor.email} if visitor.email else {}
    user: User = User.new(
        None,
        id=new_hex_id(),
        name=_free_name(tx, visitor, ""),
        domain_id=visitor.domain_id,
        created_at=now(),
        extra=extra,
    )
    db.insert(tx, user)
    row = {"idp_id": visitor.idp_id, "protocol_id": visitor.protocol_id, "unique_id": visitor.unique_id}
    tx.execute(insert(federated_user).values(**row, user_id=user.id, made=True))
    return user.id


def _longer(visitor: Visitor) -> str:
    """A name that tells apart those of the same name."""
    return f"{visitor.name} ({visitor.unique_id})"[:NAME_LENGTH]


def _free_name(tx: Connection, visitor: Visitor, user_id: str) -> str:
    """The visitor's name, if nobody else in the domain has it: what somebody is called elsewhere never makes him the user
    who is called so here."""
    for name in (visitor.name[:NAME_LENGTH], _longer(visitor)):
        taken = select(u.id).where(u.domain_id == visitor.domain_id, u.name == name, u.id != user_id)
        if tx.execute(taken).first() is None:
            return name
    raise Conflict(f"Another user of the domain {visitor.domain_id} is called {visitor.name[:NAME_LENGTH]} already.")


# ---- groups -------------------------------------------------------------------------------------------------------------


def _groups(tx: Connection, user_id: str, idp_id: str) -> set[str]:
    """The groups that the provider has put him into."""
    return set(tx.execute(select(t.group_id).where(t.user_id == user_id, t.idp_id == idp_id)).scalars())


def _remember_groups(tx: Connection, service: Any, user_id: str, visitor: Visitor, *, new: bool) -> None:
    """He stays in the groups for some time, where the provider has a time. If they are others than at his last login, what
    he holds from then is void."""
    if not new and _groups(tx, user_id, visitor.idp_id) != set(visitor.group_ids):
        service.revocations.add(tx, "user", user_id)
    tx.execute(delete(timed_membership).where(t.user_id == user_id, t.idp_id == visitor.idp_id))
    if visitor.group_ids:
        now = microseconds()
        row = {
            "user_id": user_id,
            "idp_id": visitor.idp_id,
            "verified_at": now,
            "expires_at": now + visitor.ttl * MINUTE,
        }
        tx.execute(insert(timed_membership), [{**row, "group_id": id} for id in visitor.group_ids])


def ended_between(tx: Connection, start: int, end: int) -> bool:
    """Whether memberships ended in this time, which then count no more."""
    return tx.execute(select(t.user_id).where(t.expires_at > start, t.expires_at <= end).limit(1)).first() is not None


# ---- projects -----------------------------------------------------------------------------------------------------------


def _give_projects(tx: Connection, user_id: str, visitor: Visitor) -> None:
    """Make the projects that are missing, and give him the roles there."""
    roles = _roles(tx, visitor)
    a = assignment.c
    mine = (a.actor_type == "user", a.actor_id == user_id, a.target_type == "project", ~a.inherited)
    held = {(row.target_id, row.role_id) for row in tx.execute(select(a.target_id, a.role_id).where(*mine))}
    wanted = {
        (_project(tx, domain_id, project.name), roles[name])
        for domain_id, project in visitor.projects
        for name in project.roles
    }
    fixed = {"actor_type": "user", "actor_id": user_id, "target_type": "project", "inherited": False}
    if new := [{**fixed, "target_id": p, "role_id": r} for p, r in wanted - held]:
        tx.execute(insert(assignment), new)
    if visitor.in_step:
        for project_id, role_id in held - wanted:
            tx.execute(delete(assignment).where(*mine, a.target_id == project_id, a.role_id == role_id))


def _roles(tx: Connection, visitor: Visitor) -> Mapping[str, str]:
    """The ids of the roles that the rules name; NotFound where one is missing, Forbidden where it is another domain's."""
    names = {name for _, project in visitor.projects for name in project.roles}
    found: dict[str, str] = {}
    foreign: set[str] = set()
    for role in db.find(tx, Role, Role.table.c.name.in_(names)):
        if not role.domain_id or (role.domain_id == visitor.domain_id and role.name not in found):
            found[role.name] = role.id
        elif role.domain_id != visitor.domain_id:
            foreign.add(role.name)
    for name in sorted(names - set(found)):
        if name in foreign:
            raise Forbidden(
                f"Domain specific role {name} is not within the domain of identity provider {visitor.idp_id}."
            )
        raise NotFound("role", name)
    return found


def _project(tx: Connection, domain_id: str, name: str) -> str:
    c = Project.table.c
    found: str | None = tx.execute(select(c.id).where(c.domain_id == domain_id, c.name == name, ~c.is_domain)).scalar()
    if found is not None:
        return found
    project: Project = Project.new(None, id=new_hex_id(), name=name, domain_id=domain_id, parent_id=domain_id)
    return insert_project(tx, project).id


# ---- when a provider goes -----------------------------------------------------------------------------------------------


def forget_origin(tx: Connection, service: Any, idp_id: str, protocol_id: str | None = None) -> None:
    """Forget who came from a provider (by one protocol): users whom a login made go with the last that knows them, the
    tokens of all others who came from there are void."""
    where = [f.idp_id == idp_id]
    if protocol_id is not None:
        where.append(f.protocol_id == protocol_id)
    rows: Sequence[Any] = tx.execute(select(f.user_id, f.made).where(*where)).all()
    tx.execute(delete(federated_user).where(*where))
    left = set(tx.execute(select(f.user_id).where(f.user_id.in_({row.user_id for row in rows}))).scalars())
    for user_id in {row.user_id for row in rows if row.made} - left:
        remove_user(tx, service, user_id)
    for user_id in {row.user_id for row in rows} & left:
        service.revocations.add(tx, "user", user_id)
