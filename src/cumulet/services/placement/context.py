"""The context of placement's handlers, and its rules of policy."""

from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from cumulet.core.context import Context

if TYPE_CHECKING:
    from cumulet.services.placement.runtime import PlacementRuntime

Ctx: TypeAlias = "Context[PlacementRuntime]"

Generation = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
"""A provider's generation as a client knows it."""

ADMIN_OR_SERVICE = "role:admin or role:service"


def rules(prefix: str, *verbs: str) -> dict[str, str]:
    """Upstream's rule names for one kind of resource; all of them are for admins and services."""
    return {f"placement:{prefix}:{verb}": ADMIN_OR_SERVICE for verb in verbs}
