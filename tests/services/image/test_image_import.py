"""Imports over HTTP: staging, each method, several stores, what is made of the data, failures, deletes, and who may."""

import asyncio
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from cumulet.core import db
from cumulet.core.kernel import Kernel
from cumulet.services.image import task as tasks
from cumulet.services.image.convert import convert
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.image import Image
from cumulet.services.image.runtime import ImageRuntime
from tests import harness
from tests.harness import Client, Reply, kernel, serve
from tests.services.image.test_image_data import OCTETS, cut_off, files, make, put, qcow2, show, until

DATA = os.urandom(300_001)


class Site:
    """An image service with settings of its own, whose operations run, beside a web server that gives what `pages` hold."""

    def __init__(self, client: Client, images: ImageRuntime, web: str) -> None:
        self.client, self.images, self.web = client, images, web

    async def stage(self, image: dict[str, Any], data: bytes = DATA, token: str = "member") -> Reply:
        return await self.client(
            "PUT", f"{image['self']}/stage", data=io.BytesIO(data), token=token, Content_Type=OCTETS
        )

    async def start(self, image: dict[str, Any], name: str, token: str = "member", **more: Any) -> Reply:
        method = {"name": name, **more.pop("method", {})}
        return await self.client("POST", f"{image['self']}/import", {"method": method, **more}, token=token)

    async def ended(self, image: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the image, its last task) once nothing is under way."""
        async with asyncio.timeout(60):
            while True:
                await self.images.kernel.operations.idle()
                tasks = (await self.client("GET", f"{image['self']}/tasks")).json()["tasks"]
                if tasks[-1]["status"] in ("success", "failure"):
                    return await show(self.client, image), tasks[-1]
                await asyncio.sleep(0.01)

    async def imported(self, image: dict[str, Any], name: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        reply = await self.start(image, name, **more)
        assert reply.status == 202, reply.data
        return await self.ended(image)

    async def data(self, image: dict[str, Any]) -> bytes:
        return (await self.client("GET", image["file"])).data

    async def tidy(self, *images: dict[str, Any]) -> None:
        """No files but the images' own."""
        wanted = {image["id"] for image in images}
        async with asyncio.timeout(60):
            while files(self.images) != wanted:
                await asyncio.sleep(0.01)


