"""Calls of old: what upstream has dropped (410), and what it passes on to other services before 2.36 (not done here).

Small calls that say little here are too: diagnostics, migrations, extensions.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from cumulet.api.http import Endpoint
from cumulet.api.policy import ADMIN, ANYBODY
from cumulet.api.resource import Version
from cumulet.core.errors import Conflict, Gone, NotFound, NotImplementedHere
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.state import check_state, get_server

DIAGNOSTICS = "os_compute_api:os-server-diagnostics"
EXTENSIONS = "os_compute_api:extensions"
MIGRATIONS = "os_compute_api:os-migrations:index"
RULES = {DIAGNOSTICS: ADMIN, EXTENSIONS: ANYBODY, MIGRATIONS: ADMIN}

GONE = ("os-cells", "os-cloudpipe", "os-certificates", "os-fping", "os-agents", "os-floating-ip-dns", "os-floating-ips-bulk",
        "os-fixed-ips", "os-networks/add", "os-security-group-default-rules")  # fmt: skip
PASSED_ON: tuple[tuple[str, str, Version], ...] = (
    ("os-networks", "networking", (2, 35)),
    ("os-tenant-networks", "networking", (2, 35)),
    ("os-floating-ips", "networking", (2, 35)),
    ("os-floating-ip-pools", "networking", (2, 35)),
    ("os-volumes", "block storage", (2, 35)),
    ("os-volumes/detail", "block storage", (2, 35)),
    ("os-snapshots", "block storage", (2, 35)),
    ("os-snapshots/detail", "block storage", (2, 35)),
    ("os-baremetal-nodes", "bare metal", (2, 35)),
    ("images", "image", (2, 35)),
    ("images/detail", "image", (2, 35)),
)


async def gone(ctx: Ctx) -> Any:
    """Dropped by upstream."""
    raise Gone("This API was removed.")


def _elsewhere(service: str) -> Callable[..., Awaitable[Any]]:
    async def refuse(ctx: Ctx, **ids: str) -> Any:
        """Refused: another service has it."""
        raise NotImplementedHere(f"Compute does not pass this on: ask the {service} service itself.")

    return refuse


class Extension(Struct, frozen=True):
    """What was once an option of the API, and is part of it today."""

    alias: str
    name: str
    description: str
    updated: str = "2014-12-03T00:00:00Z"
    namespace: str = "http://docs.openstack.org/compute/ext/fake_xml"
    links: tuple[str, ...] = ()


SERVED = {
    alias: Extension(alias, name, description)
    for alias, name, description in (
        ("os-attach-interfaces", "AttachInterfaces", "Network cards of servers"),
        ("os-availability-zone", "AvailabilityZone", "Zones of hosts"),
        ("os-console-output", "ConsoleOutput", "What guests write to their console"),
        ("os-consoles", "Consoles", "Screens of servers"),
        ("os-flavor-access", "FlavorAccess", "Flavors of some projects only"),
        ("os-flavor-extra-specs", "FlavorExtraSpecs", "What flavors ask of hosts"),
        ("os-hosts", "Hosts", "Hosts of servers"),
        ("os-hypervisors", "Hypervisors", "Hypervisors of servers"),
        ("os-instance-actions", "InstanceActions", "What was done to servers"),
        ("os-keypairs", "Keypairs", "Keys that are put into servers"),
        ("os-lock-server", "LockServer", "Servers that may not be changed"),
        ("os-pause-server", "PauseServer", "Servers that stand still"),
        ("os-quota-sets", "Quotas", "Limits of projects"),
        ("os-remote-consoles", "Consoles", "Screens of servers"),
        ("os-security-groups", "SecurityGroups", "What reaches servers"),
        ("os-server-groups", "ServerGroups", "Servers that belong together"),
        ("os-services", "Services", "The parts of compute"),
    )
}


async def list_extensions(ctx: Ctx) -> Any:
    """List what clients of old look for before they use it, as far as it is served."""
    return {"extensions": list(SERVED.values())}


async def show_extension(ctx: Ctx, id: str) -> Any:
    """Show an extension."""
    if id not in SERVED:
        raise NotFound(message=f"Extension {id} could not be found.")
    return {"extension": SERVED[id]}


async def list_migrations(ctx: Ctx) -> Any:
    """List servers that were moved: none is."""
    return {"migrations": []}


async def show_diagnostics(ctx: Ctx, id: str) -> Any:
    """Show what the host knows of a running server."""
    server = await ctx.service.kernel.db.read_inline(get_server, ctx, id)
    check_state(server, "get_diagnostics", ("active", "paused"))
    state = (await ctx.service.hypervisor.observe()).get(id)
    if state is None:
        raise Conflict(f"Instance {id} is not ready")
    host = await ctx.service.hypervisor.host_info()
    if ctx.version < (2, 48):
        return {"state": state.power, "pid": state.pid or 0, "memory": server.memory_mb * 1024}
    return {
        "config_drive": bool(server.config_drive),
        "cpu_details": [],
        "disk_details": [],
        "driver": "libvirt",
        "hypervisor": host.virt_type,
        "hypervisor_os": "linux",
        "memory_details": {"maximum": server.memory_mb, "used": None},
        "nic_details": [],
        "num_cpus": server.vcpus,
        "num_disks": 1,
        "num_nics": len(server.addresses),
        "state": state.power,
        "uptime": None,
    }


def _passed_on() -> list[Endpoint]:
    made = []
    for path, service, until in PASSED_ON:
        refuse = _elsewhere(service)
        for method in ("GET", "POST") if "/" not in path else ("GET",):
            made.append(Endpoint(method, f"/v2.1/{path}", refuse, until=until))
        if "/" not in path:
            made += [Endpoint(method, f"/v2.1/{path}/{{id}}", refuse, until=until) for method in ("GET", "DELETE")]
    return made


endpoints = [
    Endpoint("GET", "/v2.1/extensions", list_extensions, EXTENSIONS),
    Endpoint("GET", "/v2.1/extensions/{id}", show_extension, EXTENSIONS),
    Endpoint("GET", "/v2.1/servers/{id}/diagnostics", show_diagnostics, DIAGNOSTICS),
    Endpoint("GET", "/v2.1/os-migrations", list_migrations, MIGRATIONS),
    *[Endpoint("GET", f"/v2.1/{path}", gone) for path in GONE],
    *_passed_on(),
]
