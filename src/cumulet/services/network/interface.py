"""What other services may ask of networking.

Events on the bus topic `network`: `port.addresses` {"device_ids": [...]} after a commit that changed the fixed or floating
addresses, or the security groups, of ports that belong to devices; `port.deleted` {"device_id", "port_id"}.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from cumulet.core.context import Caller


class FixedIp(Struct, frozen=True):
    ip_address: str
    subnet_id: str
    cidr: str
    version: int
    gateway_ip: str | None
    dns_nameservers: tuple[str, ...] = ()
    floating_ips: tuple[str, ...] = ()


class PortInfo(Struct, frozen=True):
    id: str
    name: str
    network_id: str
    network_name: str
    project_id: str
    device_id: str
    device_owner: str
    mac_address: str
    mtu: int
    fixed_ips: tuple[FixedIp, ...]
    security_group_ids: tuple[str, ...]
    security_group_names: tuple[str, ...]
    status: str
    dhcp: bool = True


class NetworkInfo(Struct, frozen=True):
    id: str
    name: str
    project_id: str
    shared: bool
    external: bool
    has_subnets: bool


class NewPort(Struct, frozen=True):
    """A port to be made for a device. `id` is chosen by the asker, so that asking twice makes one port.
    `security_groups` are ids; None gives the project's default group."""

    id: str
    project_id: str
    network_id: str
    device_id: str
    device_owner: str
    fixed_ip: str | None = None
    security_groups: tuple[str, ...] | None = None
    hostname: str = ""
    host: str = ""


class Networking(Protocol):
    async def usable_networks(self, caller: Caller) -> list[NetworkInfo]:
        """The networks that a server of the caller's could be put on without being asked: his project's own with a
        subnet; if there is none, the shared ones. External networks never."""
        ...

    async def network(self, caller: Caller, network_id: str) -> NetworkInfo:
        """A network the caller may see; NotFound else."""
        ...

    async def port(self, caller: Caller, port_id: str) -> PortInfo:
        """A port the caller may see; NotFound else."""
        ...

    async def security_group_ids(self, caller: Caller, project_id: str, names: Sequence[str]) -> list[str]:
        """The ids of groups given by name or id; NotFound names the missing one, Conflict an ambiguous one."""
        ...

    async def set_security_groups(self, port_ids: Sequence[str], group_ids: Sequence[str]) -> None:
        """Put exactly these groups on each of the ports."""
        ...

    async def ensure_port(self, new: NewPort) -> PortInfo:
        """The port with this id, made if it is missing. Raises NotFound (network), Conflict (no free address, address in
        use), QuotaExceeded."""
        ...

    async def bind(self, port_id: str, device_id: str, device_owner: str, host: str, hostname: str) -> PortInfo:
        """Give an existing port to a device. Conflict if another device has it."""
        ...

    async def unbind(self, port_id: str, device_id: str) -> None:
        """Take a port from its device, if that device has it. The port stays."""
        ...

    async def delete_port(self, port_id: str) -> None:
        """Delete a port that was made for a device. Gone already: no effect."""
        ...

    async def realise(self, network_ids: Sequence[str]) -> None:
        """Return once the dataplane carries all that is stored of these networks: only then may a machine be plugged in."""
        ...

    async def ports_of(self, device_ids: Sequence[str]) -> dict[str, list[PortInfo]]:
        """The ports of each device, in the order in which they were made."""
        ...

    async def set_port_status(self, port_ids: Sequence[str], status: str) -> list[PortInfo]:
        """Tell that ports carry traffic (ACTIVE) or do not (DOWN); returns as they are then those that are still there."""
        ...
