"""Stand-ins for virtual machines, and the packets they send.

A guest is a namespace whose only device is a veth; the other end, on the network's br0, bears the name of the port's
tap, so that every rule made for the port applies to it. What is sent here are packets of a real IP stack, or raw ones.
"""

import asyncio
import os
import socket
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from cumulet.services.network.drivers import Port
from cumulet.services.network.drivers.linux import namespace
from cumulet.services.network.drivers.linux.filter import tap_name

T = TypeVar("T")
ANSWERED_WITHIN = 30.0
"""Seconds that an answer may take where one must come: it is there at once, but the machine may be busy with other things."""
REFUSED_AFTER = 0.6
"""Seconds without an answer after which a packet counts as dropped, where none may come."""

MAGIC = bytes([99, 130, 83, 99])


class Guest:
    """A namespace in place of a machine on a port; `start` plugs it in."""

    def __init__(self, network_namespace: str, port: Port, name: str) -> None:
        self.network_namespace, self.port, self.name = network_namespace, port, name
        self.tap = tap_name(port.id)
        self._sockets: list[socket.socket] = []
        self.address = port.fixed_ips[0].ip_address if port.fixed_ips else ""

    async def start(self, gateway: str | None = None, *, configure: bool = True, prefix: int = 24) -> "Guest":
        """Plug in; with `configure` the port's address (and a default route) is set by hand, not by DHCP."""
        ip("netns", "add", self.name)
        ip("-n", self.network_namespace, "link", "add", self.tap, "type", "veth",
           "peer", "name", "eth0", "address", self.port.mac, "netns", self.name)  # fmt: skip
        ip("-n", self.network_namespace, "link", "set", self.tap, "master", "br0", "up")
        # A namespace inherits what br_netfilter does elsewhere; a guest has no bridge, and keeps IPv6 as it comes.
        await self.call(
            lambda: namespace.write_sysctl({"ipv6/conf/all/accept_dad": "0", "ipv6/conf/eth0/accept_dad": "0"})
        )
        for words in ("link set lo up", "link set eth0 up"):
            ip("-n", self.name, *words.split())
        if configure and self.address:
            self.configure(self.address, gateway, prefix)
        return self

    def configure(self, address: str, gateway: str | None, prefix: int = 24) -> None:
        ip("-n", self.name, "addr", "add", f"{address}/{prefix}", "dev", "eth0")
        if gateway:
            ip("-n", self.name, "route", "replace", "default", "via", gateway)

    def keep(self, one: socket.socket) -> socket.socket:
        """Have a socket closed with the guest."""
        self._sockets.append(one)
        return one

    def accept(self, listener: socket.socket) -> socket.socket:
        return self.keep(listener.accept()[0])

    def remove(self) -> None:
        for one in self._sockets:
            one.close()
        with suppress(AssertionError):  # gone with its network
            ip("-n", self.network_namespace, "link", "del", self.tap)
        ip("netns", "del", self.name)

    async def call(self, work: Callable[[], T]) -> T:
        """Run blocking work inside the guest."""

        def entered() -> T:
            with namespace.inside(self.name):
                return work()

        return await namespace.in_thread(entered)

    async def pings(self, address: str, within: float = ANSWERED_WITHIN) -> bool:
        return await self.call(lambda: ping(address, within))

    async def listen(self, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        def opened() -> socket.socket:
            listener = socket.socket(socket.AF_INET, kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            if kind == socket.SOCK_STREAM:
                listener.listen(16)
            listener.settimeout(ANSWERED_WITHIN)
            return listener

        return self.keep(await self.call(opened))

    async def connect(self, address: str, port: int, within: float = ANSWERED_WITHIN) -> socket.socket:
        """Connect, raising TimeoutError if no answer comes."""
        return self.keep(await self.call(lambda: socket.create_connection((address, port), timeout=within)))

    async def reaches(self, address: str, port: int, within: float = ANSWERED_WITHIN) -> bool:
        try:
            (await self.connect(address, port, within)).close()
        except TimeoutError:
            return False
        return True

    async def send_frames(self, *frames: bytes) -> None:
        def send() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                for frame in frames:
                    raw.send(frame)

        await self.call(send)

    async def sniffer(self) -> socket.socket:
        """A socket that sees every frame that arrives from now on."""

        def opened() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            raw.bind(("eth0", 3))
            return raw

        return self.keep(await self.call(opened))


def ip(*words: str) -> str:
    done = subprocess.run(("ip", *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


async def until(what: str, check: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        await asyncio.sleep(0.2)


def patience(answered: bool) -> float:
    """How long to wait for what must come, or must not."""
    return ANSWERED_WITHIN if answered else REFUSED_AFTER


def seen(sniffer: socket.socket, needle: bytes, within: float = ANSWERED_WITHIN) -> bool:
    """Whether a frame with these bytes arrives before the line falls silent."""
    sniffer.settimeout(within)
    with suppress(TimeoutError):
        while True:
            if needle in sniffer.recv(2048):
                return True
    return False


def talks(one: socket.socket, other: socket.socket, within: float = ANSWERED_WITHIN) -> bool:
    """Whether a new word gets from one end to the other; words that were held up do not count."""
    word = os.urandom(8)
    heard = b""
    other.settimeout(within)
    try:
        one.send(word)
        while word not in heard:
            heard += other.recv(100)
    except (TimeoutError, ConnectionError):
        return False
    return True


def checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ping(address: str, within: float = ANSWERED_WITHIN) -> bool:
    """One echo request from where the thread stands; whether its reply came."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if ":" in address else socket.IPPROTO_ICMP
    request, reply = (128, 129) if ":" in address else (8, 0)
    number = int.from_bytes(os.urandom(2), "big")
    body = struct.pack("!BBHHH", request, 0, 0, number, 1) + b"cumulet!"
    if family == socket.AF_INET:
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(within)
        try:
            raw.sendto(body, (address, 0))
            while True:
                packet = raw.recv(2048)
                message = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
                if message[0] == reply and struct.unpack("!H", message[4:6])[0] == number:
                    return True
        except TimeoutError:
            return False


def udp_frame(mac: str, source: str, target: str, payload: bytes, target_mac: str = "ff:ff:ff:ff:ff:ff") -> bytes:
    """An Ethernet frame with a UDP datagram (ports 5555 to 6666), all addresses as told."""
    datagram = struct.pack("!HHHH", 5555, 6666, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + addresses
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return octets(target_mac) + octets(mac) + b"\x08\x00" + head + datagram


def arp_frame(mac: str, sender_mac: str, sender: str, target: str) -> bytes:
    """A broadcast ARP request; `mac` is the frame's source, `sender_mac` what the ARP body claims."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + octets(sender_mac) + socket.inet_aton(sender)
    return b"\xff" * 6 + octets(mac) + b"\x08\x06" + body + bytes(6) + socket.inet_aton(target)


def advertisement_frame(mac: str, source: str, target: str, claimed: str) -> bytes:
    """An IPv6 neighbour advertisement that says that `claimed` is at this MAC."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    body = b"\x88\0\0\0\x20\0\0\0" + socket.inet_pton(socket.AF_INET6, claimed) + b"\x02\x01" + octets(mac)
    total = checksum(addresses + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + addresses
    return octets("33:33:00:00:00:01") + octets(mac) + b"\x86\xdd" + head + body


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


REFUSED_TRIES = 3
"""Questions without an answer after which nobody answers."""


def dhcp(mac: str, tries: int = 5 * REFUSED_TRIES) -> dict[int | str, bytes]:
    """Get a lease on eth0, from where the thread stands: options by number, and `address`. Asks again as clients do (RFC 2131,
    4.1); TimeoutError if there is no answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        client.bind(("0.0.0.0", 68))
        client.settimeout(2)
        offer = _exchange(client, mac, tries, [(53, b"\1"), (55, _WANTED)])
        return _exchange(client, mac, tries, [(53, b"\3"), (50, offer["address"]), (54, offer[54]), (55, _WANTED)])


_WANTED = bytes([1, 3, 6, 12, 15, 26, 121])


def _exchange(client: socket.socket, mac: str, tries: int, options: list[tuple[int, bytes]]) -> dict[int | str, bytes]:
    transaction = os.urandom(4)
    head = struct.pack("!BBBB4sHH16x6s10x192x", 1, 1, 6, 0, transaction, 0, 0x8000, octets(mac))
    body = b"".join(bytes([number, len(value)]) + value for number, value in options)
    for attempt in range(tries):
        client.sendto(head + MAGIC + body + b"\xff", ("255.255.255.255", 67))
        try:
            while (answer := client.recv(2048))[4:8] != transaction:
                pass
            break
        except TimeoutError:
            if attempt + 1 == tries:
                raise
    found: dict[int | str, bytes] = {"address": answer[16:20]}
    rest = answer[240:]
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        found[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return found


def dns(server: str, name: str) -> str:
    """The IPv4 address a name server gives for a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(ANSWERED_WITHIN)
        client.sendto(struct.pack("!HHHHHH", 77, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!HH", 1, 1), (server, 53))
        answer = client.recv(512)
    assert struct.unpack("!H", answer[6:8])[0] >= 1, f"no answer for {name}"
    return socket.inet_ntoa(answer[-4:]) if answer[-6:-4] == b"\0\4" else ""
