"""Networking at work: what the rest of the program asks of it (`interface.Networking`), and its start and end."""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, or_
from sqlalchemy.exc import IntegrityError

from cumulet.api.http import Request, Response
from cumulet.api.server import Server
from cumulet.core import db
from cumulet.core.context import Caller
from cumulet.core.errors import Conflict, NotFound, Unavailable
from cumulet.core.kernel import Kernel
from cumulet.services.network import infos, plumbing
from cumulet.services.network.allocate import FixedIp
from cumulet.services.network.drivers import Dataplane
from cumulet.services.network.interface import NetworkInfo, NewPort, PortInfo
from cumulet.services.network.network import NETWORKS, Network
from cumulet.services.network.port import PORTS, Port
from cumulet.services.network.realise import EVERY, AnswerMetadata, Realiser
from cumulet.services.network.security_group import GROUPS, SecurityGroup, default_group
from cumulet.services.network.standard import change, charge, stamps
from cumulet.services.network.subnet import Subnet, default_pools, parse_cidr

P = ParamSpec("P")
T = TypeVar("T")

RACES = 8
"""How often a unit of work is tried whose free address or MAC somebody else took at the same moment."""


async def _no_metadata(network_id: str, request: Request) -> Response:
    raise Unavailable("The metadata service is not there yet.")


