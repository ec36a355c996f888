"""Addresses and routes of devices: what to change so that exactly the wanted ones are there."""

import ipaddress
import json
import socket
import struct
from collections.abc import Iterable, Mapping

from cumulet.services.network.drivers.linux.command import run

PROTOCOL = 186
"""The routing protocol number that marks routes as ours."""


def addresses_of(device: str) -> set[str]:
    """The global addresses of a device, with prefix lengths."""
    links = json.loads(run(("ip", "-j", "addr", "show", "dev", device)) or "[]")
    return {
        f"{info['local']}/{info['prefixlen']}"
        for link in links
        for info in link.get("addr_info", [])
        if not (info["family"] == "inet6" and info["scope"] == "link")
    }


def address_changes(device: str, wanted: Iterable[str], present: set[str]) -> list[str]:
    """`ip` commands that give a device exactly the wanted addresses."""
    target = {str(ipaddress.ip_interface(address)) for address in wanted}
    new = sorted(target - present)
    gone = sorted(present - target)
    return [f"addr del {address} dev {device}" for address in gone] + [
        f"addr add {address} dev {device}" + (" nodad" if ":" in address else "") for address in new
    ]


DEFAULTS = {"-4": "0.0.0.0/0", "-6": "::/0"}


def route_changes(wanted: Mapping[str, str], table: str = "main") -> list[str]:
    """`ip` commands that leave exactly the wanted routes (destination: the rest of the words) among ours in a table."""
    commands = []
    mark = f"table {table} proto {PROTOCOL}"
    for family, default in DEFAULTS.items():
        for route in json.loads(run(("ip", "-j", family, "route", "show", *mark.split())) or "[]"):
            destination = default if route["dst"] == "default" else route["dst"]
            if destination not in wanted:
                commands.append(f"route del {destination} {mark}")
    return commands + [f"route replace {destination} {words} {mark}" for destination, words in wanted.items()]


def announce(device: str, mac: str, addresses: Iterable[str]) -> None:
    """Tell a device's neighbours, by gratuitous ARP, that IPv4 addresses are now at this MAC."""
    octets = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0x0806))
        for address in addresses:
            sender = socket.inet_aton(address)
            for operation in (1, 2):  # some systems heed only requests, some only replies
                body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + octets + sender + b"\xff" * 6 + sender
                raw.send(b"\xff" * 6 + octets + b"\x08\x06" + body)
