"""How unified limits of projects and of their domain hold together: the two enforcement models, and which is in force.

`flat` looks at each limit alone. `strict_two_level` knows domains and the projects directly below them: no project may have
a limit above its domain's (the domain's own, or else the registered default), and there may be no deeper tree. -1 is above
every number.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.core import db
from cumulet.core.errors import Forbidden
from cumulet.services.identity.project import MAX_DEPTH, Project
from cumulet.services.identity.registered_limit import RegisteredLimit

if TYPE_CHECKING:
    from cumulet.services.identity.limit import Limit

Key = tuple[str, str]
"""(registered limit, project or domain)"""


class TreeTooDeep(Exception):
    """There are projects that the enforcement model of limits does not know what to do with."""


class LimitModel(Struct, frozen=True):
    """An enforcement model, as it is shown, and the levels of projects below their domain that it knows."""

    name: str
    description: str
    depth: int = MAX_DEPTH


MODELS: Mapping[str, LimitModel] = {
    "flat": LimitModel("flat", "Each limit is looked at alone; the hierarchy of projects plays no part."),
    "strict_two_level": LimitModel(
        "strict_two_level",
        "The hierarchy of projects has two levels, a domain and its projects; no project's limit exceeds its domain's.",
        depth=1,
    ),
}


def check_depth(tx: Connection, model: LimitModel) -> None:
    """TreeTooDeep where projects lie deeper than a two-level model allows."""
    if model.depth > 1:
        return
    c, above = Project.table.c, Project.table.alias("above")
    deeper = select(c.id).join(above, above.c.id == c.parent_id).where(~above.c.is_domain).order_by(c.id).limit(10)
    if found := list(tx.execute(deeper).scalars()):
        raise TreeTooDeep(
            f"The limit model {model.name} takes projects directly below their domain only, and these lie deeper:"
            f" {', '.join(found)}. Choose limit_model = flat, or remove them."
        )


def check_limits(
    tx: Connection,
    model: LimitModel,
    limits: Sequence["Limit"],
    defaults: Mapping[str, RegisteredLimit],
    parents: Mapping[str, str | None],
) -> None:
    """Forbidden where one of the new or changed `limits` breaks the model. `defaults` are their registered limits and
    `parents` what is above their projects, by id."""
    if model.depth > 1 or not limits:
        return
    new = {(limit.registered_limit_id, limit.owner_id): limit.resource_limit for limit in limits}
    domains = {limit.domain_id for limit in limits if limit.domain_id}
    stored = _stored(tx, set(defaults), {*filter(None, parents.values())})
    below = _below(tx, set(defaults), domains) if domains else []
    for limit in limits:
        registered = limit.registered_limit_id
        if limit.project_id:
            key = registered, parents.get(limit.project_id) or ""
            ceiling = new.get(key, stored.get(key, defaults[registered].default_limit))
            broken = _exceeds(limit.resource_limit, ceiling)
        else:
            broken = any(
                _exceeds(amount, limit.resource_limit)
                for domain, reference, amount in below
                if domain == limit.domain_id and reference == registered
            )
        if broken:
            level = "project_id" if limit.project_id else "domain_id"
            raise Forbidden(
                f"Invalid resource limit: {limit.resource_limit} of {limit.resource_name} for {level} {limit.owner_id}"
                f" (service_id: {limit.service_id}, region_id: {limit.region_id or None}) doesn't satisfy current"
                " hierarchy model: no project may have more than its domain."
            )


def _exceeds(amount: int, ceiling: int) -> bool:
    return ceiling != -1 and (amount == -1 or amount > ceiling)


def _stored(tx: Connection, registered: set[str], owners: set[str]) -> dict[Key, int]:
    limit = db.metadata.tables["identity_limit"].c
    chosen = select(limit.registered_limit_id, limit.owner_id, limit.resource_limit).where(
        limit.registered_limit_id.in_(registered), limit.owner_id.in_(owners)
    )
    return {(row[0], row[1]): row[2] for row in tx.execute(chosen)}


def _below(tx: Connection, registered: set[str], domains: set[str]) -> list[tuple[str, str, int]]:
    """The limits of all projects of these domains: (domain, registered limit, amount)."""
    limit, c = db.metadata.tables["identity_limit"].c, Project.table.c
    chosen = (
        select(c.domain_id, limit.registered_limit_id, limit.resource_limit)
        .join(Project.table, c.id == limit.project_id)
        .where(limit.registered_limit_id.in_(registered), c.domain_id.in_(domains))
    )
    return [(row[0], row[1], row[2]) for row in tx.execute(chosen)]
