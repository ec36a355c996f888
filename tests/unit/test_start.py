"""`cumulet up` as a process: what stands in its way is a sentence, Ctrl-C ends it in order, the terminal stays quiet."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.cloud import free_offset

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("CUMULET_")}


def words(data: Path, *more: str) -> list[str]:
    simulated = ["--hypervisor", "simulated", "--network", "simulated", "--port-offset", str(free_offset())]
    return [sys.executable, "-m", "cumulet", "up", "--data", str(data), *simulated, *more]


@contextmanager
def started(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT) as process:
        try:
            yield process
        finally:
            process.kill()


def until_ready(process: "subprocess.Popen[str]") -> list[str]:
    """What it printed, up to the line that says it is ready."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("ready in "):
        lines.append(process.stdout.readline())
        assert lines[-1], "it ended"
    return lines


def damage_secrets(data: Path) -> None:
    (data / "secrets.json").write_text('{"cloud": ')


def damage_database(data: Path) -> None:
    (data / "cumulet.sqlite").write_bytes(b"no database at all" * 1000)


def leave_whole(_: Path) -> None:
    """The obstacle is a flag."""


@pytest.mark.parametrize(
    ("prepare", "more", "sentence"),
    [
        (damage_secrets, (), "secrets.json is damaged"),
        (damage_database, (), "file is not a database"),
        (leave_whole, ("--database", "no url"), "`database` is no SQLAlchemy URL"),
        (leave_whole, ("--database", "oracle+cx_oracle://u:secret@h/d"), "driver is not installed"),
        (leave_whole, ("--log-file", "/proc/nowhere/log"), "/proc/nowhere/log"),
    ],
)
def test_what_stands_in_the_way_is_a_sentence(
    tmp_path: Path, prepare: object, more: tuple[str, ...], sentence: str
) -> None:
    assert callable(prepare)
    prepare(tmp_path)
    done = subprocess.run(
        words(tmp_path, *more), capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "cannot start: " in said
    assert sentence in said
    assert "Traceback" not in said
    assert "secret" not in said.replace("secrets.json", "")


def test_the_terminal_is_quiet_and_the_log_file_is_not(tmp_path: Path) -> None:
    command = words(tmp_path)
    with started(command) as process:
        lines = until_ready(process)
        url = next(line.split()[1] for line in lines if line.strip().startswith("identity "))
        assert requests.get(f"{url}/v3/users", timeout=60).status_code == 401
        process.send_signal(signal.SIGINT)
        output, complaint = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output == "stopping; servers keep running\n"
    assert complaint == ""
    log = tmp_path / "cumulet.log"
    assert "GET /v3/users 401" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert any(str(log) in line for line in lines)


def test_lines_go_to_standard_error_if_asked(tmp_path: Path) -> None:
    with started(words(tmp_path, "--log-file", "-", "--log-format", "json")) as process:
        lines = until_ready(process)
        url = next(line.split()[1] for line in lines if line.strip().startswith("identity "))
        requests.get(f"{url}/v3/users", timeout=60)
        process.terminate()
        _, complaint = process.communicate(timeout=60)
    assert '"level":"info"' in complaint
    assert not (tmp_path / "cumulet.log").exists()


def test_control_c_during_the_start_ends_it(tmp_path: Path) -> None:
    """The signal comes as soon as the log is opened: the services have not begun yet."""
    with started(words(tmp_path)) as process:
        while not (tmp_path / "cumulet.log").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, complaint = process.communicate(timeout=60)
    assert "Traceback" not in complaint
    assert complaint == ""
    assert "stopped before it was ready" in output
    assert process.returncode == 1
    with started(words(tmp_path)) as process:
        until_ready(process)
        process.terminate()
        assert process.wait(60) == 0
