"""Accounts, containers and objects, as a client meets them."""

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from cumulet.services.object_store.proxy import front
from tests.services.object_store.stores import DEMO, Store


async def test_an_account_is_there_before_it_is_made(store: Store) -> None:
    reply = await store("GET", "")
    assert (reply.status, reply.data) == (204, b"")
    reply = await store("HEAD", "")
    assert reply.status == 204
    assert (reply.headers["X-Account-Container-Count"], reply.headers["X-Account-Bytes-Used"]) == ("0", "0")
    assert re.fullmatch(r"tx[0-9a-f]{21}-[0-9a-f]{10}", reply.headers["X-Trans-Id"])
    assert reply.headers["X-Openstack-Request-Id"] == reply.headers["X-Trans-Id"]


async def test_metadata_of_an_account_makes_it(store: Store) -> None:
    await store.post("", X_Account_Meta_Colour="red", X_Account_Meta_Size="1")
    await store.post("", X_Remove_Account_Meta_Size="x")
    reply = await store("HEAD", "")
    assert reply.headers["X-Account-Meta-Colour"] == "red"
    assert "X-Account-Meta-Size" not in reply.headers


async def test_a_container_comes_and_goes(store: Store) -> None:
    assert (await store("PUT", "box")).status == 201
    assert (await store("PUT", "box")).status == 202
    reply = await store("HEAD", "box")
    assert (reply.status, reply.headers["X-Container-Object-Count"]) == (204, "0")
    assert reply.headers["X-Storage-Policy"] == "Policy-0"
    await store.put("box/thing", b"x")
    assert (await store("DELETE", "box")).status == 409
    assert (await store("DELETE", "box/thing")).status == 204
    assert (await store("DELETE", "box")).status == 204
    for method in ("GET", "HEAD", "DELETE"):
        assert (await store(method, "box")).status == 404
    assert (await store("POST", "box")).status == 404


async def test_an_object_comes_and_goes(store: Store) -> None:
    await store.put("box")
    reply = await store("PUT", "box/a/b", b"hello", Content_Type="text/plain", X_Object_Meta_Colour="red")
    assert (reply.status, reply.headers["Etag"]) == (201, hashlib.md5(b"hello").hexdigest())
    reply = await store("GET", "box/a/b")
    assert (reply.data, reply.headers["Content-Type"], reply.headers["X-Object-Meta-Colour"]) == (
        b"hello",
        "text/plain",
        "red",
    )
    assert reply.headers["Accept-Ranges"] == "bytes"
    reply = await store("HEAD", "box/a/b")
    assert (reply.status, reply.headers["Content-Length"], reply.data) == (200, "5", b"")
    await store.put("box/a/b", b"better")
    assert await store.get("box/a/b") == b"better"
    assert (await store("HEAD", "box")).headers["X-Container-Bytes-Used"] == "6"
    assert (await store("DELETE", "box/a/b")).status == 204
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert (await store(method, "box/a/b")).status == 404
    assert (await store("PUT", "none/thing", b"")).status == 404


async def test_names_are_anybodys(store: Store) -> None:
    await store.put("box")
    for name in ("a b", "\u00fc/\u20ac", "%41", "a?b", "a#b", "..", "a//b/", "\U0001f600", "a\nb", 'q"<&'):
        await store.put("box/" + name.replace("%", "%25").replace("?", "%3F"), name.encode())
    listed = msgspec.json.decode(await store.get("box?format=json"))
    names = {row["name"] for row in listed}
    assert names == {"a b", "\u00fc/\u20ac", "%41", "a?b", "a#b", "..", "a//b/", "\U0001f600", "a\nb", 'q"<&'}


