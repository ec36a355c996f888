"""Who has the ports of this machine, read from /proc as `ss -ntuap` does: who listens on them, and whose connections do."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

LISTENS = "0A"
_TABLES = (
    # protocol, file, family, state of a socket that others can connect to
    ("tcp", "tcp", socket.AF_INET, LISTENS),
    ("tcp", "tcp6", socket.AF_INET6, LISTENS),
    ("udp", "udp", socket.AF_INET, "07"),
    ("udp", "udp6", socket.AF_INET6, "07"),
)

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
DEFAULT_EPHEMERAL = (32768, 60999)
RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")


class Listener(Struct, frozen=True):
    """A listening socket; `pid` and `name` are of a process that holds it, None where that process hides it."""

    address: str
    port: int
    pid: int | None
    name: str | None
    protocol: str = "tcp"

    def __str__(self) -> str:
        who = f"process {self.pid} ({self.name})" if self.pid else "a process of another user"
        return f"{who} on {self.address}"


class Client(Struct, frozen=True):
    """A connection whose end here has a port. `pid` and `name` as a listener's; `over`: no process has it any more, and Linux
    keeps the port for a while."""

    peer: str
    pid: int | None
    name: str | None
    over: bool

    def __str__(self) -> str:
        if self.over:
            return f"a connection to {self.peer} that is over, but keeps its port for up to a minute"
        who = f"process {self.pid} ({self.name})" if self.pid else "a process of another user"
        return f"a connection of {who} to {self.peer}"


def find_listener(host: str, port: int) -> Listener | None:
    """Who listens on TCP `port` in the way of a bind to `host`: on the same address, or on all. None if nobody is seen."""
    for found in listeners(port):
        if found.protocol == "tcp" and _meet(found.address, host):
            return found
    return None


def find_client(host: str, port: int) -> Client | None:
    """Whose connection has TCP `port` at its end here, in the way of a bind to `host`: one that still lives, if any does."""
    rows = [row for row in _connections(port) if _meet(row[0], host)]
    holders = _holders({inode for *_, inode in rows}) if rows else {}
    found = []
    for _, peer, inode in rows:
        pid = holders.get(inode)
        found.append(Client(peer, pid, process_name(pid) if pid else None, over=inode == "0"))
    return min(found, key=lambda client: (client.over, client.pid is None), default=None)


def _meet(address: str, host: str) -> bool:
    return address == host or not {"0.0.0.0", "::"}.isdisjoint((address, host))


def ephemeral_range() -> tuple[int, int]:
    """The ports that this host gives to outgoing connections, or Linux's default where that cannot be read."""
    try:
        first, last = EPHEMERAL.read_text().split()
    except (OSError, ValueError):
        return DEFAULT_EPHEMERAL
    return int(first), int(last)


def reservation(port: int) -> str:
    """The command that keeps a port from outgoing connections, beside those that are kept from them already."""
    try:
        reserved = RESERVED.read_text().strip()
    except OSError:
        reserved = ""
    return f"sysctl -w net.ipv4.ip_local_reserved_ports={reserved}{',' if reserved else ''}{port}"


def listeners(port: int | None = None) -> list[Listener]:
    """Every TCP and UDP socket of this network namespace that others can connect to, or those on one port."""
    sockets = list(_sockets(port))
    holders = _holders({inode for *_, inode in sockets}) if sockets else {}
    found = []
    for protocol, address, number, inode in sockets:
        pid = holders.get(inode)
        found.append(Listener(address, number, pid, process_name(pid) if pid else None, protocol))
    return found


def process_name(pid: int) -> str:
    """The short name of a running process, or `?` if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"


def _sockets(port: int | None) -> Iterator[tuple[str, str, int, str]]:
    """(protocol, address, port, inode) of each socket that waits for others."""
    for protocol, table, family, state in _TABLES:
        for columns in _rows(table):
            address, number = _end(family, columns[1])
            if columns[3] == state and port in (None, number):
                yield protocol, address, number, columns[9]


def _connections(port: int) -> Iterator[tuple[str, str, str]]:
    """(address here, address and port there, inode) of each TCP socket with this port that waits for nobody."""
    for protocol, table, family, _ in _TABLES:
        for columns in _rows(table) if protocol == "tcp" else ():
            address, number = _end(family, columns[1])
            if number == port and columns[3] != LISTENS:
                there, its = _end(family, columns[2])
                yield address, f"[{there}]:{its}" if ":" in there else f"{there}:{its}", columns[9]


def _rows(table: str) -> Iterator[list[str]]:
    try:
        lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    except FileNotFoundError:  # no IPv6 in this kernel
        return
    yield from (line.split() for line in lines)


def _end(family: socket.AddressFamily, text: str) -> tuple[str, int]:
    address, _, number = text.partition(":")
    return _address(family, address).removeprefix("::ffff:"), int(number, 16)


def _address(family: socket.AddressFamily, text: str) -> str:
    """The kernel writes addresses as hexadecimal 32-bit words in host (little-endian) order."""
    words = (bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return socket.inet_ntop(family, b"".join(words))


def _holders(inodes: set[str]) -> dict[str, int]:
    """A process that holds each of the sockets."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, int] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for number in os.listdir(f"/proc/{pid}/fd"):
                inode = wanted.get(os.readlink(f"/proc/{pid}/fd/{number}"))
                if inode is not None:
                    found.setdefault(inode, int(pid))
        except OSError:  # the process ended, or belongs to another user
            continue
    return found
