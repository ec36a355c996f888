"""A real virtual machine on a tap of the `linux` dataplane, with its rules loaded."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from cumulet.services.network.drivers import FloatingIp, SecurityGroup
from cumulet.services.network.drivers.linux import namespace
from tests.drivers.dataplane_guest import ANSWERED_WITHIN, REFUSED_AFTER, ping, until
from tests.drivers.dataplane_site import (
    ANY_OUT,
    OPEN,
    PING_IN,
    SSH_IN,
    Site,
    external_network,
    from_host,
    make_network,
    make_port,
    make_router,
    new_id,
    real,
)

IMAGE = Path(os.environ.get("CUMULET_GUEST_IMAGE") or Path(__file__).parents[2] / "guest.qcow2")
QEMU = "qemu-system-x86_64"
BOOT = 90.0
"""Seconds within which a guest must have booted, on a busy machine without KVM."""
SHORT = 5.0
"""Seconds that one try may take where there is another one, or where no answer may come."""

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(not IMAGE.exists(), reason=f"needs the guest image ({IMAGE}; CUMULET_GUEST_IMAGE)"),
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"needs {QEMU}"),
]


@asynccontextmanager
async def machine(tap: int, mac: str, console: Path) -> AsyncIterator[None]:
    """A machine that boots the guest image, its network card on a tap."""
    process = await asyncio.create_subprocess_exec(
        QEMU, "-accel", "tcg,thread=multi", "-m", "256", "-display", "none", "-nodefaults", "-no-user-config",
        "-drive", f"file={IMAGE},if=virtio,format=qcow2,snapshot=on", "-serial", f"file:{console}",
        "-netdev", f"tap,id=net,fd={tap}", "-device", f"virtio-net-pci,netdev=net,mac={mac},romfile=",
        "-device", "virtio-rng-pci", pass_fds=(tap,),
    )  # fmt: skip
    os.close(tap)  # the machine holds it now
    try:
        yield
    finally:
        process.kill()
        await process.wait()


class Greeting(asyncio.Protocol):
    """Metadata as a bare HTTP answer; notes who asked."""

    askers: set[str]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.askers.add(transport.get_extra_info("peername")[0])

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()


def banner(address: str) -> socket.socket | None:
    """A connection on which the guest's SSH server has said its first word; None if there was no answer."""
    with suppress(OSError):
        client = socket.create_connection((address, 22), timeout=REFUSED_AFTER)
        client.settimeout(SHORT)
        with suppress(OSError):
            if client.recv(100).startswith(b"SSH-2.0"):
                return client
        client.close()
    return None


def lives(client: socket.socket, within: float = ANSWERED_WITHIN) -> bool:
    """Whether the SSH server is still heard on a connection: it hangs up on whoever talks nonsense."""
    client.settimeout(REFUSED_AFTER)
    with suppress(TimeoutError):
        while client.recv(4000):  # what it said before
            pass
    client.settimeout(within)
    try:
        client.send(b"SSH-2.0-nonsense\r\n" + b"\xff" * 64)
        while client.recv(4000):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@real
async def test_a_machine_lives_by_the_rules(site: Site, tmp_path: Path) -> None:
    """DHCP, metadata, floating IP, and SSH allowed, cut and allowed again."""
    admin = SecurityGroup(new_id(), (*ANY_OUT, SSH_IN, PING_IN))
    less = SecurityGroup(admin.id, (*ANY_OUT, PING_IN))
    external, network = (
        external_network(),
        make_network(make_port("10.0.0.5", admin), make_port("10.0.0.6"), groups=(OPEN, admin)),
    )
    router = make_router(network, external, "172.24.4.10", FloatingIp(new_id(), "172.24.4.50", "10.0.0.5"))
    driver, port, console = site.driver, network.ports[0], tmp_path / "console.log"
    for one in (external, network):
        await driver.ensure_network(one)
    await driver.ensure_router(router)
    neighbour = await site.guest(network, 1)
    Greeting.askers = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Greeting, sock=await driver.metadata_socket(network.id))
    tap = await driver.open_tap(network.id, port.id, port.mac)
    async with server, machine(tap, port.mac, console):
        await until(
            "DHCP and ping through the floating IP", lambda: from_host(lambda: ping("172.24.4.50", REFUSED_AFTER)), BOOT
        )
        assert (await driver.observe()).taps == {port.id}
        found: list[socket.socket] = []

        async def greeted() -> bool:
            client = await namespace.in_thread(lambda: banner("172.24.4.50"))
            found.extend([neighbour.keep(client)] if client else [])
            return client is not None

        async def asked() -> bool:
            return Greeting.askers == {"10.0.0.5"}

        await until("SSH through the floating IP", greeted, BOOT)
        await until("metadata asked for, under the machine's own address", asked, BOOT)
        assert await neighbour.pings("10.0.0.5")
        assert not await neighbour.reaches("10.0.0.5", 23, REFUSED_AFTER)
        await until("SSH a second time", greeted, BOOT)
        first, second = found
        assert await namespace.in_thread(lambda: lives(first))
        await driver.ensure_network(replace(network, security_groups=(OPEN, less)))
        assert not await namespace.in_thread(lambda: lives(second, SHORT)), (
            "the rule went, and its established flow with it"
        )
        assert await namespace.in_thread(lambda: banner("172.24.4.50")) is None
        assert await from_host(lambda: ping("172.24.4.50")), "what is still allowed goes on"
        await driver.ensure_network(network)
        await until("SSH after the rule came back", greeted, BOOT)
    assert (await driver.observe()).taps == set(), "the tap went with the machine"
