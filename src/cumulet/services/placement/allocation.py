"""Allocations: who has taken how much of which provider.

GET, PUT, DELETE /allocations/{consumer_uuid} · POST /allocations · GET /usages
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy import Connection, bindparam, func, select

from cumulet.api.http import Endpoint
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.types import is_uuid
from cumulet.services.placement import tables as t
from cumulet.services.placement.candidate import fits, inventories_of
from cumulet.services.placement.context import Ctx, rules
from cumulet.services.placement.name import check_classes

RULES = {
    **rules("allocations", "list", "manage", "update", "delete"),
    "placement:usages": "role:admin or role:service or (role:reader and project_id:%(project_id)s)",
}

Amount = Annotated[int, Meta(ge=1, le=2147483647)]
Resources = Annotated[dict[str, Amount], Meta(min_length=1)]
Owner = Annotated[str, Meta(min_length=1, max_length=255)]


class Take(Struct, forbid_unknown_fields=True):
    resources: Resources
    generation: int = 0


class ProviderUuid(Struct, forbid_unknown_fields=True):
    uuid: str


class ListedTake(Struct, forbid_unknown_fields=True):
    resource_provider: ProviderUuid
    resources: Resources


class Wanted(Struct, forbid_unknown_fields=True):
    """What a consumer is to hold from now on."""

    allocations: dict[str, Take] | list[ListedTake]
    project_id: Owner = "00000000-0000-0000-0000-000000000000"
    user_id: Owner = "00000000-0000-0000-0000-000000000000"
    consumer_generation: int | UnsetType | None = UNSET
    consumer_type: Annotated[str, Meta(pattern="^[A-Z0-9_]+$", min_length=1, max_length=255)] | None = None
    mappings: dict[str, list[str]] | None = None

    def takes(self) -> dict[str, dict[str, int]]:
        """Amounts by provider and resource class."""
        if isinstance(self.allocations, dict):
            return {uuid: take.resources for uuid, take in self.allocations.items()}
        return {take.resource_provider.uuid: take.resources for take in self.allocations}


_held = select(t.allocations).where(t.allocations.c.consumer_uuid == bindparam("consumer"))
_known = select(t.providers.c.uuid).where(t.providers.c.uuid.in_(bindparam("uuids", expanding=True)))


def held(tx: Connection, consumer: str) -> dict[str, dict[str, int]]:
    """What a consumer holds, by provider and resource class."""
    found: dict[str, dict[str, int]] = {}
    for row in tx.execute(_held, {"consumer": consumer}):
        found.setdefault(row.provider_uuid, {})[row.resource_class] = row.used
    return found


def drop(tx: Connection, consumer: str) -> bool:
    """Take all from a consumer; False if it held nothing."""
    t.touch(tx, held(tx, consumer))
    gone = tx.execute(t.allocations.delete().where(t.allocations.c.consumer_uuid == consumer)).rowcount
    tx.execute(t.consumers.delete().where(t.consumers.c.uuid == consumer))
    return bool(gone)


def generation_of(tx: Connection, consumer: str) -> int | None:
    """How often what the consumer holds was changed; None where it holds nothing."""
    found: int | None = tx.execute(select(t.consumers.c.generation).where(t.consumers.c.uuid == consumer)).scalar()
    return found


def give(
    tx: Connection, consumer: str, takes: dict[str, dict[str, int]], owner: dict[str, Any], before: int | None = None
) -> None:
    """Have a consumer that holds nothing hold this; Conflict where there is no room for it. `before` is its generation up to
    now."""
    if not any(takes.values()):
        return
    check_classes(tx, {name for resources in takes.values() for name in resources})
    known = set(tx.execute(_known, {"uuids": list(takes)}).scalars())
    if unknown := set(takes) - known:
        raise Invalid(f"Allocation for resource provider '{', '.join(sorted(unknown))}' that does not exist.")
    have, used = inventories_of(tx, list(takes)), t.usages(tx, list(takes))
    rows = []
    for uuid, resources in takes.items():
        for name, amount in resources.items():
            inventory = have.get((uuid, name))
            if inventory is None or not fits(inventory, used.get((uuid, name), 0), amount):
                raise Conflict(f"Unable to allocate inventory: {amount} of {name} on resource provider '{uuid}' would exceed "
                               "its capacity or its limits of size.")  # fmt: skip
            rows.append({"consumer_uuid": consumer, "provider_uuid": uuid, "resource_class": name, "used": amount})
    generation = 1 if before is None else before + 1
    tx.execute(t.consumers.insert(), {"uuid": consumer, "generation": generation, **owner})
    tx.execute(t.allocations.insert(), rows)
    t.touch(tx, takes)


def _check(version: tuple[int, int], wanted: Wanted, now: int | None) -> None:
    """Whether the caller may say so, by what he knows of the consumer."""
    if version >= (1, 28):
        if wanted.consumer_generation is UNSET:
            raise Invalid("JSON does not validate: 'consumer_generation' is a required property")
        if now != wanted.consumer_generation:
            message = f"consumer generation conflict - expected {now} but got {wanted.consumer_generation}"
            raise Conflict(message, code="placement.concurrent_update")


def _apply(tx: Connection, version: tuple[int, int], all_wanted: dict[str, Wanted]) -> None:
    """Replace what consumers hold: all is given back before anything is taken, so that one can take what another leaves."""
    before = {uuid: generation_of(tx, uuid) for uuid in all_wanted}
    for uuid, wanted in all_wanted.items():
        _check(version, wanted, before[uuid])
        drop(tx, uuid)
    for uuid, wanted in all_wanted.items():
        owner = {"project_id": wanted.project_id, "user_id": wanted.user_id, "consumer_type": wanted.consumer_type}
        give(tx, uuid, wanted.takes(), owner, before[uuid])


def _consumer(uuid: str) -> None:
    if not is_uuid(uuid):
        raise Invalid(f"Malformed consumer_uuid: {uuid}")


async def show_allocations(ctx: Ctx, consumer_uuid: str) -> Any:
    """Show what a consumer holds."""

    def look(tx: Connection) -> Any:
        found = held(tx, consumer_uuid)
        generations = {
            r.uuid: r.generation for r in tx.execute(select(t.providers).where(t.providers.c.uuid.in_(list(found))))
        }
        taken = {u: {"generation": generations[u], "resources": resources} for u, resources in found.items()}
        reply: dict[str, Any] = {"allocations": taken}
        row = tx.execute(select(t.consumers).where(t.consumers.c.uuid == consumer_uuid)).first()
        if row is not None and ctx.version >= (1, 12):
            reply.update(project_id=row.project_id, user_id=row.user_id)
            if ctx.version >= (1, 28):
                reply["consumer_generation"] = row.generation
            if ctx.version >= (1, 38):
                reply["consumer_type"] = row.consumer_type or "unknown"
        return reply

    return await ctx.service.kernel.db.read(look)


async def set_allocations(ctx: Ctx, consumer_uuid: str, body: Wanted) -> None:
    """Have a consumer hold exactly this."""
    _consumer(consumer_uuid)
    if ctx.version < (1, 28) and not body.takes():
        raise Invalid("JSON does not validate: allocations must not be empty before version 1.28")
    await ctx.service.kernel.db.run(_apply, ctx.version, {consumer_uuid: body})


async def set_many(ctx: Ctx, body: dict[str, Wanted]) -> None:
    """Have several consumers hold exactly this, all or none."""
    for uuid in body:
        _consumer(uuid)
    await ctx.service.kernel.db.run(_apply, ctx.version, body)


async def delete_allocations(ctx: Ctx, consumer_uuid: str) -> None:
    """Take all from a consumer."""
    if not await ctx.service.kernel.db.run(drop, consumer_uuid):
        raise NotFound(message=f"No allocations for consumer '{consumer_uuid}'")


async def show_usages(ctx: Ctx) -> Any:
    """Show how much a project's consumers hold."""
    query = ctx.request.query
    project = query.get("project_id")
    if not project:
        raise Invalid("Invalid query string parameters: 'project_id' is a required property")
    ctx.require("placement:usages", {"project_id": project})

    def look(tx: Connection) -> Any:
        join = t.allocations.join(t.consumers, t.consumers.c.uuid == t.allocations.c.consumer_uuid)
        where = [t.consumers.c.project_id == project]
        if user := query.get("user_id"):
            where.append(t.consumers.c.user_id == user)
        statement = (
            select(t.allocations.c.resource_class, func.sum(t.allocations.c.used)).select_from(join).where(*where)
        )
        return {name: int(used) for name, used in tx.execute(statement.group_by(t.allocations.c.resource_class))}

    return {"usages": await ctx.service.kernel.db.read(look)}


ONE = "/allocations/{consumer_uuid}"
RULE = "placement:allocations:"
endpoints = [
    Endpoint("GET", ONE, show_allocations, RULE + "list"),
    Endpoint("PUT", ONE, set_allocations, RULE + "update", Wanted, status=204),
    Endpoint("DELETE", ONE, delete_allocations, RULE + "delete", status=204),
    Endpoint("POST", "/allocations", set_many, RULE + "manage", dict[str, Wanted], status=204, since=(1, 13)),
    Endpoint("GET", "/usages", show_usages, "placement:usages", since=(1, 9)),
]
