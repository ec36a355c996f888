"""Static large objects: manifests, what is checked of them, what is read, and how they go."""

import asyncio
import base64
import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from cumulet.services.object_store import expirer
from cumulet.services.object_store.layers import reports
from tests.services.object_store.stores import Store, object_store

A, B, C = b"a" * 1000, b"b" * 500, b"c"


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def of(*rows: Any) -> bytes:
    return msgspec.json.encode(rows)


async def parts(store: Store) -> None:
    """Segments a, b and c in the container `parts`, and a container `box`."""
    await store.put("box")
    await store.put("parts")
    for name, data in (("a", A), ("b", B), ("c", C)):
        await store.put(f"parts/{name}", data)


async def make(store: Store, *rows: Any, name: str = "box/whole", **headers: str) -> None:
    await store.put(f"{name}?multipart-manifest=put", of(*rows), **headers)


ABC = ({"path": "/parts/a"}, {"path": "parts/b", "etag": md5(B), "size_bytes": 500}, {"path": "/parts/c", "etag": None})


async def test_it_reads_as_its_segments(store: Store) -> None:
    await parts(store)
    reply = await store("PUT", "box/whole?multipart-manifest=put", of(*ABC), Content_Type="text/x", X_Object_Meta_X="y")
    etag = md5("".join(map(md5, (A, B, C))).encode())
    assert (reply.status, reply.headers["Etag"]) == (201, f'"{etag}"')
    for method in ("GET", "HEAD"):
        reply = await store(method, "box/whole")
        assert reply.status == 200
        assert reply.headers["Content-Length"] == "1501"
        assert (reply.headers["Etag"], reply.headers["Content-Type"]) == (f'"{etag}"', "text/x")
        assert (reply.headers["X-Static-Large-Object"], reply.headers["X-Object-Meta-X"]) == ("True", "y")
        assert reply.data == (A + B + C if method == "GET" else b"")
    manifest = await store("GET", "box/whole?multipart-manifest=get")
    assert manifest.headers["Content-Type"] == "application/json; charset=utf-8"
    assert [row["name"] for row in manifest.json()] == ["/parts/a", "/parts/b", "/parts/c"]
    assert [row["bytes"] for row in manifest.json()] == [1000, 500, 1]
    raw = await store("GET", "box/whole?multipart-manifest=get&format=raw")
    assert raw.json()[0] == {"path": "/parts/a", "etag": md5(A), "size_bytes": 1000}
    assert raw.headers["Etag"] == md5(raw.data)
    (row,) = (await store("GET", "box?format=json")).json()
    assert (row["bytes"], row["slo_etag"], row["hash"]) == (1501, f'"{etag}"', manifest.headers["Etag"])
    assert row["content_type"] == "text/x"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("bytes=998-1001", (A + B + C)[998:1002]),
        ("bytes=-2", b"bc"),
        ("bytes=1500-", b"c"),
        ("bytes=0-", A + B + C),
        ("bytes=400-9999", (A + B + C)[400:]),
    ],
)
async def test_ranges(store: Store, asked: str, found: bytes) -> None:
    await parts(store)
    await make(store, *ABC)
    reply = await store("GET", "box/whole", Range=asked)
    assert (reply.status, reply.data) == (206, found)
    assert reply.headers["Content-Range"].endswith("/1501")


async def test_several_ranges_and_none_that_can_be_had(store: Store) -> None:
    await parts(store)
    await make(store, *ABC)
    reply = await store("GET", "box/whole", Range="bytes=0-1,999-1000,-1")
    assert reply.status == 206
    boundary = reply.headers["Content-Type"].partition("boundary=")[2].encode()
    pieces = [
        piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in reply.data.split(b"--" + boundary)[1:4]
    ]
    assert pieces == [b"aa", b"ab", b"c"]
    assert len(reply.data) == int(reply.headers["Content-Length"])
    reply = await store("GET", "box/whole", Range="bytes=1501-")
    assert (reply.status, reply.headers["Content-Range"]) == (416, "bytes */1501")


