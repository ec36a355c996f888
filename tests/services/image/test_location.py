"""Places of images' data: the calls of services, `locations` in patches, and data that lies at a web server."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cumulet.core.context import Caller
from cumulet.core.errors import Unauthorized
from cumulet.core.kernel import Kernel
from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import CALLERS, Client, kernel, serve
from tests.services.image.test_image import make, patch

DATA = b"blue" * 5000
SHA512, SHA256, MD5 = (hashlib.new(name, DATA).hexdigest() for name in ("sha512", "sha256", "md5"))
OCTETS = "application/octet-stream"
SERVANT = Caller(user_id="servant", project_id="project-service", roles=frozenset({"service", "member", "reader"}))


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """A web server with the data under any path but /none."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/moved":
            raise web.HTTPFound("/data")
        return web.Response(status=404 if request.path == "/none" else 200, body=DATA)

    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def located(tmp_path: Path) -> AsyncIterator[Kernel]:
    async with kernel(
        tmp_path, image_locations=True, image_web=True, image_download_private="127.0.0.0/8", image_download_ports="*"
    ) as parts:
        yield parts


async def authenticate(token: str, *, allow_expired: bool = False) -> Caller:
    if token == "servant":
        return SERVANT
    try:
        return CALLERS[token]
    except KeyError:
        raise Unauthorized() from None


@pytest.fixture
async def open_client(located: Kernel) -> AsyncIterator[Client]:
    images = ImageRuntime(located)
    await images.start()
    async with serve(SERVICE, images, authenticate=authenticate) as client:
        yield client


@pytest.fixture
async def closed_client(parts: Kernel) -> AsyncIterator[Client]:
    images = ImageRuntime(parts)
    await images.start()
    async with serve(SERVICE, images, authenticate=authenticate) as client:
        yield client


async def queued(client: Client, **body: Any) -> dict[str, Any]:
    return await make(client, disk_format="raw", container_format="bare", **body)


def add(url: str, position: str = "-", **more: Any) -> dict[str, Any]:
    return {"op": "add", "path": f"/locations/{position}", "value": {"url": url, "metadata": {}, **more}}


def replace(*locations: Any) -> dict[str, Any]:
    return {"op": "replace", "path": "/locations", "value": list(locations)}


async def test_places_are_not_seen_unless_allowed(closed_client: Client, site: str) -> None:
    client = closed_client
    image = await queued(client)
    assert "locations" not in image and "direct_url" not in image
    for change in (add(f"{site}/data"), replace(), {"op": "remove", "path": "/locations/0"}):
        reply = await patch(client, image, change)
        assert (reply.status == 403 and "invisible" in reply.json()["message"]) or change["op"] == "replace", reply.data
    assert (await client("POST", "/v2/images", {"locations": []})).status == 403
    path = f"{image['self']}/locations"
    refused = await client("POST", path, {"url": f"{site}/data"})
    assert refused.status == 403 and "http store must be enabled" in refused.json()["message"]
    assert (await client("GET", image["self"])).json()["status"] == "queued"


async def test_who_sees_and_adds_places(open_client: Client, site: str) -> None:
    client = open_client
    image = await queued(client, visibility="public") if False else await queued(client)
    path = f"{image['self']}/locations"
    for token, status in (("manager", 403), ("member", 403), ("reader", 403), ("other", 404), ("servant", 404), ("nobody", 401),
                          ("admin", 200)):  # fmt: skip
        assert (await client("GET", path, token=token)).status == status, token
    for token, status in (("reader", 403), ("other", 404), ("nobody", 401)):
        assert (await client("POST", path, {"url": f"{site}/data"}, token=token)).status == status, token
    shared = await queued(client, visibility="community")
    assert (await client("GET", f"{shared['self']}/locations", token="servant")).json() == []
    assert (await client("POST", f"{shared['self']}/locations", {"url": "rbd://a/b"}, token="servant")).status == 400
    for token, status in (("reader", 403), ("other", 403), ("member", 200)):
        assert (await patch(client, shared, add(f"{site}/data"), token=token)).status == status, token


