"""Quotas of compute, and the limits that clients see.

GET, PUT, DELETE /os-quota-sets/{project} · GET .../defaults · GET .../detail · GET /limits
GET /os-quota-class-sets/{name}
"""

from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, func, select

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_READER, ANYBODY
from cumulet.core import quota
from cumulet.core.errors import Forbidden, Invalid
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.resource import Server

PREFIX = "os_compute_api:os-quota-sets:"
SHOW, DETAIL, UPDATE, DELETE, SHOW_DEFAULTS = (PREFIX + v for v in ("show", "detail", "update", "delete", "defaults"))
CLASS_SHOW = "os_compute_api:os-quota-class-sets:show"
LIMITS, LIMITS_OTHER = "os_compute_api:limits", "os_compute_api:limits:other_project"
RULES = {
    SHOW: ADMIN_OR_OWNER_READER, DETAIL: ADMIN_OR_OWNER_READER, UPDATE: ADMIN, DELETE: ADMIN, SHOW_DEFAULTS: ANYBODY,
    CLASS_SHOW: ADMIN, LIMITS: ANYBODY, LIMITS_OTHER: ADMIN,
}  # fmt: skip

DEFAULTS = {
    "instances": 10,
    "cores": 20,
    "ram": 51200,
    "metadata_items": 128,
    "key_pairs": 100,
    "server_groups": 10,
    "server_group_members": 10,
    "injected_files": 5,
    "injected_file_content_bytes": 10240,
    "injected_file_path_bytes": 255,
    "fixed_ips": -1,
    "floating_ips": -1,
    "security_groups": -1,
    "security_group_rules": -1,
}
NETWORKS = frozenset({"fixed_ips", "floating_ips", "security_groups", "security_group_rules"})
FILES = frozenset({"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"})


def usage(tx: Connection, project_id: str) -> dict[str, int]:
    """What a project's servers use: instances, cores and ram (MiB)."""
    columns = Server.table.c
    row = tx.execute(
        select(
            func.count(),
            func.coalesce(func.sum(columns.vcpus), 0),
            func.coalesce(func.sum(columns.memory_mb), 0),
        ).where(columns.project_id == project_id, columns.deleted_at.is_(None))
    ).one()
    return {"instances": int(row[0]), "cores": int(row[1]), "ram": int(row[2])}


def check_servers(tx: Connection, project_id: str, instances: int, cores: int, ram: int) -> None:
    """Refuse servers that pass the project's quota, in upstream's words."""
    allowed = quota.limits(tx, "compute", project_id, DEFAULTS)
    wanted = {"instances": instances, "cores": cores, "ram": ram}
    if all(allowed[n] == quota.UNLIMITED for n in wanted):
        return
    used = usage(tx, project_id)
    over = [n for n in wanted if wanted[n] and allowed[n] != quota.UNLIMITED and used[n] + wanted[n] > allowed[n]]
    if over:
        listed = ", ".join(over)
        requested = ", ".join(str(wanted[n]) for n in over)
        already = ", ".join(str(used[n]) for n in over)
        limit = ", ".join(str(allowed[n]) for n in over)
        raise Forbidden(
            f"Quota exceeded for {listed}: Requested {requested}, but already used {already} of {limit} {listed}"
        )


def _served(ctx: Ctx) -> list[str]:
    """The quotas that this version speaks of."""
    hidden = (NETWORKS if ctx.version >= (2, 36) else frozenset()) | (FILES if ctx.version >= (2, 57) else frozenset())
    return [name for name in DEFAULTS if name not in hidden]


def _own(ctx: Ctx, project: str, rule: str) -> None:
    ctx.require(rule, {"project_id": project})


async def show_quotas(ctx: Ctx, project: str) -> Any:
    """Show the limits of a project."""
    _own(ctx, project, SHOW)
    limits = await ctx.service.kernel.db.read_inline(quota.limits, "compute", project, DEFAULTS)
    return {"quota_set": {"id": project, **{name: limits[name] for name in _served(ctx)}}}


async def show_defaults(ctx: Ctx, project: str) -> Any:
    """Show the limits of projects for which nothing was set."""
    return {"quota_set": {"id": project, **{name: DEFAULTS[name] for name in _served(ctx)}}}


async def show_detail(ctx: Ctx, project: str) -> Any:
    """Show the limits of a project and what it uses of them."""
    _own(ctx, project, DETAIL)

    def look(tx: Connection) -> Any:
        return quota.limits(tx, "compute", project, DEFAULTS), usage(tx, project)

    limits, used = await ctx.service.kernel.db.read(look)
    rows = {n: {"limit": limits[n], "in_use": used.get(n, 0), "reserved": 0} for n in _served(ctx)}
    return {"quota_set": {"id": project, **rows}}


