"""Versions of objects: X-Versions-Enabled, and the two older ways, X-Versions-Location and X-History-Location."""

from typing import Any

import msgspec
import pytest

from tests.services.object_store.stores import DEMO, Store

MARKER = "application/x-deleted;swift_versions_deleted=1"


async def make(store: Store, *data: bytes) -> list[str]:
    """A container with versions, and those of box/thing."""
    await store.put("box", X_Versions_Enabled="true")
    return [(await store("PUT", "box/thing", one)).headers["X-Object-Version-Id"] for one in data]


async def versions(store: Store, query: str = "") -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await store("GET", f"box?versions&format=json{query}")).json()
    return listed


async def test_all_that_was_uploaded_is_there(store: Store) -> None:
    first, second = await make(store, b"one", b"two!")
    for method in ("GET", "HEAD"):
        reply = await store(method, "box/thing")
        assert (reply.status, reply.headers["X-Object-Version-Id"]) == (200, second)
        assert reply.headers["Content-Location"] == f"/v1/{DEMO}/box/thing?version-id={second}"
        assert reply.headers["Content-Length"] == "4"
        old = await store(method, f"box/thing?version-id={first}")
        assert (old.headers["X-Object-Version-Id"], old.headers["Content-Length"]) == (first, "3")
    assert (await store("GET", f"box/thing?version-id={first}")).data == b"one"
    assert (await store("GET", "box/thing?version-id=null")).status == 404
    told = (await store("HEAD", "box")).headers
    assert (told["X-Versions-Enabled"], told["X-Container-Object-Count"]) == ("True", "1")
    assert told["X-Container-Bytes-Used"] == "7"
    (row,) = (await store("GET", "box?format=json")).json()
    assert (row["name"], row["bytes"], row["version_symlink"]) == ("thing", 4, True)
    assert row["symlink_path"] == f"/v1/{DEMO}/box/thing?version-id={second}"
    found = [(row["version_id"], row["is_latest"], row["bytes"]) for row in await versions(store)]
    assert found == [(second, True, 4), (first, False, 3)]


async def test_a_deleted_object_comes_back(store: Store) -> None:
    first, _ = await make(store, b"one", b"two")
    reply = await store("DELETE", "box/thing")
    mark = reply.headers["X-Object-Version-Id"]
    assert reply.status == 204
    assert (await store("GET", "box/thing")).status == 404
    reply = await store("GET", f"box/thing?version-id={mark}")
    assert (reply.status, reply.headers["Content-Type"], reply.headers["X-Object-Version-Id"]) == (404, MARKER, mark)
    assert [row["content_type"] == MARKER for row in await versions(store)] == [True, False, False]
    assert (await store("PUT", f"box/thing?version-id={first}")).status == 201
    assert await store.get("box/thing") == b"one"
    assert [row["is_latest"] for row in await versions(store)] == [False, False, True]


async def test_a_version_is_deleted_for_good(store: Store) -> None:
    first, second, third = await make(store, b"one", b"two", b"three")
    reply = await store("DELETE", f"box/thing?version-id={first}")
    assert (reply.status, reply.headers["X-Object-Current-Version-Id"]) == (204, third)
    reply = await store("DELETE", f"box/thing?version-id={third}")  # the current one: nothing stands in its place
    assert (reply.status, reply.headers["X-Object-Current-Version-Id"]) == (204, "null")
    assert (await store("GET", "box/thing")).status == 404
    assert [row["version_id"] for row in await versions(store)] == [second]


async def test_what_was_there_before_becomes_a_version(store: Store) -> None:
    await store.put("box")
    await store.put("box/thing", b"zero", Content_Type="text/x", X_Object_Meta_X="y")
    assert (await store("POST", "box", X_Versions_Enabled="true")).status == 204
    assert (await store("GET", "box/thing?version-id=null")).data == b"zero"
    assert [row["version_id"] for row in await versions(store)] == ["null"]
    await store.put("box/thing", b"one")
    latest, before = await versions(store)
    reply = await store("GET", f"box/thing?version-id={before['version_id']}")
    assert (reply.data, reply.headers["Content-Type"], reply.headers["X-Object-Meta-X"]) == (b"zero", "text/x", "y")
    assert latest["is_latest"]


async def test_suspended_and_taken_up_again(store: Store) -> None:
    (first,) = await make(store, b"one")
    await store.post("box", X_Versions_Enabled="false")
    assert (await store("HEAD", "box")).headers["X-Versions-Enabled"] == "False"
    await store.put("box/thing", b"unversioned")
    assert (await store("HEAD", "box/thing")).headers["X-Object-Version-Id"] == "null"
    assert {row["version_id"] for row in await versions(store)} == {"null", first}
    await store.post("box", X_Versions_Enabled="true")
    await store.put("box/thing", b"three")
    assert len(await versions(store)) == 3


