"""Rules put into force on a host: at once or not at all, taken back unless confirmed, and nobody else's tables touched."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cloud import SOURCE
from tests.portmap.hosts import NEEDS_ROOT, Place, place

pytestmark = [NEEDS_ROOT, pytest.mark.root]
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


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def test_rules_go_again_unless_confirmed(site: Place, tmp_path: Path) -> None:
    done = firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "1.5")
    assert "cumulet firewall --confirm" in done.stdout
    assert "policy drop" in rules(site)
    until(lambda: tables(site) == {"table inet other"})
    late = firewall(site, tmp_path, "--confirm", check=False)
    assert late.returncode == 1
    assert "nothing waits to be confirmed" in late.stderr


def test_confirmed_rules_stay_and_are_not_made_twice(site: Place, tmp_path: Path) -> None:
    firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "3")
    guard = _guard(tmp_path)
    firewall(site, tmp_path, "--confirm")
    until(lambda: not Path(f"/proc/{guard}").exists())
    kept = rules(site)
    assert "10.0.0.0/24" in kept
    again = firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "3")
    assert "nothing was changed" in again.stdout
    assert rules(site) == kept
    assert site.run("host", "nft", "list", "table", "inet", "other").stdout.count("dport 9 drop") == 1


def test_a_change_that_is_not_confirmed_gives_back_what_was_there(site: Place, tmp_path: Path) -> None:
    firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "0")
    first = rules(site)
    firewall(site, tmp_path, "--internal", "10.7.0.0/16", "--apply", "--rollback", "1.5")
    assert "10.7.0.0/16" in rules(site)
    until(lambda: rules(site) == first)


def test_one_change_at_a_time(site: Place, tmp_path: Path) -> None:
    firewall(site, tmp_path, "--internal", "10.0.0.0/24", "--apply", "--rollback", "5")
    second = firewall(site, tmp_path, "--internal", "10.7.0.0/16", "--apply", check=False)
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
    import json

    return int(json.loads((data / "firewall/waiting.json").read_text())["pid"])