def tool(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


pages: dict[str, bytes] = {}


async def answer(request: web.Request) -> web.StreamResponse:
    if request.path == "/moved":
        raise web.HTTPFound("/data")
    if request.path == "/inwards":
        raise web.HTTPFound("http://169.254.169.254/latest")
    if request.path == "/loop":
        raise web.HTTPFound("/loop")
    if request.path == "/short":
        reply = web.StreamResponse(headers={"Content-Length": "1000000"})
        await reply.prepare(request)
        await reply.write(b"x" * 1000)
        assert request.transport is not None
        request.transport.close()
        return reply
    if request.path not in pages:
        return web.Response(status=404)
    return web.Response(body=pages[request.path])


@pytest.fixture
async def page() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pages.clear()
    pages["/data"] = DATA
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def site(tmp_path: Path, page: str, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    settings = {
        "image_stores": "file,second", "image_download_private": "127.0.0.0/8", "image_download_ports": "*",
        **getattr(request, "param", {}),
    }  # fmt: skip
    async with kernel(tmp_path, **settings) as parts:
        images = ImageRuntime(parts)
        await images.start()
        await parts.operations.start()
        async with serve(SERVICE, images) as client:
            yield Site(client, images, page)


def with_settings(**settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("site", [settings], indirect=True)


async def test_stage_and_import(site: Site) -> None:
    client = site.client
    reply = await client("POST", "/v2/images", {"disk_format": "raw", "container_format": "bare"})
    assert reply.headers["OpenStack-image-import-methods"] == "glance-direct,web-download,copy-image,glance-download"
    assert reply.headers["OpenStack-image-store-ids"] == "file,second"
    image = reply.json()
    assert (await site.start(image, "glance-direct")).status == 409
    assert (await site.stage(image)).status == 204
    shown = await show(client, image)
    assert (shown["status"], shown["size"], shown["checksum"]) == ("uploading", len(DATA), None)
    assert (await site.stage(image)).status == (await put(client, image, b"x")).status == 409
    assert (await client("GET", image["file"])).status == 204
    started = await site.start(image, "glance-direct")
    assert (started.status, started.data) == (202, b"")
    shown, task = await site.ended(image)
    assert (shown["status"], shown["stores"], shown["size"]) == ("active", "file", len(DATA))
    assert shown["checksum"] == hashlib.md5(DATA).hexdigest()
    assert (shown["os_hash_algo"], shown["os_hash_value"]) == ("sha512", hashlib.sha512(DATA).hexdigest())
    assert shown["os_glance_importing_to_stores"] == shown["os_glance_failed_import"] == ""
    assert "os_glance_import_task" not in shown
    assert task["request_id"] == started.headers["X-Openstack-Request-Id"]
    assert (task["type"], task["status"], task["image_id"]) == ("api_image_import", "success", image["id"])
    assert task["input"]["import_req"]["method"] == {"name": "glance-direct"} and task["input"]["backend"] == ["file"]
    assert task["result"] == {"image_id": image["id"]} and task["expires_at"] and task["user_id"] == "user-member"
    assert await site.data(image) == DATA
    await site.tidy(image)
    assert (await site.start(image, "glance-direct")).status == 409
    assert (await client("DELETE", image["self"])).status == 204
    await site.tidy()


async def test_several_stores(site: Site) -> None:
    image = await make(site.client)
    await site.stage(image)
    shown, _ = await site.imported(image, "glance-direct", all_stores=True)
    assert shown["stores"] == "file,second"
    held = site.images.stores.holding(await site.images.kernel.db.read(lambda tx: _row(tx, image["id"])))
    assert [one.file.read_bytes() == DATA for one in held if one.file] == [True, True]
    for query, status in (("?prefer=second", 200), ("?prefer=none", 400)):
        assert (await site.client("GET", image["file"] + query)).status == status
    path = f"/v2/stores/second/{image['id']}"
    for token, wanted in (("nobody", 401), ("reader", 403), ("member", 403), ("other", 404)):
        assert (await site.client("DELETE", path, token=token)).status == wanted, token
    assert (await site.client("DELETE", f"/v2/stores/x/{image['id']}", token="admin")).status == 409
    assert (await site.client("DELETE", path, token="admin")).status == 204
    assert (await show(site.client, image))["stores"] == "file" and await site.data(image) == DATA
    assert (await site.client("DELETE", path, token="admin")).status == 404
    assert (await site.client("DELETE", f"/v2/stores/file/{image['id']}", token="admin")).status == 403
    queued = await make(site.client)
    assert (await site.client("DELETE", f"/v2/stores/file/{queued['id']}", token="admin")).status == 409
    await site.client("DELETE", image["self"])
    await site.tidy()


def _row(tx: Any, image_id: str) -> Any:
    return db.get(tx, Image, image_id)


async def test_upload_to_a_store(site: Site) -> None:
    client, image = site.client, await make(site.client)
    for store, status in (("none", 400), ("second", 204)):
        headers = {"Content_Type": OCTETS, "X_Image_Meta_Store": store}
        assert (await client("PUT", image["file"], data=io.BytesIO(DATA), **headers)).status == status
    assert (await show(client, image))["stores"] == "second" and await site.data(image) == DATA
    assert (await site.images.path(image["id"])).parent.name == "image-second"
    wrong = await make(client)
    headers = {"Content_Type": OCTETS, "X_OpenStack_Image_Size": "5"}
    assert (await client("PUT", wrong["file"], data=io.BytesIO(DATA), **headers)).status == 400
    assert (await show(client, wrong))["status"] == "queued"
    await site.tidy(image)


async def test_what_is_told_of_the_stores(site: Site) -> None:
    told = (await site.client("GET", "/v2/info/stores", token="reader")).json()["stores"]
    assert told == [{"id": "file", "default": "true"}, {"id": "second"}]
    assert (await site.client("GET", "/v2/info/stores/detail")).status == 403
    detail = (await site.client("GET", "/v2/info/stores/detail", token="admin")).json()["stores"]
    assert [one["type"] for one in detail] == ["file", "file"]
    assert detail[1]["properties"]["data_dir"].endswith("image-second") and detail[1]["weight"] == 0
    versions = [v["id"] for v in (await site.client("GET", "/versions")).json()["versions"]]
    assert "v2.12" in versions and len(versions) == len(set(versions))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400), ({"method": {}}, 400), ({"method": {"name": "x"}}, 400), ({"method": 5}, 400),
        ({"method": {"name": "glance-direct"}, "all_stores": "yes"}, 400),
        ({"method": {"name": "glance-direct"}, "all_stores_must_succeed": 1}, 400),
        ({"method": {"name": "glance-direct"}, "stores": ["x"]}, 409),
        ({"method": {"name": "glance-direct"}, "stores": ["file"], "all_stores": True}, 400),
        ({"method": {"name": "copy-image"}}, 403), ({"method": {"name": "web-download", "uri": "http://192.0.2.1"}}, 409),
    ],
)  # fmt: skip
async def test_what_is_refused(site: Site, body: dict[str, Any], status: int) -> None:
    image = await make(site.client)
    await site.stage(image)
    reply = await site.client("POST", f"{image['self']}/import", body)
    assert reply.status == status, reply.data
    assert (await show(site.client, image))["status"] == "uploading"