async def test_a_posted_change_replaces_all_metadata(store: Store) -> None:
    await store.put("box")
    await store.put("box/thing", b"x", X_Object_Meta_A="1", X_Object_Meta_B="2", Content_Type="text/plain")
    assert (await store("POST", "box/thing", X_Object_Meta_B="3", Content_Type="text/html")).status == 202
    reply = await store("HEAD", "box/thing")
    assert "X-Object-Meta-A" not in reply.headers
    assert (reply.headers["X-Object-Meta-B"], reply.headers["Content-Type"]) == ("3", "text/html")


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"X-Object-Meta-" + "a" * 129: "x"}, 400, b"Metadata name too long"),
        ({"X-Object-Meta-A": "x" * 257}, 400, b"Metadata value longer than 256"),
        ({f"X-Object-Meta-{n}": "x" for n in range(91)}, 400, b"Too many metadata items; max 90"),
        ({f"X-Object-Meta-{n}": "x" * 250 for n in range(17)}, 400, b"Total metadata too large; max 4096"),
        ({"X-Object-Meta-": "x"}, 400, b"Metadata name cannot be empty"),
        ({"X-Delete-At": "soon"}, 400, b"Non-integer X-Delete-At"),
        ({"X-Delete-At": "1"}, 400, b"X-Delete-At in past"),
        ({"X-Delete-After": "-1"}, 400, b"X-Delete-After in past"),
        ({"X-Delete-After": "x"}, 400, b"Non-integer X-Delete-After"),
        ({"If-None-Match": "abc"}, 400, b"If-None-Match only supports *"),
        ({"Etag": "0" * 32}, 422, b""),
    ],
)
async def test_what_an_upload_may_not_say(store: Store, headers: dict[str, str], status: int, says: bytes) -> None:
    await store.put("box")
    reply = await store("PUT", "box/thing", b"hello", headers=headers)
    assert (reply.status, says in reply.data) == (status, True), reply.data
    assert (await store("HEAD", "box/thing")).status == 404


async def test_names_that_are_too_long(store: Store) -> None:
    assert (await store("PUT", "c" * 257)).status == 400
    await store.put("c" * 256)
    assert (await store("PUT", "c" * 256 + "/" + "o" * 1025, b"")).status == 400
    await store.put("c" * 256 + "/" + "o" * 1024)
    assert (await store("GET", "/v1/" + "a" * 257, token="admin")).status in (400, 403)
    assert (await store("GET", "box?marker=" + "m" * 9000)).status == 414


async def test_paths_that_mean_nothing(store: Store) -> None:
    for path, status in (
        ("/v1", 412), ("/v1/", 412), ("/v2/" + DEMO, 400), ("/v1//box/thing", 404), (f"/v1/{DEMO}//thing", 404),
        (f"/v1/{DEMO}/%FF", 412), (f"/v1/{DEMO}/a%00b", 412), ("/", 404),
    ):  # fmt: skip
        assert (await store("GET", path)).status == status, path
    reply = await store("BREW", "box")
    assert (reply.status, "GET" in reply.headers["Allow"]) == (405, True)
    assert (await raw(store, f"get /v1/{DEMO} HTTP/1.1\nHost: x\nX-Auth-Token: member\n\n")).startswith(
        b"HTTP/1.1 405 "
    )


async def test_conditions(store: Store) -> None:
    await store.put("box")
    await store.put("box/thing", b"hello")
    etag, then = hashlib.md5(b"hello").hexdigest(), "Wed, 01 Jan 2020 00:00:00 GMT"
    for headers, status in (
        ({"If-None-Match": etag}, 304), ({"If-None-Match": "*"}, 304), ({"If-None-Match": '"no"'}, 200),
        ({"If-Match": etag}, 200), ({"If-Match": '"no"'}, 412), ({"If-Match": f'"no", "{etag}"'}, 200),
        ({"If-Modified-Since": then}, 200), ({"If-Unmodified-Since": then}, 412),
        ({"If-Modified-Since": "Wed, 01 Jan 2200 00:00:00 GMT"}, 304), ({"If-Modified-Since": "yesterday"}, 200),
    ):  # fmt: skip
        for method in ("GET", "HEAD"):
            assert (await store(method, "box/thing", headers=headers)).status == status, headers
    assert (await store("PUT", "box/thing", b"other", headers={"If-None-Match": "*"})).status == 412
    assert await store.get("box/thing") == b"hello"


