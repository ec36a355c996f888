"""A new disk for an old server.

POST /servers/{id}/action: rebuild

The server keeps its id, its ports and its flavor; the disk is made anew from an image, which may be another one.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER
from cumulet.api.resource import Version
from cumulet.core import db
from cumulet.core.errors import Invalid
from cumulet.core.operations import Finish, Operation
from cumulet.core.types import now
from cumulet.services.compute.context import Ctx, base_url
from cumulet.services.compute.server.create import (
    check_flavor,
    check_metadata,
    check_user_data,
    find_image,
    make_password,
    wanted_keypair,
)
from cumulet.services.compute.server.power import check_launched
from cumulet.services.compute.server.resource import (
    Description,
    Hostname,
    Key255,
    Ref,
    Server,
    ServerName,
    Value255,
    access_addresses,
)
from cumulet.services.compute.server.show import view
from cumulet.services.compute.server.state import begin, check_lock, check_state, get_server, settle
from cumulet.services.image.interface import ImageInfo

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

RULE = "os_compute_api:servers:rebuild"
RULES = {RULE: ADMIN_OR_OWNER_MEMBER}

Address = Annotated[str, Meta(max_length=45)]


class Rebuild(Struct, forbid_unknown_fields=True):
    """What may change with the disk."""

    image: Ref = field(name="imageRef")
    name: ServerName | UnsetType = UNSET
    password: Annotated[str, Meta(min_length=1, max_length=255)] | UnsetType = field(name="adminPass", default=UNSET)
    metadata: dict[Key255, Value255] | UnsetType = UNSET
    access_ipv4: Address | UnsetType = field(name="accessIPv4", default=UNSET)
    access_ipv6: Address | UnsetType = field(name="accessIPv6", default=UNSET)
    disk_config: Literal["AUTO", "MANUAL"] | UnsetType = field(name="OS-DCF:diskConfig", default=UNSET)
    preserve_ephemeral: bool | UnsetType = UNSET
    personality: list[Any] | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    key_name: Annotated[str, Meta(min_length=1, max_length=255)] | UnsetType | None = UNSET
    user_data: Annotated[str, Meta(max_length=65535)] | UnsetType | None = UNSET
    trusted_image_certificates: list[str] | UnsetType | None = UNSET
    hostname: Hostname | UnsetType = UNSET


SINCE: dict[str, Version] = {
    "description": (2, 19), "key_name": (2, 54), "user_data": (2, 57), "trusted_image_certificates": (2, 63),
    "hostname": (2, 90),
}  # fmt: skip
PERSONALITY_UNTIL: Version = (2, 56)
TAKEN = ("name", "metadata", "access_ipv4", "access_ipv6", "disk_config", "description", "user_data", "hostname")
"""What is stored as it was sent."""


async def rebuild_server(ctx: Ctx, id: str, body: Rebuild) -> Response:
    """Make a server's disk anew from an image."""
    _check(ctx, body)
    image = await find_image(ctx, body.image)

    def unit(tx: Connection) -> Server:
        server = get_server(tx, ctx, id)
        check_lock(ctx, server)
        check_launched(server, "rebuild")
        check_state(server, "rebuild", ("active", "stopped", "error"))
        check_flavor(server.flavor, image)
        changes = _changes(tx, ctx, server, body, image)
        args = {"stopped": server.vm_state == "stopped"}
        begin(tx, ctx, server, "server.rebuild", "rebuild", args=args, task_state="rebuilding", **changes)
        return get_server(tx, ctx, id)

    server = await ctx.service.kernel.db.run(unit)
    reply = msgspec.to_builtins(view(ctx, server))
    reply["server"]["adminPass"] = make_password() if body.password is UNSET else body.password
    return Response(202, reply, {"Location": f"{base_url(ctx)}/v2.1/servers/{id}"})


def _check(ctx: Ctx, body: Rebuild) -> None:
    for name, since in SINCE.items():
        if getattr(body, name) is not UNSET and ctx.version < since:
            raise Invalid(f"Additional properties are not allowed ('{name}' was unexpected)")
    if body.personality is not UNSET:
        if ctx.version > PERSONALITY_UNTIL:
            raise Invalid("Additional properties are not allowed ('personality' was unexpected)")
        if body.personality:
            raise Invalid("Personality files are not served here; user_data and metadata are.")
    if body.trusted_image_certificates:
        raise Invalid("Certificates of images are not checked here.")
    if body.user_data:
        check_user_data(body.user_data)


def _changes(tx: Connection, ctx: Ctx, server: Server, body: Rebuild, image: ImageInfo) -> dict[str, Any]:
    """The new values of the server's row."""
    changes = {name: value for name in TAKEN if (value := getattr(body, name)) is not UNSET}
    changes |= access_addresses(changes)
    if body.metadata is not UNSET:
        check_metadata(tx, server.project_id, body.metadata)
    if body.key_name is not UNSET:
        pair = wanted_keypair(tx, ctx, body.key_name)
        changes |= {"key_name": body.key_name, "public_key": pair.public_key if pair else None}
    return {**changes, "image_id": image.id, "image_format": image.disk_format}


class Rebuilder:
    """Makes servers' disks anew."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def rebuild(self, operation: Operation) -> Finish:
        """The old disk away; a machine that ran runs again, on a new one."""
        compute, stopped = self.compute, bool(operation.args["stopped"])
        spec = await compute.builder.current_spec(operation.resource_id)
        await compute.hypervisor.remove_disk(spec.id)
        await compute.kernel.db.run(_spawning, spec.id)
        if not stopped:
            await compute.hypervisor.ensure_server(spec)
            if spec.nics:
                await compute.network.set_port_status([nic.port_id for nic in spec.nics], "ACTIVE")
        power, vm_state = ("shutdown", "stopped") if stopped else ("running", "active")
        return lambda tx: settle(tx, operation, power=power, vm_state=vm_state, launched_at=now(), fault=None)


def _spawning(tx: Connection, id: str) -> None:
    db.update(tx, Server, id, task_state="rebuild_spawning", updated_at=now())


endpoints = [Endpoint("POST", "/v2.1/servers/{id}/action", rebuild_server, RULE, Rebuild, action="rebuild")]