async def test_metadata_are_those_of_the_current_version(store: Store) -> None:
    first, second = await make(store, b"one", b"two")
    assert (await store("POST", "box/thing", X_Object_Meta_X="y")).status == 202
    assert (await store("HEAD", f"box/thing?version-id={second}")).headers["X-Object-Meta-X"] == "y"
    assert "X-Object-Meta-X" not in (await store("HEAD", f"box/thing?version-id={first}")).headers
    assert (await store("POST", f"box/thing?version-id={first}", X_Object_Meta_X="z")).status == 400
    assert len(await versions(store)) == 2


async def test_a_container_goes_once_its_versions_are_gone(store: Store) -> None:
    (first,) = await make(store, b"one")
    mark = (await store("DELETE", "box/thing")).headers["X-Object-Version-Id"]
    assert (await store("DELETE", "box")).status == 409
    for version in (first, mark):
        assert (await store("DELETE", f"box/thing?version-id={version}")).status == 204
    assert (await store("DELETE", "box")).status == 204
    assert (await store("GET", "")).data == b""
    assert "X-Versions-Enabled" not in (await store("PUT", "box")).headers


async def test_pages_of_versions(store: Store) -> None:
    first, second = await make(store, b"one", b"two")
    await store.put("box/a/b", b"x")
    await store.put("box/zero", b"x")
    names = [row.get("name") or row["subdir"] for row in await versions(store, "&delimiter=/")]
    assert names == ["a/", "thing", "thing", "zero"]
    assert [row["name"] for row in await versions(store, "&prefix=th")] == ["thing", "thing"]
    assert [row["name"] for row in await versions(store, "&marker=thing")] == ["zero"]
    found = await versions(store, f"&marker=thing&version_marker={second}&limit=1")
    assert [row["version_id"] for row in found] == [first]
    assert (await versions(store, "&reverse=on"))[0]["name"] == "zero"
    for query in ("&version_marker=1", "&marker=thing&version_marker=x", "&delimiter=1"):
        assert (await store("GET", f"box?versions&format=json{query}")).status == 400
    assert (await store("GET", "box?versions&format=xml")).status == 406
    assert (await store("GET", "box?versions", Accept="text/plain")).status == 406


async def test_bytes_of_versions_count_in_the_account(store: Store) -> None:
    await make(store, b"one", b"two")
    (row,) = (await store("GET", "?format=json")).json()
    assert (row["name"], row["count"], row["bytes"]) == ("box", 1, 6)


async def test_large_objects_and_links_have_versions(store: Store) -> None:
    await make(store)
    await store.put("parts")
    await store.put("parts/a", b"a" * 10)
    rows = msgspec.json.encode([{"path": "/parts/a"}, {"path": "/parts/a"}])
    reply = await store("PUT", "box/thing?multipart-manifest=put", rows)
    await store.put("box/thing", X_Symlink_Target="parts/a")
    assert await store.get("box/thing") == b"a" * 10
    large = await store("GET", f"box/thing?version-id={reply.headers['X-Object-Version-Id']}")
    assert (large.data, large.headers["X-Static-Large-Object"]) == (b"a" * 20, "True")
    assert [row["bytes"] for row in await versions(store)] == [0, 20]
    await store("COPY", "parts/a", Destination="box/thing")
    assert len(await versions(store)) == 3


async def test_an_upload_that_must_be_the_first(store: Store) -> None:
    await make(store, b"one")
    assert (await store("PUT", "box/thing", b"two", If_None_Match="*")).status == 412
    assert (await store("PUT", "box/other", b"two", If_None_Match="*")).status == 201
    assert len(await versions(store)) == 2


@pytest.mark.parametrize(
    ("method", "path", "data", "status"),
    [
        ("GET", "box/thing?version-id=x", None, 400),
        ("PUT", "box/thing?version-id=null", b"", 400),
        ("PUT", "box/thing?version-id=1.00000", b"", 404),
        ("PUT", "box/thing?version-id=1.00000", b"x", 400),
        ("GET", "box/thing?version-id=1.00000", None, 404),
        ("GET", "plain/thing?version-id=1.00000", None, 400),
    ],
)
async def test_what_is_no_version(store: Store, method: str, path: str, data: bytes | None, status: int) -> None:
    await make(store, b"one")
    await store.put("plain")
    assert (await store(method, path, data)).status == status