class NetworkRuntime:
    """Networking in this process. `metadata` answers what guests ask of 169.254.169.254."""

    def __init__(self, kernel: Kernel, dataplane: Dataplane, server: Server) -> None:
        self.kernel = kernel
        self.dataplane = dataplane
        self.metadata: AnswerMetadata = _no_metadata
        self.realiser = Realiser(kernel, dataplane, server, self._answer_metadata)

    async def start(self) -> None:
        await self.realiser.start()
        self.kernel.tasks.every("network: compare with the host", EVERY, self.realiser.compare)

    async def stop(self) -> None:
        await self.realiser.stop()

    async def _answer_metadata(self, network_id: str, request: Request) -> Response:
        return await self.metadata(network_id, request)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a writing unit of work; again where it lost a race for an address or a MAC."""
        for _ in range(RACES - 1):
            try:
                return await self.kernel.db.run(fn, *args, **kwargs)
            except IntegrityError:
                continue
        try:
            return await self.kernel.db.run(fn, *args, **kwargs)
        except IntegrityError as error:
            raise Conflict("Somebody else changed the same thing at the same moment. Try again.") from error

    # ---- networks and groups --------------------------------------------------------------------------------------------

    async def ensure_public(self, project_id: str, cidr: str) -> None:
        """The external network `public` with its subnet, where there is none."""

        def make(tx: Connection) -> None:
            if db.first(tx, Network, NETWORKS.c.external, NETWORKS.c.name == "public") is not None:
                return
            network = Network.new(
                **{
                    **stamps(project_id),
                    "name": "public",
                    "external": True,
                    "is_default": True,
                    "network_type": "flat",
                },
                physical_network="public",
                segmentation_id=None,
            )
            whole = parse_cidr(cidr)
            gateway = whole.network_address + 1
            subnet = Subnet.new(
                **{**stamps(project_id), "name": "public-subnet", "network_id": network.id, "enable_dhcp": False},
                cidr=str(whole),
                ip_version=whole.version,
                gateway_ip=str(gateway),
                allocation_pools=default_pools(whole, gateway),
            )
            network.subnets = [subnet.id]
            db.insert(tx, network)
            db.insert(tx, subnet)
            self.realiser.touch(tx, [network.id])

        await self.write(make)

    async def usable_networks(self, caller: Caller) -> list[NetworkInfo]:
        def look(tx: Connection) -> list[NetworkInfo]:
            own = db.find(tx, Network, NETWORKS.c.project_id == caller.project_id, ~NETWORKS.c.external)
            found = [n for n in own if n.subnets and not n.shared]
            if not found:
                found = [n for n in db.find(tx, Network, NETWORKS.c.shared, ~NETWORKS.c.external) if n.subnets]
            return [infos.of_network(n) for n in found]

        return await self.kernel.db.read(look)

    async def network(self, caller: Caller, network_id: str) -> NetworkInfo:
        own = NETWORKS.c.project_id == caller.project_id
        scope = () if caller.is_admin else (or_(own, NETWORKS.c.shared, NETWORKS.c.external),)
        return infos.of_network(await self.kernel.db.read(db.get, Network, network_id, *scope))

    async def security_group_ids(self, caller: Caller, project_id: str, names: Sequence[str]) -> list[str]:
        def look(tx: Connection) -> list[str]:
            default_group(tx, project_id)
            groups = db.find(tx, SecurityGroup, GROUPS.c.project_id == project_id)
            return [_named(name, project_id, groups) for name in names]

        return await self.write(look)

    async def set_security_groups(self, port_ids: Sequence[str], group_ids: Sequence[str]) -> None:
        def put(tx: Connection) -> None:
            for port in db.find(tx, Port, PORTS.c.id.in_(port_ids)):
                plumbing.replace_port(tx, self, port, {"security_groups": list(group_ids)})

        await self.write(put)

    # ---- ports ----------------------------------------------------------------------------------------------------------

    async def port(self, caller: Caller, port_id: str) -> PortInfo:
        scope = () if caller.is_admin else (PORTS.c.project_id == caller.project_id,)

        def look(tx: Connection) -> PortInfo:
            return infos.of_ports(tx, [db.get(tx, Port, port_id, *scope)])[0]

        return await self.kernel.db.read(look)

    async def ensure_port(self, new: NewPort) -> PortInfo:
        def make(tx: Connection) -> PortInfo:
            port = db.first(tx, Port, PORTS.c.id == new.id)
            if port is None:
                network = db.get(tx, Network, new.network_id)
                charge(tx, "port", Port, new.project_id)
                port = plumbing.add_port(
                    tx,
                    self,
                    network,
                    new.project_id,
                    fixed_ips=None if new.fixed_ip is None else [FixedIp(None, new.fixed_ip)],
                    groups=new.security_groups,
                    id=new.id,
                    device_id=new.device_id,
                    device_owner=new.device_owner,
                    hostname=new.hostname,
                    host=new.host,
                )
                plumbing.tell_addresses(tx, self, [port])
            return infos.of_ports(tx, [port])[0]

        return await self.write(make)

    async def bind(self, port_id: str, device_id: str, device_owner: str, host: str, hostname: str) -> PortInfo:
        def give(tx: Connection) -> PortInfo:
            port = db.get(tx, Port, port_id)
            if port.device_id not in ("", device_id):
                raise Conflict(f"Port {port_id} is in use by {port.device_id}.", code="PortInUse")
            values = {"device_id": device_id, "device_owner": device_owner, "host": host, "hostname": hostname}
            if any(getattr(port, name) != value for name, value in values.items()):
                port = plumbing.replace_port(tx, self, port, values)
            return infos.of_ports(tx, [port])[0]

        return await self.write(give)

    async def unbind(self, port_id: str, device_id: str) -> None:
        def take(tx: Connection) -> None:
            port = db.first(tx, Port, PORTS.c.id == port_id, PORTS.c.device_id == device_id)
            if port is not None:
                free = {"device_id": "", "device_owner": "", "host": "", "hostname": "", "status": "DOWN"}
                plumbing.replace_port(tx, self, port, free)

        await self.write(take)

    async def delete_port(self, port_id: str) -> None:
        await self.write(plumbing.drop_ports, self, PORTS.c.id == port_id)

    async def realise(self, network_ids: Sequence[str]) -> None:
        await self.realiser.realise(network_ids)

    async def ports_of(self, device_ids: Sequence[str]) -> dict[str, list[PortInfo]]:
        def look(tx: Connection) -> dict[str, list[PortInfo]]:
            order = [PORTS.c.created_at, PORTS.c.id]
            ports = db.find(tx, Port, PORTS.c.device_id.in_(device_ids), order=order)
            found: dict[str, list[PortInfo]] = {device: [] for device in device_ids}
            for info in infos.of_ports(tx, ports):
                found[info.device_id].append(info)
            return found

        return await self.kernel.db.read(look)

    async def set_port_status(self, port_ids: Sequence[str], status: str) -> list[PortInfo]:
        def tell(tx: Connection) -> list[PortInfo]:
            found = {port.id: port for port in db.find(tx, Port, PORTS.c.id.in_(port_ids))}
            ports = [found[one] for one in port_ids if one in found]
            return infos.of_ports(tx, [p if p.status == status else change(tx, p, status=status) for p in ports])

        return await self.write(tell)


def _named(name: str, project_id: str, groups: Sequence[Any]) -> str:
    """The ID of the group that is called so, by ID or by name."""
    if any(group.id == name for group in groups):
        return name
    found = [group.id for group in groups if group.name == name]
    if not found:
        raise NotFound(
            message=f"Security group {name} not found for project {project_id}.", code="SecurityGroupNotFound"
        )
    if len(found) > 1:
        raise Conflict(f"Multiple security_groups found matching '{name}'. Use an ID to be more specific.")
    return str(found[0])
