"""Object storage with rclone (https://rclone.org), over both of its APIs: what people copy, synchronise and mount with."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud

pytestmark = pytest.mark.skipif(shutil.which("rclone") is None, reason="needs rclone")

Rclone = Callable[..., str]
MIB = 1 << 20


def over_swift(cloud: Cloud) -> dict[str, str]:
    auth = cloud.connect("cumulet-demo").config.get_auth_args()
    return {
        "TYPE": "swift", "AUTH": auth["auth_url"], "AUTH_VERSION": "3", "USER": auth["username"], "KEY": auth["password"],
        "TENANT": auth["project_name"], "DOMAIN": "Default", "TENANT_DOMAIN": "Default", "REGION": "RegionOne",
        "CHUNK_SIZE": "2Mi",
    }  # fmt: skip


def over_s3(cloud: Cloud) -> dict[str, str]:
    connection: Any = cloud.connect("cumulet-demo")
    path = f"/users/{connection.current_user_id}/credentials/OS-EC2"
    made = connection.identity.post(path, json={"tenant_id": connection.current_project_id}).json()["credential"]
    return {
        "TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": cloud.url("object-store"), "ACCESS_KEY_ID": made["access"],
        "SECRET_ACCESS_KEY": made["secret"], "UPLOAD_CUTOFF": "5Mi", "CHUNK_SIZE": "5Mi",
    }  # fmt: skip


@pytest.fixture(params=[over_swift, over_s3])
def rclone(cloud: Cloud, request: pytest.FixtureRequest, tmp_path: Path) -> Rclone:
    """Run rclone, with the cloud as its remote `cloud:`."""
    config = {f"RCLONE_CONFIG_CLOUD_{name}": value for name, value in request.param(cloud).items()}
    config |= {"RCLONE_CONFIG": str(tmp_path / "rclone.conf"), "HOME": str(tmp_path)}

    def run(*words: str, sent: str = "") -> str:
        done = subprocess.run(
            ["rclone", *words, "--retries", "1", "--low-level-retries", "1"],
            env={"PATH": os.environ["PATH"], **config}, capture_output=True, text=True, input=sent, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_rclone(rclone: Rclone, tmp_path: Path) -> None:
    """Copy a tree up, look at it, change both sides and synchronise, copy it down, take it away."""
    box = f"cloud:box-{secrets.token_hex(4)}"
    tree, again = tmp_path / "tree", tmp_path / "again"
    files = {"a.txt": 10, "folder/b c ü.bin": 4096, "folder/deep/empty": 0, "big.bin": 11 * MIB + 3}
    for name, size in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(secrets.token_bytes(size))
    rclone("mkdir", box)
    rclone("copy", str(tree), box)
    listed = json.loads(rclone("lsjson", "-R", "--files-only", box))
    assert {one["Path"]: one["Size"] for one in listed} == files
    rclone("check", "--download", str(tree), box)
    assert rclone("copy", str(tree), box, "--dry-run", "--verbose").strip() == "", "nothing has to be copied twice"

    (tree / "a.txt").write_bytes(b"another")
    (tree / "folder/deep/empty").unlink()
    rclone("sync", str(tree), box)
    assert set(rclone("lsf", "-R", "--files-only", box).split("\n")) - {""} == {"a.txt", "folder/b c ü.bin", "big.bin"}
    assert rclone("cat", f"{box}/a.txt") == "another"
    rclone("check", str(tree), box)

    rclone("moveto", f"{box}/a.txt", f"{box}/moved/a.txt")
    rclone("copyto", f"{box}/big.bin", f"{box}/copy.bin")
    rclone("rcat", f"{box}/streamed/there", sent="of no length that was told")
    assert rclone("cat", f"{box}/streamed/there") == "of no length that was told"
    rclone("copy", box, str(again))
    assert (again / "moved/a.txt").read_bytes() == b"another"
    assert (again / "copy.bin").read_bytes() == (again / "big.bin").read_bytes() == (tree / "big.bin").read_bytes()
    assert rclone("size", "--json", box)
    assert rclone("lsf", f"{box}/not-there") == ""
    rclone("purge", box)
    assert box.removeprefix("cloud:") + "/" not in rclone("lsf", "cloud:").split()
