"""What admins see of hosts: hypervisors, services, availability zones, aggregates.

GET /os-hypervisors · .../detail · .../statistics · .../{id} · .../{id}/uptime · .../{id}/servers · .../{id}/search
GET /os-services · PUT, DELETE /os-services/{id} · GET /os-availability-zone · .../detail · GET /os-aggregates
"""

import os
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from cumulet.api.http import Endpoint
from cumulet.api.policy import ADMIN, ANYBODY
from cumulet.core.errors import Invalid, NotFound, NotImplementedHere
from cumulet.core.types import now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.resource import Server
from cumulet.services.compute.server.state import ALIVE

HYPERVISORS = {
    verb: f"os_compute_api:os-hypervisors:{verb}"
    for verb in ("list", "list-detail", "statistics", "show", "uptime", "search", "servers")
}
SERVICES = {verb: f"os_compute_api:os-services:{verb}" for verb in ("list", "update", "delete")}
ZONES, ZONES_DETAIL = "os_compute_api:os-availability-zone:list", "os_compute_api:os-availability-zone:detail"
AGGREGATES = "os_compute_api:os-aggregates:index"
RULES = {
    **dict.fromkeys((*HYPERVISORS.values(), *SERVICES.values(), ZONES_DETAIL, AGGREGATES), ADMIN),
    ZONES: ANYBODY,
}
UUIDS = (2, 53)
PLAIN = (2, 88)
"""Since then hypervisors tell no usage: placement does."""


def _used(tx: Connection) -> dict[str, int]:
    columns = Server.table.c
    row = tx.execute(
        select(
            func.count(),
            func.coalesce(func.sum(columns.vcpus), 0),
            func.coalesce(func.sum(columns.memory_mb), 0),
            func.coalesce(func.sum(columns.disk_gb), 0),
        ).where(ALIVE, columns.host.is_not(None))
    ).one()
    return {"running_vms": row[0], "vcpus": int(row[1]), "memory_mb": int(row[2]), "disk_gb": int(row[3])}


def _brief(ctx: Ctx) -> dict[str, Any]:
    service = ctx.service
    shown_id: Any = service.provider_id if ctx.version >= UUIDS else 1
    return {"id": shown_id, "hypervisor_hostname": service.hostname, "state": "up", "status": "enabled"}


async def _usage(ctx: Ctx) -> dict[str, Any]:
    host = await ctx.service.hypervisor.host_info()
    used = await ctx.service.kernel.db.read(_used)
    return {
        "vcpus": host.vcpus,
        "vcpus_used": used["vcpus"],
        "memory_mb": host.memory_mb,
        "memory_mb_used": used["memory_mb"],
        "free_ram_mb": host.memory_mb - used["memory_mb"],
        "local_gb": host.disk_gb,
        "local_gb_used": used["disk_gb"],
        "free_disk_gb": host.disk_gb - used["disk_gb"],
        "disk_available_least": host.disk_gb - used["disk_gb"],
        "running_vms": used["running_vms"],
        "current_workload": 0,
    }


async def _detail(ctx: Ctx) -> dict[str, Any]:
    host = await ctx.service.hypervisor.host_info()
    service_id: Any = ctx.service.provider_id if ctx.version >= UUIDS else 1
    shown = {
        **_brief(ctx),
        "host_ip": ctx.service.kernel.settings.endpoint_address,
        "hypervisor_type": "QEMU" if host.hypervisor_type == "qemu" else host.hypervisor_type,
        "hypervisor_version": host.hypervisor_version,
        "service": {"host": ctx.service.hostname, "id": service_id, "disabled_reason": None},
    }
    if ctx.version >= PLAIN:
        return {**shown, "uptime": _uptime()}
    cpu: Any = {"model": host.cpu_model, "arch": "x86_64", "vendor": "", "features": [], "topology": {}}
    if ctx.version < (2, 28):
        cpu = msgspec.json.encode(cpu).decode()
    return {**shown, "cpu_info": cpu, **await _usage(ctx)}


