"""Who listens on the ports of this machine, read from /proc as `ss -lntup` does."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_TABLES = (
    # protocol, file, family, state of a socket that others can connect to
    ("tcp", "tcp", socket.AF_INET, "0A"),
    ("tcp", "tcp6", socket.AF_INET6, "0A"),
    ("udp", "udp", socket.AF_INET, "07"),
    ("udp", "udp6", socket.AF_INET6, "07"),
)


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


def find_listener(host: str, port: int) -> Listener | None:
    """Who listens on TCP `port` in the way of a bind to `host`: on the same address, or on all. None if nobody is seen."""
    for found in listeners(port):
        everywhere = "0.0.0.0" in (found.address, host) or "::" in (found.address, host)
        if found.protocol == "tcp" and (found.address == host or everywhere):
            return found
    return None


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
        try:
            lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:  # no IPv6 in this kernel
            continue
        for line in lines:
            columns = line.split()
            address, _, number = columns[1].partition(":")
            if columns[3] == state and port in (None, int(number, 16)):
                yield protocol, _address(family, address), int(number, 16), columns[9]


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
