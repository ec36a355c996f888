"""What guests and people at their screens get: metadata, the console log, the screen in a browser."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from cumulet.api.http import Request, Response
from cumulet.api.server import Server, bind
from cumulet.core import db
from cumulet.services.compute.console import ConsoleToken, Screens
from cumulet.services.compute.server.password import ServerPassword
from tests.services.compute.conftest import Compute
from tests.services.compute.fakes import NETWORK

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHkaEDNJRJKsLaWFDgUVmnTZSWOFK+JGlLSmJ8jGlRXI someone@somewhere"


class NoWire:
    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in tuple[bytes, ...]():
            yield piece

    def at_hand(self) -> bytes | None:
        return None


class Said:
    """A request's body that is there already."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.data

    def at_hand(self) -> bytes | None:
        return None


async def ask(compute: Compute, path: str, remote: str, network: str = NETWORK) -> Response:
    request = Request("GET", path, "", {}, NoWire(), remote=remote)
    return await compute.runtime.answer_metadata(network, request)


async def test_metadata_by_network_and_address(compute: Compute) -> None:
    await compute("POST", "/os-keypairs", {"keypair": {"name": "mine", "public_key": KEY}})
    first = await compute.boot("first", key_name="mine")
    second = await compute.boot("second")
    address = first["addresses"]["private"][0]["addr"]
    reply = await ask(compute, "/openstack/latest/meta_data.json", address)
    import msgspec

    data = msgspec.json.decode(reply.body)
    assert reply.status == 200 and data["uuid"] == first["id"] and data["public_keys"] == {"mine": f"{KEY}\n"}
    other = await ask(compute, "/openstack/2018-08-27/meta_data.json", second["addresses"]["private"][0]["addr"])
    assert msgspec.json.decode(other.body)["uuid"] == second["id"]
    network = msgspec.json.decode((await ask(compute, "/openstack/latest/network_data.json", address)).body)
    assert network["networks"][0]["network_id"] == NETWORK and network["links"][0]["mtu"] == 1450
    for path, text in {
        "/": "latest",
        "/openstack": "2018-08-27",
        "/openstack/latest/": "meta_data.json",
        "/latest/meta-data/": "public-keys/",
        "/latest/meta-data/local-ipv4": address,
        "/2009-04-04/meta-data/hostname": "first",
        "/latest/meta-data/public-keys/": "0=mine",
        "/latest/meta-data/public-keys/0/openssh-key": KEY,
        "/latest/meta-data/placement/availability-zone": "nova",
    }.items():
        reply = await ask(compute, path, address)
        assert reply.status == 200 and text in reply.body.decode(), path
    for path in (
        "/openstack/latest/user_data",
        "/openstack/1999-01-01",
        "/latest/meta-data/nothing",
        "/latest/user-data",
    ):
        assert (await ask(compute, path, address)).status == 404, path
    assert (await ask(compute, "/openstack/latest/meta_data.json", "10.9.9.9")).status == 404
    assert (await ask(compute, "/openstack/latest/meta_data.json", address, "another-network")).status == 404
    await compute("DELETE", f"/servers/{first['id']}")
    await compute.idle()
    assert (await ask(compute, "/openstack/latest/meta_data.json", address)).status == 404


async def test_a_guests_password_is_kept_until_its_owner_clears_it(compute: Compute) -> None:
    server = await compute.boot()
    address = server["addresses"]["private"][0]["addr"]
    path, url = "/openstack/2013-10-17/password", f"/servers/{server['id']}/os-server-password"

    async def send(data: bytes) -> int:
        request = Request("POST", path, "", {"Content-Length": str(len(data))}, Said(data), remote=address)
        return (await compute.runtime.answer_metadata(NETWORK, request)).status

    assert (await ask(compute, path, address)).body == b"" and (await compute("GET", url)).json() == {"password": ""}
    assert await send(b"x" * 1021) == 400 and await send(b"\xff") == 400
    assert await send(b"c2VjcmV0") == 200 and await send(b"another") == 409
    assert (await ask(compute, path, address)).body == b"c2VjcmV0"
    assert (await compute("GET", url)).json() == {"password": "c2VjcmV0"}
    assert (await compute("GET", url, token="other")).status == 404
    assert (await compute("DELETE", url)).status == 204
    assert (await compute("GET", url)).json() == {"password": ""} and await send(b"another") == 200
    early = Request("POST", "/openstack/2012-08-10/password", "", {}, Said(b"x"), remote=address)
    assert (await compute.runtime.answer_metadata(NETWORK, early)).status == 405
    await compute("DELETE", f"/servers/{server['id']}")
    await compute.idle()
    assert await compute.kernel.db.read(db.find, ServerPassword) == []


