"""Actions that upstream has and this cloud does not yet: each is refused with a sentence, not as unknown."""

from collections.abc import Awaitable, Callable
from typing import Any

from cumulet.api.http import Endpoint
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MANAGER, ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.resource import Version
from cumulet.core.errors import NotImplementedHere
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.state import get_server

RULE = "cumulet:compute:unserved"

NEVER: Version = (99, 999)
ACTIONS: tuple[tuple[str, str, Version], ...] = (
    ("createBackup", "Backing up", NEVER),
    ("rescue", "Rescuing", NEVER),
    ("unrescue", "Rescuing", NEVER),
    ("suspend", "Suspending", NEVER),
    ("resume", "Resuming", NEVER),
    ("shelve", "Shelving", NEVER),
    ("shelveOffload", "Shelving", NEVER),
    ("unshelve", "Unshelving", NEVER),
    ("restore", "Restoring", NEVER),
    ("changePassword", "Changing the password of", NEVER),
    ("migrate", "Migrating", NEVER),
    ("os-migrateLive", "Migrating", NEVER),
    ("evacuate", "Evacuating", NEVER),
    ("trigger_crash_dump", "Crashing", NEVER),
    ("resetNetwork", "Resetting the network of", NEVER),
    ("injectNetworkInfo", "Writing the network configuration into", NEVER),
    ("addFloatingIp", "Adding a floating address through compute to", (2, 43)),
    ("removeFloatingIp", "Removing a floating address through compute from", (2, 43)),
    ("os-getSPICEConsole", "A SPICE console of", (2, 5)),
    ("os-getRDPConsole", "An RDP console of", (2, 5)),
    ("os-getSerialConsole", "A serial console of", (2, 5)),
)
"""Action, what it is about, and the last version that has it."""

NOT_MEMBERS = {
    "migrate": ("os_compute_api:os-migrate-server:migrate", ADMIN_OR_OWNER_MANAGER),
    "os-migrateLive": ("os_compute_api:os-migrate-server:migrate_live", ADMIN_OR_OWNER_MANAGER),
    "evacuate": ("os_compute_api:os-evacuate", ADMIN),
    "shelveOffload": ("os_compute_api:os-shelve:shelve_offload", ADMIN),
    "resetNetwork": ("os_compute_api:os-admin-actions:reset_network", ADMIN),
    "injectNetworkInfo": ("os_compute_api:os-admin-actions:inject_network_info", ADMIN),
}
"""Actions that a member may not even ask for."""


def _refusal(words: str) -> Callable[..., Awaitable[Any]]:
    async def refuse(ctx: Ctx, id: str, body: Any) -> Any:
        """Refused: this cloud does not serve it."""
        await ctx.service.kernel.db.read_inline(get_server, ctx, id)
        raise NotImplementedHere(f"{words} a server is not served by this cloud.")

    return refuse


async def list_volumes(ctx: Ctx, id: str) -> Any:
    """List the volumes that are attached to a server: there are none."""
    await ctx.service.kernel.db.read_inline(get_server, ctx, id)
    return {"volumeAttachments": []}


VOLUMES = "/v2.1/servers/{id}/os-volume_attachments"
VOLUMES_RULE = "os_compute_api:os-volumes-attachments:index"
RULES = {RULE: ADMIN_OR_OWNER_MEMBER, VOLUMES_RULE: ADMIN_OR_OWNER_READER, **dict(NOT_MEMBERS.values())}

endpoints = [
    Endpoint("GET", VOLUMES, list_volumes, VOLUMES_RULE),
    Endpoint("POST", VOLUMES, _refusal("Attaching a volume to"), RULE, Any),
    *[
        Endpoint("POST", "/v2.1/servers/{id}/action", _refusal(words), rule, Any, action=action, until=until)
        for action, words, until in ACTIONS
        for rule, _ in (NOT_MEMBERS.get(action, (RULE, "")),)
    ],
]
