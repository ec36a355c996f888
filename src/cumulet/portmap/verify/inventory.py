"""The hosts among which connections are proven, from a TOML file:

[[host]]
name = "controller1"
roles = ["controller", "network"]
addresses = { internal = "10.0.0.11", storage = "10.0.1.11", public = "198.51.100.11" }
connect = ["ssh", "root@10.0.0.11"]        # how to run a command there; this is the default
"""

import ipaddress
import tomllib
from pathlib import Path

import msgspec
from msgspec import Struct

from cumulet.portmap.facts import ROLES
from cumulet.portmap.firewall.plan import ALL_IN_ONE, NAMED


class InventoryError(Exception):
    """The file cannot be used; the text says where and what would do."""


class Host(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host. `roles` are those of firewall plans, `client` for a machine outside; `connect` begins a command line that runs
    what follows on the host."""

    name: str
    roles: list[str]
    addresses: dict[str, str]
    connect: list[str] = []

    @property
    def command(self) -> list[str]:
        return self.connect or [
            "ssh",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            f"root@{self.address('admin')}",
        ]

    @property
    def all_roles(self) -> frozenset[str]:
        return frozenset((*self.roles, *ROLES) if ALL_IN_ONE in self.roles else self.roles)

    def address(self, network: str) -> str:
        """The host's address on a network; where it has none of its own there, the internal one, or its only one."""
        for name in (network, "internal"):
            if name in self.addresses:
                return self.addresses[name]
        return next(iter(self.addresses.values()))


class _File(Struct, forbid_unknown_fields=True):
    host: list[Host]


def read(path: Path) -> list[Host]:
    """The hosts of a file. Raises InventoryError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        hosts = msgspec.convert(content, _File).host
    except OSError as error:
        raise InventoryError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InventoryError(f"{path} is no valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise InventoryError(f"{path}: {error}; each [[host]] has a name, roles and addresses") from error
    _check(path, hosts)
    return hosts


def _check(path: Path, hosts: list[Host]) -> None:
    known = (ALL_IN_ONE, *ROLES, "client", "operator")
    if len({host.name for host in hosts}) != len(hosts):
        raise InventoryError(f"{path}: two hosts have the same name")
    for host in hosts:
        if unknown := [role for role in host.roles if role not in known]:
            raise InventoryError(
                f"{path}: host {host.name} has the role {unknown[0]!r}; the roles are {', '.join(known)}"
            )
        if not host.addresses:
            raise InventoryError(f"{path}: host {host.name} has no address")
        for network, address in host.addresses.items():
            if network not in NAMED:
                raise InventoryError(
                    f"{path}: host {host.name} has an address on {network!r}; the networks are {', '.join(NAMED)}"
                )
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise InventoryError(
                    f"{path}: host {host.name}: {address!r} is no IP address, such as 192.0.2.1"
                ) from None
