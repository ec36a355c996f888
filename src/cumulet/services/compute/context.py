"""The context of compute's handlers."""

from typing import TYPE_CHECKING, TypeAlias

from cumulet.core.context import Context

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

Ctx: TypeAlias = "Context[ComputeRuntime]"


def base_url(ctx: Ctx) -> str:
    """The root of the API as the caller reached it, for links in replies."""
    return str(ctx.request.base_url) if ctx.request is not None else ""
