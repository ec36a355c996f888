"""The demo's own decisions, against a cloud in memory: what it makes, uses again, mends, removes and says."""

import asyncio
import io
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from cumulet.cli import showcase
from cumulet.cli.cloud import Cloud, CloudError, message_of, wait_for
from cumulet.cli.progress import Progress
from cumulet.credentials import Login

from .fake_cloud import FakeCloud


@pytest.fixture
async def fake() -> AsyncIterator[FakeCloud]:
    fake = FakeCloud()
    async with TestServer(fake.app()) as server:
        fake.root = str(server.make_url("")).rstrip("/")
        yield fake


def login(fake: FakeCloud, password: str = "demo") -> Login:
    return Login(auth_url=f"{fake.root}/v3", username="demo", password=password, project="demo", region="RegionOne")


async def run(fake: FakeCloud, directory: Path, *, remove: bool = False) -> tuple[showcase.Result, str]:
    """The result, and what was printed on the way."""
    output = io.StringIO()
    async with Cloud(login(fake)) as cloud:
        demo = showcase.Showcase(cloud, directory, Progress(output), simulated=True, timeout=60)
        return await (demo.remove() if remove else demo.run()), output.getvalue()


async def test_it_makes_everything_once_and_says_that_no_ssh_can_come(fake: FakeCloud, tmp_path: Path) -> None:
    first, output = await run(fake, tmp_path / "demo")
    assert first["floating_ip"] == "127.0.0.1"
    assert first["ssh"] is None
    assert "no SSH can come" in output
    assert "server demo-server: made, ACTIVE" in output
    assert stat.S_IMODE((tmp_path / "demo" / "id_ed25519").stat().st_mode) == 0o600
    fake.changes.clear()
    second, output = await run(fake, tmp_path / "demo")
    assert second == first
    assert fake.changes == []
    assert "server demo-server: reused, ACTIVE" in output


async def test_it_removes_all_that_it_made_and_nothing_else(fake: FakeCloud, tmp_path: Path) -> None:
    fake.add("networks", {"name": "other"})
    await run(fake, tmp_path)
    _, output = await run(fake, tmp_path, remove=True)
    left = {name: [thing["name"] for thing in things.values()] for name, things in fake.things.items() if things}
    assert left == {"networks": ["public", "other"]}
    assert not (tmp_path / "id_ed25519").exists()
    assert "server demo-server: removed" in output
    _, output = await run(fake, tmp_path, remove=True)
    assert "server demo-server: not there" in output


async def test_a_lost_key_leads_to_a_new_server(fake: FakeCloud, tmp_path: Path) -> None:
    first, _ = await run(fake, tmp_path)
    (tmp_path / "id_ed25519").unlink()
    second, _ = await run(fake, tmp_path)
    assert first["server"] != second["server"]
    assert len(fake.things["servers"]) == 1
    assert len(fake.things["floatingips"]) == 1


async def test_a_fault_is_shown_and_mended_by_the_next_run(fake: FakeCloud, tmp_path: Path) -> None:
    fake.fault = "No valid host was found."
    with pytest.raises(CloudError, match="server demo-server failed: No valid host was found"):
        await run(fake, tmp_path)
    fake.fault = ""
    _, output = await run(fake, tmp_path)
    assert "server demo-server: made, ACTIVE" in output


async def test_an_interrupted_run_is_finished_by_the_next(fake: FakeCloud, tmp_path: Path) -> None:
    await run(fake, tmp_path)
    for name in ("floatingips", "servers", "keys"):
        fake.things[name].clear()
    for port in list(fake.things["ports"].values()):
        if port["fixed_ips"]:
            del fake.things["ports"][port["id"]]
    fake.changes.clear()
    await run(fake, tmp_path)
    assert fake.changes == ["POST os-keypairs", "PUT routers", "POST servers", "POST floatingips"]


async def test_refusals_carry_the_services_own_words(fake: FakeCloud) -> None:
    with pytest.raises(CloudError, match="answered with 401: The request you have made requires authentication"):
        async with Cloud(login(fake, "wrong")):
            pass
    nobody = Login(auth_url="http://127.0.0.1:9/v3", username="u", password="p", project="p", region="r")
    with pytest.raises(CloudError, match=r"no answer from http://127\.0\.0\.1:9/v3"):
        async with Cloud(nobody):
            pass


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 401, "message": "why"}},
        {"badRequest": {"code": 400, "message": "why"}},
        {"NeutronError": {"type": "T", "message": "why", "detail": ""}},
        {"errors": [{"status": 404, "title": "Not Found", "detail": "why"}]},
        {"message": "why"},
    ],
)
def test_every_error_envelope_is_understood(body: dict[str, object]) -> None:
    assert message_of(body) == "why"


async def test_a_wait_ends() -> None:
    async def never() -> None:
        return None

    with pytest.raises(CloudError, match="a miracle did not come within 0 s"):
        await wait_for("a miracle", never, timeout=0.02, interval=0.01)


async def test_only_an_ssh_server_greets() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        greeting = b"SSH-2.0-dropbear_2022.83\r\n"
        assert await showcase._greeting("127.0.0.1", port) == "SSH-2.0-dropbear_2022.83"
        greeting = b"HTTP/1.0 400\r\n"
        assert await showcase._greeting("127.0.0.1", port) is None
    assert await showcase._greeting("127.0.0.1", port) is None


async def test_a_login_that_fails_keeps_what_ssh_said() -> None:
    said: list[str] = []
    assert await showcase._output(["sh", "-c", "echo no route >&2; exit 255"], said) is None
    assert said == ["no route"]
    assert await showcase._output(["sh", "-c", "echo demo-server"], said) == "demo-server"
