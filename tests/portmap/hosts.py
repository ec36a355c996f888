"""Hosts that are network namespaces on one bridge, with the agents that try connections between them."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cumulet.portmap.verify.inventory import Host
from tests.cloud import run_all

NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft, for network namespaces with rules"
)
NETWORKS = {"public": 1, "internal": 2, "storage": 3, "tenant": 4, "admin": 5}


class Place:
    """Namespaces joined by a bridge, each with addresses on networks (10.98.N.x and fd98:N::x)."""

    def __init__(self, names: Sequence[str]) -> None:
        self.prefix = f"pm{uuid.uuid4().hex[:6]}"
        self.names = list(names)

    def namespace(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def command(self, name: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace(name)}"]

    def run(self, name: str, *command: str, text: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*self.command(name), *command], input=text, capture_output=True, text=True, check=check)

    def make(self) -> None:
        switch = self.namespace("sw")
        run_all([["ip", "netns", "add", switch], ["ip", "-n", switch, "link", "add", "br0", "type", "bridge"],
                 ["ip", "-n", switch, "link", "set", "br0", "up"]])  # fmt: skip
        for name in self.names:
            space = self.namespace(name)
            run_all([
                ["ip", "netns", "add", space],
                ["ip", "-n", space, "link", "set", "lo", "up"],
                ["ip", "-n", switch, "link", "add", f"p{name}", "type", "veth", "peer", "name", "eth0", "netns", space],
                ["ip", "-n", switch, "link", "set", f"p{name}", "master", "br0", "up"],
                ["ip", "-n", space, "link", "set", "eth0", "up"],
            ])  # fmt: skip

    def address(self, name: str, network: str) -> str:
        return f"10.98.{NETWORKS[network]}.{self.names.index(name) + 1}"

    def address6(self, name: str, network: str) -> str:
        return f"fd98:{NETWORKS[network]}::{self.names.index(name) + 1}"

    def give(self, name: str, networks: Sequence[str]) -> None:
        """Give a host its addresses."""
        for network in networks:
            four, six = f"{self.address(name, network)}/24", f"{self.address6(name, network)}/64"
            space = self.namespace(name)
            run_all([["ip", "-n", space, "addr", "add", four, "dev", "eth0"],
                     ["ip", "-n", space, "addr", "add", six, "dev", "eth0", "nodad"]])  # fmt: skip

    def host(self, name: str, roles: Sequence[str], networks: Sequence[str]) -> Host:
        addresses = {network: self.address(name, network) for network in networks}
        return Host(name=name, roles=list(roles), addresses=addresses, connect=self.command(name))

    def remove(self) -> None:
        for name in ("sw", *self.names):
            subprocess.run(["ip", "netns", "delete", self.namespace(name)], check=False, capture_output=True)


@contextmanager
def place(*names: str) -> Iterator[Place]:
    made = Place(names)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def cidrs(networks: Sequence[str]) -> Mapping[str, list[str]]:
    return {n: [f"10.98.{NETWORKS[n]}.0/24", f"fd98:{NETWORKS[n]}::/64"] for n in networks}


def inventory(path: Path, hosts: Sequence[Host]) -> Path:
    """The hosts as a file for `cumulet ports verify`."""
    parts = []
    for host in hosts:
        addresses = ", ".join(f"{network} = {json.dumps(address)}" for network, address in host.addresses.items())
        parts.append(
            f"[[host]]\nname = {json.dumps(host.name)}\nroles = {json.dumps(host.roles)}\n"
            f"addresses = {{ {addresses} }}\nconnect = {json.dumps(host.connect)}\n"
        )
    path.write_text("\n".join(parts))
    return path
