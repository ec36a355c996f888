"""Which roles somebody has where, found by one statement: any tangle of roles, compared with the rules applied one by one."""

import random
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, insert

from cumulet.core.db import metadata
from cumulet.core.db.store import insert_many
from cumulet.services.identity.assignments import role_ids_on, roles_on
from cumulet.services.identity.project import Project
from cumulet.services.identity.role import Role
from cumulet.services.identity.tables import SYSTEM, assignment, implied_role, membership

USERS, GROUPS = ("u1", "u2", "u3"), ("g1", "g2", "g3")
DOMAINS = ("d1", "d2")
ROLES = tuple(f"r{n}" for n in range(8))


class Tangle:
    """A random cloud: two domains with trees of projects, and roles given in every way there is."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.parents: dict[str, str | None] = dict.fromkeys(DOMAINS)
        for number in range(8):
            parent = chance.choice(list(self.parents))
            self.parents[f"p{number}"] = parent
        self.members = {(user, chance.choice(GROUPS)) for user in USERS for _ in range(2)}
        self.implied = {(chance.choice(ROLES), chance.choice(ROLES)) for _ in range(6)}  # in circles, too
        self.given = {self._grant(chance) for _ in range(25)}

    def _grant(self, chance: random.Random) -> tuple[str, str, str, str, str, bool]:
        actor_type = chance.choice(("user", "group"))
        actor = chance.choice(USERS if actor_type == "user" else GROUPS)
        target = chance.choice([*self.parents, SYSTEM])
        target_type = "system" if target == SYSTEM else "domain" if target in DOMAINS else "project"
        inherited = target != SYSTEM and chance.random() < 0.4
        return actor_type, actor, target_type, target, chance.choice(ROLES), inherited

    def domain(self, id: str) -> str:
        parent = self.parents[id]
        return id if parent is None else self.domain(parent)

    def store(self, tx: Connection) -> None:
        projects = [
            Project.new(
                None, id=id, name=id, parent_id=parent, is_domain=parent is None,
                domain_id=self.domain(id) if parent else "",
            )
            for id, parent in self.parents.items()
        ]  # fmt: skip
        insert_many(tx, projects)
        insert_many(tx, [Role.new(None, id=id, name=id, domain_id="d1" if id == "r7" else "") for id in ROLES])
        rows: list[tuple[Any, Any]] = [
            (membership, self.members),
            (implied_role, self.implied),
            (assignment, self.given),
        ]
        for table, values in rows:
            names = [column.name for column in table.columns]
            tx.execute(insert(table), [dict(zip(names, value, strict=True)) for value in values])

    def held(self, user: str, target_type: str, target: str, groups: tuple[str, ...]) -> set[str]:
        """The rules, one by one."""
        actors = {
            ("user", user),
            *(("group", g) for u, g in self.members if u == user),
            *(("group", g) for g in groups),
        }
        above, at = set(), self.parents[target] if target_type == "project" else None
        while at is not None:
            above.add(at)
            at = self.parents[at]
        found = {
            role
            for actor_type, actor, kind, place, role, inherited in self.given
            if (actor_type, actor) in actors
            and (((kind, place) == (target_type, target) and not inherited) or (inherited and place in above))
        }
        while more := {implied for prior, implied in self.implied if prior in found} - found:
            found |= more
        return found


@pytest.mark.parametrize("seed", range(25))
def test_roles_are_those_that_the_rules_give(seed: int) -> None:
    tangle, seen = Tangle(seed), 0
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as tx:
        tangle.store(tx)
        places = [("domain" if id in DOMAINS else "project", id) for id in tangle.parents]
        for user in USERS:
            for target_type, target in [*places, ("system", SYSTEM)]:
                for groups in ((), ("g1",), ("g1", "g3")):
                    true = tangle.held(user, target_type, target, groups)
                    seen += len(true)
                    assert role_ids_on(tx, user, target_type, target, groups) == true
                    found = roles_on(tx, user, target_type, target, groups)
                    assert [role.name for role in found] == sorted(true - {"r7"})
    engine.dispose()
    assert seen > 20