def _hit(ctx: Ctx, pattern: str | None) -> bool:
    return pattern is None or pattern in ctx.service.hostname


async def _list(ctx: Ctx, shown: dict[str, Any]) -> Any:
    pattern = ctx.request.query.get("hypervisor_hostname_pattern") if ctx.version >= UUIDS else None
    if pattern is not None and not _hit(ctx, pattern):
        raise NotFound(message=f"No hypervisor matching '{pattern}' could be found.")
    if ctx.version >= UUIDS and ctx.request.query.get("with_servers") in ("true", "True", "1"):
        shown["servers"] = await _servers(ctx)
    marker = ctx.request.query.get("marker")
    return {"hypervisors": [] if marker == shown["id"] else [shown]}


async def _servers(ctx: Ctx) -> list[dict[str, str]]:
    columns = Server.table.c

    def look(tx: Connection) -> list[dict[str, str]]:
        rows = tx.execute(select(columns.id, columns.instance_name).where(ALIVE, columns.host == ctx.service.hostname))
        return [{"uuid": row.id, "name": row.instance_name} for row in rows]

    return await ctx.service.kernel.db.read(look)


async def list_hypervisors(ctx: Ctx) -> Any:
    """List hypervisors."""
    return await _list(ctx, _brief(ctx))


async def list_hypervisor_details(ctx: Ctx) -> Any:
    """List hypervisors with all that they say."""
    return await _list(ctx, await _detail(ctx))


async def show_statistics(ctx: Ctx) -> Any:
    """Show the sums over all hypervisors."""
    return {"hypervisor_statistics": {"count": 1, **await _usage(ctx)}}


def _same(ctx: Ctx, id: str) -> None:
    wanted = ctx.service.provider_id if ctx.version >= UUIDS else "1"
    if id != wanted:
        raise NotFound(message=f"Compute host {id} could not be found.")


async def show_hypervisor(ctx: Ctx, id: str) -> Any:
    """Show one hypervisor."""
    _same(ctx, id)
    shown = await _detail(ctx)
    if ctx.version >= UUIDS and ctx.request.query.get("with_servers") in ("true", "True", "1"):
        shown["servers"] = await _servers(ctx)
    return {"hypervisor": shown}


