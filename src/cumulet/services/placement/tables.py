"""What placement keeps: providers, what they have, who has taken how much of it."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    bindparam,
    func,
    select,
)

from cumulet.core.db import Json, metadata
from cumulet.core.errors import Conflict, NotFound

providers = Table(
    "placement_provider",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("generation", Integer, nullable=False),
    Column("parent_provider_uuid", String(36)),
    Column("root_provider_uuid", String(36), nullable=False),
    Column("traits", Json(list[str]), nullable=False),
    Column("aggregates", Json(list[str]), nullable=False),
)
inventories = Table(
    "placement_inventory",
    metadata,
    Column("provider_uuid", String(36), primary_key=True),
    Column("resource_class", String(255), primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("min_unit", BigInteger, nullable=False),
    Column("max_unit", BigInteger, nullable=False),
    Column("step_size", BigInteger, nullable=False),
    Column("allocation_ratio", Float, nullable=False),
)
consumers = Table(
    "placement_consumer",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("project_id", String(255), nullable=False, index=True),
    Column("user_id", String(255), nullable=False),
    Column("consumer_type", String(255)),
    Column("generation", Integer, nullable=False),
)
allocations = Table(
    "placement_allocation",
    metadata,
    Column("consumer_uuid", String(36), primary_key=True),
    Column("provider_uuid", String(36), primary_key=True),
    Column("resource_class", String(255), primary_key=True),
    Column("used", BigInteger, nullable=False),
    Index("placement_allocation_provider", "provider_uuid", "resource_class"),
)
names = Table(
    "placement_name",
    metadata,
    Column("kind", String(16), primary_key=True),  # resource_class | trait
    Column("name", String(255), primary_key=True),
)

_usages = (
    select(allocations.c.provider_uuid, allocations.c.resource_class, func.sum(allocations.c.used).label("used"))
    .where(allocations.c.provider_uuid.in_(bindparam("uuids", expanding=True)))
    .group_by(allocations.c.provider_uuid, allocations.c.resource_class)
)


_touch = (
    providers.update()
    .where(providers.c.uuid.in_(bindparam("uuids", expanding=True)))
    .values(generation=providers.c.generation + 1)
)


def provider(tx: Connection, uuid: str) -> Row[Any]:
    """A provider's row; NotFound where there is none."""
    row = tx.execute(select(providers).where(providers.c.uuid == uuid)).first()
    if row is None:
        raise NotFound(message=f"No resource provider with uuid {uuid} found")
    return row


def usages(tx: Connection, uuids: list[str]) -> dict[tuple[str, str], int]:
    """How much is taken, by provider and resource class."""
    return {(r.provider_uuid, r.resource_class): int(r.used) for r in tx.execute(_usages, {"uuids": uuids})}


def touch(tx: Connection, uuids: Iterable[str]) -> None:
    """Take providers to their next generation, because of what was taken of them or given back."""
    tx.execute(_touch, {"uuids": list(uuids)})


def advance(tx: Connection, uuid: str, generation: int) -> int:
    """Take a provider from the generation the caller knows to the next one; Conflict where somebody was faster."""
    where = (providers.c.uuid == uuid, providers.c.generation == generation)
    if not tx.execute(providers.update().where(*where).values(generation=generation + 1)).rowcount:
        raise Conflict("resource provider generation conflict", code="placement.concurrent_update")
    return generation + 1
