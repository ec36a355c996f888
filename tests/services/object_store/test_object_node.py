"""`cumulet object-node` as a process: it answers on its three ports, and says what stands in its way."""

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import requests

from cumulet import ports
from cumulet.services.object_store import policies
from cumulet.services.object_store.ring import data
from cumulet.services.object_store.ring.builder import Builder
from tests.cloud import SOURCE, free_offset

KINDS = ("object", "container", "account")


def start(tmp_path: Path, offset: int) -> "subprocess.Popen[str]":
    command = [
        sys.executable, "-m", "cumulet", "object-node", "--data", str(tmp_path / "data"), "--port-offset", str(offset),
        "--object-rings", str(tmp_path / "rings"), "--object-devices", str(tmp_path / "devices"),
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(SOURCE / "src")})


def rings(directory: Path, offset: int) -> None:
    policies.make(directory / policies.FILE)
    for kind in KINDS:
        made = Builder(4, 1, 1)
        port = ports.port(kind, offset).number
        made.add({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "d1", "weight": 1.0})
        made.rebalance()
        data.save(made.ring(), directory / f"{kind}.ring.gz")


def test_it_serves_its_devices_until_it_is_told_to_stop(tmp_path: Path) -> None:
    offset = free_offset()
    rings(tmp_path / "rings", offset)
    (tmp_path / "devices" / "d1").mkdir(parents=True)
    process = start(tmp_path, offset)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines[-1].startswith("ready in "), lines
        for kind in KINDS:
            root = ports.root_url("127.0.0.1", ports.port(kind, offset))
            assert requests.get(f"{root}/healthcheck", timeout=60).text == "OK"
        root = ports.root_url("127.0.0.1", ports.port("account", offset))
        headers = {"X-Timestamp": "1700000000.00000", "X-Put-Timestamp": "1700000000.00000"}
        assert requests.put(f"{root}/d1/3/AUTH_x", headers=headers, timeout=60).status_code == 201
        assert requests.head(f"{root}/d1/3/AUTH_x", timeout=60).status_code == 204
        assert requests.put(f"{root}/d2/3/AUTH_x", headers=headers, timeout=60).status_code == 507
        with start(tmp_path, offset) as again:
            assert again.wait(60) == 1  # another one holds the data directory
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    offset = free_offset()
    steps: list[tuple[str, Callable[[], None]]] = [
        ("is no directory", (tmp_path / "devices").mkdir),
        ("swift.conf is missing", partial(policies.make, tmp_path / "rings" / policies.FILE)),
        ("cannot read the ring", partial(rings, tmp_path / "rings", offset)),
    ]
    for missing, mend in steps:
        process = start(tmp_path, offset)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 1 and missing in said
        mend()