async def test_data_is_read_and_checked(located: Kernel, open_client: Client, site: str) -> None:
    client = open_client
    await located.operations.start()
    for told, algorithm, value in (
        (None, "sha512", SHA512),
        ({"os_hash_algo": "sha256", "os_hash_value": SHA256}, "sha256", SHA256),
    ):
        image = await queued(client)
        body = {"url": f"{site}/data"} | ({"validation_data": told} if told else {})
        assert (await client("POST", f"{image['self']}/locations", body)).status == 202
        assert (await client("POST", f"{image['self']}/locations", body)).status == 409, "it is on its way already"
        await located.operations.idle()
        shown = (await client("GET", image["self"])).json()
        assert (shown["status"], shown["size"], shown["checksum"]) == ("active", len(DATA), MD5)
        assert (shown["os_hash_algo"], shown["os_hash_value"], shown["stores"]) == (algorithm, value, "web")
        assert shown["locations"] == [{"url": f"{site}/data", "metadata": {}}]
        assert shown["direct_url"] == f"{site}/data"
        assert (await client("GET", f"{image['self']}/locations", token="admin")).json() == shown["locations"]
        data = await client("GET", image["file"])
        assert data.status == 200 and data.data == DATA
        assert (await client("DELETE", image["self"])).status == 204


async def test_data_that_is_not_what_was_said(located: Kernel, open_client: Client, site: str) -> None:
    client = open_client
    await located.operations.start()
    wrong = {"os_hash_algo": "sha512", "os_hash_value": "beefdead" * 16}
    for body in ({"url": f"{site}/data", "validation_data": wrong}, {"url": f"{site}/none"}, {"url": f"{site}/moved"}):
        image = await queued(client)
        assert (await client("POST", f"{image['self']}/locations", body)).status == 202
        await located.operations.idle()
        shown = (await client("GET", image["self"])).json()
        assert shown["status"] == "queued" and shown["checksum"] is None
        assert shown["locations"] == [{"url": body["url"], "metadata": {}}] and shown["stores"] == "web", "as upstream"
        (task,) = (await client("GET", f"{image['self']}/tasks")).json()["tasks"]
        assert (task["type"], task["status"]) == ("location_import", "failure") and task["message"]


async def test_places_are_not_inside(tmp_path: Path, site: str) -> None:
    """Images lie where they may be fetched from: not in this cloud's own networks."""
    async with kernel(tmp_path, image_locations=True, image_web=True, image_download_ports="*") as parts:
        images = ImageRuntime(parts)
        await images.start()
        async with serve(SERVICE, images, authenticate=authenticate) as client:
            image = await queued(client)
            for url in (f"{site}/data", "http://169.254.169.254/data", "http://localhost/data"):
                assert (await patch(client, image, add(url))).status == 400
            for url in (f"{site}/data", "http://169.254.169.254/data"):
                reply = await client("POST", f"{image['self']}/locations", {"url": url}, token="admin")
                assert reply.status == 400, reply.data
                assert (await client("POST", f"{image['self']}/locations", {"url": url})).status == 400
            await parts.operations.start()
            named = {"url": site.replace("127.0.0.1", "localhost") + "/data"}
            assert (await client("POST", f"{image['self']}/locations", named)).status == 202
            await parts.operations.idle()
            (task,) = (await client("GET", f"{image['self']}/tasks")).json()["tasks"]
            assert task["status"] == "failure" and "public address" in task["message"]


