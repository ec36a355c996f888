"""Run the host's own tools (ip, nft, conntrack) and turn their failures into `DataplaneError`."""

import subprocess
from collections.abc import Sequence

from cumulet.services.network.drivers import DataplaneError

PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "dnsmasq": "dnsmasq-base",
    "setpriv": "util-linux",
    "modprobe": "kmod",
}
"""The Debian package of each tool the driver runs."""

TIMEOUT = 30.0
"""Seconds after which a tool is taken to hang."""


def run(arguments: Sequence[str], text: str | None = None) -> str:
    """Run a tool to its end in the calling thread's namespace; returns what it printed.

    Raises `DataplaneError` with the tool's own words when it fails, hangs or is not installed.
    """
    tool = arguments[0]
    try:
        done = subprocess.run(
            arguments,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise DataplaneError(f"'{tool}' is not installed (package {PACKAGES.get(tool, tool)})") from error
    except subprocess.TimeoutExpired as error:
        raise DataplaneError(f"'{' '.join(arguments)}' gave no answer within {TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}")[:1000]
        raise DataplaneError(f"'{' '.join(arguments)}' failed: {words}")
    return done.stdout


def ip_batch(commands: Sequence[str]) -> None:
    """Run many `ip` commands in one process, stopping at the first that fails; the error names it."""
    if not commands:
        return
    try:
        run(("ip", "-batch", "-"), "\n".join(commands) + "\n")
    except DataplaneError as error:
        failed = str(error).rpartition("Command failed -:")[2]
        line = int(failed) if failed.isdigit() else 0
        if 0 < line <= len(commands):
            raise DataplaneError(f"'ip {commands[line - 1]}' failed: {error}") from error
        raise


def nft(ruleset: str) -> None:
    """Load a ruleset: one transaction, all of it or nothing."""
    run(("nft", "-f", "-"), ruleset)


def forget_flows(*selection: str) -> None:
    """Delete the conntrack entries, IPv4 and IPv6, that a selection of `conntrack -D` matches; none is fine."""
    for family in ("ipv4", "ipv6"):
        if family == "ipv6" and any("." in word for word in selection):
            continue
        try:
            run(("conntrack", "-D", "-f", family, *selection))
        except DataplaneError as error:
            if "0 flow entries" not in str(error):
                raise
