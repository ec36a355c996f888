"""Credential files: content, mode, and that a shell and a YAML reader understand them."""

import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from cumulet import credentials
from cumulet.files import write_atomic

AWKWARD = 'it\'s a "pass$word" \\ # : ü'


def write(data: Path) -> None:
    credentials.write(
        data, auth_url="http://127.0.0.1:5000/v3", region="RegionOne", admin_password=AWKWARD, demo_password="demo"
    )


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    (tmp_path / "admin-openrc").touch(0o644)
    write(tmp_path)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"admin-openrc": 0o600, "demo-openrc": 0o600, "clouds.yaml": 0o600}


def test_clouds_yaml_has_an_admin_and_an_ordinary_user(tmp_path: Path) -> None:
    write(tmp_path)
    clouds = yaml.safe_load((tmp_path / "clouds.yaml").read_text())["clouds"]
    assert set(clouds) == {"cumulet", "cumulet-demo"}
    assert clouds["cumulet"] == {
        "auth": {
            "auth_url": "http://127.0.0.1:5000/v3",
            "username": "admin",
            "password": AWKWARD,
            "project_name": "admin",
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
        "region_name": "RegionOne",
        "identity_api_version": 3,
        "interface": "public",
    }
    assert clouds["cumulet-demo"]["auth"]["project_name"] == "demo"


def test_a_shell_reads_the_openrc(tmp_path: Path) -> None:
    write(tmp_path)
    command = ["sh", "-c", f'. {tmp_path}/admin-openrc; printf %s "$OS_PASSWORD"']
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == AWKWARD
    assert credentials.read_openrc(tmp_path / "admin-openrc").password == AWKWARD


def test_a_missing_or_damaged_openrc_is_named(tmp_path: Path) -> None:
    with pytest.raises(credentials.CredentialsError, match=r"cannot read .*demo-openrc.*has `cumulet up` been started"):
        credentials.read_openrc(tmp_path / "demo-openrc")
    (tmp_path / "demo-openrc").write_text("export OS_AUTH_URL=http://127.0.0.1\n")
    with pytest.raises(credentials.CredentialsError, match="does not set OS_USERNAME"):
        credentials.read_openrc(tmp_path / "demo-openrc")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomic(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(file, "\ud800")
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "directory", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file"]
    assert file.read_text() == "old"
