"""Image data over HTTP: uploads whole, cut off, at once and refused; downloads whole and in ranges; what a crash leaves."""

import asyncio
import hashlib
import io
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.core import db
from cumulet.core.context import system_caller
from cumulet.core.errors import Conflict, NotFound
from cumulet.core.kernel import Kernel
from cumulet.services.image import image_data
from cumulet.services.image.image import Image
from cumulet.services.image.runtime import GUEST_IMAGE_ID, ImageRuntime
from tests.harness import CALLERS, Client, Reply

OCTETS = "application/octet-stream"


async def make(client: Client, disk_format: str | None = "raw", **body: Any) -> dict[str, Any]:
    wanted = {"name": "x", "disk_format": disk_format, "container_format": "bare", **body}
    made: dict[str, Any] = (await client("POST", "/v2/images", wanted)).json()
    return made


async def put(client: Client, image: dict[str, Any], data: Any, token: str = "member", kind: str = OCTETS) -> Reply:
    data = io.BytesIO(data) if isinstance(data, bytes) else data
    return await client("PUT", image["file"], data=data, token=token, Content_Type=kind)


async def show(client: Client, image: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = (await client("GET", image["self"])).json()
    return shown


def qcow2(path: Path, size: str, *options: str) -> Path:
    """An empty disk."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), size], check=True)
    return path


def files(images: ImageRuntime) -> set[str]:
    """Every file of the service."""
    top = images.kernel.settings.data
    return {path.name for place in top.glob("image*") for path in place.rglob("*") if path.is_file()}


async def test_upload_and_download(client: Client, images: ImageRuntime) -> None:
    image = await make(client)
    assert (await client("GET", image["file"])).status == 204
    data = os.urandom(3_000_001)
    assert (await put(client, image, data)).status == 204
    shown = await show(client, image)
    assert shown["status"] == "active" and shown["size"] == shown["virtual_size"] == len(data)
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert (shown["os_hash_algo"], shown["os_hash_value"]) == ("sha512", hashlib.sha512(data).hexdigest())
    reply = await client("GET", image["file"])
    assert reply.status == 200 and reply.data == data
    assert reply.headers["Content-MD5"] == shown["checksum"] and reply.headers["Content-Length"] == str(len(data))
    assert (await put(client, image, b"again")).status == 409
    assert (await client("DELETE", image["self"])).status == 204
    assert files(images) == set()


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-4", 0, 5),
        ("bytes=5-", 5, 100),
        ("bytes=-7", 93, 100),
        ("bytes=90-500", 90, 100),
        ("bytes=-500", 0, 100),
    ],
)
async def test_ranges(client: Client, asked: str, start: int, end: int) -> None:
    image, data = await make(client), bytes(range(100))
    await put(client, image, data)
    reply = await client("GET", image["file"], Range=asked)
    assert reply.status == 206 and reply.data == data[start:end]
    assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/100"


async def test_impossible_ranges(client: Client) -> None:
    image = await make(client)
    await put(client, image, bytes(100))
    for asked in ("bytes=100-", "bytes=5-4", "bytes=-", "bytes=-0", "x", "bytes=\u0661-", "lines=1-2"):
        reply = await client("GET", image["file"], Range=asked)
        assert (reply.status, reply.headers["Content-Range"]) == (416, "bytes */100"), asked
    assert (await client("GET", image["file"], Range="bytes=1-2,4-5")).status == 400
    for asked in ("bytes 100-101/*", "bytes 5-4/100", "x"):
        assert (await client("GET", image["file"], Content_Range=asked)).status == 416, asked


async def test_a_range_as_old_clients_ask_for_it(client: Client) -> None:
    image, data = await make(client), bytes(range(100))
    await put(client, image, data)
    for asked in ("bytes 5-9/100", "bytes 5-9/*"):
        reply = await client("GET", image["file"], Content_Range=asked)
        assert (reply.status, reply.data) == (206, data[5:10])


async def test_what_is_refused_before_the_data(client: Client) -> None:
    image = await make(client)
    assert (await put(client, image, b"x", kind="text/plain")).status == 415
    assert (await put(client, image, b"x", token="reader")).status == 403
    assert (await put(client, image, b"x", token="other")).status == 404
    assert (await put(client, image, b"x", token="nobody")).status == 401
    assert (await put(client, await make(client, None), b"x")).status == 400
    assert (
        await client("PUT", image["file"], data=b"x", Content_Type=OCTETS, X_Openstack_Image_Size="x")
    ).status == 400
    assert (await show(client, image))["status"] == "queued"


async def test_a_member_may_not_upload_to_what_he_only_sees(client: Client) -> None:
    image = await make(client, visibility="community")
    assert (await put(client, image, b"x", token="other")).status == 403
    assert (await put(client, image, b"x")).status == 204
    assert (await client("GET", image["file"], token="other")).data == b"x"
    assert (await client("GET", image["file"], token="reader")).status == 403


async def cut_off(
    client: Client, image: dict[str, Any], path: str = "", status: str = "saving", *, chunked: bool, size: int = 100_000
) -> None:
    """Begin an upload on a raw socket and hang up after `size` bytes."""
    host, port = client.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 5000000"
    writer.write(
        f"PUT {path or image['file']} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: member\r\n"
        f"Content-Type: {OCTETS}\r\n{length}\r\n\r\n".encode()
    )
    writer.write((f"{size:x}\r\n".encode() if chunked else b"") + bytes(size))
    await writer.drain()
    await until(client, image, status)
    writer.close()
    await writer.wait_closed()


async def until(client: Client, image: dict[str, Any], status: str) -> None:
    async with asyncio.timeout(60):
        while (await show(client, image))["status"] != status:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_broken_upload_can_be_repeated(
    client: Client, images: ImageRuntime, chunked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    image = await make(client)
    await cut_off(client, image, chunked=chunked)
    await until(client, image, "queued")
    assert files(images) == set()
    assert not [record for record in caplog.records if record.exc_info], (
        "a client that hangs up is no error of the program"
    )
    assert (await put(client, image, b"whole")).status == 204
    assert (await client("GET", image["file"])).data == b"whole"


async def test_uploads_at_once(client: Client, images: ImageRuntime) -> None:
    image = await make(client)
    several = [await make(client) for _ in range(5)]
    replies = await asyncio.gather(*(put(client, image, bytes([n]) * 2_000_000) for n in range(4)))
    assert sorted(reply.status for reply in replies) == [204, 409, 409, 409]
    winner = next(n for n, reply in enumerate(replies) if reply.status == 204)
    assert (await client("GET", image["file"])).data == bytes([winner]) * 2_000_000
    replies = await asyncio.gather(*(put(client, one, bytes([n]) * 1_500_000) for n, one in enumerate(several)))
    assert {reply.status for reply in replies} == {204}
    for n, one in enumerate(several):
        assert (await show(client, one))["checksum"] == hashlib.md5(bytes([n]) * 1_500_000).hexdigest()
    assert files(images) == {one["id"] for one in (image, *several)}


async def test_deleted_while_it_is_uploaded(client: Client, images: ImageRuntime) -> None:
    image, deleted = await make(client), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield bytes(10)
        await deleted.wait()
        yield bytes(10)

    upload = asyncio.create_task(put(client, image, body()))
    await until(client, image, "saving")
    assert (await client("DELETE", image["self"])).status == 204
    deleted.set()
    assert (await upload).status == 410
    assert files(images) == set()


async def test_data_that_is_refused(client: Client, images: ImageRuntime, tmp_path: Path) -> None:
    disk, base = tmp_path / "disk.qcow2", tmp_path / "base"
    base.write_bytes(bytes(1 << 20))
    qcow2(disk, "1M", "-b", str(base), "-F", "raw")
    for disk_format in ("qcow2", "raw"):
        image = await make(client, disk_format)
        reply = await put(client, image, disk.read_bytes())
        assert reply.status == 415 and "backing file" in reply.json()["message"]
        assert (await show(client, image))["status"] == "queued"
    image = await make(client, "qcow2")
    reply = await put(client, image, bytes(1000))
    assert reply.status == 415 and "does not match" in reply.json()["message"]
    assert files(images) == set()
    qcow2(disk, "77M")
    assert (await put(client, image, disk.read_bytes())).status == 204
    assert (await show(client, image))["virtual_size"] == 77 << 20


async def test_why_data_is_refused_is_told(client: Client, images: ImageRuntime, tmp_path: Path) -> None:
    """In the reply to an upload, and in the task of an import."""
    cd = bytearray(1 << 16)
    cd[0x8001:0x8006] = b"CD001"
    cd[:4] = b"QFI\xfb"
    qcow2(tmp_path / "large", "1T")
    qcow2(tmp_path / "data", "1M", "-o", f"data_file={tmp_path}/other,data_file_raw=on")
    descriptor = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow" 0\n'
    images.most_virtual = 1 << 39
    await images.kernel.operations.start()
    for data, disk_format, why in (
        (bytes(cd), "iso", "several formats at once: qcow2, iso"),
        ((tmp_path / "large").read_bytes(), "qcow2", f"a disk of {1 << 40} bytes; at most {1 << 39}"),
        ((tmp_path / "data").read_bytes(), "qcow2", "external data file"),
        (descriptor, "vmdk", "points to other files"),
    ):
        image = await make(client, disk_format)
        reply = await put(client, image, data)
        assert reply.status == 415 and why in reply.json()["message"]
        stage = {"self": image["self"], "file": f"{image['self']}/stage"}
        assert (await put(client, stage, data)).status == 204
        reply = await client("POST", f"{image['self']}/import", {"method": {"name": "glance-direct"}})
        assert reply.status == 202
        await images.kernel.operations.idle()
        (task,) = (await client("GET", f"{image['self']}/tasks")).json()["tasks"]
        assert task["status"] == "failure" and why in task["message"]
        assert (await show(client, image))["status"] == "queued" and files(images) == set()


async def test_deactivated_data_is_for_admins(client: Client) -> None:
    image = await make(client)
    await put(client, image, b"x")
    actions = f"{image['self']}/actions"
    assert (await client("POST", f"{actions}/deactivate", token="reader")).status == 403
    assert (await client("POST", f"{actions}/deactivate", token="other")).status == 404
    for _ in range(2):
        assert (await client("POST", f"{actions}/deactivate")).status == 204
    assert (await client("GET", image["file"])).status == 403
    assert (await client("GET", image["file"], token="admin")).data == b"x"
    assert (await client("POST", f"{actions}/reactivate")).status == 204
    assert (await client("GET", image["file"])).data == b"x"
    queued = await make(client)
    assert (await client("POST", f"{queued['self']}/actions/deactivate")).status == 403


async def test_a_container_format_stays_once_there_is_data(client: Client) -> None:
    image = await make(client)
    await put(client, image, b"x")
    change = [{"op": "replace", "path": "/disk_format", "value": "iso"}]
    kind = "application/openstack-images-v2.1-json-patch"
    assert (await client("PATCH", image["self"], change, Content_Type=kind)).status == 403


async def test_what_a_dead_process_left(client: Client, images: ImageRuntime, parts: Kernel) -> None:
    kept, image = await make(client), await make(client)
    await put(client, kept, b"kept")
    await parts.db.run(
        lambda tx: tx.exec_driver_sql(f"UPDATE image_image SET status='saving' WHERE id='{image['id']}'")
    )
    (images.stores.default.spool / "half").write_bytes(b"x")
    (images.stores.default.spool.parent / image["id"]).write_bytes(b"whole, but nobody was told")
    await ImageRuntime(parts).start()
    assert (await show(client, image))["status"] == "queued"
    assert files(images) == {kept["id"]}
    assert (await put(client, image, b"again")).status == 204


async def test_what_other_services_ask(client: Client, images: ImageRuntime, tmp_path: Path) -> None:
    disk = qcow2(tmp_path / "guest.qcow2", "10M")
    for _ in range(2):
        info = await images.ensure_guest_image("project-admin", disk)
    assert (info.id, info.name, info.status, info.virtual_size) == (GUEST_IMAGE_ID, "cumulet-guest", "active", 10 << 20)
    assert (await images.path(info.id)).read_bytes() == disk.read_bytes()
    assert (await images.show(CALLERS["other"], info.id)).visibility == "public"
    assert [i["name"] for i in (await client("GET", "/v2/images?name=cumulet-guest")).json()["images"]] == [
        "cumulet-guest"
    ]
    private = await make(client, visibility="private")
    with pytest.raises(NotFound):
        await images.show(CALLERS["other"], private["id"])
    with pytest.raises(Conflict):
        await images.path(private["id"])
    snapshot = await images.ensure_image(
        "0" * 8, system_caller("project-demo"), "snap", disk, disk_format="qcow2", visibility="private",
        properties={"image_type": "snapshot"},
    )  # fmt: skip
    assert snapshot.owner == "project-demo" and snapshot.properties == {"image_type": "snapshot"}


async def test_an_upload_that_is_cut_off_when_it_is_done_keeps_its_data(
    images: ImageRuntime, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who uploads is cancelled while what he sent is written down as the image's: it is, and its file stays."""
    image = await make(client)
    loop, finish = asyncio.get_running_loop(), image_data.finish

    def cut_off(tx: Any, /, image_id: str, **found: Any) -> None:
        finish(tx, image_id, **found)
        loop.call_soon_threadsafe(taking.cancel)

    monkeypatch.setattr(image_data, "finish", cut_off)
    row = await images.kernel.db.run(lambda tx: db.get(tx, Image, image["id"]))
    taking = asyncio.create_task(images.take(row, pieces(b"data of it")))
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert (await show(client, image))["status"] == "active"
    assert (await client("GET", image["file"])).data == b"data of it"


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data
