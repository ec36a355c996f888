"""What python-swiftclient and openstacksdk make of large files, as their users run them."""

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Any

import openstack
import pytest

from tests.services.object_store.stores import Store

pytestmark = pytest.mark.clients
SEGMENT = 1 << 20
SIZE = 3 * SEGMENT + 12345


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    fill(file, SIZE)
    return file


def fill(file: Path, size: int) -> None:
    file.write_bytes(os.urandom(size))


def held(file: Path) -> bytes:
    return file.read_bytes()


async def swift(store: Store, *arguments: str, cwd: Path, data: bytes | None = None) -> str:
    """Run the `swift` command as the member; what it prints."""
    options = ("--os-auth-token", "member", "--os-storage-url", f"{store.url}/v1/{store.account}")
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("swift"),
        *options,
        *arguments,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate(data)
    assert process.returncode == 0, out.decode()
    return out.decode()


@pytest.mark.parametrize("kind", ["--use-slo", "--use-dlo"])
async def test_swift_uploads_in_segments(store: Store, file: Path, kind: str) -> None:
    await swift(store, "upload", kind, "--segment-size", str(SEGMENT), "box", "file", cwd=file.parent)
    told = await swift(store, "stat", "box", "file", cwd=file.parent)
    assert f"Content Length: {SIZE}" in told
    await swift(store, "download", "box", "file", "-o", "again", cwd=file.parent)
    assert held(file.parent / "again") == held(file)
    await swift(store, "copy", "-d", "/far/copied", "box", "file", cwd=file.parent)
    assert await store.get("far/copied") == held(file)
    assert len((await store("GET", "box_segments")).data.splitlines()) == 4
    await swift(store, "delete", "box", "file", cwd=file.parent)
    assert (await store("GET", "box_segments")).data == b""


async def test_swift_replaces_what_it_uploaded(store: Store, file: Path) -> None:
    upload = ("upload", "--use-slo", "--segment-size", str(SEGMENT), "box", "file")
    await swift(store, *upload, cwd=file.parent)
    fill(file, SEGMENT + 1)
    await swift(store, *upload, cwd=file.parent)
    assert await store.get("box/file") == held(file)
    assert len((await store("GET", "box_segments")).data.splitlines()) == 2


async def test_swift_uploads_what_it_is_sent(store: Store, file: Path) -> None:
    arguments = ("upload", "--object-name", "piped", "--segment-size", str(SEGMENT), "box", "-")
    await swift(store, *arguments, cwd=file.parent, data=held(file))
    assert await store.get("box/piped") == held(file)


async def test_swift_deletes_many(store: Store, file: Path) -> None:
    await store.put("box")
    for name in range(20):
        await store.put(f"box/many/{name}", b"x")
    out = await swift(store, "delete", "--prefix", "many", "box", cwd=file.parent)
    assert len(out.splitlines()) == 20
    assert (await store("GET", "box")).data == b""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("static", [True, False])
async def test_the_sdk_uploads_in_segments(store: Store, file: Path, static: bool) -> None:
    again = file.with_name("again")

    def upload() -> None:
        with connected(store) as connection:
            connection.create_container("box")
            connection.create_object("box", "file", filename=str(file), segment_size=SEGMENT, use_slo=static)
            connection.get_object("box", "file", outfile=str(again))
        gc.collect()  # the SDK leaves the segments' file open

    def delete() -> None:
        with connected(store) as connection:
            connection.delete_object("box", "file")

    await asyncio.to_thread(upload)
    assert held(again) == held(file)
    told = (await store("HEAD", "box/file")).headers
    assert ("X-Static-Large-Object" in told, "X-Object-Manifest" in told) == (static, not static)
    await asyncio.to_thread(delete)
    assert (await store("HEAD", "box/file")).status == 404


def connected(store: Store) -> Any:
    return openstack.connect(
        auth_type="admin_token",
        auth={"endpoint": store.url, "token": "member"},
        object_store_endpoint_override=f"{store.url}/v1/{store.account}",
    )
