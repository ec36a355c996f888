"""Hosts as compute's API had them before 2.43; `host.py` has what took their place.

GET /os-hosts · GET, PUT /os-hosts/{name} · GET /os-hosts/{name}/startup, /shutdown, /reboot
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import Connection, func, select

from cumulet.api.http import Endpoint
from cumulet.api.policy import ADMIN
from cumulet.core.errors import Invalid, NotFound, NotImplementedHere
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.host import BINARIES
from cumulet.services.compute.server.resource import Server
from cumulet.services.compute.server.state import ALIVE

PREFIX = "os_compute_api:os-hosts:"
LIST, SHOW, UPDATE = PREFIX + "list", PREFIX + "show", PREFIX + "update"
POWER = ("startup", "shutdown", "reboot")
RULES = dict.fromkeys((LIST, SHOW, UPDATE, *(PREFIX + action for action in POWER)), ADMIN)
LAST = (2, 42)

Switch = Literal["enable", "disable"]


class HostChange(Struct, forbid_unknown_fields=True):
    """What may be asked of a host; one of the two at least."""

    status: Switch | None = None
    maintenance_mode: Switch | None = None


def _known(ctx: Ctx, name: str) -> None:
    if name != ctx.service.hostname:
        raise NotFound(message=f"Compute host {name} could not be found.")


async def list_hosts(ctx: Ctx) -> Any:
    """List the parts of compute with their host; `zone` chooses those of one zone."""
    wanted = ctx.request.query.get("zone") or None
    return {
        "hosts": [
            {"host_name": ctx.service.hostname, "service": binary.removeprefix("nova-"), "zone": zone}
            for binary, zone in BINARIES.items()
            if wanted in (None, zone)
        ]
    }


async def show_host(ctx: Ctx, name: str) -> Any:
    """Show what a host has, what of it is used, and by which projects."""
    _known(ctx, name)
    c = Server.table.c

    def look(tx: Connection) -> list[tuple[str, int, int, int]]:
        sums = (func.sum(c.vcpus), func.sum(c.memory_mb), func.sum(c.disk_gb))
        rows = tx.execute(select(c.project_id, *sums).where(ALIVE, c.host == name).group_by(c.project_id))
        return [(project, int(vcpus), int(memory), int(disk)) for project, vcpus, memory, disk in rows]

    info = await ctx.service.hypervisor.host_info()
    projects = await ctx.service.kernel.db.read(look)
    used = (sum(row[1] for row in projects), sum(row[2] for row in projects), sum(row[3] for row in projects))
    total = (info.vcpus, info.memory_mb, info.disk_gb)
    rows: list[tuple[Any, ...]] = [("(total)", *total), ("(used_now)", *used), ("(used_max)", *used), *projects]
    return {
        "host": [
            {"resource": {"host": name, "project": project, "cpu": vcpus, "memory_mb": memory, "disk_gb": disk}}
            for project, vcpus, memory, disk in rows
        ]
    }


async def update_host(ctx: Ctx, name: str, body: HostChange) -> Any:
    """Refused: the one host is not switched off by itself."""
    if body.status is None and body.maintenance_mode is None:
        raise Invalid("Invalid input: status or maintenance_mode is needed.")
    _known(ctx, name)
    raise NotImplementedHere("Hosts cannot be disabled one by one: this cloud is one program on one host.")


def _power(action: str) -> Callable[..., Awaitable[Any]]:
    async def refuse(ctx: Ctx, name: str) -> Any:
        """Refused: compute does not switch its own host."""
        _known(ctx, name)
        raise NotImplementedHere(f"The {action} of a host is not served by this cloud.")

    return refuse


ONE = "/v2.1/os-hosts/{name}"
endpoints = [
    Endpoint("GET", "/v2.1/os-hosts", list_hosts, LIST, until=LAST),
    Endpoint("GET", ONE, show_host, SHOW, until=LAST),
    Endpoint("PUT", ONE, update_host, UPDATE, HostChange, until=LAST),
    *[Endpoint("GET", f"{ONE}/{action}", _power(action), PREFIX + action, until=LAST) for action in POWER],
]
