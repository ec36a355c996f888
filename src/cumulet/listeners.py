"""Who listens on a TCP port of this machine, read from /proc."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_LISTEN = "0A"


class Listener(Struct, frozen=True):
    """A listening socket; `pid` and `name` are of a process that holds it, None where that process hides it."""

    address: str
    port: int
    pid: int | None
    name: str | None

    def __str__(self) -> str:
        who = f"process {self.pid} ({self.name})" if self.pid else "a process of another user"
        return f"{who} on {self.address}"


def find_listener(host: str, port: int) -> Listener | None:
    """Who listens on `port` in the way of a bind to `host`: on the same address, or on all. None if nobody is seen."""
    for address, inode in _listening(port):
        if address == host or address in ("0.0.0.0", "::") or host in ("0.0.0.0", "::"):
            pid = _holder(inode)
            return Listener(address, port, pid, process_name(pid) if pid else None)
    return None


def process_name(pid: int) -> str:
    """The short name of a running process, or `?` if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"


def _listening(port: int) -> Iterator[tuple[str, str]]:
    """(address, socket inode) of each socket that listens on the port."""
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:  # no IPv6 in this kernel
            continue
        for line in lines:
            columns = line.split()
            address, _, number = columns[1].partition(":")
            if columns[3] == _LISTEN and int(number, 16) == port:
                yield _address(family, address), columns[9]


def _address(family: socket.AddressFamily, text: str) -> str:
    """The kernel writes addresses as hexadecimal 32-bit words in host (little-endian) order."""
    words = (bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return socket.inet_ntop(family, b"".join(words))


def _holder(inode: str) -> int | None:
    wanted = f"socket:[{inode}]"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{number}") == wanted for number in os.listdir(f"/proc/{pid}/fd")):
                return int(pid)
        except OSError:  # the process ended, or belongs to another user
            continue
    return None
