"""What other services may ask of placement."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from cumulet.core.errors import CloudError


class NoCandidate(CloudError):
    """No resource provider has room for what was asked."""


class Inventory(Struct, frozen=True):
    total: int
    reserved: int = 0
    min_unit: int = 1
    max_unit: int = 2147483647
    step_size: int = 1
    allocation_ratio: float = 1.0


class Placement(Protocol):
    async def ensure_provider(self, uuid: str, name: str, inventories: Mapping[str, Inventory]) -> None:
        """A resource provider with exactly these inventories (by resource class: VCPU, MEMORY_MB, DISK_GB)."""
        ...

    async def claim(
        self, consumer_id: str, project_id: str, user_id: str, resources: Mapping[str, int], *, only: str | None = None
    ) -> str:
        """Take `resources` for the consumer from the best provider with room (or from the one named `only`), in one
        transaction; returns the provider's name. A consumer that has its claim already keeps it. Raises NoCandidate."""
        ...

    async def release(self, consumer_id: str) -> None:
        """Give back all that the consumer holds. Nothing held: no effect."""
        ...

    async def resize(self, consumer_id: str, keeper_id: str, resources: Mapping[str, int]) -> None:
        """Hand all that the consumer holds to `keeper_id`, and take `resources` for the consumer from the same provider, in
        one transaction. Done already (the keeper holds something): no effect. Raises NoCandidate."""
        ...

    async def take_back(self, consumer_id: str, keeper_id: str) -> None:
        """Have the consumer hold what the keeper keeps, and no more. The keeper keeps nothing: no effect."""
        ...