async def test_who_may(site: Site) -> None:
    image = await make(site.client, visibility="community")
    for token, status in (("nobody", 401), ("reader", 403), ("other", 403)):
        assert (await site.stage(image, token=token)).status == status
        assert (await site.start(image, "web-download", token, method={"uri": f"{site.web}/data"})).status == status
    private = await make(site.client)
    assert (await site.stage(private, token="other")).status == 404
    assert (await site.start(private, "glance-direct", "other")).status == 404
    assert (await site.client("GET", f"{private['self']}/tasks", token="other")).status == 404
    await site.stage(private)
    assert (await site.start(private, "copy-image", "admin")).status == 409
    _, task = await site.imported(private, "glance-direct")
    for token, status in (("nobody", 401), ("reader", 403), ("manager", 403), ("admin", 200)):
        assert (await site.client("GET", f"/v2/tasks/{task['id']}", token=token)).status == status
        assert (await site.client("GET", "/v2/tasks", token=token)).status == status
    listed = (await site.client("GET", "/v2/tasks?status=success&limit=1", token="admin")).json()
    assert [one["id"] for one in listed["tasks"]] == [task["id"]] and "input" not in listed["tasks"][0]
    assert (await site.client("GET", "/v2/tasks?status=x", token="admin")).status == 400
    assert (await site.client("GET", "/v2/tasks/x", token="admin")).status == 404
    assert (await site.client("DELETE", f"/v2/tasks/{task['id']}", token="admin")).status == 405


async def test_no_formats(site: Site) -> None:
    image = await make(site.client, None)
    await site.stage(image)
    assert (await site.start(image, "glance-direct")).status == 409


# ---- web-download -----------------------------------------------------------------------------------------------------------


async def test_web_download(site: Site) -> None:
    for path in ("/data", "/moved"):
        image = await make(site.client)
        shown, task = await site.imported(image, "web-download", method={"uri": site.web + path}, stores=["second"])
        assert (shown["status"], shown["stores"], task["status"]) == ("active", "second", "success")
        assert await site.data(image) == DATA
        await site.client("DELETE", image["self"])
    await site.tidy()


