"""Temporary URLs."""

import hmac
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from tests.services.object_store.stores import DEMO, OTHER, TOKENS, Store, object_store

KEY, SECOND = "a key", "another"
HOUR = 3600


@pytest.fixture
async def store(store: Store) -> Store:
    """With keys of the account, and one object."""
    await store.post("", headers={"X-Account-Meta-Temp-URL-Key": KEY, "X-Account-Meta-Temp-URL-Key-2": SECOND})
    await store.put("c")
    await store.put("c/dir/o b", b"data", headers={"X-Object-Meta-Color": "red", "X-Object-Meta-Public-Size": "xl"})
    return store


def signed(
    method: str,
    path: str,
    *,
    key: str = KEY,
    digest: str = "sha256",
    end: int | None = None,
    ip: str = "",
    account: str = DEMO,
) -> str:
    """The query of a temporary URL for `path` in the account."""
    end = int(time.time()) + HOUR if end is None else end
    prefix, path = ("prefix:", path.removeprefix("prefix:")) if path.startswith("prefix:") else ("", path)
    text = f"{method}\n{end}\n{prefix}/v1/{account}/{path}"
    signature = hmac.new(key.encode(), (f"ip={ip}\n{text}" if ip else text).encode(), digest).hexdigest()
    return f"temp_url_sig={signature}&temp_url_expires={end}{f'&temp_url_ip_range={ip}' if ip else ''}"


@pytest.mark.parametrize("token", TOKENS)
async def test_whoever_has_the_url_may_read(store: Store, token: str) -> None:
    reply = await store("GET", f"c/dir/o b?{signed('GET', 'c/dir/o b')}", token=token)
    assert (reply.status, reply.data) == (200, b"data")
    assert reply.headers["Content-Disposition"] == "attachment; filename=\"o b\"; filename*=UTF-8''o%20b"
    assert "Expires" in reply.headers
    assert "X-Object-Meta-Color" not in reply.headers
    assert reply.headers["X-Object-Meta-Public-Size"] == "xl"


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("key", [KEY, SECOND])
async def test_digests_and_keys(store: Store, digest: str, key: str) -> None:
    assert (
        await store("GET", f"c/dir/o b?{signed('GET', 'c/dir/o b', digest=digest, key=key)}", token="nobody")
    ).status == 200


async def test_a_signature_in_base64(store: Store) -> None:
    end = int(time.time()) + HOUR
    raw = hmac.new(KEY.encode(), f"GET\n{end}\n/v1/{DEMO}/c/dir/o b".encode(), "sha512").digest()
    for text in (urlsafe_b64encode(raw).decode(), urlsafe_b64encode(raw).decode().rstrip("=")):
        query = f"temp_url_sig=sha512:{text}&temp_url_expires={end}"
        assert (await store("GET", f"c/dir/o b?{query}", token="nobody")).status == 200


async def test_a_time_in_words(store: Store) -> None:
    end = int(time.time()) + HOUR
    query = signed("GET", "c/dir/o b", end=end).replace(str(end), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)))
    assert (await store("GET", f"c/dir/o b?{query}", token="nobody")).status == 200


@pytest.mark.parametrize(
    "query",
    [
        signed("PUT", "c/dir/o b"),
        signed("GET", "c/dir/other"),
        signed("GET", "c/dir/o b", key="wrong"),
        signed("GET", "c/dir/o b", account=OTHER),
        signed("GET", "c/dir/o b", end=int(time.time()) - 10),
        signed("GET", "c/dir/o b").split("&")[0],
        signed("GET", "c/dir/o b").split("&")[1],
        signed("GET", "c/dir/o b").replace("sig=", "sig=zz"),
        signed("GET", "c/dir/o b").replace("sig=", "sig=md5:"),
        signed("GET", "c/dir/o b").replace("expires=", "expires=soon"),
        signed("GET", "c/dir/o b", ip="203.0.113.0/24"),
        signed("GET", "c/dir/o b", ip="not-an-address"),
    ],
)
async def test_what_is_not_signed_so_is_refused(store: Store, query: str) -> None:
    reply = await store("GET", f"c/dir/o b?{query}", token="member")
    assert (reply.status, reply.data) == (401, b"401 Unauthorized: Temp URL invalid\n")
    assert reply.headers["WWW-Authenticate"].startswith("Swift realm=")


