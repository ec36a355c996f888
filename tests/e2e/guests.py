"""Guests over SSH, and the official command line, for the end-to-end tests."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cloud import ProcessCloud

BOOT = 180.0
"""Seconds that a guest gets to boot on a busy machine under TCG."""
PATIENCE = 60
"""Seconds that a guest which is up may take to answer, on such a machine."""
OPENSTACK = str(Path(sys.executable).parent / "openstack")


def openstack(cloud: ProcessCloud, *arguments: str, name: str = "cumulet-demo") -> Any:
    """Run the unmodified command line; returns its JSON, or its text where it gives none."""
    wants_json = bool({"create", "show", "list"} & set(arguments))
    more = ("-f", "json") if wants_json else ()
    out = cloud.run(OPENSTACK, "--os-cloud", name, *arguments, *more)
    return json.loads(out) if wants_json else out


def wait_for(what: str, check: Callable[[], Any], timeout: float = BOOT, pause: float = 0.3) -> Any:
    """The first true value of `check`; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if value := check():
            return value
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(pause)


def answers_ssh(address: str, timeout: float = 3.0) -> bool:
    """Whether an SSH server greets at this address."""
    try:
        with socket.create_connection((address, 22), timeout) as sock:
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


class Guest:
    """A login on a server."""

    def __init__(self, address: str, key: Path) -> None:
        self.address = address
        self.key = key

    def command(self, *arguments: str, patience: int = PATIENCE) -> list[str]:
        options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            f"ConnectTimeout={patience}",
            "LogLevel=ERROR",
        ]
        flags = [word for option in options for word in ("-o", option)]
        return ["ssh", "-i", str(self.key), *flags, f"cumulet@{self.address}", *arguments]

    def wait(self, timeout: float = BOOT) -> None:
        wait_for(
            f"SSH at {self.address}", lambda: answers_ssh(self.address) and self.try_run("true") is not None, timeout
        )

    def try_run(self, *arguments: str, timeout: float = 20) -> str | None:
        """What a command prints; None where it fails or nobody answers soon."""
        try:
            done = subprocess.run(
                self.command(*arguments, patience=5), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    def run(self, *arguments: str) -> str:
        """What a command prints, on a guest that is up."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=3 * PATIENCE, check=False
        )
        assert done.returncode == 0, (
            f"{' '.join(arguments)} on {self.address}: {done.returncode} {done.stdout}{done.stderr}"
        )
        return done.stdout.strip()


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path
