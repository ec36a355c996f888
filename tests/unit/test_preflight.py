"""Start-up checks against real obstacles: taken ports, held locks, missing rights, missing programs."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cumulet import listeners, lock, ports, preflight, program
from cumulet.config import Settings, load
from cumulet.program import StartError

LISTEN = """
import socket, sys
listener = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""
CONNECT = """
import socket, sys
client = socket.socket()
client.bind((sys.argv[1], int(sys.argv[2])))
client.connect((sys.argv[1], int(sys.argv[3])))
print(client.getsockname()[1], flush=True)
sys.stdin.read()
"""
HOLD = """
import sys
from pathlib import Path
from cumulet import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
DROPPED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A cloud whose ports are free."""
    return load({"data": str(tmp_path / "data"), "port_offset": free_offset()}, {})


def free_offset() -> int:
    """An offset at which all ports that are served are free."""
    for offset in range(20000, 30000, 97):
        if not any(preflight._bind_problem("127.0.0.1", row.number) for row in ports.served(offset)):
            return offset
    raise AssertionError("no offset is free")


def child(script: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> None:
    process.communicate("")
    assert process.returncode == 0


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::"])
def listener(request: pytest.FixtureRequest, settings: Settings) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A child that listens on the compute port, on an address that is in our way."""
    number = ports.port("compute", settings.port_offset).number
    process = child(LISTEN, request.param, str(number))
    assert process.stdout is not None
    assert process.stdout.readline() == f"{number}\n"
    yield request.param, process
    finish(process)


def test_a_taken_port_is_explained(settings: Settings, listener: tuple[str, "subprocess.Popen[str]"]) -> None:
    address, process = listener
    row = ports.port("compute", settings.port_offset)
    [finding] = preflight.examine(settings).fatal
    name = Path(f"/proc/{process.pid}/comm").read_text().strip()
    assert finding.text == f"port {row.number} (Compute API) is taken by process {process.pid} ({name}) on {address}"
    assert "--port-offset" in finding.way_out
    assert "--bind" in finding.way_out
    assert str(process.pid) in preflight.explain_port_taken("127.0.0.1", row)
    assert "sysctl" not in finding.way_out, "it is no connection that has it"


@pytest.fixture
def of_clients(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ports.Port:
    """A port that this host gives to connections; others are kept from them."""
    row = ports.port("identity-admin", settings.port_offset)
    for name, text in (("EPHEMERAL", f"{row.number - 1}\t{row.number}\n"), ("RESERVED", "7,4789-4790\n")):
        monkeypatch.setattr(listeners, name, tmp_path / name)
        (tmp_path / name).write_text(text)
    return row


@contextlib.contextmanager
def connection(number: int, address: str) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """A process that is connected from a port, and to what."""
    with socket.create_server((address, 0)) as server:
        process = child(CONNECT, address, str(number), str(server.getsockname()[1]))
        assert process.stdout is not None
        assert process.stdout.readline() == f"{number}\n"
        accepted, _ = server.accept()
        with accepted:
            yield process, f"{address}:{server.getsockname()[1]}"
            if process.poll() is None:
                finish(process)


def test_a_port_that_a_client_has_is_explained(settings: Settings, of_clients: ports.Port) -> None:
    number = of_clients.number
    taken = f"port {number} (Identity API, admin endpoint) is taken by a connection"
    with connection(number, "127.0.0.1") as (process, peer):
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        [finding] = preflight.examine(settings).fatal
        assert finding.text == f"{taken} of process {process.pid} ({name}) to {peer}"
        assert finding.way_out.startswith("stop it, move all ports with --port-offset,")
        assert f"ports {number - 1}-{number} to outgoing connections" in finding.way_out
        assert f"`sysctl -w net.ipv4.ip_local_reserved_ports=7,4789-4790,{number}`" in finding.way_out
        with pytest.raises(StartError, match=re.escape(finding.text)):
            program._bind_all(settings)
        finish(process)  # it closes first, so that the port stays with its end of the connection
    [finding] = preflight.examine(settings).fatal
    assert finding.text == f"{taken} to {peer} that is over, but keeps its port for up to a minute"
    assert finding.way_out.startswith("wait for it, move all ports with --port-offset,")


def test_a_client_of_another_address_is_in_nobodys_way(settings: Settings, of_clients: ports.Port) -> None:
    with connection(of_clients.number, "127.0.0.2"):
        assert preflight.examine(settings).fatal == []
        [finding] = preflight.check_ports(msgspec.structs.replace(settings, bind="0.0.0.0"))
    assert "is taken by a connection of process" in finding.text


def test_other_ports_cannot_be_kept_from_clients(settings: Settings, of_clients: ports.Port) -> None:
    """The kernel gave it to nobody: a client that has it asked for this very port."""
    with connection(ports.port("compute", settings.port_offset).number, "127.0.0.1"):
        [finding] = preflight.examine(settings).fatal
    assert "is taken by a connection of process" in finding.text
    assert "sysctl" not in finding.way_out


def test_free_ports_and_a_new_directory_are_fine(settings: Settings) -> None:
    plan = preflight.examine(settings)
    assert plan.fatal == []
    assert settings.data.stat().st_mode & 0o777 == 0o700
    assert list(settings.data.iterdir()) == []


def test_a_listener_on_another_address_is_in_nobodys_way(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", ports.port("compute", settings.port_offset).number))
        other.listen()
        assert preflight.examine(settings).fatal == []


def test_an_address_of_another_host_is_refused(settings: Settings) -> None:
    [finding] = preflight.examine(msgspec.structs.replace(settings, bind="192.0.2.77")).fatal
    assert finding.text == "this host has no address 192.0.2.77, so nothing can listen there"


def test_a_held_directory_is_explained_and_free_again_after_sigkill(settings: Settings) -> None:
    settings.data.mkdir()
    process = child(HOLD, str(settings.data))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert lock.holder(settings.data) == process.pid
    [finding] = preflight.examine(settings).fatal
    assert f"is in use by another Cumulet (process {process.pid})" in finding.text
    with pytest.raises(lock.DataLockedError, match=str(process.pid)), lock.hold(settings.data):
        pass
    process.kill()
    process.communicate()
    assert lock.holder(settings.data) is None
    assert preflight.examine(settings).fatal == []


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    with lock.hold(tmp_path):
        process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        assert lock.holder(tmp_path) is None
    finally:
        process.communicate()


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [finding] = preflight.check_data(tmp_path / "file" / "data")
    assert finding.level == "fatal"
    assert "cannot be used: not a directory" in finding.text
    assert "--data" in finding.way_out


def choose_without_rights(**flags: str) -> preflight.Plan:
    """What a process without capabilities decides. Root drops its own; others have none."""
    script = (
        "import sys, msgspec; from cumulet import config, preflight;"
        "plan = preflight.choose(config.load(msgspec.json.decode(sys.argv[1]), {}));"
        "sys.stdout.buffer.write(msgspec.json.encode(plan))"
    )
    command = [sys.executable, "-c", script, msgspec.json.encode(flags).decode()]
    prefix = DROPPED if os.geteuid() == 0 else []
    output = subprocess.run([*prefix, *command], capture_output=True, check=True).stdout
    return msgspec.json.decode(output, type=preflight.Plan)


def test_without_rights_all_is_simulated_and_said_loudly() -> None:
    plan = choose_without_rights()
    assert (plan.hypervisor, plan.network) == ("simulated", "simulated")
    assert plan.fatal == []
    assert any("network is SIMULATED" in text and "CAP_NET_ADMIN" in text for text in plan.fallbacks)
    assert any("hypervisor is SIMULATED" in text for text in plan.fallbacks)


def test_without_rights_what_is_insisted_on_is_refused() -> None:
    texts = [finding.text for finding in choose_without_rights(network="linux").fatal]
    assert any("network is set to linux, but" in text and "CAP_NET_ADMIN" in text for text in texts)
    no_network, no_rights = choose_without_rights(hypervisor="qemu").fatal
    assert no_network.text == "hypervisor is set to qemu, but servers would have no network"
    assert "--network simulated" in no_network.way_out
    assert "CAP_NET_ADMIN" in no_rights.text


def test_what_is_set_to_be_simulated_is_no_fallback() -> None:
    plan = choose_without_rights(hypervisor="simulated")
    assert (plan.hypervisor, plan.network, plan.fallbacks, plan.fatal) == ("simulated", "simulated", [], [])


def test_missing_programs_name_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(preflight, "_SYSTEM_PATH", str(tmp_path))
    (tmp_path / "qemu-img").touch(0o755)
    [obstacle] = preflight.missing_programs(preflight.HYPERVISOR_PROGRAMS)
    assert obstacle.text == "qemu-system-x86_64, genisoimage are not installed"
    assert obstacle.way_out == "apt-get install --no-install-recommends genisoimage qemu-system-x86"
    plan = preflight.choose(load({"hypervisor": "qemu", "network": "simulated"}, {}))
    assert [finding.text for finding in plan.fatal] == [f"hypervisor is set to qemu, but {obstacle.text}"]
    [fallback] = preflight.choose(load({"hypervisor": "auto", "network": "simulated"}, {})).fallbacks
    assert "qemu-system-x86" in fallback