async def test_conditions_are_about_the_whole(store: Store) -> None:
    await parts(store)
    await make(store, *ABC)
    etag = (await store("HEAD", "box/whole")).headers["Etag"]
    manifest = (await store("HEAD", "box/whole?multipart-manifest=get")).headers["Etag"]
    for method in ("GET", "HEAD"):
        assert (await store(method, "box/whole", If_Match=etag)).status == 200
        assert (await store(method, "box/whole", If_Match=f'"{manifest}"')).status == 412
        assert (await store(method, "box/whole", If_None_Match=etag)).status == 304
        assert (await store(method, "box/whole", If_None_Match=f'"{manifest}"')).status == 200
        assert (await store(method, "box/whole?multipart-manifest=get", If_Match=manifest)).status == 200


async def test_parts_by_number(store: Store) -> None:
    await parts(store)
    await make(store, *ABC)
    for method in ("GET", "HEAD"):
        reply = await store(method, "box/whole?part-number=2")
        assert (reply.status, reply.headers["Content-Length"], reply.headers["X-Parts-Count"]) == (206, "500", "3")
        assert reply.headers["Content-Range"] == "bytes 1000-1499/1501"
        assert reply.data == (B if method == "GET" else b"")
        assert (await store(method, "box/whole?part-number=4")).status == 416
        assert (await store(method, "box/whole?part-number=0")).status == 400
    assert (await store("GET", "box/whole?part-number=1", Range="bytes=0-1")).status == 400
    assert (await store("GET", "parts/a?part-number=7")).data == A


async def test_ranges_within_segments_and_data_of_the_manifest(store: Store) -> None:
    await parts(store)
    rows = (
        {"data": base64.b64encode(b"[").decode()},
        {"path": "/parts/a", "range": "990-"},
        {"path": "/parts/b", "range": "-3", "size_bytes": 500},
        {"path": "/parts/c", "range": "0-0"},
        {"data": base64.b64encode(b"]").decode()},
    )
    await make(store, *rows)
    whole = b"[" + b"a" * 10 + b"bbb" + b"c" + b"]"
    reply = await store("GET", "box/whole")
    assert reply.data == whole
    told = md5(b"[") + f"{md5(A)}:990-999;" + f"{md5(B)}:497-499;" + md5(C) + md5(b"]")
    assert reply.headers["Etag"] == f'"{md5(told.encode())}"'
    for first in range(len(whole)):
        assert (await store("GET", "box/whole", Range=f"bytes={first}-{first + 4}")).data == whole[first : first + 5]


async def test_large_objects_within_large_objects(store: Store) -> None:
    await parts(store)
    await make(store, *ABC, name="parts/abc")
    inner = await store("HEAD", "parts/abc")
    etag = inner.headers["Etag"].strip('"')
    await make(
        store,
        {"path": "/parts/c"},
        {"path": "/parts/abc", "etag": etag, "size_bytes": 1501},
        {"path": "/parts/abc", "range": "999-1000"},
        {"path": "/parts/abc", "range": "1499-"},
    )
    whole = C + A + B + C + b"ab" + b"bc"
    assert await store.get("box/whole") == whole
    for span in ((0, 3), (990, 1010), (1500, 1506), (1502, 1505)):
        reply = await store("GET", "box/whole", Range=f"bytes={span[0]}-{span[1]}")
        assert reply.data == whole[span[0] : span[1] + 1]


