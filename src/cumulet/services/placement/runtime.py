"""Placement at work: the calls of `interface.py`."""

from collections.abc import Mapping

from sqlalchemy import Connection, select

from cumulet.core.kernel import Kernel
from cumulet.services.placement import tables as t
from cumulet.services.placement.allocation import drop, give, held
from cumulet.services.placement.candidate import inventories_of, with_room
from cumulet.services.placement.interface import Inventory, NoCandidate
from cumulet.services.placement.inventory import MAX, Amounts, replace
from cumulet.services.placement.resource_provider import insert_provider


class PlacementRuntime:
    """Keeps count of what hosts have and who has taken it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    async def start(self) -> None:
        """Nothing runs in the background."""

    async def stop(self) -> None:
        """Nothing to let go of."""

    async def ensure_provider(self, uuid: str, name: str, inventories: Mapping[str, Inventory]) -> None:
        wanted = {
            resource_class: Amounts(
                total=i.total, reserved=i.reserved, min_unit=i.min_unit, max_unit=min(i.max_unit, MAX),
                step_size=i.step_size, allocation_ratio=i.allocation_ratio,
            )
            for resource_class, i in inventories.items()
        }  # fmt: skip
        await self.kernel.db.run(_ensure_provider, uuid, name, wanted)

    async def claim(
        self, consumer_id: str, project_id: str, user_id: str, resources: Mapping[str, int], *, only: str | None = None
    ) -> str:
        owner = {"project_id": project_id, "user_id": user_id, "consumer_type": "INSTANCE"}
        return await self.kernel.db.run(_claim, consumer_id, owner, {n: a for n, a in resources.items() if a > 0}, only)

    async def release(self, consumer_id: str) -> None:
        await self.kernel.db.run(drop, consumer_id)

    async def resize(self, consumer_id: str, keeper_id: str, resources: Mapping[str, int]) -> None:
        await self.kernel.db.run(_resize, consumer_id, keeper_id, {n: a for n, a in resources.items() if a > 0})

    async def take_back(self, consumer_id: str, keeper_id: str) -> None:
        await self.kernel.db.run(_take_back, consumer_id, keeper_id)


def _ensure_provider(tx: Connection, uuid: str, name: str, wanted: dict[str, Amounts]) -> None:
    row = tx.execute(select(t.providers).where(t.providers.c.uuid == uuid)).first() or insert_provider(tx, uuid, name)
    if row.name != name:
        tx.execute(t.providers.update().where(t.providers.c.uuid == uuid).values(name=name))
    before = inventories_of(tx, [uuid])
    replace(tx, uuid, wanted)
    if inventories_of(tx, [uuid]) != before:
        t.advance(tx, uuid, row.generation)


def _claim(tx: Connection, consumer: str, owner: dict[str, str], resources: dict[str, int], only: str | None) -> str:
    """The provider that the consumer has its resources from, which it now holds."""
    if mine := held(tx, consumer):
        return str(t.provider(tx, next(iter(mine))).name)
    rows = list(tx.execute(select(t.providers).where(*([t.providers.c.name == only] if only else []))))
    fitting = with_room(tx, rows, resources)
    if not fitting:
        asked = ", ".join(f"{amount} {name}" for name, amount in resources.items())
        raise NoCandidate(f"no host has room for {asked}")
    best = fitting[0] if len(fitting) == 1 else min(fitting, key=lambda row: _fullness(tx, row.uuid))
    give(tx, consumer, {best.uuid: resources}, owner)
    return str(best.name)


def _resize(tx: Connection, consumer: str, keeper: str, resources: dict[str, int]) -> None:
    if held(tx, keeper):
        return
    mine = held(tx, consumer)
    owner = _owner(tx, consumer)
    drop(tx, consumer)
    give(tx, keeper, mine, {**owner, "consumer_type": "MIGRATION"})
    if not with_room(tx, [t.provider(tx, uuid) for uuid in mine], resources):
        raise NoCandidate("the host has no room for the new size beside the old one")
    give(tx, consumer, {next(iter(mine)): resources}, owner)


def _take_back(tx: Connection, consumer: str, keeper: str) -> None:
    kept = held(tx, keeper)
    if kept:
        owner = {**_owner(tx, keeper), "consumer_type": "INSTANCE"}
        drop(tx, consumer)
        drop(tx, keeper)
        give(tx, consumer, kept, owner)


def _owner(tx: Connection, consumer: str) -> dict[str, str]:
    row = tx.execute(select(t.consumers).where(t.consumers.c.uuid == consumer)).one()
    return {"project_id": row.project_id, "user_id": row.user_id, "consumer_type": row.consumer_type}


def _fullness(tx: Connection, uuid: str) -> float:
    """The share of its most taken resource, so that servers spread."""
    used = t.usages(tx, [uuid])
    shares = [
        used.get(key, 0) / max(1.0, (row.total - row.reserved) * row.allocation_ratio)
        for key, row in inventories_of(tx, [uuid]).items()
    ]
    return max(shares, default=1.0)
