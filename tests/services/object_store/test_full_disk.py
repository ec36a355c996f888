"""A device that is full, on a small file system of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.object_store.test_object_server import UPDATE, Node, pieces

SIZE = 24 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node whose device is an ext4 of 24 MiB."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4 to make a small file system")
    image, place = tmp_path / "image", tmp_path / "devices" / "sda"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    node = Node(tmp_path / "devices")
    if subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    (place / "lost+found").rmdir()
    node.devices.reserve = 0.05
    yield node
    node.close()
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("size", [100_000, 1_500_000])
def test_a_full_device_takes_nothing_and_loses_nothing(node: Node, size: int, told: bool) -> None:
    data = os.urandom(size)
    stored = []
    for number in range(SIZE // size + 1):
        status, _, _ = node.ask("PUT", f"o{number}", data if told else pieces(data))
        if status == 507:
            break
        assert status == 201
        stored.append(f"o{number}")
    else:
        pytest.fail("it never was full")
    assert SIZE * 0.5 < len(stored) * size < SIZE
    before = node.files()
    assert node.ask("PUT", "more", data if told else pieces(data))[0] == 507
    assert node.ask("PUT", stored[0], data if told else pieces(data))[0] == 507
    assert node.ask("PUT", "huge", b"x", Content_Length=SIZE * 2)[0] == 507
    assert node.files() == before
    assert all(node.ask("GET", name)[2] == data for name in stored)
    assert node.ask("DELETE", stored[0])[0] == 204, "there is room for tombstones"
    for name in stored[1 : len(stored) // 2]:
        assert node.ask("DELETE", name)[0] == 204
    assert node.ask("PUT", "more", data if told else pieces(data), **UPDATE)[0] == 201
    assert node.ask("GET", "more")[2] == data