async def test_nesting_has_an_end(store: Store) -> None:
    await parts(store)
    await make(store, {"path": "/parts/c"}, name="box/1")
    for depth in range(2, 12):
        await make(store, {"path": f"/box/{depth - 1}"}, name=f"box/{depth}")
    assert await store.get("box/10") == C
    assert (await store("GET", "box/11")).status == 409


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "Manifest must be valid JSON."),
        (b'{"path": "/parts/a"}', 400, "Manifest must be a list."),
        (of(3), 400, "Index 0: not a JSON object"),
        (of({"size_bytes": 1}), 400, "Index 0: expected keys"),
        (of({"path": "/parts/a", "colour": 1}), 400, 'Index 0: extraneous keys "colour"'),
        (of({"path": 3}), 400, '"path" must be a string'),
        (of({"path": "/parts"}), 400, "path does not refer to an object"),
        (of({"path": "/parts/a", "etag": 3}), 400, '"etag" must be a string or null'),
        (of({"path": "/parts/a", "size_bytes": "many"}), 400, "invalid size_bytes"),
        (of({"path": "/parts/a", "size_bytes": 0}, {"path": "/parts/c"}), 400, "Index 0: too small"),
        (of({"path": "/parts/a", "range": "5-3"}), 400, "invalid range"),
        (of({"path": "/parts/a", "range": "0-1,3-4"}), 400, "multiple ranges"),
        (of({"path": "/parts/a", "size_bytes": 10, "range": "10-"}), 400, "unsatisfiable range"),
        (of({"path": "/box/whole"}), 400, "must not include itself"),
        (of({"data": "no base64!"}, {"path": "/parts/a"}), 400, "data must be valid base64"),
        (of({"data": ""}, {"path": "/parts/a"}), 400, "too small"),
        (of({"data": "YQ=="}), 400, "at least one object-backed segment"),
        (of({"path": "/parts/none"}), 400, "/parts/none, 404 Not Found"),
        (of({"path": "/parts/a", "etag": "0"}), 400, "/parts/a, Etag Mismatch"),
        (of({"path": "/parts/a", "size_bytes": 7}), 400, "/parts/a, Size Mismatch"),
        (of({"path": "/parts/a", "range": "1000-"}), 400, "/parts/a, Unsatisfiable Range"),
        (of(*({"path": "/parts/a"} for _ in range(10_001))), 413, "Number of object-backed segments must be <= 10000"),
    ],
)
async def test_what_is_wrong_with_a_manifest(store: Store, body: bytes, status: int, said: str) -> None:
    await parts(store)
    reply = await store("PUT", "box/whole?multipart-manifest=put", body)
    assert (reply.status, said in reply.data.decode()) == (status, True), reply.data
    assert (await store("HEAD", "box/whole")).status == 404


async def test_everything_that_is_wrong_is_told_at_once(store: Store) -> None:
    await parts(store)
    reply = await store(
        "PUT",
        "box/whole?multipart-manifest=put",
        of({"path": "/parts/none"}, {"path": "/parts/a", "etag": "0"}),
        Accept="application/json",
    )
    assert reply.json()["Errors"] == [["/parts/none", "404 Not Found"], ["/parts/a", "Etag Mismatch"]]


async def test_the_etag_of_the_whole_is_checked_where_it_is_sent(store: Store) -> None:
    await parts(store)
    for etag, status in ((md5(md5(A).encode()), 201), ("0" * 32, 422)):
        reply = await store("PUT", "box/whole?multipart-manifest=put", of({"path": "/parts/a"}), Etag=etag)
        assert reply.status == status


async def test_the_header_is_the_programs_own(store: Store) -> None:
    await parts(store)
    assert (await store("PUT", "box/x", b"", X_Static_Large_Object="True")).status == 400
    assert (await store("PUT", "box/x", b"", Content_Type="text/plain;swift_bytes=7")).status == 400
    await store.put("box/x")
    assert (await store("POST", "box/x", X_Static_Large_Object="True")).status == 400


async def test_a_segment_that_is_another_one_now(store: Store) -> None:
    await parts(store)
    await make(store, *ABC)
    await store.put("parts/b", b"B" * 500)
    reply = await store("GET", "box/whole", Range="bytes=0-999")
    assert (reply.status, reply.data) == (206, A)  # what is whole is sent
    assert (await store("GET", "box/whole", Range="bytes=1000-1001")).status == 409
    with pytest.raises(aiohttp.ClientError):
        await store("GET", "box/whole")  # begun, and cut off where it is not what it was
    await store.put("parts/a", b"A" * 1000)
    assert (await store("GET", "box/whole")).status == 409
    assert (await store("HEAD", "box/whole")).status == 200


