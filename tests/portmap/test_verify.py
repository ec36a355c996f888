"""Connections proven between hosts that are network namespaces: through, stopped by a rule that is named, or lost."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from cumulet.portmap.verify import agent
from tests.cloud import SOURCE, inside
from tests.portmap.hosts import NEEDS_ROOT, Place, inventory, place
from tests.portmap.servers import needs, running

SSHD = "/usr/sbin/sshd"
ROLES = {"one": "controller", "two": "compute", "three": "storage"}
DROP = "table inet site {\n\tchain input {\n\t\ttype filter hook input priority 0; policy accept;\n\t\t%s\n\t}\n}\n"


@pytest.fixture
def site() -> Iterator[Place]:
    """A controller, a compute host and a storage host."""
    with place(*ROLES) as made:
        for name in ROLES:
            made.give(name, ["internal", "storage"])
        yield made


def verify(
    site: Place, directory: Path, *arguments: str, status: int = 0, check: bool = True, timeout: str = "1"
) -> "subprocess.CompletedProcess[str]":
    hosts = [site.host(name, [role], ["internal", "storage"]) for name, role in ROLES.items()]
    file = inventory(directory / "hosts.toml", hosts)
    done = subprocess.run(
        [sys.executable, "-m", "cumulet", "ports", "verify", str(file), "--timeout", timeout, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(SOURCE / "src")},
    )  # fmt: skip
    assert not check or done.returncode == status, done.stdout + done.stderr
    return done


def proofs(site: Place, directory: Path, status: int = 0, timeout: str = "1") -> list[dict[str, object]]:
    done = verify(site, directory, "--json", status=status, timeout=timeout)
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


PATIENT = "30"
"""Seconds that an answer may take where all connections get through: it is there at once, but the machine may be busy."""


@NEEDS_ROOT
@pytest.mark.root
def test_between_hosts_without_rules_everything_gets_through(site: Place, tmp_path: Path) -> None:
    found = proofs(site, tmp_path, timeout=PATIENT)
    assert {proof["reachable"] for proof in found} == {"open"}
    pairs = {(proof["source"], proof["destination"], proof["port"]) for proof in found}
    assert ("two", "one", 5672) in pairs  # from the compute host to the broker
    assert ("one", "two", 5900) in pairs  # and back: from the console proxies to the screens
    assert ("two", "three", 3260) in pairs
    assert all(proof["declared"] and proof["listening"] == "responder" for proof in found)
    storage = next(proof for proof in found if proof["port"] == 3260)
    assert storage["address"] == site.address("three", "storage")
    assert "declared connections get through" in verify(site, tmp_path, timeout=PATIENT).stdout
    for name in ROLES:  # nothing of it is left
        assert not site.run(name, "nft", "list", "ruleset").stdout
        assert not site.run(name, "ss", "-lntu").stdout.splitlines()[1:]


@NEEDS_ROOT
@pytest.mark.root
def test_the_rule_that_stops_a_connection_is_named(site: Place, tmp_path: Path) -> None:
    site.run("one", "nft", "-f", "-", text=DROP % "tcp dport 5672 drop")
    site.run("three", "nft", "-f", "-", text=DROP.replace("policy accept", "policy drop") % "tcp dport 3260 accept")
    out = "table inet site {\n\tchain output {\n\t\ttype filter hook output priority 0;\n\t\ttcp dport 3306 drop\n\t}\n}\n"
    site.run("two", "nft", "-f", "-", text=out)
    before = {name: site.run(name, "nft", "list", "ruleset").stdout for name in ROLES}
    found = {(p["source"], p["destination"], p["port"]): p for p in proofs(site, tmp_path, status=1)}
    broker = found["two", "one", 5672]
    assert broker["reachable"] == "filtered"
    assert str(broker["blocked"]).startswith("one: inet site input rule tcp dport 5672 drop")
    assert "three: inet site input (policy drop)" in str(found["two", "three", 4420]["blocked"])
    assert found["two", "three", 3260]["reachable"] == "open"
    database = found["two", "one", 3306]
    assert str(database["blocked"]).startswith("two: inet site output rule tcp dport 3306 drop")
    assert found["two", "one", 5000]["reachable"] == "open"
    assert before == {name: site.run(name, "nft", "list", "ruleset").stdout for name in ROLES}


@NEEDS_ROOT
@pytest.mark.root
def test_what_a_busy_host_tells_late_is_heard(site: Place) -> None:
    """nft is held up while the packet comes, and while it is waited for."""
    target = ("tcp", site.address("two", "internal"), 5000)
    with inside(site.namespace("one")), ThreadPoolExecutor(1) as pool:
        assert agent.trace({"prerouting": [], "output": [target]}) == ""
        tracer = agent.TRACER[0].pid
        os.kill(tracer, signal.SIGSTOP)
        try:
            assert agent.probe({"targets": [target], "timeout": 30}) == ["closed"]
            told = pool.submit(agent.traced, 0.0)
            with pytest.raises(TimeoutError):
                told.result(0.3)
        finally:
            os.kill(tracer, signal.SIGCONT)
        assert told.result(60) == [["tcp", site.address("one", "internal"), target[1], "5000", ""]]


@NEEDS_ROOT
@pytest.mark.root
def test_a_packet_that_is_lost_on_the_way_is_told_from_one_that_is_dropped(site: Place, tmp_path: Path) -> None:
    bridge = (
        "table bridge b {\n\tchain f {\n\t\ttype filter hook forward priority 0;\n\t\ttcp dport 5000 drop\n\t}\n}\n"
    )
    site.run("sw", "nft", "-f", "-", text=bridge)
    found = {(p["source"], p["destination"], p["port"]): p for p in proofs(site, tmp_path, status=1)}
    assert str(found["two", "one", 5000]["blocked"]).startswith("lost between two and one")


@NEEDS_ROOT
@pytest.mark.root
def test_what_listens_undeclared_and_can_be_reached_is_told(site: Place, tmp_path: Path) -> None:
    script = "import socket,sys\ns=socket.create_server(('', 7777))\nprint('ready', flush=True)\nsys.stdin.read()"
    command = [*site.command("one"), sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == "ready\n"
        found = [p for p in proofs(site, tmp_path, timeout=PATIENT) if p["port"] == 7777]
        server.stdin.close()
    assert {(p["source"], p["declared"], p["listening"]) for p in found} == {
        ("two", False, "process"),
        ("three", False, "process"),
    }


@NEEDS_ROOT
@pytest.mark.root
@needs(SSHD, "ssh-keygen", "ssh")
def test_over_ssh(site: Place, tmp_path: Path) -> None:
    """The same through sshd on one of the hosts, whose shell gets the words."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", tmp_path / name], check=True)
    (tmp_path / "authorized").write_text((tmp_path / "user.pub").read_text())
    options = {
        "HostKey": tmp_path / "host", "AuthorizedKeysFile": tmp_path / "authorized", "PidFile": "none", "UsePAM": "no",
        "StrictModes": "no", "ListenAddress": site.address("two", "internal"), "PermitRootLogin": "yes",
    }  # fmt: skip
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    Path("/run/sshd").mkdir(exist_ok=True)  # which it wants, and the package makes only when it starts the service
    sshd = [*site.command("two"), SSHD, "-D", "-e", "-f", "/dev/null", *flags]

    def listens() -> bool:
        return ":22 " in site.run("two", "ss", "-lnt").stdout

    known = ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]
    ssh = [*site.command("one"), "ssh", "-i", str(tmp_path / "user"), *known, f"root@{site.address('two', 'internal')}"]
    script = tmp_path / "ssh"
    script.write_text(f'#!/bin/sh\nexec {" ".join(ssh)} "$@"\n')
    script.chmod(0o755)
    with running(sshd, listens, tmp_path):
        far = site.host("two", ["compute"], ["internal"])
        hosts = [site.host("one", ["controller"], ["internal"]), msgspec.structs.replace(far, connect=[str(script)])]
        file = inventory(tmp_path / "hosts.toml", hosts)
        done = subprocess.run(
            [sys.executable, "-m", "cumulet", "ports", "verify", str(file)], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(SOURCE / "src")},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "declared connections get through" in done.stdout


