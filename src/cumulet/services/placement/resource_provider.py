"""Resource providers.

GET, POST /resource_providers · GET, PUT, DELETE /resource_providers/{uuid}
GET, PUT /resource_providers/{uuid}/traits, /aggregates · DELETE /resource_providers/{uuid}/traits
GET /resource_providers/{uuid}/usages, /allocations
"""

from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from cumulet.api.http import Endpoint, Response
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import Uuid, is_uuid, new_id
from cumulet.services.placement import tables as t
from cumulet.services.placement.candidate import parse_resources, with_room
from cumulet.services.placement.context import Ctx, Generation, rules

RULES = {
    **rules("resource_providers", "list", "create", "show", "update", "delete", "usages"),
    **rules("resource_providers:traits", "list", "update", "delete"),
    **rules("resource_providers:aggregates", "list", "update"),
    **rules("resource_providers:allocations", "list"),
}
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class NewProvider(Struct, forbid_unknown_fields=True):
    name: Name
    uuid: Uuid | None = None
    parent_provider_uuid: Uuid | None = None


class ProviderChange(Struct, forbid_unknown_fields=True):
    name: Name
    parent_provider_uuid: Uuid | None = None


class Traits(Struct, forbid_unknown_fields=True):
    traits: list[Annotated[str, Meta(pattern="^[A-Z0-9_]{1,255}$")]]
    resource_provider_generation: Generation


class Aggregates(Struct, forbid_unknown_fields=True):
    aggregates: list[Uuid]
    resource_provider_generation: Generation


def shown(ctx: Ctx, row: Any) -> dict[str, Any]:
    base = f"/resource_providers/{row.uuid}"
    rels = ["inventories", "usages", "aggregates", "traits", "allocations"]
    links = [{"rel": "self", "href": base}, *({"rel": rel, "href": f"{base}/{rel}"} for rel in rels)]
    view = {"uuid": row.uuid, "name": row.name, "generation": row.generation, "links": links}
    if ctx.version >= (1, 14):
        view.update(parent_provider_uuid=row.parent_provider_uuid, root_provider_uuid=row.root_provider_uuid)
    return view


async def list_providers(ctx: Ctx) -> Any:
    """List providers; ?name, ?uuid, ?member_of, ?in_tree, ?resources and ?required choose among them."""
    query = ctx.request.query
    known = {"name", "uuid", "member_of", "in_tree", "resources", "required"}
    if unknown := set(query.grouped()) - known:
        raise Invalid(f"Invalid query string parameters: {', '.join(sorted(unknown))} is not among {sorted(known)}")
    conditions = []
    for name in ("name", "uuid"):
        if value := query.get(name):
            conditions.append(t.providers.c[name] == value)
    if tree := query.get("in_tree"):
        conditions.append(t.providers.c.root_provider_uuid == tree)
    wanted = parse_resources(query.get("resources") or "")
    groups = set((query.get("member_of") or "").removeprefix("in:").split(",")) - {""}
    required = set((query.get("required") or "").split(",")) - {""}

    def look(tx: Connection) -> list[Any]:
        rows = list(tx.execute(select(t.providers).where(*conditions).order_by(t.providers.c.name)))
        rows = [r for r in rows if required <= set(r.traits) and (not groups or groups & set(r.aggregates))]
        return with_room(tx, rows, wanted) if wanted else rows

    return {"resource_providers": [shown(ctx, row) for row in await ctx.service.kernel.db.read(look)]}


async def show_provider(ctx: Ctx, uuid: str) -> Any:
    """Show one provider."""
    return shown(ctx, await ctx.service.kernel.db.read_inline(t.provider, uuid))


def insert_provider(tx: Connection, uuid: str, name: str, parent: str | None = None) -> Any:
    root = uuid
    if parent is not None:
        above = tx.execute(select(t.providers).where(t.providers.c.uuid == parent)).first()
        if above is None:
            raise Invalid(f"parent provider UUID does not exist: {parent}")
        root = above.root_provider_uuid
    row = {"uuid": uuid, "name": name, "generation": 0, "parent_provider_uuid": parent, "root_provider_uuid": root}
    try:
        tx.execute(t.providers.insert(), {**row, "traits": [], "aggregates": []})
    except IntegrityError:
        message = f"Conflicting resource provider name: {name} or uuid: {uuid} already exists."
        raise Conflict(message, code="placement.duplicate_name") from None
    return t.provider(tx, uuid)