async def test_deleted_with_its_segments(store: Store) -> None:
    await parts(store)
    await make(store, {"path": "/parts/a"}, {"path": "/parts/b"}, name="parts/ab")
    await make(store, {"path": "/parts/ab"}, {"path": "/parts/c"}, {"data": "YQ=="})
    reply = await store("DELETE", "box/whole?multipart-manifest=delete", Accept="application/json")
    told = reply.json()
    assert (reply.status, told["Response Status"], told["Number Deleted"]) == (200, "200 OK", 5)
    for container in ("box", "parts"):
        assert (await store("GET", container)).data == b""


async def test_a_plain_delete_leaves_the_segments(store: Store) -> None:
    await parts(store)
    await make(store, *ABC)
    assert (await store("DELETE", "box/whole")).status == 204
    assert (await store("GET", "parts")).data == b"a\nb\nc\n"


@pytest.mark.parametrize(
    ("name", "status", "errors"),
    [("parts/a", "400 Bad Request", [["/parts/a", "Not an SLO manifest"]]), ("parts/none", "200 OK", [])],
)
async def test_what_has_no_segments_is_not_deleted_so(store: Store, name: str, status: str, errors: list[Any]) -> None:
    await parts(store)
    told = (await store("DELETE", f"{name}?multipart-manifest=delete", Accept="application/json")).json()
    assert (told["Response Status"], told["Errors"], told["Number Deleted"]) == (status, errors, 0)
    assert (await store("HEAD", "parts/a")).status == 200


async def test_where_a_segment_stays_the_manifest_stays(store: Store) -> None:
    await parts(store)
    await store.post("box", X_Container_Write="*:*", X_Container_Read="*:*")
    await store.post("parts", X_Container_Read="*:*")
    await make(store, *ABC)
    told = (
        await store("DELETE", "box/whole?multipart-manifest=delete", token="other", Accept="application/json")
    ).json()
    assert (told["Response Status"], told["Number Deleted"], len(told["Errors"])) == ("400 Bad Request", 0, 3)
    assert await store.get("box/whole") == A + B + C


async def test_deleted_later(store: Store) -> None:
    await parts(store)
    await make(store, *ABC)
    assert (await store("DELETE", "box/whole?multipart-manifest=delete&async=yes")).status == 204
    assert (await store("HEAD", "box/whole")).status == 404
    assert (await store("GET", "parts")).data == b"a\nb\nc\n"
    await expirer.Expirer(store.runtime).run()
    assert (await store("GET", "parts")).data == b""


async def test_what_cannot_be_deleted_later(store: Store) -> None:
    await parts(store)
    await make(store, *ABC, name="parts/abc")
    await make(store, {"path": "/parts/abc"})
    assert (await store("DELETE", "box/whole?multipart-manifest=delete&async=yes")).status == 400
    await store.put("box/x", b"x")
    await make(store, {"path": "/box/x"}, {"path": "/parts/a"})
    reply = await store("DELETE", "box/whole?multipart-manifest=delete&async=yes")
    assert reply.status == 400
    assert b'"box", "parts"' in reply.data
    await store.post("box", X_Container_Write="*:*", X_Container_Read="*:*")
    await store.post("parts", X_Container_Read="*:*")
    await make(store, {"path": "/parts/a"})
    for token, status in (("other", 403), ("nobody", 401)):
        reply = await store("DELETE", "box/whole?multipart-manifest=delete&async=yes", token=token)
        assert reply.status == status
    assert (await store("HEAD", "box/whole")).status == 200