@NEEDS_ROOT
@pytest.mark.root
def test_a_host_that_cannot_be_used_gets_one_sentence(site: Place, tmp_path: Path) -> None:
    hosts = [site.host(name, [role], ["internal"]) for name, role in ROLES.items()]
    hosts[1] = msgspec.structs.replace(hosts[1], connect=["sh", "-c", "echo no route to host >&2; exit 255", "sh"])
    file = inventory(tmp_path / "hosts.toml", hosts)
    done = subprocess.run(
        [sys.executable, "-m", "cumulet", "ports", "verify", str(file)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE / "src")},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "Error: two: no route to host\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "each [[host]] has a name, roles and addresses"),
        ("[[host]", "no valid TOML"),
        ('[[host]]\nname="a"\nroles=["king"]\naddresses={internal="10.0.0.1"}', "the roles are"),
        ('[[host]]\nname="a"\nroles=[]\naddresses={internal="10.0.0"}', "is no IP address"),
        ('[[host]]\nname="a"\nroles=[]\naddresses={moon="10.0.0.1"}', "the networks are"),
        ('[[host]]\nname="a"\nroles=[]\naddresses={}', "has no address"),
        ('[[host]]\nname="a"\nroles=["compute"]\naddresses={internal="10.0.0.1"}', "a connection has two ends"),
        ('[[host]]\nname="a"\nroles=["compute"]\naddresses={internal="10.0.0.1"}\nport=1', "unknown field"),
    ],
)
def test_a_wrong_file_gets_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    from click.testing import CliRunner

    from cumulet.cli import cumulet

    (tmp_path / "hosts.toml").write_text(text)
    result = CliRunner().invoke(cumulet, ["ports", "verify", str(tmp_path / "hosts.toml")])
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output
