"""Quotas: how much of each thing a project may have.

GET /v2.0/quotas · GET, PUT, DELETE /v2.0/quotas/{project_id} · GET .../default · GET .../details
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, defstruct
from sqlalchemy import Connection, func, select

from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import ResourceMeta
from cumulet.core import quota
from cumulet.core.errors import Forbidden, Invalid
from cumulet.services.network.floating_ip import FloatingIp
from cumulet.services.network.network import Network
from cumulet.services.network.port import Port
from cumulet.services.network.router import Router
from cumulet.services.network.security_group import SecurityGroup
from cumulet.services.network.security_group_rule import SecurityGroupRule
from cumulet.services.network.standard import DEFAULTS, Ctx
from cumulet.services.network.subnet import Subnet
from cumulet.services.network.subnetpool import SubnetPool

COUNTED: dict[str, ResourceMeta] = {
    "network": Network,
    "subnet": Subnet,
    "subnetpool": SubnetPool,
    "port": Port,
    "router": Router,
    "floatingip": FloatingIp,
    "security_group": SecurityGroup,
    "security_group_rule": SecurityGroupRule,
}

Limit = Annotated[int, Meta(ge=-1, le=2147483647)]
_Limits = defstruct("Limits", [(name, Limit | UnsetType, UNSET) for name in DEFAULTS], forbid_unknown_fields=True)
QuotaBody = defstruct("QuotaBody", [("quota", _Limits)], forbid_unknown_fields=True)

RULES = {
    "get_quota": "role:admin or role:reader",
    "update_quota": "role:admin",
    "delete_quota": "role:admin",
}


def _check(ctx: Ctx, project_id: str) -> None:
    """A project may look at its own quotas; others are an admin's."""
    if not ctx.caller.is_admin and project_id != ctx.caller.project_id:
        raise Forbidden(rule="rule:get_quota")


async def list_quotas(ctx: Ctx) -> Any:
    """List the quotas of every project that has some of its own."""
    if not ctx.caller.is_admin:
        raise Forbidden(rule="rule:get_quota")

    def look(tx: Connection) -> list[dict[str, Any]]:
        t = quota.table.c
        found: dict[str, dict[str, Any]] = {}
        rows = select(t.project_id, t.resource, t.limit).where(t.service == "network").order_by(t.project_id)
        for project, resource, limit in tx.execute(rows):
            found.setdefault(project, {**DEFAULTS, "project_id": project, "tenant_id": project})[resource] = limit
        return list(found.values())

    return {"quotas": await ctx.service.kernel.db.read(look)}


async def show_quota(ctx: Ctx, project_id: str) -> Any:
    """Show the quotas of a project."""
    _check(ctx, project_id)
    return {"quota": await ctx.service.kernel.db.read(quota.limits, "network", project_id, DEFAULTS)}


async def show_default(ctx: Ctx, project_id: str) -> Any:
    """Show the quotas of a project that has none of its own."""
    _check(ctx, project_id)
    return {"quota": DEFAULTS}


async def show_own(ctx: Ctx) -> Any:
    """Tell which project the caller's quotas are of."""
    return {"tenant": {"tenant_id": ctx.caller.project_id}}


async def show_details(ctx: Ctx, project_id: str) -> Any:
    """Show the quotas of a project and what is used of them."""
    _check(ctx, project_id)

    def look(tx: Connection) -> dict[str, Any]:
        limits = quota.limits(tx, "network", project_id, DEFAULTS)
        details = {}
        for name, limit in limits.items():
            used = 0
            if name in COUNTED:
                table = COUNTED[name].table
                counted = select(func.count()).select_from(table).where(table.c.project_id == project_id)
                used = tx.execute(counted).scalar_one()
            details[name] = {"limit": limit, "used": used, "reserved": 0}
        return details

    return {"quota": await ctx.service.kernel.db.read(look)}


async def update_quota(ctx: Ctx, project_id: str, body: Any) -> Any:
    """Set quotas of a project."""
    if len(project_id) > 64:
        raise Invalid("A project's ID has 64 characters at most.")
    new = {name: limit for name in DEFAULTS if (limit := getattr(body.quota, name)) is not UNSET}

    def store(tx: Connection) -> dict[str, int]:
        quota.set_limits(tx, "network", project_id, new)
        return quota.limits(tx, "network", project_id, DEFAULTS)

    return {"quota": await ctx.service.write(store)}


async def delete_quota(ctx: Ctx, project_id: str) -> Response:
    """Give a project the default quotas again."""
    await ctx.service.write(quota.reset_limits, "network", project_id)
    return Response(204)


_MEMBER = "/v2.0/quotas/{project_id}"
endpoints = [
    Endpoint("GET", "/v2.0/quotas", list_quotas, "get_quota"),
    Endpoint("GET", "/v2.0/quotas/tenant", show_own, "get_quota"),
    Endpoint("GET", _MEMBER, show_quota, "get_quota"),
    Endpoint("GET", _MEMBER + "/default", show_default, "get_quota"),
    Endpoint("GET", _MEMBER + "/details", show_details, "get_quota"),
    Endpoint("GET", _MEMBER + "/details.json", show_details, "get_quota"),
    Endpoint("PUT", _MEMBER, update_quota, "update_quota", QuotaBody),
    Endpoint("DELETE", _MEMBER, delete_quota, "delete_quota"),
]