@pytest.mark.parametrize(
    ("rows", "status"), [(({"path": "/parts/a"},), "201 Created"), (({"path": "/parts/none"},), "400 Bad Request")]
)
async def test_a_reply_that_is_begun_at_once(store: Store, rows: Sequence[Any], status: str) -> None:
    await parts(store)
    path = "box/whole?multipart-manifest=put&heartbeat=on"
    reply = await store("PUT", path, of(*rows), Accept="application/json")
    assert (reply.status, reply.data[:1]) == (202, b" ")
    assert json.loads(reply.data)["Response Status"] == status


async def test_a_reply_shows_life(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await parts(store)
    monkeypatch.setattr(reports, "HEARTBEAT", 0.0)
    reply = await store("PUT", "box/whole?multipart-manifest=put&heartbeat=on", of(*ABC), Accept="text/xml")
    assert reply.data.lstrip().startswith(b"<upload>")
    assert reply.data.startswith(b"  ")


async def test_who_may(store: Store) -> None:
    """Whoever reads needs to be allowed to read the segments, too; whoever writes as well."""
    await parts(store)
    await make(store, *ABC)
    expected = {"admin": 200, "manager": 200, "member": 200, "reader": 200, "other": 403, "nobody": 401}
    for token, status in expected.items():
        assert (await store("GET", "box/whole", token=token)).status == status, token
    await store.post("box", X_Container_Read=".r:*,project-other:*", X_Container_Write="project-other:*")
    assert (await store("GET", "box/whole", token="other")).status == 409
    assert (await store("HEAD", "box/whole", token="other")).status == 200
    reply = await store("PUT", "box/mine?multipart-manifest=put", of({"path": "/parts/a"}), token="other")
    assert (reply.status, b"403 Forbidden" in reply.data) == (400, True)
    await store.post("parts", X_Container_Read=".r:*,project-other:*")
    assert (await store("GET", "box/whole", token="other")).data == A + B + C
    assert (await store("GET", "box/whole", token="nobody")).data == A + B + C
    await store.put("box/mine?multipart-manifest=put", of({"path": "/parts/a"}), token="other")


async def test_large_data_streams(tmp_path: Path) -> None:
    """Segments of several pieces each, read by many at once."""
    data = [bytes([n]) * (3 << 20) for n in range(4)]
    async with object_store(tmp_path) as store:
        await store.put("box")
        for n, piece in enumerate(data):
            await store.put(f"box/{n}", io.BytesIO(piece))
        await make(store, *({"path": f"/box/{n}"} for n in range(4)))
        whole = b"".join(data)
        found = await asyncio.gather(*(store.get("box/whole") for _ in range(3)))
        assert all(one == whole for one in found)
        step = math.floor((3 << 20) * 0.9)
        for first in range(0, len(whole), step):
            reply = await store("GET", "box/whole", Range=f"bytes={first}-{first + step}")
            assert reply.data == whole[first : first + step + 1]


async def test_a_reader_that_hangs_up(store: Store) -> None:
    """Nothing goes on for somebody who has gone."""
    await store.put("box")
    for n in range(4):
        await store.put(f"box/{n}", io.BytesIO(bytes(16 << 20)))
    await make(store, *({"path": f"/box/{n}"} for n in range(4)))
    quiet = len(asyncio.all_tasks())
    async with aiohttp.ClientSession() as session:
        reply = await session.get(f"{store.url}/v1/{store.account}/box/whole", headers={"X-Auth-Token": "member"})
        assert await reply.content.readexactly(100) == bytes(100)
        reply.close()
    async with asyncio.timeout(60):
        while len(asyncio.all_tasks()) > quiet:
            await asyncio.sleep(0.01)
    assert await store.get("box/0") == bytes(16 << 20)


async def test_what_is_told_of_it(store: Store) -> None:
    told = (await store("GET", "/info")).json()["slo"]
    assert told == {
        "max_manifest_segments": 10_000,
        "max_manifest_size": 8 << 20,
        "yield_frequency": 10,
        "min_segment_size": 1,
        "allow_async_delete": True,
    }
