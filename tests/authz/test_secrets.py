"""What must stay secret does: files are their owner's alone, and no log holds a password, a token or a console's token."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.authz.scene import Scene
from tests.cloud import Cloud, ProcessCloud

OPEN_TO_ALL = {"status.json"}
"""Files of the data directory that hold nothing secret and may be read by others."""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCloud]:
    """The real program with simulated drivers, started with a umask that gives everything away, logging all it can."""
    before = os.umask(0)
    cloud = ProcessCloud(
        tmp_path_factory.mktemp("secrets") / "data",
        "--hypervisor", "simulated", "--network", "simulated", "--log-level", "debug",
    )  # fmt: skip
    try:
        cloud.start()
    finally:
        os.umask(before)
    yield cloud
    cloud.destroy()


def test_files_are_the_owners_alone(process: ProcessCloud) -> None:
    scene = Scene(process)
    scene["server"]
    scene["image"]
    assert stat.S_IMODE(process.data.stat().st_mode) == 0o700
    for path in process.data.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink() or private(path.parent, process.data):
            continue
        assert mode & 0o077 == 0 or path.name in OPEN_TO_ALL or harmless(path), f"{path}: {mode:o}"


def private(folder: Path, top: Path) -> bool:
    """Whether a folder below the data directory is closed to others (the data directory may be somebody's own)."""
    below = [folder, *folder.parents]
    return any(stat.S_IMODE(f.stat().st_mode) & 0o077 == 0 for f in below[: below.index(top)])


def harmless(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def test_logs_hold_no_secrets(process: ProcessCloud) -> None:
    secrets = {name: f"s3cret-{name}-Zq" for name in ("wrong", "new", "admin_pass", "blob", "user_data", "query")}
    ask = process.request
    login(process, secrets["wrong"])
    ask("POST", "identity", "/v3/users", {"user": {"name": "new", "password": secrets["new"]}})
    ask("POST", "identity", "/v3/users", {"user": {"name": "new", "password": secrets["new"]}})  # a conflict
    ask("POST", "identity", "/v3/users", {"user": {"name": 5, "password": secrets["new"]}})  # refused
    ask("POST", "identity", "/v3/credentials", {"credential": {"type": "x", "blob": secrets["blob"]}})
    server = {"name": "x", "flavorRef": "none", "adminPass": secrets["admin_pass"], "user_data": secrets["user_data"]}
    ask("POST", "compute", "/v2.1/servers", {"server": server})
    ask("GET", "novnc", f"/vnc_lite.html?token={secrets['query']}", token=None)
    ask("GET", "network", "/v2.0/networks%0Aforged%20line", token=None)
    token = process.token()
    log = (process.data / "cumulet.log").read_text() + process.log()
    assert "POST /v3/users" in log, "the log is not where the test looks"
    found = [name for name, secret in secrets.items() if secret in log]
    assert not found and token not in log
    assert (process.data / "secrets.json").exists()
    for text in re.findall(r'password":"([^"]+)', (process.data / "secrets.json").read_text()):
        assert text not in log
    assert not any(line.startswith("forged") for line in log.splitlines())


def login(cloud: Cloud, password: str) -> None:
    user = {"name": "admin", "password": password, "domain": {"id": "default"}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    assert cloud.request("POST", "identity", "/v3/auth/tokens", body, token=None).status_code == 401
