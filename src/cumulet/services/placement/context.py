"""The context of placement's handlers, and its rules of policy."""

from typing import TYPE_CHECKING

from cumulet.core.context import Context

if TYPE_CHECKING:
    pass

Ctx = Context["PlacementRuntime"]

ADMIN_OR_SERVICE = "role:admin or role:service"


def rules(prefix: str, *verbs: str) -> dict[str, str]:
    """Upstream's rule names for one kind of resource; all of them are for admins and services."""
    return {f"placement:{prefix}:{verb}": ADMIN_OR_SERVICE for verb in verbs}