@pytest.mark.parametrize(
    ("path", "why"),
    [("/none", "404"), ("/loop", "redirects"), ("/inwards", "port|public"), ("/short", "to its end")],
)
async def test_web_download_that_fails(site: Site, path: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    image = await make(site.client)
    shown, task = await site.imported(image, "web-download", method={"uri": site.web + path})
    assert (shown["status"], shown["size"], task["status"]) == ("queued", None, "failure"), task
    assert shown["os_glance_failed_import"] == "file" and shown["os_glance_importing_to_stores"] == ""
    assert any(word in task["message"] for word in why.split("|")), task["message"]
    await site.tidy()
    shown, _ = await site.imported(image, "web-download", method={"uri": f"{site.web}/data"})
    assert shown["status"] == "active" and shown["os_glance_failed_import"] == ""


@with_settings(image_download_private="", image_download_ports="80,443")
@pytest.mark.parametrize(
    "uri",
    ["", "x", "file:///etc/passwd", "ftp://192.0.2.1/x", "http://", "http://127.0.0.1/x", "http://localhost/x", "http://[::1]/x",
     "http://0/x", "http://2130706433/x", "http://0x7f.1/x", "http://10.0.0.1/x", "http://169.254.169.254/x", "http://[fe80::1]/x",
     "http://[::ffff:127.0.0.1]/x", "http://[64:ff9b::7f00:1]/x", "http://[2002:7f00:1::]/x", "http://no.such.host.invalid/x",
     "http://8.8.8.8:22/x", "http://user:word@8.8.8.8/x", "http://8.8.8.8:99999/x", "http://224.0.0.1/x", "http://[fd00::1]/x"],
)  # fmt: skip
async def test_addresses_that_are_not_fetched(site: Site, uri: str) -> None:
    image = await make(site.client)
    reply = await site.start(image, "web-download", method={"uri": uri})
    assert reply.status == 400 and "does not pass filtering" in reply.json()["message"]
    assert (await show(site.client, image))["status"] == "queued"


@with_settings(image_download_hosts="good.example,127.0.0.1")
async def test_only_allowed_hosts(site: Site) -> None:
    image = await make(site.client)
    assert (await site.start(image, "web-download", method={"uri": "http://8.8.8.8/x"})).status == 400
    shown, _ = await site.imported(image, "web-download", method={"uri": f"{site.web}/data"})
    assert shown["status"] == "active"


async def test_a_name_is_resolved_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a name stands for when it is connected to is what counts: it is checked by the connection itself."""
    asked: list[str] = []
    loop, port = asyncio.get_running_loop(), int(site.web.rpartition(":")[2])
    real = loop.getaddrinfo

    async def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        if host != "rebound.example":
            return await real(host, *args, **more)
        asked.append(host)
        return await real("127.0.0.1" if len(asked) == 1 else "10.11.12.13", *args, **more)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    image = await make(site.client)
    shown, task = await site.imported(image, "web-download", method={"uri": f"http://rebound.example:{port}/data"})
    assert shown["status"] == "queued" and "public address" in task["message"] and len(asked) == 2


@with_settings(image_size_limit=1)
async def test_data_that_is_too_large(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.images, "most", 100_000)
    image = await make(site.client)
    shown, task = await site.imported(image, "web-download", method={"uri": f"{site.web}/data"})
    assert shown["status"] == "queued" and "100000 bytes" in task["message"]
    assert (await site.stage(image)).status == (await put(site.client, image, DATA)).status == 413
    assert (await show(site.client, image))["status"] == "queued"
    await site.tidy()


# ---- copy-image, glance-download --------------------------------------------------------------------------------------------


async def test_copy_image(site: Site) -> None:
    image = await make(site.client, visibility="private")
    await put(site.client, image, DATA)
    assert (await site.start(image, "copy-image", "admin", stores=["file"])).status == 400
    shown, task = await site.imported(
        image, "copy-image", token="admin", all_stores=True, all_stores_must_succeed=False
    )
    assert (shown["status"], shown["stores"], task["status"]) == ("active", "file,second", "success")
    assert shown["os_glance_importing_to_stores"] == shown["os_glance_failed_import"] == ""
    assert (await site.start(image, "copy-image", "admin", all_stores=True)).status == 202
    assert len((await site.client("GET", f"{image['self']}/tasks")).json()["tasks"]) == 1, "there was nothing to do"
    assert (await site.client("DELETE", f"/v2/stores/file/{image['id']}", token="admin")).status == 204
    assert await site.data(image) == DATA


async def test_glance_download(site: Site) -> None:
    source = await make(site.client, os_distro="blue", hw_x="1", speed="fast")
    await put(site.client, source, DATA)
    method = {"glance_image_id": source["id"], "glance_region": "RegionOne"}
    image = await make(site.client, "iso", hw_x="2", container_format="ovf")
    shown, task = await site.imported(image, "glance-download", method=method)
    assert (shown["status"], task["status"]) == ("active", "success"), task
    assert (shown["disk_format"], shown["container_format"]) == ("raw", "bare")
    assert (shown["os_distro"], shown["hw_x"]) == ("blue", "1") and "speed" not in shown
    assert shown["os_hash_value"] == hashlib.sha512(DATA).hexdigest() and await site.data(image) == DATA
    await site.client("DELETE", source["self"])
    assert await site.data(image) == DATA
    other = await make(site.client)
    for wrong, status in (({"glance_image_id": "foo"}, 400), ({"glance_region": ""}, 400)):
        assert (await site.start(other, "glance-download", method={**method, **wrong})).status == status
    private = (
        await site.client("POST", "/v2/images", {"disk_format": "raw", "container_format": "bare"}, token="other")
    ).json()
    await put(site.client, private, DATA, token="other")
    for wrong in ({"glance_region": "none"}, {}, {"glance_image_id": private["id"]}):
        shown, task = await site.imported(other, "glance-download", method={**method, **wrong})
        assert (shown["status"], task["status"]) == ("queued", "failure")
    await site.tidy(image, private)


async def test_glance_download_from_another_region(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    source = await make(site.client, hw_x="1")
    await put(site.client, source, DATA)

    async def endpoint(_region: str, _interface: str) -> str:
        return site.client.url

    monkeypatch.setattr(site.images, "endpoint", endpoint)
    callers = {name: _with_token(caller, name) for name, caller in harness.CALLERS.items()}
    monkeypatch.setattr(harness, "CALLERS", callers)
    method = {"glance_image_id": source["id"], "glance_region": "elsewhere"}
    image = await make(site.client)
    shown, task = await site.imported(image, "glance-download", method=method)
    assert shown["status"] == "active" and shown["hw_x"] == "1" and await site.data(image) == DATA, task
    assert not site.images.imports.tokens
    rows = await site.images.kernel.db.read(lambda tx: tx.exec_driver_sql("SELECT args FROM core_operation").fetchall())
    assert "member" not in str([row[0] for row in rows]), "no token is written down"
    await site.tidy(source, image)


def _with_token(caller: Any, token: str) -> Any:
    return msgspec.structs.replace(caller, token=token)


@with_settings(image_web=True)
async def test_copies_of_what_lies_at_the_web(site: Site) -> None:
    """Data that lies outside is fetched for `copy-image` and `glance-download`, and nothing of it stays staged."""
    source = await make(site.client)
    assert (await site.client("POST", f"{source['self']}/locations", {"url": f"{site.web}/data"})).status == 202
    shown, task = await site.ended(source)
    assert (shown["status"], shown["stores"], task["type"]) == ("active", "web", "location_import")
    image = await make(site.client)
    method = {"glance_image_id": source["id"], "glance_region": "RegionOne"}
    shown, task = await site.imported(image, "glance-download", method=method)
    assert (shown["status"], shown["stores"]) == ("active", "file"), task
    assert await site.data(image) == DATA
    await site.tidy(image)
    shown, _ = await site.imported(source, "copy-image", token="admin", stores=["second"])
    assert shown["stores"] == "web,second" and await site.data(source) == DATA
    await site.tidy(image, source)
    assert (await site.client("DELETE", f"/v2/stores/web/{source['id']}", token="admin")).status == 204
    assert (await show(site.client, source))["stores"] == "second" and await site.data(source) == DATA


# ---- what is made of the data -----------------------------------------------------------------------------------------------


@with_settings(image_conversion="raw")
async def test_conversion_to_raw(site: Site, tmp_path: Path) -> None:
    disk = qcow2(tmp_path / "disk", "3M")
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", str(disk))
    image = await make(site.client, "qcow2")
    await site.stage(image, disk.read_bytes())
    shown, _ = await site.imported(image, "glance-direct")
    assert (shown["disk_format"], shown["size"], shown["virtual_size"]) == ("raw", 3 << 20, 3 << 20)
    data = await site.data(image)
    assert data[1 << 20 : (1 << 20) + 65536] == b"\x07" * 65536 and shown["checksum"] == hashlib.md5(data).hexdigest()
    await site.tidy(image)
    uploaded = await make(site.client, "qcow2")
    await put(site.client, uploaded, disk.read_bytes())
    assert (await show(site.client, uploaded))["disk_format"] == "qcow2", "only imports are converted"


@with_settings(image_conversion="qcow2")
@pytest.mark.parametrize("kind", ["raw", "vmdk", "vdi", "vhdx"])
async def test_conversion_to_qcow2(site: Site, tmp_path: Path, kind: str) -> None:
    disk = tmp_path / "disk"
    tool("qemu-img", "create", "-q", "-f", kind, str(disk), "4M")
    image = await make(site.client, kind)
    await site.stage(image, disk.read_bytes())
    shown, task = await site.imported(image, "glance-direct")
    assert (shown["status"], shown["disk_format"], shown["virtual_size"]) == ("active", "qcow2", 4 << 20), task
    await site.tidy(image)


@with_settings(image_conversion="raw")
async def test_what_hides_another_format_is_not_converted(site: Site, tmp_path: Path) -> None:
    """A disk in whose content another image begins would become that image."""
    inner = qcow2(tmp_path / "inner", "1M").read_bytes()
    (tmp_path / "raw").write_bytes(inner.ljust(1 << 20, b"\0"))
    outer = tmp_path / "outer"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(tmp_path / "raw"), str(outer))
    image = await make(site.client, "qcow2")
    await site.stage(image, outer.read_bytes())
    shown, task = await site.imported(image, "glance-direct")
    assert (shown["status"], task["status"]) == ("queued", "failure") and "holds another" in task["message"]
    await site.tidy()


async def test_a_conversion_that_outlives_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not make again the file that the next start has removed."""
    source, target, programs = tmp_path / "source", tmp_path / "target", tmp_path / "bin"
    tool("qemu-img", "create", "-q", "-f", "raw", str(source), "1M")
    programs.mkdir()
    late = programs / "qemu-img"
    late.write_text(f'#!/bin/sh\nrm -f {target}\nexec {shutil.which("qemu-img")} "$@"\n')
    late.chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(FileNotFoundError):
        await convert(source, "raw", target, "qcow2", lambda _said: asyncio.sleep(0))
    assert not target.exists()


@with_settings(image_decompression=True)
async def test_decompression(site: Site) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("disk", DATA)
    for data in (gzip.compress(DATA), packed.getvalue()):
        image = await make(site.client, container_format="compressed")
        await site.stage(image, data)
        shown, task = await site.imported(image, "glance-direct")
        assert (shown["status"], shown["container_format"], shown["size"]) == ("active", "bare", len(DATA)), task
        assert await site.data(image) == DATA
        await site.client("DELETE", image["self"])
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("second", b"x")
    for data in (DATA, gzip.compress(DATA)[:1000], packed.getvalue(), gzip.compress(DATA)[:100] + b"x" * 500):
        image = await make(site.client, container_format="compressed")
        await site.stage(image, data)
        shown, task = await site.imported(image, "glance-direct")
        assert (shown["status"], task["status"]) == ("queued", "failure") and task["message"]
    await site.tidy()


@with_settings(image_decompression=True)
async def test_a_bomb(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.images, "most", 1 << 20)
    image = await make(site.client, container_format="compressed")
    await site.stage(image, gzip.compress(bytes(64 << 20)))
    shown, task = await site.imported(image, "glance-direct")
    assert shown["status"] == "queued" and "too large" in task["message"]
    await site.tidy()


@with_settings(image_inject="os_admin_user:blue, hw_y: 5")
async def test_injection(site: Site) -> None:
    for token, wanted in (("member", "blue"), ("admin", None)):
        image = await make(site.client)
        await site.stage(image)
        shown, _ = await site.imported(image, "glance-direct", token=token)
        assert shown.get("os_admin_user") == wanted and shown.get("hw_y") == (wanted and "5")
    found = (await site.client("GET", "/v2/images?os_admin_user=blue")).json()["images"]
    assert len(found) == 1


async def test_data_that_is_refused(site: Site, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(1 << 20))
    disk = qcow2(tmp_path / "disk", "1M", "-b", str(base), "-F", "raw")
    for disk_format, why in (("qcow2", "backing file"), ("vmdk", "backing file"), ("raw", "backing file")):
        image = await make(site.client, disk_format)
        await site.stage(image, disk.read_bytes())
        shown, task = await site.imported(image, "glance-direct")
        assert (shown["status"], task["status"]) == ("queued", "failure") and why in task["message"]
    await site.tidy()


@with_settings(image_format_match=False, image_conversion="raw")
async def test_formats_that_need_not_match(site: Site, tmp_path: Path) -> None:
    image = await make(site.client, "qcow2")
    assert (await put(site.client, image, DATA)).status == 204, "bytes that are no qcow2"
    disk = qcow2(tmp_path / "disk", "1M", "-b", str(tmp_path / "base"), "-F", "raw", "-u").read_bytes()
    image = await make(site.client, "vmdk")
    assert (await put(site.client, image, disk)).status == 415, "what names other files is refused all the same"
    await site.stage(image, DATA)
    shown, task = await site.imported(image, "glance-direct")
    assert (shown["status"], task["status"]) == ("queued", "failure"), "what is no disk is not converted"


# ---- failures ---------------------------------------------------------------------------------------------------------------


async def break_second(site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def put(image_id: str, file: Path) -> None:
        raise error

    monkeypatch.setattr(site.images.stores.own["second"], "put", put)
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))


