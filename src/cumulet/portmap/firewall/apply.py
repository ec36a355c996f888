"""Put a plan into force on this host with nftables, and take it back unless somebody confirms that he still gets in.

The rules are one table of our own, replaced in one transaction: other tables are neither read nor changed. Before that, a
process of its own is started that outlives the session: when its time is up and nobody has confirmed, it puts back what was
there before. What it needs is on disk (in the directory `state`), and it works without a terminal.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from msgspec import Struct

from cumulet.files import write_atomic
from cumulet.portmap.firewall.plan import Plan
from cumulet.portmap.firewall.render import TABLE, nftables

LOOK = 0.2
"""Seconds between looks for the confirmation."""


class ApplyError(Exception):
    """The rules cannot be put into force, or there is nothing to confirm; the text says why. Nothing was changed."""


class Waiting(Struct, frozen=True):
    """A plan that is in force and not confirmed yet."""

    pid: int
    deadline: float  # Unix time


def apply(plan: Plan, rollback: float, state: Path) -> bool:
    """Put the plan into force; False if it is already. With `rollback` seconds it goes again unless `confirm` is called.
    Raises ApplyError."""
    if waiting(state) is not None:
        raise ApplyError("an earlier change waits to be confirmed; `cumulet firewall --confirm` keeps it")
    rules = nftables(plan)
    _nft("-c", rules)  # what nft would refuse changes nothing
    before = _listed()
    if before and _stored(state) == _digest(rules, before):
        return False
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(state / "before.nft", (before or _removal()).encode(), mode=0o600)
    (state / "confirmed").unlink(missing_ok=True)
    guard = _start_guard(state, rollback) if rollback else None
    try:
        _nft("", rules)
    except ApplyError:
        if guard is not None:
            guard.kill()
            (state / "waiting.json").unlink(missing_ok=True)
        raise
    # What these rules look like as nft lists them: if both are the same the next time, there is nothing to do.
    write_atomic(state / "applied", _digest(rules, _listed() or "").encode(), mode=0o600)
    return True


def _stored(state: Path) -> str:
    try:
        return (state / "applied").read_text()
    except OSError:
        return ""


def confirm(state: Path) -> None:
    """Keep what was put into force. Raises ApplyError where nothing waits."""
    if waiting(state) is None:
        raise ApplyError(
            "nothing waits to be confirmed: it was confirmed before, or was taken back when its time was up"
        )
    write_atomic(state / "confirmed", b"", mode=0o600)
    (state / "waiting.json").unlink(missing_ok=True)


def remove() -> bool:
    """Take the table away; False if it was not there."""
    if _listed() is None:
        return False
    _nft("", _removal())
    return True


def waiting(state: Path) -> Waiting | None:
    """The change that waits to be confirmed, if one does."""
    try:
        found = Waiting(**json.loads((state / "waiting.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    alive = Path(f"/proc/{found.pid}").exists()
    return found if alive and time.time() < found.deadline + 5 else None


def watch(state: Path, seconds: float) -> None:
    """What the guard does: wait for the confirmation; without it, put back what was there before."""
    deadline = time.time() + seconds
    write_atomic(state / "waiting.json", json.dumps({"pid": os.getpid(), "deadline": deadline}).encode(), mode=0o600)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdout.close()
    while time.time() < deadline:
        if (state / "confirmed").exists():
            return
        time.sleep(LOOK)
    before = (state / "before.nft").read_text()
    # In one transaction: whatever is there now goes, and what was there comes back.
    _nft("", before if before == _removal() else _removal() + before)
    (state / "waiting.json").unlink(missing_ok=True)


def _start_guard(state: Path, seconds: float) -> "subprocess.Popen[str]":
    """A process in a session of its own, once it says that it waits."""
    command = [sys.executable, "-m", "cumulet.portmap.firewall.apply", str(state), str(seconds)]
    guard = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert guard.stdout is not None
    if guard.stdout.readline() != "ready\n":
        raise ApplyError("the process that would take the rules back could not be started, so they were not changed")
    guard.stdout.close()
    return guard


def _removal() -> str:
    return f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"


def _listed() -> str | None:
    """Our table as nft lists it, or None where there is none."""
    done = _run(["nft", "list", "table", "inet", TABLE])
    return done.stdout if done.returncode == 0 else None


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _nft(flag: str, rules: str) -> None:
    done = _run(["nft", *([flag] if flag else []), "-f", "-"], rules)
    if done.returncode:
        raise ApplyError(f"nft refused the rules: {done.stderr.strip()}")


def _run(command: list[str], text: str = "") -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ApplyError("nft is not installed; apt-get install nftables") from None


if __name__ == "__main__":
    watch(Path(sys.argv[1]), float(sys.argv[2]))