async def test_ranges(store: Store) -> None:
    await store.put("box")
    data = bytes(range(256)) * 16
    await store.put("box/thing", data)
    for asked, start, end in (("0-9", 0, 10), ("4090-", 4090, 4096), ("-5", 4091, 4096), ("0-99999", 0, 4096)):
        reply = await store("GET", "box/thing", Range=f"bytes={asked}")
        assert (reply.status, reply.data) == (206, data[start:end])
        assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/4096"
    reply = await store("GET", "box/thing", Range="bytes=5000-")
    assert (reply.status, reply.headers["Content-Range"]) == (416, "bytes */4096")
    for nonsense in ("bytes=", "bytes=9-1", "apples=1-2", "bytes=a-b"):
        assert (await store("GET", "box/thing", Range=nonsense)).status == 200
    reply = await store("GET", "box/thing", Range="bytes=0-1,10-11,-1")
    boundary = reply.headers["Content-Type"].partition("boundary=")[2].encode()
    parts = [part.partition(b"\r\n\r\n")[2][:-2] for part in reply.data.split(b"--" + boundary)[1:-1]]
    assert (reply.status, parts) == (206, [data[0:2], data[10:12], data[-1:]])


async def test_listings_have_formats(store: Store) -> None:
    await store.put("box")
    await store.put("box/a&b", b"1")
    await store.put("box/d/e", b"22")
    assert await store.get("box") == b"a&b\nd/e\n"
    rows = msgspec.json.decode((await store("GET", "box?delimiter=/", Accept="application/json")).data)
    assert (rows[0]["name"], rows[0]["bytes"], rows[1]) == ("a&b", 1, {"subdir": "d/"})
    reply = await store("GET", "box?format=xml&delimiter=/")
    assert reply.headers["Content-Type"] == "application/xml; charset=utf-8"
    assert reply.data.startswith(
        b'<?xml version="1.0" encoding="UTF-8"?>\n<container name="box"><object><name>a&amp;b</name>'
    )
    assert b'<subdir name="d/"><name>d/</name></subdir></container>' in reply.data
    assert (await store("GET", "box", Accept="image/png")).status == 406
    assert (await store("GET", "box", Accept="nonsense")).status == 400
    assert (await store("GET", "box?prefix=z")).status == 204
    assert (await store("GET", "box?limit=10001")).status == 412
    assert (await store("GET", "?format=plain")).data == b"box\n"


async def test_cors(store: Store) -> None:
    await store.put("box", X_Container_Meta_Access_Control_Allow_Origin="http://a.test http://b.test",
                    X_Container_Meta_Access_Control_Max_Age="60", X_Container_Meta_Access_Control_Expose_Headers="X-Mine",
                    X_Container_Read=".r:*")  # fmt: skip
    await store.put("box/thing", b"x", X_Object_Meta_Colour="red")
    asked = {
        "Origin": "http://a.test",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "X-One, X-Two",
    }
    reply = await store("OPTIONS", "box/thing", headers=asked, token="nobody")
    assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (200, "http://a.test")
    assert (reply.headers["Access-Control-Max-Age"], reply.headers["Access-Control-Allow-Headers"]) == (
        "60",
        "X-One, X-Two",
    )
    assert (
        await store("OPTIONS", "box/thing", headers=asked | {"Origin": "http://c.test"}, token="nobody")
    ).status == 401
    reply = await store("GET", "box/thing", Origin="http://b.test", token="nobody")
    exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
    assert reply.headers["Access-Control-Allow-Origin"] == "http://b.test"
    assert {"etag", "x-object-meta-colour", "x-mine", "x-trans-id"} <= set(exposed)
    reply = await store("GET", "box/thing", Origin="http://c.test", token="nobody")
    assert (reply.status, "Access-Control-Allow-Origin" in reply.headers) == (200, False)


async def test_clients_cannot_say_what_the_program_says(store: Store) -> None:
    await store.put("box")
    internal = {"X-Object-Sysmeta-A": "1", "X-Object-Transient-Sysmeta-B": "2", "X-Backend-Storage-Policy-Index": "7",
                "X-Timestamp": "0000000001.00000"}  # fmt: skip
    await store.put("box/thing", b"x", headers=internal)
    headers = (await store("GET", "box/thing")).headers
    assert not [name for name in headers if "sysmeta" in name.lower() or name.lower().startswith("x-backend")]
    assert float(headers["X-Timestamp"]) > time.time() - 60


