"""The calls that show users or groups, where some of these are in directories: what a call is about is seen there first."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from cumulet.api.http import Endpoint
from cumulet.api.resource import Resource
from cumulet.core import db
from cumulet.services.identity.calls import Ctx, look_up

Handler = Callable[..., Awaitable[Any]]


def seen_first(cls: type[Resource], endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The same calls, but the list and the one that shows an object bring the copy of it up to date, once the caller may."""
    table: Any = cls.table

    def seeing_all(handler: Handler) -> Handler:
        async def list_all(ctx: Ctx) -> Any:
            directory = await ctx.service.directories.of(ctx.caller.domain_id or ctx.request.query.get("domain_id"))
            if directory is not None:
                ctx.require(f"identity:list_{cls.options.plural}", {"target.domain_id": ctx.caller.domain_id})
                await directory.refresh(ctx.request.query.get("name") if cls.kind == "user" else None)
            return await handler(ctx)

        return list_all

    def seeing_one(handler: Handler) -> Handler:
        async def show_one(ctx: Ctx, id: str) -> Any:
            foreign = (table.c.id == id, table.c.local_id.is_not(None))
            item = await ctx.service.kernel.db.read_inline(db.first, cls, *foreign)
            if item is not None:
                await look_up(ctx, "get", cls, id)
                await ctx.service.directories.refresh_item(item)
            return await handler(ctx, id)

        return show_one

    def seeing(endpoint: Endpoint) -> Endpoint:
        if endpoint.method != "GET":
            return endpoint
        wrap = seeing_all if endpoint.path == cls.options.path else seeing_one
        handler = wrap(endpoint.handler)
        handler.__doc__ = endpoint.handler.__doc__
        return replace(endpoint, handler=handler)

    return [seeing(endpoint) for endpoint in endpoints]
