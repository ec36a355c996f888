"""Inventories: what a provider has.

GET, PUT, POST, DELETE /resource_providers/{uuid}/inventories · GET, PUT, DELETE .../inventories/{resource_class}
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, structs
from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint, Response
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.services.placement import tables as t
from cumulet.services.placement.context import Ctx, Generation, rules
from cumulet.services.placement.name import check_classes

RULES = rules("resource_providers:inventories", "list", "create", "show", "update", "delete")

MAX = 2147483647
Amount = Annotated[int, Meta(ge=1, le=MAX)]
ClassName = Annotated[str, Meta(pattern="^[A-Z0-9_]{1,255}$")]


class Amounts(Struct, forbid_unknown_fields=True):
    """What a provider has of one resource class."""

    total: Amount
    reserved: Annotated[int, Meta(ge=0, le=MAX)] = 0
    min_unit: Amount = 1
    max_unit: Amount = MAX
    step_size: Amount = 1
    allocation_ratio: Annotated[float, Meta(gt=0, le=3.40282e38)] = 1.0


class OneInventory(Amounts, kw_only=True):
    resource_provider_generation: Generation


class NewInventory(Amounts, kw_only=True):
    """One that comes to what a provider has: here the generation need not be known."""

    resource_provider_generation: Generation | None = None
    resource_class: ClassName


class Inventories(Struct, forbid_unknown_fields=True):
    inventories: dict[ClassName, Amounts]
    resource_provider_generation: Generation


COLUMNS = [f.name for f in structs.fields(Amounts)]


def _amounts(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS}


def _rows(tx: Connection, uuid: str) -> dict[str, dict[str, Any]]:
    found = tx.execute(select(t.inventories).where(t.inventories.c.provider_uuid == uuid))
    return {row.resource_class: _amounts(row) for row in found}


def _check_reserved(ctx: Ctx, name: str, amounts: Amounts) -> None:
    most = amounts.total if ctx.version >= (1, 26) else amounts.total - 1
    if amounts.reserved > most:
        raise Invalid(f"Unable to create inventory for resource class {name}: reserved must not exceed {most}")


def replace(tx: Connection, uuid: str, wanted: dict[str, Amounts]) -> None:
    """Give the provider exactly these inventories; Conflict where one that goes is in use."""
    have = _rows(tx, uuid)
    check_classes(tx, wanted)
    used = t.usages(tx, [uuid])
    for name in have.keys() - wanted.keys():
        if used.get((uuid, name)):
            message = f"Inventory for '{name}' on resource provider '{uuid}' in use."
            raise Conflict(message, code="placement.inventory.inuse")
    if have != {name: structs.asdict(amounts) for name, amounts in wanted.items()}:
        tx.execute(t.inventories.delete().where(t.inventories.c.provider_uuid == uuid))
        rows = [{"provider_uuid": uuid, "resource_class": n, **_amounts(a)} for n, a in wanted.items()]
        if rows:
            tx.execute(t.inventories.insert(), rows)


async def list_inventories(ctx: Ctx, uuid: str) -> Any:
    """List what a provider has."""

    def look(tx: Connection) -> Any:
        row = t.provider(tx, uuid)
        return {"resource_provider_generation": row.generation, "inventories": _rows(tx, uuid)}

    return await ctx.service.kernel.db.read(look)


async def set_inventories(ctx: Ctx, uuid: str, body: Inventories) -> Any:
    """Replace all that a provider has."""
    for name, amounts in body.inventories.items():
        _check_reserved(ctx, name, amounts)

    def change(tx: Connection) -> Any:
        t.provider(tx, uuid)
        generation = t.advance(tx, uuid, body.resource_provider_generation)
        replace(tx, uuid, body.inventories)
        return {"resource_provider_generation": generation, "inventories": _rows(tx, uuid)}

    return await ctx.service.kernel.db.run(change)


async def delete_inventories(ctx: Ctx, uuid: str) -> None:
    """Take away all that a provider has."""

    def change(tx: Connection) -> None:
        row = t.provider(tx, uuid)
        t.advance(tx, uuid, row.generation)
        replace(tx, uuid, {})

    await ctx.service.kernel.db.run(change)


def _one(tx: Connection, uuid: str, name: str) -> dict[str, Any]:
    found = _rows(tx, uuid)
    if name not in found:
        raise NotFound(message=f"No inventory of class {name} for {uuid}")
    return {"resource_provider_generation": t.provider(tx, uuid).generation, **found[name]}


def _put(tx: Connection, uuid: str, name: str, body: OneInventory | NewInventory, *, new: bool) -> dict[str, Any]:
    row = t.provider(tx, uuid)
    wanted = {n: Amounts(**a) for n, a in _rows(tx, uuid).items()}
    if new and name in wanted:
        raise Conflict(f"Update conflict: inventory of {name} exists", code="placement.concurrent_update")
    if not new and name not in wanted:
        raise Invalid(f"No inventory record with resource class {name} for {uuid}")
    wanted[name] = Amounts(**_amounts(body))
    known = body.resource_provider_generation
    t.advance(tx, uuid, row.generation if known is None else known)
    replace(tx, uuid, wanted)
    return _one(tx, uuid, name)


async def create_inventory(ctx: Ctx, uuid: str, body: NewInventory) -> Any:
    """Add one inventory."""
    _check_reserved(ctx, body.resource_class, body)
    made = await ctx.service.kernel.db.run(_put, uuid, body.resource_class, body, new=True)
    where = f"{ctx.request.base_url}/resource_providers/{uuid}/inventories/{body.resource_class}"
    return Response(201, made, {"Location": where})


async def show_inventory(ctx: Ctx, uuid: str, resource_class: str) -> Any:
    """Show one inventory."""

    def look(tx: Connection) -> Any:
        t.provider(tx, uuid)
        return _one(tx, uuid, resource_class)

    return await ctx.service.kernel.db.read(look)


async def update_inventory(ctx: Ctx, uuid: str, resource_class: str, body: OneInventory) -> Any:
    """Change one inventory."""
    _check_reserved(ctx, resource_class, body)
    return await ctx.service.kernel.db.run(_put, uuid, resource_class, body, new=False)


async def delete_inventory(ctx: Ctx, uuid: str, resource_class: str) -> None:
    """Take away one inventory."""

    def change(tx: Connection) -> None:
        row = t.provider(tx, uuid)
        _one(tx, uuid, resource_class)
        rest = {n: Amounts(**a) for n, a in _rows(tx, uuid).items() if n != resource_class}
        t.advance(tx, uuid, row.generation)
        replace(tx, uuid, rest)

    await ctx.service.kernel.db.run(change)


ALL, ONE = "/resource_providers/{uuid}/inventories", "/resource_providers/{uuid}/inventories/{resource_class}"
RULE = "placement:resource_providers:inventories:"
endpoints = [
    Endpoint("GET", ALL, list_inventories, RULE + "list"),
    Endpoint("PUT", ALL, set_inventories, RULE + "update", Inventories),
    Endpoint("POST", ALL, create_inventory, RULE + "create", NewInventory, status=201),
    Endpoint("DELETE", ALL, delete_inventories, RULE + "delete", status=204, since=(1, 5)),
    Endpoint("GET", ONE, show_inventory, RULE + "show"),
    Endpoint("PUT", ONE, update_inventory, RULE + "update", OneInventory),
    Endpoint("DELETE", ONE, delete_inventory, RULE + "delete", status=204),
]
