"""The operation `server.create`: a claim, an image, ports, a network, a machine. Every step may be repeated.

If it fails for good the server is in ERROR with the cause, and `server.abandon` gives back what was taken.
"""

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from cumulet.core import db
from cumulet.core.errors import Conflict, NotFound
from cumulet.core.operations import Finish, Operation, Permanent
from cumulet.core.types import now
from cumulet.services.compute.drivers import Nic, RootDisk, ServerSpec
from cumulet.services.compute.metadata import config_drive
from cumulet.services.compute.server.addresses import cache_addresses
from cumulet.services.compute.server.resource import FlavorCopy, Server, ServerPort
from cumulet.services.compute.server.state import break_down, ports_of, queue, settle
from cumulet.services.network.interface import NewPort, PortInfo
from cumulet.services.placement.interface import NoCandidate

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

NO_HOST = "No valid host was found. There are not enough hosts available."


class Builder:
    """Builds servers."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def build(self, operation: Operation) -> Finish:
        """From a row to a machine that runs."""
        compute = self.compute
        server, ports = await compute.kernel.db.read(load_server, operation.resource_id)
        node = await self._claim(server)
        placing = asyncio.ensure_future(
            compute.kernel.db.run(_placed, server.id, node)
        )  # goes along with the first port
        try:
            infos = [await self.ensure_port(server, port, node) for port in ports]
        finally:
            await placing
        if infos:
            await compute.network.realise(list(dict.fromkeys(info.network_id for info in infos)))
        spec = await self.spec(server, infos)
        state = await compute.hypervisor.ensure_server(spec)
        if infos:
            infos = await compute.network.set_port_status([info.id for info in infos], "ACTIVE")

        def finish(tx: Connection) -> None:
            moment = server.launched_at or now()
            settle(
                tx,
                operation,
                power=state.power,
                vm_state="active",
                launched_at=moment,
                host=node,
                node=node,
                fault=None,
            )
            cache_addresses(tx, server.id, infos)

        return finish

    async def _claim(self, server: Server) -> str:
        try:
            return await self.compute.placement.claim(
                server.id, server.project_id, server.user_id, resources_of(server.flavor), only=server.asked_node
            )
        except NoCandidate:
            raise Permanent(NO_HOST) from None

    async def ensure_port(self, server: Server, port: ServerPort, node: str) -> PortInfo:
        """The port behind a network card, made or bound if it is not yet."""
        network, owner = self.compute.network, f"compute:{server.availability_zone}"
        label = server.hostname.partition(".")[0]  # DHCP and DNS know the network's own domain
        if not port.own:
            return await network.bind(port.port_id, server.id, owner, node, label)
        groups = None if port.groups is None else tuple(port.groups)
        new = NewPort(
            id=port.port_id, project_id=server.project_id, network_id=port.network_id, device_id=server.id,
            device_owner=owner, fixed_ip=port.fixed_ip, security_groups=groups, hostname=label, host=node,
        )  # fmt: skip
        return await network.ensure_port(new)

    async def spec(self, server: Server, infos: list[PortInfo]) -> ServerSpec:
        """What the hypervisor is asked for."""
        try:
            path = await self.compute.images.path(server.image_id)
        except (NotFound, Conflict) as error:
            raise Permanent(error.message) from None
        drive = config_drive(server, infos) if server.config_drive else None
        return ServerSpec(
            id=server.id,
            name=server.instance_name,
            vcpus=server.vcpus,
            memory_mb=server.memory_mb,
            root=RootDisk(
                str(path), "raw" if server.image_format == "raw" else "qcow2", server.image_id, server.flavor.disk
            ),
            nics=tuple(nic(info) for info in infos),
            config_drive=drive,
        )

    async def current_spec(self, server_id: str) -> ServerSpec:
        """The same for a server that was built before, with its network made ready."""
        compute = self.compute
        server, ports = await compute.kernel.db.read(load_server, server_id)
        infos = await self.port_infos(server_id, ports)
        if infos:
            await compute.network.realise(list(dict.fromkeys(info.network_id for info in infos)))
        return await self.spec(server, infos)

    async def port_infos(self, server_id: str, ports: list[ServerPort]) -> list[PortInfo]:
        """What networking says of the server's ports, in the order of its cards."""
        by_id = {info.id: info for info in (await self.compute.network.ports_of([server_id])).get(server_id, [])}
        return [by_id[port.port_id] for port in ports if port.port_id in by_id]

    def failed(self, tx: Connection, operation: Operation, error: BaseException) -> None:
        """The build has failed for good: say why, and give back what it took."""
        break_down(tx, operation, error)
        server = db.get(tx, Server, operation.resource_id)
        queue(tx, self.compute.kernel.operations, server, "server.abandon")


def resources_of(flavor: FlavorCopy) -> dict[str, int]:
    """What a server of this flavor takes of its host."""
    disk = flavor.disk + flavor.ephemeral + -(-flavor.swap // 1024)
    return {"VCPU": flavor.vcpus, "MEMORY_MB": flavor.ram, **({"DISK_GB": disk} if disk else {})}


def nic(info: PortInfo) -> Nic:
    """The network card for a port."""
    return Nic(info.id, info.network_id, info.mac_address, info.mtu)


def load_server(tx: Connection, id: str) -> tuple[Server, list[ServerPort]]:
    return db.get(tx, Server, id), ports_of(tx, id)


def _placed(tx: Connection, id: str, node: str) -> None:
    db.update(tx, Server, id, host=node, node=node, task_state="spawning", updated_at=now())
