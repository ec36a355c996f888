"""What the tests of the dataplane are about: specs of networks and routers, guests, and the traces left."""

import os
import shutil
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from cumulet.services.network.drivers import (
    FixedIp,
    FloatingIp,
    Network,
    Port,
    Router,
    RouterInterface,
    Rule,
    SecurityGroup,
    Subnet,
)
from cumulet.services.network.drivers.linux import LinuxDataplane, namespace
from tests.drivers.dataplane_guest import ANSWERED_WITHIN, Guest

T = TypeVar("T", bound=Callable[..., object])

TOOLS = ("ip", "nft", "dnsmasq", "conntrack")
REASON = (
    "needs root" if os.geteuid() != 0
    else "needs /dev/net/tun" if not Path("/dev/net/tun").exists()
    else ", ".join(f"needs {tool}" for tool in TOOLS if shutil.which(tool) is None)
)  # fmt: skip
LINUX = (pytest.mark.root, pytest.mark.skipif(bool(REASON), reason=REASON or "can run"))
"""The marks of what needs a host's real network."""


def real(test: T) -> T:
    """Mark a test that needs a host's real network."""
    for mark in LINUX:
        test = mark(test)
    return test


ANY_OUT = (Rule("egress", "IPv4"), Rule("egress", "IPv6"))
SSH_IN = Rule("ingress", "IPv4", "tcp", 22, 22)
PING_IN = Rule("ingress", "IPv4", "icmp")
OPEN = SecurityGroup(
    "00000000-0000-4000-8000-000000000001", (*ANY_OUT, Rule("ingress", "IPv4"), Rule("ingress", "IPv6"))
)
CLOSED = SecurityGroup("00000000-0000-4000-8000-000000000002", ANY_OUT)


class Site:
    """Makes specs and guests of one driver."""

    def __init__(self, driver: LinuxDataplane, prefix: str) -> None:
        self.driver, self.prefix = driver, prefix
        self._guests: list[Guest] = []

    async def guest(
        self, network: Network, index: int = 0, gateway: str | None = None, *, configure: bool = True
    ) -> Guest:
        port = network.ports[index]
        guest = Guest(f"{self.prefix}-n-{network.id}", port, f"{self.prefix}-g-{port.id}")
        self._guests.append(await guest.start(gateway, configure=configure))
        return guest

    def remove(self, guest: Guest) -> None:
        self._guests.remove(guest)
        guest.remove()

    def close(self) -> None:
        """Remove all guests."""
        while self._guests:
            self._guests.pop().remove()


def traces(prefix: str, directory: Path) -> tuple[set[str], set[str], set[str]]:
    """What a site could leave behind: devices, namespaces, processes."""
    processes = {line for entry in Path("/proc").iterdir() if entry.name.isdigit() for line in [command_line(entry)]}
    devices = {name for _, name in socket.if_nameindex()}
    return devices, set(namespace.names(prefix)), {line for line in processes if f"{directory}/" in line}


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def new_id() -> str:
    return str(uuid.uuid4())


def make_port(address: str, group: SecurityGroup | None = OPEN, **more: object) -> Port:
    values = uuid.uuid4().bytes
    mac = "fa:16:3e:" + ":".join(f"{octet:02x}" for octet in values[:3])
    fixed = (FixedIp("s", address),) if address else ()
    return Port(new_id(), mac, fixed, (group.id,) if group else (), **more)  # type: ignore[arg-type]


def make_network(
    *ports: Port, groups: tuple[SecurityGroup, ...] = (OPEN, CLOSED), net: str = "10.0.0", **more: object
) -> Network:
    subnet = Subnet("s", f"{net}.0/24", f"{net}.1", f"{net}.2")
    return Network(new_id(), subnets=(subnet,), ports=ports, security_groups=groups, **more)  # type: ignore[arg-type]


def external_network() -> Network:
    return Network(new_id(), external=True, subnets=(Subnet("e", "172.24.4.0/24", "172.24.4.1", None),))


def make_router(network: Network, external: Network, own: str, *fips: FloatingIp, gateway: str = "10.0.0.1") -> Router:
    def mac() -> str:
        return "fa:16:3f:" + ":".join(f"{octet:02x}" for octet in uuid.uuid4().bytes[:3])

    return Router(
        new_id(),
        (RouterInterface(new_id(), network.id, mac(), (f"{gateway}/24",)),),
        RouterInterface(new_id(), external.id, mac(), (f"{own}/24",)),
        ("172.24.4.1",),
        floating_ips=fips,
    )


async def from_host(work: Callable[[], bool]) -> bool:
    return await namespace.in_thread(work)


def connects(address: str, port: int, within: float = ANSWERED_WITHIN) -> bool:
    try:
        socket.create_connection((address, port), timeout=within).close()
    except (TimeoutError, OSError):
        return False
    return True
