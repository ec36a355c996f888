"""The commands as a user meets them: what they print, their exit status, and that no obstacle ends in a traceback."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from cumulet import credentials, lock, ports, status
from cumulet.cli import cumulet
from cumulet.status import Status


def invoke(*arguments: str) -> Result:
    result = CliRunner(env={"CUMULET_DATA": None}).invoke(cumulet, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


class VersionDocument(BaseHTTPRequestHandler):
    """Answers as a service does to whoever asks for its versions; the path says with which status."""

    def do_GET(self) -> None:
        assert isinstance(self.server, HTTPServer)
        self.send_response(self.server.server_port % 2 * 200 + 300)  # 300 Multiple Choices, or 500 from odd ports
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def services() -> Iterator[dict[int, int]]:
    """Two services: by the status they answer with, the port of each."""
    servers: dict[int, HTTPServer] = {}
    spare: list[HTTPServer] = []
    while len(servers) < 2:
        server = HTTPServer(("127.0.0.1", 0), VersionDocument)
        if servers.setdefault(300 + server.server_port % 2 * 200, server) is not server:
            spare.append(server)
    threads = [Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}) for server in servers.values()]
    for thread in threads:
        thread.start()
    yield {code: server.server_port for code, server in servers.items()}
    for server in servers.values():
        server.shutdown()
    for thread in threads:
        thread.join()
    for server in [*servers.values(), *spare]:
        server.server_close()


def running(urls: dict[str, str], **changes: object) -> Status:
    values: dict[str, object] = {
        "started": time.time(),
        "ready_seconds": 0.5,
        "version": "0.1.0",
        "region": "RegionOne",
        "urls": urls,
        "hypervisor": "qemu",
        "virt_type": "qemu",
        "virt_reason": "KVM is too slow here",
        "network": "linux",
        "database": "sqlite",
        "fallbacks": [],
    }
    return Status(**(values | changes))  # type: ignore[arg-type]


def test_status_of_a_cloud_that_is_up(data: Path, services: dict[int, int]) -> None:
    data.mkdir()
    fallback = "the network is SIMULATED, no packet flows: this user is not root"
    status.write(data, running({"identity": f"http://127.0.0.1:{services[300]}"}, fallbacks=[fallback]))
    result = invoke("status", "--data", str(data))
    assert result.exit_code == 0
    for text in (f"process {os.getpid()}", "KVM is too slow here", f"http://127.0.0.1:{services[300]}", fallback):
        assert text in result.output
    as_json = json.loads(invoke("status", "--data", str(data), "--json").output)
    assert as_json["running"] is True
    assert as_json["services"][0]["problem"] == ""


def test_status_names_what_does_not_answer(data: Path, services: dict[int, int]) -> None:
    data.mkdir()
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        urls = {
            "identity": f"http://127.0.0.1:{services[300]}",
            "compute": f"http://127.0.0.1:{services[500]}",
            "image": f"http://127.0.0.1:{unheard.getsockname()[1]}",
        }
        status.write(data, running(urls))
        result = invoke("status", "--data", str(data))
    assert result.exit_code == 1
    assert "answers 500" in result.output
    assert "nothing listens there" in result.output


def test_status_of_a_cloud_that_is_not_up(data: Path) -> None:
    result = invoke("status", "--data", str(data))
    assert result.exit_code == 3
    assert f"cumulet up --data {data}" in result.output
    data.mkdir()
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    status.write(data, running({}, pid=ended.pid))
    assert "ended without stopping in order" in invoke("status", "--data", str(data)).output
    status.write(data, running({}, started=time.time() - 10**9))  # a pid that another process has by now
    assert invoke("status", "--data", str(data)).exit_code == 3
    with lock.hold(data):
        assert "starting, or not ready yet" in invoke("status", "--data", str(data)).output


def test_a_status_of_another_version_is_none(data: Path) -> None:
    data.mkdir()
    (data / "status.json").write_text('{"pid": 1}')
    assert status.read(data) is None
    status.remove(data)
    status.remove(data)
    assert status.read(data) is None


def test_announcing_ends_with_the_ready_line(data: Path) -> None:
    data.mkdir()
    lines: list[str] = []
    status.announce_ready(data, running({"compute": "http://127.0.0.1:8774"}, fallbacks=["simulated"]), lines.append)
    assert lines[-1] == "ready in 0.50 s"
    assert any("compute" in line and "http://127.0.0.1:8774" in line for line in lines)
    assert any("NOTE: simulated" in line for line in lines)
    assert status.read(data) is not None


def test_the_start_of_this_process_is_known() -> None:
    script = (
        "from cumulet.status import seconds_since_start as s; from time import monotonic as now, sleep\n"
        "a = [now(), s(), now()]; sleep(0.3); b = [now(), s(), now()]\n"
        "print(a[1], b[1], b[0] - a[2], b[2] - a[0])"
    )
    began = time.monotonic()
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    whole = time.monotonic() - began
    first, second, least, most = map(float, output.split())
    assert 0 < first < second < whole + 0.05
    assert least - 0.05 <= second - first <= most + 0.05


def test_up_explains_an_obstacle_and_ends(data: Path) -> None:
    with socket.socket() as taken:
        for offset in range(20000, 30000, 83):
            try:
                taken.bind(("127.0.0.1", ports.port("identity", offset).number))
                break
            except OSError:
                continue
        taken.listen()
        command = [sys.executable, "-m", "cumulet", "up", "--data", str(data), "--port-offset", str(offset)]
        result = subprocess.run([*command, "--hypervisor", "simulated"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"is taken by process {os.getpid()}" in result.stderr
    assert "way out: " in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_clouds_yaml_prints_the_file_or_points_to_it(data: Path) -> None:
    assert "has `cumulet up` been started" in invoke("clouds-yaml", "--data", str(data)).output
    data.mkdir()
    credentials.write(data, auth_url="http://h:5000/v3", region="R", admin_password="a", demo_password="d")
    assert invoke("clouds-yaml", "--data", str(data)).output == (data / "clouds.yaml").read_text()
    exported = invoke("clouds-yaml", "--data", str(data), "--export").output
    assert exported == f"export OS_CLIENT_CONFIG_FILE={data}/clouds.yaml\nexport OS_CLOUD=cumulet\n"
    as_demo = invoke("clouds-yaml", "--data", str(data), "--export", "--cloud", "cumulet-demo").output
    assert as_demo.endswith("export OS_CLOUD=cumulet-demo\n")


def test_demo_needs_a_cloud(data: Path) -> None:
    result = invoke("demo", "--data", str(data))
    assert result.exit_code == 1
    assert f"no cloud is up in {data}" in result.output


def test_reset_touches_only_what_up_made_and_nobody_uses(data: Path) -> None:
    assert invoke("reset", "--data", str(data), "--yes").exit_code == 0
    data.mkdir()
    (data / "precious").touch()
    result = invoke("reset", "--data", str(data), "--yes")
    assert result.exit_code == 1
    assert "was not made by `cumulet up`" in result.output
    with lock.hold(data):
        result = invoke("reset", "--data", str(data), "--yes")
        assert result.exit_code == 1
        assert f"process {os.getpid()}" in result.output
    assert (data / "precious").exists()
    assert CliRunner().invoke(cumulet, ["reset", "--data", str(data)], input="n\n").exit_code == 1
    assert (data / "precious").exists()
