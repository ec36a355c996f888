"""Allocation candidates: which providers have room for what is asked. GET /allocation_candidates"""

import random
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, select

from cumulet.api.http import Endpoint
from cumulet.core.errors import Invalid
from cumulet.services.placement import tables as t
from cumulet.services.placement.context import Ctx, rules
from cumulet.services.placement.name import check_classes

RULES = rules("allocation_candidates", "list")


def parse_resources(text: str) -> dict[str, int]:
    """`VCPU:2,MEMORY_MB:512` as a mapping; Invalid where it is no such thing."""
    wanted: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, amount = part.partition(":")
        if not re.fullmatch(r"[1-9][0-9]{0,9}", amount) or not name:
            raise Invalid(f"Badly formed resources parameter. Expected resources query string parameter in form: "
                          f"?resources=VCPU:2,MEMORY_MB:1024, not '{text}'")  # fmt: skip
        wanted[name] = int(amount)
    return wanted


def capacity(inventory: Any) -> int:
    """How much of an inventory can be given out; bounded, because the ratio may be anything."""
    return int(min((inventory.total - inventory.reserved) * inventory.allocation_ratio, 2.0**62))


def fits(inventory: Any, used: int, amount: int) -> bool:
    """Whether `amount` more of this inventory can be taken."""
    within = inventory.min_unit <= amount <= inventory.max_unit and amount % inventory.step_size == 0
    return bool(within and used + amount <= capacity(inventory))


_inventories = select(t.inventories).where(t.inventories.c.provider_uuid.in_(bindparam("uuids", expanding=True)))


def inventories_of(tx: Connection, uuids: list[str]) -> dict[tuple[str, str], Any]:
    rows = tx.execute(_inventories, {"uuids": uuids})
    return {(row.provider_uuid, row.resource_class): row for row in rows}


def with_room(tx: Connection, rows: list[Any], wanted: Mapping[str, int]) -> list[Any]:
    """Those providers that can give all of `wanted`."""
    uuids = [row.uuid for row in rows]
    have, used = inventories_of(tx, uuids), t.usages(tx, uuids)

    def can(uuid: str, name: str, amount: int) -> bool:
        inventory = have.get((uuid, name))
        return inventory is not None and fits(inventory, used.get((uuid, name), 0), amount)

    return [row for row in rows if all(can(row.uuid, name, amount) for name, amount in wanted.items())]


async def list_candidates(ctx: Ctx) -> Any:
    """List the providers that can give all that is asked, and what to write to take it."""
    query = ctx.request.query
    wanted = parse_resources(query.get("resources") or "")
    if not wanted:
        raise Invalid("At least one request group (`resources` or `resources{$S}`) is required.")
    limit = query.get("limit")
    if limit is not None and not re.fullmatch(r"[1-9][0-9]{0,8}", limit):
        raise Invalid(f"Invalid query string parameters: limit must be a positive integer, not '{limit}'")
    required = set((query.get("required") or "").split(",")) - {""}
    groups = set((query.get("member_of") or "").removeprefix("in:").split(",")) - {""}
    tree = query.get("in_tree")

    def look(tx: Connection) -> Any:
        check_classes(tx, wanted)
        rows = [r for r in tx.execute(select(t.providers)) if required <= set(r.traits)]
        rows = [r for r in rows if not groups or groups & set(r.aggregates)]
        rows = [r for r in rows if tree in (None, r.uuid, r.root_provider_uuid)]
        found = with_room(tx, rows, wanted)
        random.shuffle(found)
        found = found[: int(limit)] if limit else found
        uuids = [row.uuid for row in found]
        return found, inventories_of(tx, uuids), t.usages(tx, uuids)

    return _shown(ctx, wanted, *await ctx.service.kernel.db.read(look))


def _shown(
    ctx: Ctx,
    wanted: dict[str, int],
    found: list[Any],
    have: dict[tuple[str, str], Any],
    used: dict[tuple[str, str], int],
) -> dict[str, Any]:
    summaries: dict[str, Any] = {}
    for row in found:
        resources = {}
        for (uuid, name), inventory in have.items():
            if uuid == row.uuid and (ctx.version >= (1, 27) or name in wanted):
                resources[name] = {"capacity": capacity(inventory), "used": used.get((uuid, name), 0)}
        summaries[row.uuid] = {"resources": resources}
        if ctx.version >= (1, 17):
            summaries[row.uuid]["traits"] = row.traits
        if ctx.version >= (1, 29):
            summaries[row.uuid]["parent_provider_uuid"] = row.parent_provider_uuid
            summaries[row.uuid]["root_provider_uuid"] = row.root_provider_uuid
    requests = []
    for row in found:
        if ctx.version >= (1, 12):
            request: dict[str, Any] = {"allocations": {row.uuid: {"resources": wanted}}}
        else:
            request = {"allocations": [{"resource_provider": {"uuid": row.uuid}, "resources": wanted}]}
        if ctx.version >= (1, 34):
            request["mappings"] = {"": [row.uuid]}
        requests.append(request)
    return {"allocation_requests": requests, "provider_summaries": summaries}


RULE = "placement:allocation_candidates:list"
endpoints = [Endpoint("GET", "/allocation_candidates", list_candidates, RULE, since=(1, 10))]