def _uptime() -> str:
    """How long the host has been up, worded as the command `uptime` does, which clients parse."""
    minutes = int(time.clock_gettime(time.CLOCK_BOOTTIME)) // 60
    days, hours = divmod(minutes // 60, 24)
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f" {time.strftime('%H:%M:%S')} up {days} days, {hours:2}:{minutes % 60:02},  0 users,  load average: {load}"


async def show_uptime(ctx: Ctx, id: str) -> Any:
    """Show how long a hypervisor has been up."""
    _same(ctx, id)
    return {"hypervisor": {**_brief(ctx), "uptime": _uptime()}}


async def search_hypervisors(ctx: Ctx, id: str) -> Any:
    """List hypervisors whose host name holds a text."""
    if not _hit(ctx, id):
        raise NotFound(message=f"No hypervisor matching '{id}' could be found.")
    return {"hypervisors": [_brief(ctx)]}


async def search_servers(ctx: Ctx, id: str) -> Any:
    """List hypervisors whose host name holds a text, with their servers."""
    if not _hit(ctx, id):
        raise NotFound(message=f"No hypervisor matching '{id}' could be found.")
    return {"hypervisors": [{**_brief(ctx), "servers": await _servers(ctx)}]}


# ---- services -----------------------------------------------------------------------------------------------------------

BINARIES: Mapping[str, str] = {"nova-compute": "nova", "nova-conductor": "internal", "nova-scheduler": "internal"}
"""What upstream runs as processes of their own; here they are parts of one."""


async def list_services(ctx: Ctx) -> Any:
    """List the parts of compute that run."""
    query = ctx.request.query
    listed = []
    for number, (binary, zone) in enumerate(BINARIES.items(), 1):
        if query.get("binary") not in (None, binary) or query.get("host") not in (None, ctx.service.hostname):
            continue
        shown: dict[str, Any] = {
            "id": _service_id(ctx, number), "binary": binary, "host": ctx.service.hostname, "zone": zone,
            "status": "enabled", "state": "up", "updated_at": now(), "disabled_reason": None,
        }  # fmt: skip
        if ctx.version >= (2, 11):
            shown["forced_down"] = False
        listed.append(shown)
    return {"services": listed}


def _service_id(ctx: Ctx, number: int) -> Any:
    if ctx.version < UUIDS:
        return number
    return ctx.service.provider_id if number == 1 else f"{ctx.service.provider_id[:-1]}{number}"


def _known_service(ctx: Ctx, id: str) -> None:
    ids = {str(_service_id(ctx, number)) for number in range(1, len(BINARIES) + 1)}
    if ctx.version >= UUIDS and id not in ids:
        raise NotFound(message=f"Service {id} could not be found.")


async def update_service(ctx: Ctx, id: str, body: dict[str, Any]) -> Any:
    """Refused: services are parts of one program."""
    _known_service(ctx, id)
    raise NotImplementedHere("Services cannot be disabled one by one: they are parts of one program.")


async def delete_service(ctx: Ctx, id: str) -> Any:
    """Refused: services are parts of one program."""
    _known_service(ctx, id)
    raise Invalid("Services cannot be deleted one by one: they are parts of one program.")


# ---- zones and aggregates -----------------------------------------------------------------------------------------------


async def list_zones(ctx: Ctx) -> Any:
    """List availability zones."""
    return {"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}]}


async def list_zone_details(ctx: Ctx) -> Any:
    """List availability zones with their hosts."""
    alive = {"available": True, "active": True, "updated_at": now()}
    zones: dict[str, dict[str, Any]] = {}
    for binary, zone in BINARIES.items():
        zones.setdefault(zone, {}).setdefault(ctx.service.hostname, {})[binary] = alive
    return {
        "availabilityZoneInfo": [
            {"zoneName": zone, "zoneState": {"available": True}, "hosts": hosts} for zone, hosts in zones.items()
        ]
    }


async def list_aggregates(ctx: Ctx) -> Any:
    """List host aggregates: there are none."""
    return {"aggregates": []}


ONE = "/v2.1/os-hypervisors/{id}"
endpoints = [
    Endpoint("GET", "/v2.1/os-hypervisors", list_hypervisors, HYPERVISORS["list"]),
    Endpoint("GET", "/v2.1/os-hypervisors/detail", list_hypervisor_details, HYPERVISORS["list-detail"]),
    Endpoint("GET", "/v2.1/os-hypervisors/statistics", show_statistics, HYPERVISORS["statistics"], until=(2, 87)),
    Endpoint("GET", ONE, show_hypervisor, HYPERVISORS["show"]),
    Endpoint("GET", ONE + "/uptime", show_uptime, HYPERVISORS["uptime"], until=(2, 87)),
    Endpoint("GET", ONE + "/search", search_hypervisors, HYPERVISORS["search"], until=(2, 52)),
    Endpoint("GET", ONE + "/servers", search_servers, HYPERVISORS["servers"], until=(2, 52)),
    Endpoint("GET", "/v2.1/os-services", list_services, SERVICES["list"]),
    Endpoint("PUT", "/v2.1/os-services/{id}", update_service, SERVICES["update"], dict[str, Any]),
    Endpoint("DELETE", "/v2.1/os-services/{id}", delete_service, SERVICES["delete"]),
    Endpoint("GET", "/v2.1/os-availability-zone", list_zones, ZONES),
    Endpoint("GET", "/v2.1/os-availability-zone/detail", list_zone_details, ZONES_DETAIL),
    Endpoint("GET", "/v2.1/os-aggregates", list_aggregates, AGGREGATES),
]