async def test_who_may(store: Store) -> None:
    """A container's ACL is about current versions; older ones are for whoever owns the account."""
    first, _ = await make(store, b"one", b"two")
    await store.post("box", X_Container_Read="project-other:*", X_Container_Write="project-other:*")
    assert (await store("GET", "box/thing", token="other")).data == b"two"
    assert (await store("PUT", "box/thing", b"three", token="other")).status == 201
    for method in ("GET", "DELETE"):
        for token, status in {"other": 403, "nobody": 401}.items():
            reply = await store(method, f"box/thing?version-id={first}", token=token)
            assert reply.status == status, (method, token)
    current = (await store("HEAD", "box/thing")).headers["X-Object-Version-Id"]
    assert (await store("DELETE", f"box/thing?version-id={current}", token="other")).status == 403
    assert await store.get("box/thing") == b"three"
    assert (await store("DELETE", "box/thing", token="other")).status == 204
    assert (await store("PUT", "box/thing", b"x", token="nobody")).status == 401
    assert len(await versions(store)) == 4
    for name in ("%00versions%00box", "%00versions%00box/%00thing%00" + first):
        assert (await store("GET", name)).status in (404, 412)


async def old(store: Store, header: str, *data: bytes) -> None:
    await store.put("archive")
    await store.put("box", headers={header: "archive"})
    for one in data:
        await store.put("box/thing", one, X_Object_Meta_Of=one.decode())


async def archived(store: Store) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await store("GET", "archive?format=json")).json()
    return listed


async def test_the_older_way_brings_back_what_was_there(store: Store) -> None:
    await old(store, "X-Versions-Location", b"one", b"two", b"three")
    assert (await store("HEAD", "box")).headers["X-Versions-Location"] == "archive"
    rows = await archived(store)
    assert all(row["name"].startswith("005thing/") for row in rows)
    assert [await store.get(f"archive/{row['name']}") for row in rows] == [b"one", b"two"]
    for left in (b"two", b"one"):
        assert (await store("DELETE", "box/thing")).status == 204
        reply = await store("GET", "box/thing")
        assert (reply.data, reply.headers["X-Object-Meta-Of"]) == (left, left.decode())
    assert (await store("DELETE", "box/thing")).status == 204
    assert (await store("GET", "box/thing")).status == 404
    assert await archived(store) == []


async def test_the_older_way_with_a_history(store: Store) -> None:
    await old(store, "X-History-Location", b"one", b"two")
    assert (await store("HEAD", "box")).headers["X-History-Location"] == "archive"
    assert (await store("DELETE", "box/thing")).status == 204
    assert (await store("GET", "box/thing")).status == 404
    assert [row["content_type"] for row in await archived(store)][-1] == MARKER
    assert len(await archived(store)) == 3
    reply = await store("HEAD", f"archive/{(await archived(store))[-1]['name']}")
    assert reply.headers["Content-Type"] == MARKER
    await store.post("box", X_Versions_Location="archive")  # the other way: what was before the mark is brought back
    assert (await store("DELETE", "box/thing")).status == 204
    assert await store.get("box/thing") == b"two"


async def test_the_older_way_ends(store: Store) -> None:
    await old(store, "X-Versions-Location", b"one")
    await store.post("box", X_Remove_Versions_Location="x")
    assert "X-Versions-Location" not in (await store("HEAD", "box")).headers
    await store.put("box/thing", b"two")
    assert await archived(store) == []


async def test_only_one_way_at_a_time(store: Store) -> None:
    both = {"X-Versions-Location": "archive", "X-History-Location": "archive"}
    assert (await store("PUT", "box", headers=both)).status == 400
    assert (await store("PUT", "box", X_Versions_Location="a/b")).status == 412
    await old(store, "X-Versions-Location")
    assert (await store("POST", "box", X_Versions_Enabled="true")).status == 400


async def test_without_the_archive_nothing_is_overwritten(store: Store) -> None:
    await old(store, "X-Versions-Location", b"one")
    await store("DELETE", "archive")
    assert (await store("PUT", "box/thing", b"two")).status == 412
    assert await store.get("box/thing") == b"one"


async def test_what_is_told_of_them(store: Store) -> None:
    told = (await store("GET", "/info")).json()
    assert told["versioned_writes"] == {"allowed_flags": ["x-versions-location", "x-history-location"]}
    assert told["object_versioning"] == {}
    assert told["symlink"] == {"symloop_max": 2, "static_links": True}
