"""The database's copy of a directory's users and groups: what differs from what was just seen, and storing it."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, tuple_

from cumulet.core import db
from cumulet.core.types import now
from cumulet.services.identity.drivers import Person, Team
from cumulet.services.identity.group import Group
from cumulet.services.identity.tables import membership
from cumulet.services.identity.user import User

log = logging.getLogger("cumulet.identity.directory")


class Seen(Struct, frozen=True, kw_only=True):
    """What was seen of a domain's directory: everything in it (`whole`), or some of it. `asked` is the local id of the one
    user who was looked for, found or not."""

    domain_id: str
    people: Sequence[Person]
    teams: Sequence[Team]
    whole: bool = False
    asked: str | None = None


class Steps(Struct):
    """What makes the copy as the directory is."""

    renamed: list[tuple[Any, str]] = field(default_factory=list)  # whose names others have now
    added: list[Any] = field(default_factory=list)
    changed: list[tuple[Any, str, dict[str, Any]]] = field(default_factory=list)
    joined: set[tuple[str, str]] = field(default_factory=set)  # (user, group)
    left: set[tuple[str, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.renamed or self.added or self.changed or self.joined or self.left)


def public_id(domain_id: str, kind: str, local_id: str) -> str:
    """The id of a directory's user or group in this cloud, as upstream makes it: the same in every cloud."""
    return hashlib.sha256(f"{domain_id}{kind}{local_id}".encode()).hexdigest()


def copied(tx: Connection, domain_id: str, name: str) -> User | None:
    """The copy of the user who had this name when he was last seen."""
    c = User.table.c
    return db.first(tx, User, c.domain_id == domain_id, c.name == name, c.local_id.is_not(None))


def domains_with_copies(tx: Connection) -> list[str]:
    """The domains of all copies whose originals are there, as far as is known."""
    found: set[str] = set()
    for c in (User.table.c, Group.table.c):
        found.update(
            tx.execute(select(c.domain_id).where(c.local_id.is_not(None), c.gone_since.is_(None)).distinct()).scalars()
        )
    return sorted(found)


def differs(tx: Connection, seen: Seen) -> bool:
    """Whether there is anything to store."""
    return bool(_steps(tx, seen))


def store(tx: Connection, seen: Seen) -> None:
    """Make the copy as the directory was seen."""
    steps = _steps(tx, seen)
    for cls, id in steps.renamed:
        db.update(tx, cls, id, name=id)
    for item in steps.added:
        db.insert(tx, item)
    for cls, id, columns in steps.changed:
        db.update(tx, cls, id, **columns)
    m = membership.c
    if steps.left:
        for part in _parts(sorted(steps.left)):
            tx.execute(delete(membership).where(tuple_(m.user_id, m.group_id).in_(part)))
    if steps.joined:
        tx.execute(insert(membership), [{"user_id": user, "group_id": group} for user, group in sorted(steps.joined)])


def _steps(tx: Connection, seen: Seen) -> Steps:
    steps = Steps()
    people: dict[str, dict[str, Any]] = {
        p.id: {
            "name": p.name, "enabled": p.enabled, "default_project_id": p.default_project_id, "extra": dict(p.extra),
        }
        for p in seen.people
    }  # fmt: skip
    teams: dict[str, dict[str, Any]] = {t.id: {"name": t.name, "description": t.description} for t in seen.teams}
    users = _compare(tx, steps, User, seen, people, {"enabled": False})
    groups = _compare(tx, steps, Group, seen, teams, {})
    _compare_members(tx, steps, seen, users, groups)
    return steps


def _compare(
    tx: Connection, steps: Steps, cls: Any, seen: Seen, wanted: Mapping[str, dict[str, Any]], when_gone: dict[str, Any]
) -> dict[str, str]:
    """Add the steps for the users, or the groups; their public ids by local ones."""
    c = cls.table.c
    asked = {seen.asked} if cls is User and seen.asked is not None else set()
    near = or_(c.local_id.in_([*wanted, *asked]), c.name.in_([columns["name"] for columns in wanted.values()]))
    rows = tx.execute(select(cls.table).where(c.domain_id == seen.domain_id, *(() if seen.whole else (near,)))).all()
    by_local = {row.local_id: row for row in rows if row.local_id is not None}
    by_name = {row.name: row for row in rows}
    ids: dict[str, str] = {}
    names: set[str] = set()
    for local_id, columns in wanted.items():
        name, holder = columns["name"], by_name.get(columns["name"])
        unusable = len(name) > c.name.type.length or len(local_id) > c.local_id.type.length
        if name in names or unusable or (holder is not None and holder.local_id is None):
            log.warning("%s %r of domain %s is left out: its name is taken or too long", cls.kind, name, seen.domain_id)
            continue
        names.add(name)
        ids[local_id] = public_id(seen.domain_id, cls.kind, local_id)
        row = by_local.get(local_id)
        if holder is not None and holder.local_id != local_id:
            steps.renamed.append((cls, holder.id))
        if row is None:
            made = {"id": ids[local_id], "domain_id": seen.domain_id, "local_id": local_id, **columns}
            steps.added.append(cls.new(None, **made))
        elif different := _different(row, {**columns, "gone_since": None}):
            steps.changed.append((cls, row.id, different))
    for local_id, row in by_local.items():
        missing = local_id not in wanted and (seen.whole or local_id in asked)
        if missing and row.gone_since is None:
            steps.changed.append((cls, row.id, {"gone_since": now(), **when_gone}))
    return ids


def _different(row: Any, columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if getattr(row, name) != value}


def _compare_members(
    tx: Connection, steps: Steps, seen: Seen, users: Mapping[str, str], groups: Mapping[str, str]
) -> None:
    """Add the steps for who is in which group: of all groups, or of the users that were seen."""
    g, m = Group.table.c, membership.c
    foreign = select(g.id).where(g.domain_id == seen.domain_id, g.local_id.is_not(None))
    of_whom: ColumnElement[bool] = m.group_id.in_(foreign)
    if seen.whole:
        pairs = ((users[u], groups[t.id]) for t in seen.teams if t.id in groups for u in t.members if u in users)
    else:
        pairs = ((user, group) for user in users.values() for group in groups.values())
        gone = [] if seen.asked is None else [public_id(seen.domain_id, "user", seen.asked)]
        of_whom = and_(m.group_id.in_(foreign), m.user_id.in_([*users.values(), *gone]))
    wanted = set(pairs)
    there = {(user, group) for user, group in tx.execute(select(m.user_id, m.group_id).where(of_whom))}
    steps.joined, steps.left = wanted - there, there - wanted


def _parts(pairs: Sequence[tuple[str, str]], size: int = 200) -> list[Sequence[tuple[str, str]]]:
    return [pairs[n : n + size] for n in range(0, len(pairs), size)]