async def test_what_it_can_do_is_told_to_anybody(store: Store) -> None:
    reply = await store("GET", "/info", token="nobody")
    told = msgspec.json.decode(reply.data)
    assert (told["swift"]["max_file_size"], told["swift"]["container_listing_limit"]) == (5368709122, 10000)
    assert told["swift"]["policies"] == [{"name": "Policy-0", "aliases": "Policy-0", "default": True}]
    assert "admin" not in told
    assert (await store("GET", "/info?swiftinfo_sig=x&swiftinfo_expires=99999999999", token="nobody")).status == 403


async def test_an_upload_without_a_length(store: Store) -> None:
    await store.put("box")

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(50):
            yield bytes([number]) * 10_000

    await store.put("box/thing", pieces())
    assert len(await store.get("box/thing")) == 500_000


async def raw(store: Store, text: str, body: bytes = b"", *, then: bytes = b"") -> bytes:
    """What is answered to bytes on a socket; `then` follows once anything has come back."""
    address, port = store.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    writer.write(text.replace("\n", "\r\n").encode() + body)
    told = await asyncio.wait_for(reader.read(65536), 60)
    if then:
        writer.write(then)
        told += await asyncio.wait_for(reader.read(65536), 60)
    writer.close()
    await writer.wait_closed()
    return told


async def test_expect_continue(store: Store) -> None:
    await store.put("box")
    head = "PUT /v1/{}/{}/thing HTTP/1.1\nHost: x\nX-Auth-Token: member\nContent-Length: 5\nExpect: 100-continue\n\n"
    told = await raw(store, head.format(DEMO, "box"), then=b"hello")
    assert told.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")
    assert await store.get("box/thing") == b"hello"
    assert (await raw(store, head.format(DEMO, "none"))).startswith(b"HTTP/1.1 404 ")


async def test_bodies_that_are_not_what_was_announced(store: Store) -> None:
    await store.put("box")
    head = f"PUT /v1/{DEMO}/box/thing HTTP/1.1\nHost: x\nX-Auth-Token: member\n"
    assert (await raw(store, head + "\n", b"hello")).startswith(b"HTTP/1.1 411 ")
    assert (await raw(store, head + "Transfer-Encoding: gzip,chunked\n\n", b"hello")).startswith(b"HTTP/1.1 501 ")
    assert (await raw(store, head + "Content-Length: 5368709123\n\n")).startswith(b"HTTP/1.1 413 ")
    address, port = store.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(address, int(port))
    writer.write((head + "Content-Length: 100\n\n").replace("\n", "\r\n").encode() + b"half")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await store("GET", "box/thing")).status == 404


async def test_names_may_come_as_they_are(store: Store) -> None:
    """Not percent-encoded, as many clients send them."""
    await store.put("box")
    head = f"PUT /v1/{DEMO}/box/\u00fc HTTP/1.1\nHost: x\nX-Auth-Token: member\nContent-Length: 0\n\n"
    assert (await raw(store, head)).startswith(b"HTTP/1.1 201 ")
    assert (await store.get("box")).decode() == "\u00fc\n"


async def test_a_client_who_sends_nothing_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "CLIENT_TIMEOUT", 0.1)
    await store.put("box")
    head = f"PUT /v1/{DEMO}/box/thing HTTP/1.1\nHost: x\nX-Auth-Token: member\nContent-Length: 10\n\n"
    assert (await raw(store, head, b"half")).startswith(b"HTTP/1.1 408 ")
    assert (await store("GET", "box/thing")).status == 404


async def test_many_slow_clients_hold_up_nobody(store: Store) -> None:
    """Each waits in the middle of his upload; others go on meanwhile, and then all of them end."""
    await store.put("box")
    address, port = store.url.removeprefix("http://").split(":")
    slow = []
    for number in range(100):
        reader, writer = await asyncio.open_connection(address, int(port))
        head = f"PUT /v1/{DEMO}/box/slow{number} HTTP/1.1\nHost: x\nX-Auth-Token: member\nContent-Length: 10\n\n"
        writer.write(head.replace("\n", "\r\n").encode() + b"half ")
        slow.append((reader, writer))
    before = threading.active_count()
    await store.put("box/quick", b"quick")
    assert await store.get("box/quick") == b"quick"
    assert threading.active_count() < before + 50
    for _, writer in slow:
        writer.write(b"again")
    for number, (reader, writer) in enumerate(slow):
        assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
        writer.close()
        assert await store.get(f"box/slow{number}") == b"half again"
