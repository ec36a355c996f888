"""Images of servers' disks.

POST /servers/{id}/action: createImage

The image is there at once, queued; the operation copies the disk and fills it. Should the copy fail, or the server be deleted
meanwhile, the image goes: `image_in_making` of the server's row tells which.
"""

from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER
from cumulet.core import db, quota
from cumulet.core.context import system_caller
from cumulet.core.errors import Forbidden
from cumulet.core.operations import Finish, Operation
from cumulet.core.types import new_id, now
from cumulet.services.compute.context import Ctx, base_url
from cumulet.services.compute.quota import DEFAULTS
from cumulet.services.compute.server.build import load_server
from cumulet.services.compute.server.resource import Key255, Server, ServerName, Value255
from cumulet.services.compute.server.state import begin, check_state, get_server, give_up, queue, settle

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

RULE = "os_compute_api:servers:create_image"
RULES = {RULE: ADMIN_OR_OWNER_MEMBER}


class CreateImage(Struct, forbid_unknown_fields=True):
    name: ServerName
    metadata: dict[Key255, Value255] = {}


async def create_image(ctx: Ctx, id: str, body: CreateImage) -> Response:
    """Make an image of a server's disk."""
    image_id = new_id()

    def unit(tx: Connection) -> Server:
        server = get_server(tx, ctx, id)
        limit = quota.limits(tx, "compute", server.project_id, DEFAULTS)["metadata_items"]
        if limit != quota.UNLIMITED and len(body.metadata) > limit:
            raise Forbidden("Image property count exceeds the quota of metadata items")
        check_state(server, "createImage", ("active", "stopped", "paused"))
        args = {"image_id": image_id, "name": body.name, "metadata": body.metadata}
        begin(
            tx, ctx, server, "server.snapshot", "createImage", args=args, task_state="image_snapshot",
            image_in_making=image_id,
        )  # fmt: skip
        return server

    server = await ctx.service.kernel.db.run(unit)
    await ctx.service.snapshots.ensure_image(server, image_id, body.name, body.metadata)
    if ctx.version >= (2, 45):
        return Response(202, {"image_id": image_id})
    return Response(202, headers={"Location": f"{base_url(ctx)}/v2.1/images/{image_id}"})


class Snapshots:
    """Makes images of servers."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def ensure_image(self, server: Server, image_id: str, name: str, metadata: dict[str, str]) -> None:
        """The image, queued: it belongs to the server's project and says where it comes from."""
        properties = {
            **server.image_properties,
            "image_type": "snapshot",
            "instance_uuid": server.id,
            "base_image_ref": server.image_id,
            "user_id": server.user_id,
            "owner_id": server.project_id,
            **metadata,
        }
        await self.compute.images.ensure_queued(
            image_id, system_caller(server.project_id), name, disk_format="qcow2", visibility="private",
            properties=properties, min_disk=server.disk_gb,
        )  # fmt: skip

    async def take(self, operation: Operation) -> Finish:
        """An image, a copy of the disk, its data in the image."""
        compute, args = self.compute, operation.args
        server, _ = await compute.kernel.db.read(load_server, operation.resource_id)
        await self.ensure_image(server, args["image_id"], args["name"], args["metadata"])
        file = await compute.hypervisor.snapshot(server.id)
        try:
            await compute.kernel.db.run(_uploading, server.id)
            await compute.images.fill(args["image_id"], file)
        finally:
            file.unlink(missing_ok=True)
        return lambda tx: settle(tx, operation, image_in_making=None)

    def failed(self, tx: Connection, operation: Operation, error: BaseException) -> None:
        """The disk could not be copied: the server is as it was, and the image goes."""
        give_up(tx, operation, error)
        server = db.get(tx, Server, operation.resource_id)
        queue(tx, self.compute.kernel.operations, server, "server.discard_image")

    async def discard(self, operation: Operation) -> Finish:
        """Remove the image that has come to nothing."""
        server, _ = await self.compute.kernel.db.read(load_server, operation.resource_id)
        await self.drop(server)
        return lambda tx: forget_image(tx, server)

    async def drop(self, server: Server) -> None:
        """Remove the image that is being made of a server, if one is."""
        if server.image_in_making is not None:
            await self.compute.images.discard(server.image_in_making)


def forget_image(tx: Connection, server: Server) -> None:
    """The image is gone. One that was begun since stays."""
    columns = Server.table.c
    where = [columns.id == server.id, columns.image_in_making == server.image_in_making]
    db.update_where(tx, Server, where, image_in_making=None)


def _uploading(tx: Connection, id: str) -> None:
    db.update(tx, Server, id, task_state="image_uploading", updated_at=now())


endpoints = [Endpoint("POST", "/v2.1/servers/{id}/action", create_image, RULE, CreateImage, action="createImage")]
