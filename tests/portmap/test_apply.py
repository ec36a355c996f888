"""Rules put into force on a host: at once or not at all, taken back unless confirmed, and nobody else's tables touched."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.cloud import SOURCE
from tests.portmap.hosts import NEEDS_ROOT, Place, place

pytestmark = [NEEDS_ROOT, pytest.mark.root]
Found = TypeVar("Found")
OTHERS = """table inet other {
	chain c {
		type filter hook input priority 0; policy accept;
		tcp dport 9 drop
	}
}
"""


@pytest.fixture
def site() -> Iterator[Place]:
    with place("host") as made:
        made.run("host", "nft", "-f", "-", text=OTHERS)
        yield made


def firewall(site: Place, data: Path, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [*site.command("host"), sys.executable, "-m", "cumulet", "firewall", "--data", str(data), *arguments],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(SOURCE / "src")},
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


def tables(site: Place) -> set[str]:
    return set(site.run("host", "nft", "list", "tables").stdout.split("\n")) - {""}


def rules(site: Place) -> str:
    return site.run("host", "nft", "list", "table", "inet", "cumulet_firewall", check=False).stdout


def until(true: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def applied(
    site: Place, data: Path, network: str, look: Callable[[], Found], *, soon: str = "1.5"
) -> tuple[str, Found]:
    """Put rules into force that go again soon, and look at something meanwhile: what the command said, and what was seen.
    Where a busy machine took longer for that than the rules were there, they are put into force again, for longer."""
    for rollback in (soon, "30"):
        until(lambda: not _guard(data))
        done = firewall(site, data, "--internal", network, "--apply", "--rollback", rollback)
        guard = _guard(data)
        seen = look()
        if guard and _guard(data) == guard:
            break
    return done.stdout, seen


def test_rules_go_again_unless_confirmed(site: Place, tmp_path: Path) -> None:
    said, seen = applied(site, tmp_path, "10.0.0.0/24", lambda: rules(site))
    assert "cumulet firewall --confirm" in said
    assert "policy drop" in seen
    until(lambda: tables(site) == {"table inet other"} and not _guard(tmp_path))
    late = firewall(site, tmp_path, "--confirm", check=False)
    assert late.returncode == 1
    assert "nothing waits to be confirmed" in late.stderr


def test_confirmed_rules_stay_and_are_not_made_twice(site: Place, tmp_path: Path) -> None:
    firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "60")
    guard = _guard(tmp_path)
    assert guard
    firewall(site, tmp_path, "--confirm")
    until(lambda: not Path(f"/proc/{guard}").exists())
    kept = rules(site)
    assert "10.0.0.0/24" in kept
    again = firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "60")
    assert "nothing was changed" in again.stdout
    assert rules(site) == kept
    assert site.run("host", "nft", "list", "table", "inet", "other").stdout.count("dport 9 drop") == 1


def test_a_change_that_is_not_confirmed_gives_back_what_was_there(site: Place, tmp_path: Path) -> None:
    firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "0")
    first = rules(site)
    _, seen = applied(site, tmp_path, "10.7.0.0/16", lambda: rules(site))
    assert "10.7.0.0/16" in seen
    until(lambda: rules(site) == first)


def test_one_change_at_a_time(site: Place, tmp_path: Path) -> None:
    def another() -> "subprocess.CompletedProcess[str]":
        return firewall(site, tmp_path, "--internal", "10.7.0.0/16", "--apply", "--rollback", "1.5", check=False)

    _, second = applied(site, tmp_path, "10.0.0.0/24", another, soon="5")
    assert second.returncode == 1
    assert "waits to be confirmed" in second.stderr
    assert "10.7.0.0/16" not in rules(site)
    until(lambda: tables(site) == {"table inet other"})


def test_the_session_that_applied_may_die(site: Place, tmp_path: Path) -> None:
    """The rollback is not the command's: it comes even if the command, and all of its process group, is killed."""
    command = [*site.command("host"), sys.executable, "-m", "cumulet", "firewall", "--data", str(tmp_path), "--internal",
               "10.0.0.0/24", "--apply", "--rollback", "2"]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE / "src")},
    )  # fmt: skip
    until(lambda: "policy drop" in rules(site))
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: tables(site) == {"table inet other"})


def test_removal_takes_only_our_own(site: Place, tmp_path: Path) -> None:
    firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "0")
    assert firewall(site, tmp_path, "--remove").stdout == "removed\n"
    assert tables(site) == {"table inet other"}
    assert "nothing to remove" in firewall(site, tmp_path, "--remove").stdout


def _guard(data: Path) -> int:
    """The process that would take the rules back, or 0 where nothing waits to be confirmed."""
    try:
        return int(json.loads((data / "firewall/waiting.json").read_text())["pid"])
    except FileNotFoundError:
        return 0