async def create_provider(ctx: Ctx, body: NewProvider) -> Any:
    """Create a provider."""
    uuid = str(UUID(body.uuid)) if body.uuid else new_id()
    row = await ctx.service.kernel.db.run(insert_provider, uuid, body.name, body.parent_provider_uuid)
    headers = {"Location": f"{ctx.request.base_url}/resource_providers/{uuid}"}
    return Response(200, shown(ctx, row), headers) if ctx.version >= (1, 20) else Response(201, b"", headers)


async def update_provider(ctx: Ctx, uuid: str, body: ProviderChange) -> Any:
    """Rename a provider, or give it a parent."""

    def change(tx: Connection) -> Any:
        row = t.provider(tx, uuid)
        changes: dict[str, Any] = {"name": body.name}
        if body.parent_provider_uuid is not None and body.parent_provider_uuid != row.parent_provider_uuid:
            if body.parent_provider_uuid == uuid:
                raise Invalid("a resource provider cannot be its own parent")
            above = t.provider(tx, body.parent_provider_uuid)
            if above.root_provider_uuid == row.root_provider_uuid:
                raise Invalid("re-parenting inside a tree would make a loop of providers")
            changes.update(parent_provider_uuid=above.uuid, root_provider_uuid=above.root_provider_uuid)
        try:
            tx.execute(t.providers.update().where(t.providers.c.uuid == uuid).values(changes))
        except IntegrityError:
            message = f"Conflicting resource provider name: {body.name} already exists."
            raise Conflict(message, code="placement.duplicate_name") from None
        return t.provider(tx, uuid)

    return shown(ctx, await ctx.service.kernel.db.run(change))


async def delete_provider(ctx: Ctx, uuid: str) -> None:
    """Delete a provider that nobody uses."""

    def remove(tx: Connection) -> None:
        t.provider(tx, uuid)
        if tx.execute(select(t.providers.c.uuid).where(t.providers.c.parent_provider_uuid == uuid)).first():
            message = f"Unable to delete parent resource provider {uuid}: It has child resource providers."
            raise Conflict(message, code="placement.resource_provider.cannot_delete_parent")
        if t.usages(tx, [uuid]):
            message = f"Unable to delete resource provider {uuid}: Resource provider has allocations."
            raise Conflict(message, code="placement.resource_provider.inuse")
        tx.execute(t.inventories.delete().where(t.inventories.c.provider_uuid == uuid))
        tx.execute(t.providers.delete().where(t.providers.c.uuid == uuid))

    await ctx.service.kernel.db.run(remove)


async def show_traits(ctx: Ctx, uuid: str) -> Any:
    """Show a provider's traits."""
    row = await ctx.service.kernel.db.read_inline(t.provider, uuid)
    return {"traits": row.traits, "resource_provider_generation": row.generation}


async def set_traits(ctx: Ctx, uuid: str, body: Traits) -> Any:
    """Replace a provider's traits."""

    def change(tx: Connection) -> Any:
        t.provider(tx, uuid)
        known = set(tx.execute(select(t.names.c.name).where(t.names.c.kind == "trait")).scalars())
        if unknown := {name for name in body.traits if name.startswith("CUSTOM_")} - known:
            raise Invalid(f"No such trait {', '.join(sorted(unknown))}")
        generation = t.advance(tx, uuid, body.resource_provider_generation)
        traits = sorted(set(body.traits))
        tx.execute(t.providers.update().where(t.providers.c.uuid == uuid).values(traits=traits))
        return {"traits": traits, "resource_provider_generation": generation}

    return await ctx.service.kernel.db.run(change)


async def delete_traits(ctx: Ctx, uuid: str) -> None:
    """Take all traits from a provider."""

    def change(tx: Connection) -> None:
        row = t.provider(tx, uuid)
        t.advance(tx, uuid, row.generation)
        tx.execute(t.providers.update().where(t.providers.c.uuid == uuid).values(traits=[]))

    await ctx.service.kernel.db.run(change)


