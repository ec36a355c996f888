"""Another flavor for a server, on its host.

POST /servers/{id}/action: resize, confirmResize, revertResize

Until it is confirmed or reverted, placement counts both sizes and the disk as it was is kept aside, if it had to grow.
"""

import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER
from cumulet.core import db
from cumulet.core.errors import Invalid
from cumulet.core.operations import Finish, Operation, Permanent
from cumulet.core.types import now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.drivers import ServerSpec
from cumulet.services.compute.quota import check_servers
from cumulet.services.compute.server.build import NO_HOST, load_server, resources_of
from cumulet.services.compute.server.create import copy_flavor, wanted_flavor
from cumulet.services.compute.server.power import check_launched
from cumulet.services.compute.server.resource import POWER, FlavorCopy, Server
from cumulet.services.compute.server.state import (
    begin,
    break_down,
    check_lock,
    check_state,
    get_server,
    give_up,
    queue,
    settle,
)
from cumulet.services.placement.interface import NoCandidate

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

PREFIX = "os_compute_api:servers:"
RULES = {PREFIX + name: ADMIN_OR_OWNER_MEMBER for name in ("resize", "confirm_resize", "revert_resize")}


class Resize(Struct, forbid_unknown_fields=True):
    flavor: Annotated[str, Meta(min_length=1, max_length=255)] = field(name="flavorRef")
    disk_config: Literal["AUTO", "MANUAL"] | UnsetType = field(name="OS-DCF:diskConfig", default=UNSET)


class NoRoom(Permanent):
    """The host has no room for the new size: nothing was done."""


async def resize_server(ctx: Ctx, id: str, body: Resize) -> Response:
    """Give a server another flavor; it is stopped for it, and waits to be confirmed."""

    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        check_lock(ctx, server)
        check_launched(server, "resize")
        check_state(server, "resize", ("active", "stopped"))
        new = copy_flavor(wanted_flavor(tx, ctx, body.flavor))
        _check(server, new)
        check_servers(
            tx, server.project_id, 0, max(0, new.vcpus - server.vcpus), max(0, new.ram - server.memory_mb)
        )  # fmt: skip
        changes: dict[str, Any] = {} if body.disk_config is UNSET else {"disk_config": body.disk_config}
        args = {"flavor": msgspec.to_builtins(new), "stopped": server.vm_state == "stopped"}
        begin(tx, ctx, server, "server.resize", "resize", args=args, task_state="resize_prep", **changes)

    await ctx.service.kernel.db.run(unit)
    return Response(202)


def _check(server: Server, new: FlavorCopy) -> None:
    if new.id == server.flavor_id:
        raise Invalid("When resizing, instances must change flavor!")
    if server.flavor.disk and new.disk < server.flavor.disk:
        raise Invalid("Resize to a flavor with a smaller disk is not possible.")


async def _end(ctx: Ctx, id: str, verb: str, task: str, kind: str) -> None:
    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        check_lock(ctx, server)
        check_state(server, verb, ("resized",))
        args = {"stopped": server.power_state == POWER["shutdown"]}
        begin(tx, ctx, server, kind, verb, args=args, task_state=task)

    await ctx.service.kernel.db.run(unit)


async def confirm_resize(ctx: Ctx, id: str, body: Any) -> Response:
    """Keep a server's new size."""
    await _end(ctx, id, "confirmResize", "resize_confirming", "server.confirm_resize")
    return Response(204)


async def revert_resize(ctx: Ctx, id: str, body: Any) -> Response:
    """Give a server its old size back."""
    await _end(ctx, id, "revertResize", "resize_reverting", "server.revert_resize")
    return Response(202)


