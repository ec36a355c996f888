"""What a power cut leaves: of a device on a small file system of its own, just that what has reached the disk.

A file system in an image writes to it what it was told to make last, and holds the rest in memory: a copy of the image is the
disk as a power cut would leave it.
"""

import asyncio
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cumulet.services.object_store.storage import file_systems, intents
from cumulet.services.object_store.storage.object_file import Writer
from cumulet.services.object_store.storage.object_server import _blocks_read
from tests.services.object_store.stores import object_store
from tests.services.object_store.test_object_server import START, Node

SIZES = {"ext4": 24 << 20, "xfs": 320 << 20}
OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid"}
"""How they are mounted; a copy of XFS has the name of the first."""


def make(image: Path, kind: str) -> None:
    with image.open("wb") as file:
        file.truncate(SIZES[kind])
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True)


def cut(image: Path, copy: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)


@contextmanager
def mounted(kind: str, image: Path, place: Path) -> Iterator[None]:
    if subprocess.run(["mount", "-o", OPTIONS[kind], str(image), str(place)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


class Disk:
    """A node's device on a file system of its own."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory, self.kind, self.image = directory, kind, directory / "image"
        make(self.image, kind)
        self.node = Node(directory / "devices")
        self.node.devices.reserve = 0
        self.place = directory / "devices" / "sda"
        self.cuts = 0

    @contextmanager
    def after_a_power_cut(self) -> Iterator[Node]:
        """A node that finds what is on the disk now."""
        self.cuts += 1
        image = self.directory / f"image{self.cuts}"
        cut(self.image, image)
        node = Node(self.directory / f"devices{self.cuts}")
        node.devices.reserve = 0
        with mounted(self.kind, image, self.directory / f"devices{self.cuts}" / "sda"):
            try:
                yield node
            finally:
                node.close()


@pytest.fixture(params=sorted(SIZES))
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    if os.geteuid() != 0 or shutil.which(f"mkfs.{request.param}") is None:
        pytest.skip(f"needs root and mkfs.{request.param} to make a small file system")
    made = Disk(tmp_path, request.param)
    with mounted(made.kind, made.image, made.place):
        yield made
        made.node.close()


@pytest.mark.parametrize(("size", "process"), [(100, False), (100, True), (100_000, False), (1_500_000, False)])
def test_what_was_promised_is_there(disk: Disk, size: int, process: bool) -> None:
    if process:
        disk.node.start_process()
    data = {f"o{number}": os.urandom(size) for number in range(3)}
    for name, body in data.items():
        assert disk.node.ask("PUT", name, body)[0] == 201
        with disk.after_a_power_cut() as node:
            assert node.ask("GET", name)[2] == body
    assert disk.node.ask("POST", "o0", X_Object_Meta_A="1")[0] == 202
    assert disk.node.ask("PUT", "o1", b"new")[0] == 201
    assert disk.node.ask("DELETE", "o2")[0] == 204
    with disk.after_a_power_cut() as node:
        assert node.ask("HEAD", "o0")[1]["X-Object-Meta-A"] == "1"
        assert node.ask("GET", "o0")[2] == data["o0"]
        assert node.ask("GET", "o1")[2] == b"new"
        assert node.ask("GET", "o2")[0] == 404


def test_a_read_that_comes_from_the_disk_is_known_by_it(disk: Disk) -> None:
    assert disk.node.ask("PUT", "o", b"data")[0] == 201
    with disk.after_a_power_cut() as node:  # which reads what nobody has in memory
        before = _blocks_read()
        assert node.ask("GET", "o")[2] == b"data"
        assert _blocks_read() > before
        again = _blocks_read()
        assert node.ask("GET", "o")[2] == b"data"
        assert _blocks_read() == again


def test_a_cut_before_the_sync_costs_nothing_that_was_promised(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names may reach the disk before what they name does, when another file is synced at that moment."""
    for name in ("data", "meta", "gone", "other"):
        assert disk.node.ask("PUT", name, b"promised")[0] == 201
    newer = os.urandom(5000)
    with monkeypatch.context() as patched:
        patched.setattr(Writer, "_sync", lambda self, path: None)
        patched.setattr("cumulet.services.object_store.storage.object_file.clean", lambda directory: None)
        assert disk.node.ask("PUT", "data", newer)[0] == 201
        assert disk.node.ask("POST", "meta", X_Object_Meta_A="1")[0] == 202
        assert disk.node.ask("DELETE", "gone")[0] == 204
        assert disk.node.ask("PUT", "fresh", os.urandom(5000))[0] == 201
    assert disk.node.ask("PUT", "other", b"newer")[0] == 201, "its sync writes the journal with all names before"
    with disk.after_a_power_cut() as node:
        torn = [name for name in node.files() if not (node.root / "sda" / name).stat().st_size]
        assert torn, "the test cuts at the moment that it means to"
        assert node.ask("GET", "data")[2] in (b"promised", newer)
        assert node.ask("GET", "meta")[2] == b"promised"
        assert node.ask("GET", "gone")[0] == 404
        assert node.ask("GET", "fresh")[0] in (404, 200)
        assert node.ask("GET", "other")[2] == b"newer"
        assert node.ask("PUT", "data", b"again", at=START + 1000)[0] == 201
        assert node.ask("GET", "data")[2] == b"again"


def test_where_nothing_is_known_of_the_file_system_names_are_synced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr("cumulet.services.object_store.storage.object_file.sync_directory", synced.append)
    monkeypatch.setattr(
        "cumulet.services.object_store.storage.object_file.names_last_with_files", lambda directory: False
    )
    writer = Writer(str(tmp_path / "tmp"))
    writer.write([b"data"])
    assert writer.commit(str(tmp_path / "objects"), "1.data", new=True)
    assert synced == [str(tmp_path / "objects")]
    assert file_systems._type(os.stat("/proc").st_dev) == "proc"
    assert file_systems._type(0) == ""
    assert not file_systems.names_last_with_files("/proc")


async def test_what_a_power_cut_took_from_listings_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is not synced when its object's PUT is answered: the object is there, and says that it is to be listed."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4 to make a small file system")
    image, device = tmp_path / "image", Path("object-store/devices/d1")
    make(image, "ext4")
    names = [f"o{number}" for number in range(20)]
    before, after = tmp_path / "before", tmp_path / "after"
    (before / device).mkdir(parents=True)
    with mounted("ext4", image, before / device):
        (before / device / "lost+found").rmdir()
        async with object_store(before) as store:
            await store.put("c")
            await store.put("c/gone", b"x")
            for name in names:
                await store.put(f"c/{name}", name.encode())
            assert (await store("DELETE", "c/gone")).status == 204
            for copy in ("image1", "image2"):
                cut(image, tmp_path / copy)
            shutil.copytree(before, after, ignore=shutil.ignore_patterns("devices"))
    (after / device).mkdir(parents=True)
    with mounted("ext4", tmp_path / "image1", after / device):
        assert len(rows(after / device)) < 20, "the test cuts at the moment that it means to"
    monkeypatch.setattr(intents, "boot", lambda: "another boot")
    with mounted("ext4", tmp_path / "image2", after / device):
        async with object_store(after, object_update_interval=0.2) as store, asyncio.timeout(90):
            while (await store("GET", "c")).data.decode().split() != sorted(names):
                await asyncio.sleep(0.1)
            assert [await store.get(f"c/{name}") for name in names] == [name.encode() for name in names]


def rows(device: Path) -> list[str]:
    """The objects that the container's database names."""
    [file] = device.glob("containers/*/*/*/*.db")
    with closing(sqlite3.connect(file)) as database:
        return [name for (name,) in database.execute("SELECT name FROM object WHERE deleted = 0")]