def _aggregates(ctx: Ctx, row: Any) -> dict[str, Any]:
    view: dict[str, Any] = {"aggregates": row.aggregates}
    if ctx.version >= (1, 19):
        view["resource_provider_generation"] = row.generation
    return view


async def show_aggregates(ctx: Ctx, uuid: str) -> Any:
    """Show the aggregates a provider is in."""
    return _aggregates(ctx, await ctx.service.kernel.db.read_inline(t.provider, uuid))


async def set_aggregates(ctx: Ctx, uuid: str) -> Any:
    """Replace the aggregates a provider is in."""
    if ctx.version >= (1, 19):
        body = await ctx.request.json(Aggregates)
        wanted, generation = body.aggregates, body.resource_provider_generation
    else:
        wanted, generation = await ctx.request.json(list[Uuid]), None
    if not all(is_uuid(a) for a in wanted):
        raise Invalid("aggregates are given by their UUIDs")

    def change(tx: Connection) -> Any:
        row = t.provider(tx, uuid)
        if generation is not None:
            t.advance(tx, uuid, generation)
        tx.execute(t.providers.update().where(t.providers.c.uuid == row.uuid).values(aggregates=sorted(set(wanted))))
        return t.provider(tx, uuid)

    return _aggregates(ctx, await ctx.service.kernel.db.run(change))


async def show_usages(ctx: Ctx, uuid: str) -> Any:
    """Show how much of a provider is taken."""

    def look(tx: Connection) -> Any:
        row = t.provider(tx, uuid)
        used = {name: amount for (_, name), amount in t.usages(tx, [uuid]).items()}
        have = tx.execute(select(t.inventories.c.resource_class).where(t.inventories.c.provider_uuid == uuid)).scalars()
        return {"resource_provider_generation": row.generation, "usages": {name: used.get(name, 0) for name in have}}

    return await ctx.service.kernel.db.read(look)


async def show_allocations(ctx: Ctx, uuid: str) -> Any:
    """Show who has taken what of a provider."""

    def look(tx: Connection) -> Any:
        row = t.provider(tx, uuid)
        held: dict[str, Any] = {}
        join = t.allocations.join(t.consumers, t.consumers.c.uuid == t.allocations.c.consumer_uuid)
        statement = select(t.allocations, t.consumers.c.generation).select_from(join)
        for a in tx.execute(statement.where(t.allocations.c.provider_uuid == uuid)):
            entry = held.setdefault(a.consumer_uuid, {"resources": {}})
            entry["resources"][a.resource_class] = a.used
            if ctx.version >= (1, 28):
                entry["consumer_generation"] = a.generation
        return {"resource_provider_generation": row.generation, "allocations": held}

    return await ctx.service.kernel.db.read(look)


ALL, ONE = "/resource_providers", "/resource_providers/{uuid}"
RULE = "placement:resource_providers:"
endpoints = [
    Endpoint("GET", ALL, list_providers, RULE + "list"),
    Endpoint("POST", ALL, create_provider, RULE + "create", NewProvider, status=201),
    Endpoint("GET", ONE, show_provider, RULE + "show"),
    Endpoint("PUT", ONE, update_provider, RULE + "update", ProviderChange),
    Endpoint("DELETE", ONE, delete_provider, RULE + "delete", status=204),
    Endpoint("GET", ONE + "/traits", show_traits, RULE + "traits:list", since=(1, 6)),
    Endpoint("PUT", ONE + "/traits", set_traits, RULE + "traits:update", Traits, since=(1, 6)),
    Endpoint("DELETE", ONE + "/traits", delete_traits, RULE + "traits:delete", status=204, since=(1, 6)),
    Endpoint("GET", ONE + "/aggregates", show_aggregates, RULE + "aggregates:list", since=(1, 1)),
    Endpoint("PUT", ONE + "/aggregates", set_aggregates, RULE + "aggregates:update", since=(1, 1)),
    Endpoint("GET", ONE + "/usages", show_usages, RULE + "usages"),
    Endpoint("GET", ONE + "/allocations", show_allocations, RULE + "allocations:list"),
]