async def test_console_log(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    for value, lines in (({"length": 2}, 2), ({"length": "3"}, 3), ({"length": -1}, 5), ({}, 5), (None, 5)):
        reply = await compute.act(server_id, "os-getConsoleOutput", value)
        assert reply.status == 200 and len(reply.json()["output"].splitlines()) == lines, value
    three = (await compute.act(server_id, "os-getConsoleOutput", {"length": 3})).json()["output"]
    assert three == "line 2\nline 3\nline 4"
    assert (await compute.act(server_id, "os-getConsoleOutput", {"length": "x"})).status == 400


@asynccontextmanager
async def screen(compute: Compute, directory: Path) -> AsyncIterator[str]:
    """The consoles' port, and a screen behind it that repeats in capitals what it is sent; gives the port's root URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"RFB 003.008\n")
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.close()

    pages = directory / "pages"
    (pages / "core").mkdir(parents=True)
    (pages / "vnc_lite.html").write_text("<title>noVNC</title>")
    (pages / "core" / "rfb.js").write_text("export default 1;")
    (directory / "secret").write_text("secret")
    (pages / "link").symlink_to(directory / "secret")
    compute.runtime.screens = Screens(compute.runtime, pages)
    compute.hypervisor.vnc = str(directory / "vnc.sock")
    behind = await asyncio.start_unix_server(serve, compute.hypervisor.vnc)
    server, sock = Server(), bind("127.0.0.1", 0)
    await server.listen(compute.runtime.answer_console, sock)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        await server.stop()
        behind.close()
        await behind.wait_closed()


async def token_of(compute: Compute, server_id: str) -> str:
    wanted = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    console = (await compute("POST", f"/servers/{server_id}/remote-consoles", wanted)).json()["remote_console"]
    url = urlsplit(console["url"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == "http://127.0.0.1:6080/vnc_lite.html"
    (path,) = parse_qs(url.query)["path"]
    assert path.startswith("?token=")
    return str(path)


async def test_the_screen_through_the_websocket(compute: Compute, tmp_path: Path) -> None:
    server_id = (await compute.boot())["id"]
    query = await token_of(compute, server_id)
    async with screen(compute, tmp_path) as root, aiohttp.ClientSession() as session:
        for origin in (None, root):
            headers = {"Origin": origin} if origin else {}
            async with session.ws_connect(f"{root}/{query}", protocols=("binary",), headers=headers) as websocket:
                assert (await websocket.receive()).data == b"RFB 003.008\n"
                await websocket.send_bytes(b"hello")
                assert (await websocket.receive()).data == b"HELLO"
        for path, headers in (
            ("/?token=wrong", {}),
            ("/", {}),
            (f"/{query}", {"Origin": "http://evil.example"}),
            (f"/{query}", {"Origin": "null"}),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(root + path, headers=headers)
            assert refused.value.status == 403
        address = urlsplit(root)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"GET /?token=wrong HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        refusal = await asyncio.wait_for(reader.read(), 60)  # to the end: the connection is closed
        writer.close()
        assert refusal.startswith(b"HTTP/1.1 403 ") and refusal.endswith(b"\r\n\r\n")
        await compute.kernel.db.run(db.update_where, ConsoleToken, [], expires_at="2000-01-01T00:00:00.000000")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{root}/{query}")


async def test_the_pages_and_nothing_else(compute: Compute, tmp_path: Path) -> None:
    async with screen(compute, tmp_path) as root, aiohttp.ClientSession() as session:
        async with session.get(f"{root}/vnc_lite.html?path=x") as reply:
            assert reply.status == 200 and "noVNC" in await reply.text()
        async with session.get(f"{root}/core/rfb.js") as reply:
            assert reply.content_type == "text/javascript"
        for path in (
            "/../secret",
            "/%2e%2e/secret",
            "/core/..%2f..%2fsecret",
            "/link",
            "/core",
            "/nothing",
            "//etc/passwd",
        ):
            from yarl import URL

            async with session.get(URL(root + path, encoded=True)) as reply:
                assert reply.status == 404, path
        compute.runtime.screens = Screens(compute.runtime, tmp_path / "missing")
        async with session.get(f"{root}/vnc_lite.html") as reply:
            assert reply.status == 503 and "novnc" in await reply.text()


async def test_consoles_that_cannot_be_had(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    spice = {"remote_console": {"protocol": "spice", "type": "spice-html5"}}
    assert (await compute("POST", f"/servers/{server_id}/remote-consoles", spice)).status == 400
    old = await compute.act(server_id, "os-getVNCConsole", {"type": "novnc"}, version="2.1")
    assert old.status == 200 and "token" in old.json()["console"]["url"]
    assert (await compute.act(server_id, "os-getVNCConsole", {"type": "novnc"})).status == 400
    await compute.act(server_id, "os-stop")
    await compute.idle()
    vnc = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    assert (await compute("POST", f"/servers/{server_id}/remote-consoles", vnc)).status == 409
