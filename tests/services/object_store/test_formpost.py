"""Uploads by a form."""

import hmac
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.object_store.multipart_form import Form, FormError
from tests.harness import Reply
from tests.services.object_store.stores import DEMO, TOKENS, Store, object_store

KEY = "a key"
PATH = f"/v1/{DEMO}/c/up/"
BOUNDARY = "----a-boundary"


@pytest.fixture
async def store(store: Store) -> Store:
    await store.post("", X_Account_Meta_Temp_URL_Key=KEY)
    await store.put("c")
    return store


DAY = 86_400
"""Seconds that forms are good for: some are signed when tests are collected, and there are many tests."""


def fields(path: str = PATH, key: str = KEY, digest: str = "sha256", **changes: Any) -> dict[str, str]:
    """Signed fields of a form."""
    told = {"redirect": "", "max_file_size": 1000, "max_file_count": 2, "expires": int(time.time()) + DAY} | changes
    names = ("redirect", "max_file_size", "max_file_count", "expires")
    text = "\n".join([path, *(str(told[name]) for name in names)])
    told.setdefault("signature", hmac.new(key.encode(), text.encode(), digest).hexdigest())
    return {name: str(value) for name, value in told.items() if value != ""}


def body(told: dict[str, str], files: dict[str, bytes], more: str = "", end: str = "--\r\n") -> bytes:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in told.items()]
    for name, data in files.items():
        head = f'Content-Disposition: form-data; name="f"; filename="{name}"\r\nContent-Type: text/plain\r\n{more}\r\n'
        parts.append(head.encode() + data)
    return b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}{end}".encode()


async def send(store: Store, data: Any, path: str = PATH, **more: Any) -> Reply:
    more.setdefault("token", "nobody")
    return await store("POST", path, data, Content_Type=f'multipart/form-data; boundary="{BOUNDARY}"', **more)


@pytest.mark.parametrize("token", TOKENS)
async def test_whoever_has_the_form_may_upload(store: Store, token: str) -> None:
    files = {"one.txt": b"1\r\n--" + BOUNDARY.encode() + b"no end of it\r\n", "zwei ü.txt": b"", "": b"not sent"}
    reply = await send(store, body(fields(max_file_count=3), files), token=token)
    assert (reply.status, reply.data) == (201, b"201 Created")
    assert (await store("GET", "c")).data.decode().splitlines() == ["up/one.txt", "up/zwei ü.txt"]
    got = await store("GET", "c/up/one.txt")
    assert (got.data, got.headers["Content-Type"]) == (files["one.txt"], "text/plain")


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
async def test_digests(store: Store, digest: str) -> None:
    assert (await send(store, body(fields(digest=digest), {"o": b"x"}))).status == 201


async def test_where_files_go(store: Store) -> None:
    for path in (f"/v1/{DEMO}/c", f"/v1/{DEMO}/c/", f"/v1/{DEMO}/c/pre"):
        assert (await send(store, body(fields(path), {"fix": b"x"}), path)).status == 201
    assert (await store("GET", "c")).data == b"fix\nprefix\n"


async def test_a_key_of_the_container(store: Store) -> None:
    await store.post("c", X_Container_Meta_Temp_URL_Key_2="of c")
    assert (await send(store, body(fields(key="of c"), {"o": b"x"}))).status == 201
    assert (
        await send(store, body(fields(key="of c", path=f"/v1/{DEMO}/d/"), {"o": b"x"}), f"/v1/{DEMO}/d/")
    ).status == 401


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"key": "wrong"}, 401, b"FormPost: Invalid Signature"),
        ({"signature": "zz"}, 401, b"FormPost: Invalid Signature"),
        ({"path": "/v1/AUTH_x/c/"}, 401, b"FormPost: Invalid Signature"),
        ({"expires": 1}, 401, b"FormPost: Form Expired"),
        ({"expires": "soon"}, 400, b"FormPost: expired not an integer"),
        ({"max_file_size": "x"}, 400, b"FormPost: max_file_size not an integer"),
        ({"max_file_count": "x"}, 400, b"FormPost: max_file_count not an integer"),
        ({"x_delete_at": "x"}, 400, b"FormPost: x_delete_at not an integer"),
        ({"x_delete_after": "x"}, 400, b"FormPost: x_delete_after not an integer"),
        ({"max_file_size": 3}, 400, b"FormPost: max_file_size exceeded"),
        ({"max_file_count": 0}, 400, b"400 Bad Request\r\nFormPost: Max File Count Exceeded"),
        ({"x_delete_at": 1}, 400, b"X-Delete-At in past"),
    ],
)
async def test_forms_that_are_refused(store: Store, changes: dict[str, Any], status: int, words: bytes) -> None:
    reply = await send(store, body(fields(**changes), {"o": b"data"}))
    assert reply.status == status
    assert reply.data.startswith(words)
    assert (await store("GET", "c")).status == 204


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", b"invalid starting boundary"),
        (b"something else", b"invalid starting boundary"),
        (body(fields(), {"o": b"x"}, end=""), b"it ends before its last boundary"),
        (body(fields(), {"o": b"x"})[:-40], b"it ends before its last boundary"),
        (body(fields(), {"o": b"x"}, more="no header\r\n"), b""),
        (
            body(fields(), {"o": b"x"}, more="".join(f"A{n}: b\r\n" for n in range(50))),
            b"Maximum header count exceeded",
        ),
    ],
)
async def test_what_is_no_form(store: Store, data: bytes, words: bytes) -> None:
    reply = await send(store, data)
    assert reply.status == 400
    assert reply.data.startswith(b"FormPost: " + words)
    assert (await store("GET", "c")).status == 204


