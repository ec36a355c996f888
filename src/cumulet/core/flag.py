"""Flags: what was done once in the life of a cloud and is not done again, told by a row."""

from sqlalchemy import Column, Connection, String, Table, select

from cumulet.core.db import metadata
from cumulet.core.types import now

table = Table(
    "core_flag",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("set_at", String(26), nullable=False),
)


def is_set(tx: Connection, name: str) -> bool:
    """Whether what `name` stands for was done to its end."""
    return tx.execute(select(table.c.name).where(table.c.name == name)).first() is not None


def put(tx: Connection, name: str) -> None:
    """Say that it was done. Said already: no effect."""
    if not is_set(tx, name):
        tx.execute(table.insert().values(name=name, set_at=now()))