async def update_quotas(ctx: Ctx, project: str, body: dict[str, dict[str, Any]]) -> Any:
    """Set limits of a project; `force` sets them below what is used, too."""
    given = dict(body.get("quota_set") or {})
    if list(body) != ["quota_set"]:
        raise Invalid("Invalid input for field/attribute quota_set: it is a required property, and the only one.")
    force = str(given.pop("force", False)).lower() in ("true", "1", "t", "yes", "on", "y")
    given.pop("tenant_id", None)
    served = _served(ctx)
    for name, value in given.items():
        if name not in served:
            raise Invalid(
                f"Invalid input for field/attribute quota_set. Additional properties are not allowed ('{name}')"
            )
        if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).lstrip("-").isdecimal():
            raise Invalid(f"Invalid input for field/attribute {name}. Value: {value}. It is no integer.")
        given[name] = int(value)
        if not -1 <= given[name] <= 2147483647:
            raise Invalid(f"Quota limit {value} for {name} must be in the range of -1 and 2147483647.")

    def unit(tx: Connection) -> dict[str, int]:
        used = usage(tx, project)
        for name, limit in given.items():
            if not force and limit != -1 and limit < used.get(name, 0):
                raise Invalid(f"Quota limit {limit} for {name} must be greater than or equal to already used and "
                              f"reserved {used[name]}.")  # fmt: skip
        quota.set_limits(tx, "compute", project, given)
        return quota.limits(tx, "compute", project, DEFAULTS)

    limits = await ctx.service.kernel.db.run(unit)
    return {"quota_set": {name: limits[name] for name in served}}


async def delete_quotas(ctx: Ctx, project: str) -> Any:
    """Go back to the default limits."""
    await ctx.service.kernel.db.run(quota.reset_limits, "compute", project)
    return Response(202)


async def show_class(ctx: Ctx, name: str) -> Any:
    """Show the limits of the class `default`."""
    return {"quota_class_set": {"id": name, **{n: DEFAULTS[n] for n in _served(ctx)}}}


class _Names(Struct, frozen=True):
    quota: str
    maximum: str
    used: str = ""


ABSOLUTE = (
    _Names("instances", "maxTotalInstances", "totalInstancesUsed"),
    _Names("cores", "maxTotalCores", "totalCoresUsed"),
    _Names("ram", "maxTotalRAMSize", "totalRAMUsed"),
    _Names("metadata_items", "maxServerMeta"),
    _Names("key_pairs", "maxTotalKeypairs"),
    _Names("server_groups", "maxServerGroups", "totalServerGroupsUsed"),
    _Names("server_group_members", "maxServerGroupMembers"),
    _Names("floating_ips", "maxTotalFloatingIps", "totalFloatingIpsUsed"),
    _Names("security_groups", "maxSecurityGroups", "totalSecurityGroupsUsed"),
    _Names("security_group_rules", "maxSecurityGroupRules"),
    _Names("injected_files", "maxPersonality"),
    _Names("injected_file_content_bytes", "maxPersonalitySize"),
)


async def show_limits(ctx: Ctx) -> Any:
    """Show what a project may have and what it has."""
    project = ctx.caller.project_id or ""
    asked = ctx.request.query.get("tenant_id")
    if asked and asked != project:
        ctx.require(LIMITS_OTHER)
        project = asked

    def look(tx: Connection) -> Any:
        return quota.limits(tx, "compute", project, DEFAULTS), usage(tx, project)

    limits, used = await ctx.service.kernel.db.read(look)
    served = _served(ctx)
    absolute: dict[str, int] = {}
    for names in ABSOLUTE:
        if names.quota in served:
            absolute[names.maximum] = limits[names.quota]
            if names.used:
                absolute[names.used] = used.get(names.quota, 0)
    if ctx.version < (2, 39):
        absolute["maxImageMeta"] = limits["metadata_items"]
    return {"limits": {"rate": [], "absolute": absolute}}


ONE = "/v2.1/os-quota-sets/{project}"
endpoints = [
    Endpoint("GET", ONE, show_quotas),
    Endpoint("PUT", ONE, update_quotas, UPDATE, dict[str, dict[str, Any]]),
    Endpoint("DELETE", ONE, delete_quotas, DELETE),
    Endpoint("GET", ONE + "/defaults", show_defaults, SHOW_DEFAULTS),
    Endpoint("GET", ONE + "/detail", show_detail),
    Endpoint("GET", "/v2.1/os-quota-class-sets/{name}", show_class, CLASS_SHOW),
    Endpoint("GET", "/v2.1/limits", show_limits, LIMITS),
]
