"""A store and a staging directory on file systems that fill up, uploads cut at random bytes, and what a large image costs in
memory."""

import asyncio
import io
import os
import random
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import requests

from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.cloud import ProcessCloud
from tests.harness import kernel, serve
from tests.services.image.test_image_data import OCTETS, cut_off, files, make, put, show, until
from tests.services.image.test_image_import import Site

SMALL = 4 << 20
LARGE = 1 << 30


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own: a real one of 5 MiB in a file, or of memory where there are no loop devices."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    directory, disk = tmp_path / "small", tmp_path / "small.ext4"
    directory.mkdir()
    try:
        if not _mount_loop(disk, directory) and not _mounted("-t", "tmpfs", "-o", f"size={SMALL}", "small", directory):
            pytest.skip("mounting is not allowed here")
        yield directory
    finally:
        if directory.is_mount() and not _done("umount", directory):
            _done("umount", "--lazy", directory)  # somebody still has a file open: it goes with him
        disk.unlink(missing_ok=True)
    assert not directory.is_mount()


def _mount_loop(disk: Path, directory: Path) -> bool:
    """Whether a new ext4 in a file could be mounted. Its loop device goes with the mount."""
    if not Path("/dev/loop-control").exists() or shutil.which("mkfs.ext4") is None:
        return False
    with disk.open("wb") as file:
        file.truncate(SMALL + (1 << 20))
    made = _done("mkfs.ext4", "-q", "-b", "1024", "-m", "0", "-N", "64", "-O", "^has_journal", disk)
    return made and _mounted("-t", "ext4", "-o", "loop", disk, directory)


def _mounted(*words: str | Path) -> bool:
    return _done("mount", *words)


def _done(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
async def site(tmp_path: Path, small: Path) -> AsyncIterator[Site]:
    stores = f"small={small}/store,file"
    async with kernel(tmp_path, image_stores=stores, image_staging=small / "staging") as parts:
        images = ImageRuntime(parts)
        await images.start()
        await parts.operations.start()
        async with serve(SERVICE, images) as client:
            yield Site(client, images, "")


def there(small: Path) -> set[str]:
    return {path.name for path in small.rglob("*") if path.is_file()}


@pytest.mark.parametrize("announced", [False, True])
async def test_a_full_store(site: Site, small: Path, announced: bool) -> None:
    client = site.client
    kept, image = await make(client), await make(client)
    data = os.urandom(1 << 20)
    assert (await put(client, kept, data)).status == 204

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield os.urandom(1 << 20)

    body = io.BytesIO(bytes(8 << 20)) if announced else stream()
    reply = await client("PUT", image["file"], data=body, Content_Type=OCTETS)
    assert reply.status == 413 and "storage media is full" in reply.json()["message"]
    assert (await show(client, image))["status"] == "queued"
    assert there(small) == {kept["id"]}
    assert (await client("GET", kept["file"])).data == data
    assert (await put(client, image, data)).status == 204
    assert (await client("GET", image["file"])).data == data


async def test_a_full_staging_directory(site: Site, small: Path) -> None:
    image = await make(site.client)
    assert (await site.stage(image, bytes(8 << 20))).status == 413
    assert (await show(site.client, image))["status"] == "queued" and there(small) == set()
    assert (await site.stage(image, bytes(1 << 20))).status == 204


async def test_an_import_into_a_full_store(site: Site, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    monkeypatch.setattr("cumulet.services.image.intake.Path.hardlink_to", refuse)  # as between file systems
    image = await make(site.client)
    await site.stage(image, bytes(3 << 20))
    shown, task = await site.imported(image, "glance-direct", stores=["small"])
    assert (shown["status"], task["status"]) == ("queued", "failure") and "full" in task["message"]
    assert there(small) == set()
    await site.stage(image, bytes(3 << 20))
    shown, _ = await site.imported(image, "glance-direct", all_stores=True, all_stores_must_succeed=False)
    assert (shown["status"], shown["stores"], shown["os_glance_failed_import"]) == ("active", "file", "small")
    async with asyncio.timeout(60):
        while there(small):
            await asyncio.sleep(0.01)
    assert there(small) == set()


def refuse(self: Path, target: Path) -> None:
    raise OSError("no links here")


@pytest.mark.parametrize("seed", range(6))
async def test_uploads_cut_at_random_bytes(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with kernel(tmp_path) as parts:
        images = ImageRuntime(parts)
        await images.start()
        async with serve(SERVICE, images) as client:
            image = await make(client)
            for path, status in (("file", "saving"), ("stage", "uploading")):
                size, chunked = dice.choice((0, 1, dice.randrange(5_000_000))), bool(dice.getrandbits(1))
                await cut_off(client, image, f"{image['self']}/{path}", status, chunked=chunked, size=size)
                await until(client, image, "queued")
                async with asyncio.timeout(60):
                    while files(images):
                        await asyncio.sleep(0.01)
            assert (await put(client, image, b"whole")).status == 204


def peak_mib(pid: int) -> float:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def test_a_large_image_takes_little_memory(tmp_path: Path) -> None:
    """1 GiB up and down, several times at once, in less than 64 MiB more."""
    if shutil.disk_usage(tmp_path).free < 4 * LARGE:
        pytest.skip("needs 4 GiB of disk")
    cloud = ProcessCloud(tmp_path / "data", "--hypervisor", "simulated", "--network", "simulated")
    cloud.start()
    try:
        assert cloud.process is not None
        body = {"name": "large", "disk_format": "raw", "container_format": "bare"}
        image = cloud.request("POST", "image", "/v2/images", body).json()["id"]
        path = f"{cloud.url('image')}/v2/images/{image}/file"
        headers = {"X-Auth-Token": cloud.token(), "Content-Type": OCTETS}
        piece = os.urandom(1 << 20)
        before = peak_mib(cloud.process.pid)
        reply = requests.put(path, data=(piece for _ in range(LARGE >> 20)), headers=headers, timeout=300)
        assert reply.status_code == 204
        sizes: list[int] = []
        readers = [threading.Thread(target=lambda: sizes.append(_read(path, headers))) for _ in range(2)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert sizes == [LARGE, LARGE]
        assert peak_mib(cloud.process.pid) - before < 64
    finally:
        cloud.destroy()


def _read(path: str, headers: dict[str, str]) -> int:
    with requests.get(path, headers=headers, stream=True, timeout=300) as reply:
        return sum(len(piece) for piece in reply.iter_content(1 << 20))