async def test_nothing_to_upload(store: Store) -> None:
    reply = await send(store, body(fields(), {}))
    assert (reply.status, reply.data) == (400, b"400 Bad Request\r\nFormPost: No Files To Process")


async def test_redirects(store: Store) -> None:
    reply = await send(store, body(fields(redirect="http://example.com/done"), {"o": b"x"}))
    assert (reply.status, reply.headers["Location"]) == (303, "http://example.com/done?status=201&message=")
    told = fields(redirect="http://example.com/?a=b", max_file_count=1)
    reply = await send(store, body(told, {"o": b"x", "p": b"y"}))
    assert reply.headers["Location"] == "http://example.com/?a=b&status=400&message=max%20file%20count%20exceeded"


async def test_what_is_said_of_the_files(store: Store) -> None:
    told = {"x_delete_after": "100", "content-type": "text/css", "content-encoding": "gzip"}
    assert (await send(store, body(fields() | told, {"o": b"x"}))).status == 201
    headers = (await store("HEAD", "c/up/o")).headers
    assert (headers["Content-Type"], headers["Content-Encoding"]) == ("text/css", "gzip")
    assert int(headers["X-Delete-At"]) > time.time()
    assert (await send(store, body(fields(), {"p": b"x"}, more="Content-Encoding: own\r\n"))).status == 201
    assert (await store("HEAD", "c/up/p")).headers["Content-Encoding"] == "own"


async def test_quotas_hold(store: Store) -> None:
    await store.post("c", X_Container_Meta_Quota_Count="0")
    reply = await send(store, body(fields(), {"o": b"x"}))
    assert (reply.status, reply.data) == (413, b"Upload exceeds quota.")


async def test_a_large_form_streams(store: Store) -> None:
    whole = body(fields(max_file_size=10_000_000), {"o": b"x" * 3_000_000})

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 7919):
            yield whole[start : start + 7919]

    assert (await send(store, slowly())).status == 201
    assert (await store("HEAD", "c/up/o")).headers["Content-Length"] == "3000000"


async def test_settings(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_digests="sha512") as store:
        await store.post("", X_Account_Meta_Temp_URL_Key=KEY)
        await store.put("c")
        assert (await send(store, body(fields(digest="sha512"), {"o": b"x"}))).status == 201
        assert (await send(store, body(fields(), {"o": b"x"}))).status == 401
        assert (await store("GET", "/info")).json()["formpost"] == {"allowed_digests": ["sha512"]}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_parts_come_apart_wherever_the_pieces_end(size: int) -> None:
    whole = body({"a": "1", "b": "2\r\n-"}, {"f": b"\r\n--x\r\n" * 9})

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    found = []
    async for part in Form(pieces(), BOUNDARY.encode()).parts():
        found.append((part.options["name"], b"".join([piece async for piece in part.data()])))
    assert found == [("a", b"1"), ("b", b"2\r\n-"), ("f", b"\r\n--x\r\n" * 9)]


async def test_a_value_is_cut_off_and_must_be_text() -> None:
    async def pieces(value: bytes) -> AsyncIterator[bytes]:
        yield body({"a": "@"}, {}).replace(b"@", value)

    async for part in Form(pieces(b"x" * 99), BOUNDARY.encode()).parts():
        assert await part.text(10) == "x" * 10
    part = await anext(Form(pieces(b"\xff"), BOUNDARY.encode()).parts())
    with pytest.raises(FormError):
        await part.text(10)