async def test_all_stores_must_succeed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await break_second(site, monkeypatch, OSError("broken"))
    image = await make(site.client)
    await site.stage(image)
    shown, task = await site.imported(image, "glance-direct", all_stores=True)
    assert (shown["status"], shown["os_glance_failed_import"]) == ("queued", "file,second") and "stores" not in shown
    assert task["message"] == "broken"
    await site.tidy()


async def test_some_store_succeeds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await break_second(site, monkeypatch, OSError("broken"))
    image = await make(site.client)
    await site.stage(image)
    shown, task = await site.imported(image, "glance-direct", all_stores=True, all_stores_must_succeed=False)
    assert (shown["status"], shown["stores"], shown["os_glance_failed_import"]) == ("active", "file", "second")
    assert task["status"] == "success"
    await site.tidy(image)
    shown, task = await site.imported(image, "copy-image", token="admin", stores=["second"])
    assert (shown["status"], shown["stores"], task["status"]) == ("active", "file", "failure")
    assert await site.data(image) == DATA


async def test_a_delete_supersedes_an_import(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, image = asyncio.Event(), await make(site.client)
    second = site.images.stores.own["second"]
    real = second.put

    async def put_slowly(image_id: str, file: Path) -> None:
        await real(image_id, file)
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(second, "put", put_slowly)
    await site.stage(image)
    assert (await site.start(image, "glance-direct", all_stores=True)).status == 202
    await begun.wait()
    shown = await show(site.client, image)
    assert (shown["status"], shown["os_glance_importing_to_stores"]) == ("importing", "second")
    assert shown["os_glance_import_task"] and (await site.start(image, "glance-direct")).status == 409
    assert (await site.client("DELETE", image["self"])).status == 204
    await site.images.kernel.operations.idle()
    await site.tidy()
    task = (await site.client("GET", f"/v2/tasks/{shown['os_glance_import_task']}", token="admin")).json()
    assert (task["status"], task["message"]) == ("failure", "The image was deleted.")


async def test_a_broken_stage_can_be_repeated(site: Site) -> None:
    image, deleted = await make(site.client), await make(site.client)

    for chunked in (False, True):
        await cut_off(site.client, image, f"{image['self']}/stage", "uploading", chunked=chunked)
        await until(site.client, image, "queued")
        await site.tidy()
    assert (await site.stage(image)).status == 204
    go = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield DATA
        await go.wait()

    staging = asyncio.create_task(site.client("PUT", f"{deleted['self']}/stage", data=slow(), Content_Type=OCTETS))
    await until(site.client, deleted, "uploading")
    assert (await site.start(deleted, "glance-direct")).status == 409, "not all is there"
    await site.client("DELETE", deleted["self"])
    go.set()
    assert (await staging).status == 410
    await site.tidy(image)
    await site.client("DELETE", image["self"])
    await site.tidy()


# ---- tasks ------------------------------------------------------------------------------------------------------------------


async def test_the_older_way_of_importing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    wanted: dict[str, Any] = {"import_from": f"{site.web}/data", "import_from_format": "raw"}
    wanted |= {"image_properties": {"name": "old", "disk_format": "raw", "color": "blue"}}
    assert (await site.client("POST", "/v2/tasks", {"type": "import", "input": wanted})).status == 403
    reply = await site.client("POST", "/v2/tasks", {"type": "import", "input": wanted}, token="admin")
    task = reply.json()
    assert reply.status == 201 and reply.headers["Location"] == task["self"], reply.data
    await site.images.kernel.operations.idle()
    task = (await site.client("GET", task["self"], token="admin")).json()
    assert task["status"] == "success", task
    image = (await site.client("GET", f"/v2/images/{task['result']['image_id']}", token="admin")).json()
    assert (image["name"], image["status"], image["size"], image["color"]) == ("old", "active", len(DATA), "blue")
    wanted["import_from"] = f"{site.web}/none"
    task = (await site.client("POST", "/v2/tasks", {"type": "import", "input": wanted}, token="admin")).json()
    await site.images.kernel.operations.idle()
    task = (await site.client("GET", task["self"], token="admin")).json()
    assert task["status"] == "failure" and "404" in task["message"]
    assert (await site.client("GET", f"/v2/images/{task['image_id']}", token="admin")).status == 404
    for body in (
        {"type": "export", "input": wanted}, {"type": "import"}, {"type": "import", "input": {}}, {"input": wanted},
        {"type": "import", "input": {**wanted, "import_from": "file:///etc/passwd"}},
        {"type": "import", "input": {**wanted, "import_from": "http://no.such.host.invalid/x.qcow2"}},
        {"type": "import", "input": {**wanted, "import_from": f"{site.web}/data", "image_properties": {"disk_format": "x"}}},
        {"type": "import", "input": {**wanted, "import_from": f"{site.web}/data", "image_properties": {"color": 5}}},
    ):  # fmt: skip
        assert (await site.client("POST", "/v2/tasks", body, token="admin")).status == 400, body


async def test_tasks_are_forgotten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LIFETIME", -1)
    image = await make(site.client)
    await site.stage(image)
    await site.imported(image, "glance-direct")
    await site.images.kernel.db.run(tasks.forget)
    assert (await site.client("GET", f"{image['self']}/tasks")).json()["tasks"] == []


async def test_one_store_is_not_told_of(parts: Kernel, client: Client, images: ImageRuntime) -> None:
    await parts.operations.start()
    image = await make(client)
    assert (await client("GET", "/v2/info/stores/detail", token="admin")).status == 404
    assert (await client("DELETE", f"/v2/stores/file/{image['id']}", token="admin")).status == 404
    await client("PUT", f"{image['self']}/stage", data=io.BytesIO(DATA), Content_Type=OCTETS)
    body = {"method": {"name": "glance-direct"}, "all_stores_must_succeed": False}
    assert (await client("POST", f"{image['self']}/import", body)).status == 400
    assert (await client("POST", f"{image['self']}/import", {"method": {"name": "glance-direct"}})).status == 202
    await parts.operations.idle()
    shown = await show(client, image)
    assert shown["status"] == "active" and "stores" not in shown
