"""Service providers: PUT|GET|PATCH|DELETE /v3/OS-FEDERATION/service_providers/{id}, and their list. They are other clouds to
which this one vouches for its users."""

from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, Struct
from sqlalchemy import Connection, select

from cumulet.api.resource import FILTER, FIND, Resource, edit, read
from cumulet.core import db
from cumulet.core.db import after_commit
from cumulet.core.errors import Conflict
from cumulet.core.types import Column, Id, Text
from cumulet.services.identity.calls import Ctx, calls, change
from cumulet.services.identity.federation.identity_provider import check_id, refuse_nothing
from cumulet.services.identity.rules import system_rules

Address = Annotated[str, Meta(max_length=225, pattern=r"^[a-zA-Z0-9+.-]+:[^\x00-\x20\x7f]+$"), Column(256)]
"""An URL. It goes into a header of replies, so it has neither blanks nor ends of lines."""
Prefix = Annotated[str, Meta(max_length=256), Column(256)]
RELAY_STATE = "ss:mem:"


class ServiceProvider(Resource, table="identity_service_provider", path="/v3/OS-FEDERATION/service_providers"):
    """Another cloud that takes this cloud's word for who somebody is."""

    id: Id = read("The ID of the service provider.", use=FIND)
    auth_url: Address = edit("Where its tokens are had.")
    sp_url: Address = edit("Where it takes assertions.")
    enabled: bool = edit("Whether assertions for it are made.", False, FILTER)
    description: Text | None = edit("What it is.", None)
    relay_state_prefix: Prefix | None = edit("How the RelayState of an assertion for it begins.", RELAY_STATE)


RULES = system_rules("service_provider")


async def _write(ctx: Ctx, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A unit of work after which tokens tell of other providers."""

    def unit(tx: Connection) -> Any:
        result = fn(tx, *args, **kwargs)
        after_commit(tx, ctx.service.forget_service_providers)
        return result

    return await ctx.service.write(unit)


async def create_service_provider(ctx: Ctx, id: str, body: Any) -> ServiceProvider:
    ctx.require("identity:create_service_provider")
    check_id(id)
    provider: ServiceProvider = ServiceProvider.new(
        body, id=id, relay_state_prefix=RELAY_STATE if body.relay_state_prefix is None else body.relay_state_prefix
    )

    def store(tx: Connection) -> None:
        c = ServiceProvider.table.c
        if tx.execute(select(c.id).where(c.id == id)).first() is not None:
            raise Conflict(f"Conflict occurred attempting to store service_provider - Duplicate entry: {id}.")
        db.insert(tx, provider)

    await _write(ctx, store)
    return provider


async def update_service_provider(ctx: Ctx, provider: ServiceProvider, body: Any) -> Any:
    refuse_nothing(body)
    more = {"relay_state_prefix": RELAY_STATE} if body.relay_state_prefix is None else {}
    return await _write(ctx, change, ServiceProvider, provider.id, body, **more)


async def delete_service_provider(ctx: Ctx, provider: ServiceProvider) -> None:
    await _write(ctx, db.remove, ServiceProvider, provider.id)


class ProviderRef(Struct, frozen=True):
    """A service provider as the bodies of tokens name it."""

    auth_url: str
    id: str
    sp_url: str


_enabled = select(
    ServiceProvider.table.c.auth_url, ServiceProvider.table.c.id, ServiceProvider.table.c.sp_url
).where(ServiceProvider.table.c.enabled).order_by(ServiceProvider.table.c.id)  # fmt: skip


def enabled_providers(tx: Connection) -> list[ProviderRef]:
    """Those that users can go to."""
    return [ProviderRef(*row) for row in tx.execute(_enabled)]


endpoints = calls(
    ServiceProvider,
    put=create_service_provider,
    update=update_service_provider,
    delete=delete_service_provider,
)