def keeper_of(server_id: str) -> str:
    """Who holds the old size in placement until the new one is confirmed."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{server_id}.resize"))


class Resizer:
    """Carries out changes of size."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def resize(self, operation: Operation) -> Finish:
        """Room for both sizes; the machine off, the disk grown, the machine on in its new size."""
        compute, id = self.compute, operation.resource_id
        server, _ = await compute.kernel.db.read(load_server, id)
        new = msgspec.convert(operation.args["flavor"], FlavorCopy)
        try:
            await compute.placement.resize(id, keeper_of(id), resources_of(new))
        except NoCandidate:
            raise NoRoom(NO_HOST) from None
        await compute.kernel.db.run(_step, id, "resize_migrating")
        await compute.hypervisor.ensure_stopped(id)
        if new.disk > server.flavor.disk:
            await compute.hypervisor.grow_disk(id, new.disk)
        await compute.kernel.db.run(_step, id, "resize_finish")
        power = await self._run(id, new, bool(operation.args["stopped"]))
        return lambda tx: settle(
            tx, operation, power=power, vm_state="resized", old_flavor=server.flavor, fault=None, **_sizes(new)
        )  # fmt: skip

    async def confirm(self, operation: Operation) -> Finish:
        """Nothing is left of the old size."""
        id = operation.resource_id
        await self.compute.hypervisor.drop_kept_disk(id)
        await self.compute.placement.release(keeper_of(id))
        vm_state = "stopped" if operation.args["stopped"] else "active"
        return lambda tx: settle(tx, operation, vm_state=vm_state, old_flavor=None)

    async def revert(self, operation: Operation) -> Finish:
        """The machine off, the disk as it was, the machine on in its old size."""
        compute, id, stopped = self.compute, operation.resource_id, bool(operation.args["stopped"])
        server, _ = await compute.kernel.db.read(load_server, id)
        old = server.old_flavor or server.flavor  # of one whose resize has failed the flavor has not changed yet
        await compute.hypervisor.ensure_stopped(id)
        await compute.hypervisor.restore_disk(id)
        power = await self._run(id, old, stopped)
        await compute.placement.take_back(id, keeper_of(id))
        vm_state = "stopped" if stopped else "active"
        return lambda tx: settle(tx, operation, power=power, vm_state=vm_state, old_flavor=None, **_sizes(old))

    async def _run(self, server_id: str, flavor: FlavorCopy, stopped: bool) -> str:
        """Start the machine in this size, unless it is to be off; returns its power state."""
        if stopped:
            return "shutdown"
        spec = await self.compute.builder.current_spec(server_id)
        await self.compute.hypervisor.ensure_server(sized(spec, flavor))
        if spec.nics:
            await self.compute.network.set_port_status([nic.port_id for nic in spec.nics], "ACTIVE")
        return "running"

    def failed(self, tx: Connection, operation: Operation, error: BaseException) -> None:
        """The server goes back to its old size; without room for the new one nothing was done yet."""
        give_up(tx, operation, error)
        if not isinstance(error, NoRoom):
            db.update(tx, Server, operation.resource_id, task_state="resize_reverting")
            server = db.get(tx, Server, operation.resource_id)
            args = {"stopped": operation.args["stopped"]}
            queue(tx, self.compute.kernel.operations, server, "server.revert_resize", args=args)

    def register(self) -> None:
        """Say who carries out these operations."""
        add = self.compute.kernel.operations.register
        add("server.resize", self.resize, on_failure=self.failed, attempts=2)
        add("server.confirm_resize", self.confirm, on_failure=give_up)
        add("server.revert_resize", self.revert, on_failure=break_down)


def sized(spec: ServerSpec, flavor: FlavorCopy) -> ServerSpec:
    """The same machine in the size of a flavor."""
    root = msgspec.structs.replace(spec.root, size_gb=flavor.disk)
    return msgspec.structs.replace(spec, vcpus=flavor.vcpus, memory_mb=flavor.ram, root=root)


def _sizes(flavor: FlavorCopy) -> dict[str, Any]:
    return {
        "flavor": flavor, "flavor_id": flavor.id, "vcpus": flavor.vcpus, "memory_mb": flavor.ram,
        "disk_gb": flavor.disk,
    }  # fmt: skip


def _step(tx: Connection, id: str, task: str) -> None:
    db.update(tx, Server, id, task_state=task, updated_at=now())


ACTION = "/v2.1/servers/{id}/action"
endpoints = [
    Endpoint("POST", ACTION, resize_server, PREFIX + "resize", Resize, action="resize"),
    Endpoint("POST", ACTION, confirm_resize, PREFIX + "confirm_resize", Any, action="confirmResize"),
    Endpoint("POST", ACTION, revert_resize, PREFIX + "revert_resize", Any, action="revertResize"),
]