async def test_from_an_address(store: Store) -> None:
    for network in ("127.0.0.1", "127.0.0.0/8"):
        query = signed("GET", "c/dir/o b", ip=network)
        assert (await store("GET", f"c/dir/o b?{query}", token="nobody")).status == 200


async def test_head_with_the_signature_of_other_methods(store: Store) -> None:
    for method in ("HEAD", "GET", "PUT", "POST"):
        assert (await store("HEAD", f"c/dir/o b?{signed(method, 'c/dir/o b')}", token="nobody")).status == 200
    assert (await store("HEAD", f"c/dir/o b?{signed('DELETE', 'c/dir/o b')}", token="nobody")).status == 401


async def test_upload_and_delete(store: Store) -> None:
    put = f"c/new?{signed('PUT', 'c/new')}"
    assert (await store("PUT", put, b"new", token="nobody")).status == 201
    assert await store.get("c/new") == b"new"
    assert (await store("POST", f"c/new?{signed('POST', 'c/new')}", token="nobody", X_Object_Meta_A="b")).status == 202
    for header in ("X-Object-Manifest", "X-Symlink-Target", "X-Copy-From"):
        reply = await store("PUT", put, b"", token="nobody", headers={header: "c/dir/o b"})
        assert reply.status == 400, header
    assert (await store("DELETE", f"c/new?{signed('DELETE', 'c/new')}", token="nobody")).status == 204
    assert (await store("HEAD", "c/new")).status == 404


async def test_names_and_showing(store: Store) -> None:
    query = signed("GET", "c/dir/o b")
    assert (await store("GET", f"c/dir/o b?{query}&inline", token="nobody")).headers["Content-Disposition"] == "inline"
    reply = await store("GET", f"c/dir/o b?{query}&filename=a%20%22file%22", token="nobody")
    assert (
        reply.headers["Content-Disposition"] == "attachment; filename=\"a %22file%22\"; filename*=UTF-8''a%20%22file%22"
    )
    reply = await store("GET", f"c/dir/o b?{query}&inline&filename=x", token="nobody")
    assert reply.headers["Content-Disposition"].startswith('inline; filename="x"')
    await store.post("c/dir/o b", Content_Disposition="attachment; filename=own")
    reply = await store("GET", f"c/dir/o b?{query}", token="nobody")
    assert reply.headers["Content-Disposition"] == "attachment; filename=own"


async def test_all_that_begins_alike(store: Store) -> None:
    query = signed("GET", "prefix:c/dir/") + "&temp_url_prefix=dir/"
    assert (await store("GET", f"c/dir/o b?{query}", token="nobody")).status == 200
    await store.put("c/elsewhere", b"x")
    assert (await store("GET", f"c/elsewhere?{query}", token="nobody")).status == 401
    root = signed("GET", "prefix:c/") + "&temp_url_prefix="
    assert (await store("GET", f"c/elsewhere?{root}", token="nobody")).status == 200
    assert (await store("GET", f"c?{root}", token="nobody")).status == 401, "a listing is no object"


async def test_a_key_of_the_container_reaches_no_further(store: Store) -> None:
    await store.post("c", X_Container_Meta_Temp_URL_Key="of c")
    assert (await store("GET", f"c/dir/o b?{signed('GET', 'c/dir/o b', key='of c')}", token="nobody")).status == 200
    await store.put("d")
    await store.put("d/o", b"x")
    assert (await store("GET", f"d/o?{signed('GET', 'd/o', key='of c')}", token="nobody")).status == 401


async def test_settings(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_digests="sha512", object_tempurl_methods="GET") as store:
        await store.post("", headers={"X-Account-Meta-Temp-URL-Key": KEY})
        await store.put("c")
        await store.put("c/o", b"x")
        assert (await store("GET", f"c/o?{signed('GET', 'c/o', digest='sha512')}", token="nobody")).status == 200
        assert (await store("GET", f"c/o?{signed('GET', 'c/o')}", token="nobody")).status == 401
        assert (await store("PUT", f"c/o?{signed('PUT', 'c/o', digest='sha512')}", b"", token="nobody")).status == 401
        told = (await store("GET", "/info", token="nobody")).json()["tempurl"]
        assert (told["allowed_digests"], told["methods"]) == (["sha512"], ["GET"])
        assert "deprecated_digests" not in told
