"""The first start, cut off: whenever that happens, the next start has everything, and everything once."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import InProcessCloud, ProcessCloud

MOMENTS = 10
SIMULATED = ("--hypervisor", "simulated", "--network", "simulated")


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest file that is a qcow2 image: its header, of an empty disk of 1 MiB."""
    file = tmp_path_factory.mktemp("guest") / "guest.qcow2"
    header = b"QFI\xfb" + (2).to_bytes(4, "big") + bytes(12) + (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big")
    file.write_bytes(header.ljust(1 << 18, b"\0"))
    return file


def all_there(cloud: ProcessCloud | InProcessCloud) -> None:
    """Everything that a new cloud is given is there, and nothing twice."""

    def names(service: str, path: str, key: str) -> list[Any]:
        return sorted(one["name"] for one in cloud.request("GET", service, path).json()[key])

    assert names("compute", "/v2.1/flavors", "flavors").count("m1.nano") == 1
    assert names("network", "/v2.0/networks", "networks") == ["public"]
    assert names("network", "/v2.0/subnets", "subnets") == ["public-subnet"]
    assert names("identity", "/v3/projects", "projects") == ["admin", "demo", "service"]
    assert names("identity", "/v3/users", "users") == ["admin", "demo"]
    (image,) = cloud.request("GET", "image", "/v2/images").json()["images"]
    assert (image["name"], image["status"]) == ("cumulet-guest", "active")
    stored = [path.name for path in (cloud.data / "image").iterdir() if path.is_file()]
    assert stored == [image["id"]]
    assert list((cloud.data / "image/incoming").iterdir()) == []
    assert cloud.token("cumulet-demo"), "the demonstration's user can log in"
    types = [one["type"] for one in cloud.request("GET", "identity", "/v3/services").json()["services"]]
    assert sorted(types) == sorted(set(types))


def test_sigkill_during_the_first_start(tmp_path: Path, guest: Path) -> None:
    options = (*SIMULATED, "--guest-image", str(guest))
    whole = ProcessCloud(tmp_path / "whole", *options)
    began = time.monotonic()
    try:
        whole.start()
        took = time.monotonic() - began
        all_there(whole)
    finally:
        whole.destroy()
    for number in range(MOMENTS):
        cloud = ProcessCloud(tmp_path / f"data{number}", *options)
        try:
            cloud.launch()
            time.sleep(took * (number + 1) / MOMENTS)  # what is tried here is that very moment
            cloud.kill()
            cloud.start()
            all_there(cloud)
            assert not list(cloud.data.rglob(".*.new")), "a half written file stayed"
        finally:
            cloud.destroy()


@pytest.mark.parametrize("step", ["compute.ensure_flavors", "network.ensure_public", "image.ensure_guest_image"])
def test_first_start_that_ends_between_two_steps(
    tmp_path: Path, guest: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"guest_image": guest}
    cut_off = InProcessCloud(tmp_path / "data", **settings)
    service, name = step.split(".")

    async def cut(*_: Any) -> None:
        raise InterruptedError(step)

    monkeypatch.setattr(getattr(cut_off.program, service), name, cut)
    cut_off._thread.start()
    with pytest.raises(InterruptedError):
        cut_off.call(cut_off.program.start())
    cut_off.stop()
    again = InProcessCloud(tmp_path / "data", **settings)
    again.start()
    try:
        all_there(again)
    finally:
        again.stop()


def test_what_the_admin_deleted_stays_deleted(tmp_path: Path, guest: Path) -> None:
    cloud = InProcessCloud(tmp_path / "data", guest_image=guest)
    cloud.start()
    try:
        assert cloud.request("DELETE", "compute", "/v2.1/flavors/42").status_code == 202
        (network,) = cloud.request("GET", "network", "/v2.0/networks").json()["networks"]
        assert cloud.request("DELETE", "network", f"/v2.0/networks/{network['id']}").status_code == 204
        (image,) = cloud.request("GET", "image", "/v2/images").json()["images"]
        assert cloud.request("DELETE", "image", f"/v2/images/{image['id']}").status_code == 204
    finally:
        cloud.stop()
    later = InProcessCloud(tmp_path / "data", guest_image=guest)
    later.start()
    try:
        assert cloud_has(later) == ([], [])
        assert later.request("GET", "compute", "/v2.1/flavors/42").status_code == 404
    finally:
        later.stop()


def cloud_has(cloud: InProcessCloud) -> tuple[list[Any], list[Any]]:
    """The networks and the images of a cloud."""
    networks = cloud.request("GET", "network", "/v2.0/networks").json()["networks"]
    return networks, cloud.request("GET", "image", "/v2/images").json()["images"]
