"""Quotas: how much of each thing a project may have, counted in the transaction that adds to it."""

from collections.abc import Mapping

from sqlalchemy import Column, Connection, Integer, String, Table, bindparam, select

from cumulet.core.db import metadata
from cumulet.core.errors import QuotaExceeded

UNLIMITED = -1

table = Table(
    "core_quota",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("service", String(32), primary_key=True),
    Column("resource", String(64), primary_key=True),
    Column("limit", Integer, nullable=False),
)
_limits = table.c.limit


_of_project = select(table.c.resource, _limits).where(
    table.c.project_id == bindparam("project"), table.c.service == bindparam("service")
)


def limits(tx: Connection, service: str, project_id: str, defaults: Mapping[str, int]) -> dict[str, int]:
    """Every limit of a project: the service's defaults, and what was set for this one."""
    rows = tx.execute(_of_project, {"project": project_id, "service": service})
    return {**defaults, **{row.resource: row.limit for row in rows}}


def check(
    tx: Connection,
    service: str,
    project_id: str,
    defaults: Mapping[str, int],
    used: Mapping[str, int],
    requested: Mapping[str, int],
) -> None:
    """Raise QuotaExceeded if what is `requested` on top of what is `used` passes a limit."""
    allowed = limits(tx, service, project_id, defaults)
    for resource, amount in requested.items():
        limit = allowed.get(resource, UNLIMITED)
        if limit != UNLIMITED and used.get(resource, 0) + amount > limit:
            raise QuotaExceeded(resource, limit=limit, used=used.get(resource, 0), requested=amount)


def set_limits(tx: Connection, service: str, project_id: str, new: Mapping[str, int]) -> None:
    for resource, limit in new.items():
        where = (table.c.project_id == project_id, table.c.service == service, table.c.resource == resource)
        if not tx.execute(table.update().where(*where).values({"limit": limit})).rowcount:
            row = {"project_id": project_id, "service": service, "resource": resource, "limit": limit}
            tx.execute(table.insert().values(row))


def reset_limits(tx: Connection, service: str, project_id: str) -> None:
    """Back to the service's defaults."""
    tx.execute(table.delete().where(table.c.project_id == project_id, table.c.service == service))