@pytest.mark.parametrize(
    "body",
    [
        {}, {"url": 5}, {"url": "gopher://x"}, {"url": "http://"}, {"url": "x", "validation_data": 5},
        {"url": "U", "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "ab"}},
        {"url": "U", "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "x" * 128}},
        {"url": "U", "validation_data": {"os_hash_value": SHA512}}, {"url": "U", "validation_data": {"os_hash_algo": "sha512"}},
        {"url": "U", "validation_data": {"os_hash_algo": "sha123", "os_hash_value": SHA512}},
    ],
)  # fmt: skip
async def test_bad_places(open_client: Client, site: str, body: dict[str, Any]) -> None:
    image = await queued(open_client)
    if body.get("url") == "U":
        body = {**body, "url": f"{site}/data"}
    reply = await open_client("POST", f"{image['self']}/locations", body, token="admin")
    assert reply.status in (400, 403), reply.data
    assert (await open_client("GET", image["self"])).json()["status"] == "queued"


async def test_patches_of_places(open_client: Client, site: str) -> None:
    client = open_client
    image = await queued(client)
    assert image["locations"] == []
    assert (await patch(client, image, add("gopher://info.cern.ch"))).status == 400
    assert (await patch(client, image, add(f"{site}/none"))).status == 400
    made = (
        await patch(client, image, {**add(f"{site}/data"), "value": {"url": f"{site}/data", "metadata": {"a": "b"}}})
    ).json()
    assert made["status"] == "active" and made["size"] == len(DATA) and made["os_hash_value"] is None
    assert made["locations"] == [{"url": f"{site}/data", "metadata": {"a": "b"}}]
    assert (await patch(client, image, add(f"{site}/data"))).status == 400, "twice"
    two = (await patch(client, image, add(f"{site}/data#new"))).json()["locations"]
    assert [place["url"] for place in two] == [f"{site}/data", f"{site}/data#new"]
    two[0]["metadata"] = {"date": "2015-10-15"}
    assert (await patch(client, image, replace(*two))).json()["locations"] == two
    for change, status in (
        (replace(two[0]), 400), (replace(two[0], {"url": f"{site}/three", "metadata": {}}), 400), (replace(), 403),
        (replace({"url": "x"}), 400), ({"op": "add", "path": "/locations", "value": two[0]}, 400),
        (add(f"{site}/x", "first"), 400), (add(f"{site}/data2", os_hash_algo="x"), 400),
        ({"op": "remove", "path": "/locations/0"}, 403),
    ):  # fmt: skip
        reply = await patch(client, image, change)
        assert reply.status == status, (change, reply.data)
    for position, status in (("x", 400), ("7", 400), ("0", 200), ("0", 403)):
        reply = await patch(client, image, {"op": "remove", "path": f"/locations/{position}"}, token="admin")
        assert reply.status == status, (position, reply.data)
    assert (await client("GET", image["self"])).json()["locations"] == two[1:]


async def test_what_a_patch_says_of_the_data(open_client: Client, site: str) -> None:
    client = open_client
    told = {"checksum": "1" * 32, "os_hash_algo": "sha512", "os_hash_value": "deadbeef" * 16}
    for wrong, status in (
        ({**told, "checksum": "1"}, 409), ({**told, "os_hash_algo": "md5"}, 409), ({**told, "os_hash_value": "zz"}, 409),
        ({"os_hash_algo": "sha512"}, 400), ({**told, "more": 1}, 400),
    ):  # fmt: skip
        image = await queued(client)
        assert (await patch(client, image, add(f"{site}/data", validation_data=wrong))).status == status, wrong
    image = (await patch(client, image, add(f"{site}/data", validation_data=told))).json()
    assert {name: image[name] for name in told} == told and "validation_data" not in image["locations"][0]
    assert (await patch(client, image, add(f"{site}/data#2", validation_data=told))).status == 200
    other = {**told, "os_hash_value": "beefdead" * 16}
    assert (await patch(client, image, add(f"{site}/data#3", validation_data=other))).status == 409
    for number in range(4, 12):
        assert (await patch(client, image, add(f"{site}/data#{number}"))).status == 200
    assert (await patch(client, image, add(f"{site}/data#more"))).status == 413


async def test_the_place_of_what_was_uploaded(open_client: Client, site: str) -> None:
    client = open_client
    image = await queued(client)
    assert (await client("PUT", image["file"], data=DATA, Content_Type=OCTETS)).status == 204
    shown = (await client("GET", image["self"])).json()
    (place,) = shown["locations"]
    assert place["url"].startswith("file:///") and shown["direct_url"] == place["url"]
    assert (await patch(client, image, add(f"{site}/data"))).status == 200
    assert (await client("GET", image["file"])).data == DATA
    own = {"op": "remove", "path": "/locations/0"}
    assert (await patch(client, image, own, token="admin")).status == 409, "uploaded data stays"
    assert (await patch(client, image, {**own, "path": "/locations/1"}, token="admin")).json()["locations"] == [place]
