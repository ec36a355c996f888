"""Dynamic large objects: X-Object-Manifest."""

import hashlib
import io

import pytest

from cumulet.services.object_store.layers import dlo
from tests.services.object_store.stores import Store

PIECES = {"s/1": b"a" * 100, "s/2": b"b" * 50, "s/3": b"c"}
WHOLE = b"".join(PIECES.values())


async def make(store: Store, prefix: str = "parts/s/") -> None:
    await store.put("box")
    await store.put("parts")
    for name, data in PIECES.items():
        await store.put(f"parts/{name}", data)
    await store.put("parts/other", b"not of it")
    await store.put("box/whole", b"itself", X_Object_Manifest=prefix, Content_Type="text/x")


async def test_it_reads_as_all_objects_of_the_prefix(store: Store) -> None:
    await make(store)
    etag = hashlib.md5("".join(hashlib.md5(data).hexdigest() for data in PIECES.values()).encode()).hexdigest()
    for method in ("GET", "HEAD"):
        reply = await store(method, "box/whole")
        assert (reply.status, reply.headers["Content-Length"]) == (200, "151")
        assert (reply.headers["Etag"], reply.headers["Content-Type"]) == (f'"{etag}"', "text/x")
        assert reply.headers["X-Object-Manifest"] == "parts/s/"
        assert reply.data == (WHOLE if method == "GET" else b"")
        assert (await store(method, "box/whole", If_Match=etag)).status == 200
        assert (await store(method, "box/whole", If_Match="other")).status == 412
        assert (await store(method, "box/whole", If_None_Match=f'"{etag}"')).status == 304
    assert await store.get("box/whole?multipart-manifest=get") == b"itself"


async def test_later_segments_count(store: Store) -> None:
    await make(store)
    await store.put("parts/s/4", b"d")
    assert await store.get("box/whole") == WHOLE + b"d"
    for name in ("1", "2", "3", "4"):
        await store("DELETE", f"parts/s/{name}")
    reply = await store("GET", "box/whole")
    assert (reply.status, reply.data, reply.headers["Content-Length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("asked", "status", "found"),
    [
        ("bytes=98-101", 206, b"aabb"),
        ("bytes=-3", 206, b"bbc"),
        ("bytes=150-", 206, b"c"),
        ("bytes=0-0,2-2", 200, WHOLE),
        ("bytes=151-", 416, None),
        ("lines=1-2", 200, WHOLE),
    ],
)
async def test_ranges(store: Store, asked: str, status: int, found: bytes | None) -> None:
    await make(store)
    reply = await store("GET", "box/whole", Range=asked)
    assert reply.status == status
    if found is not None:
        assert reply.data == found
    else:
        assert reply.headers["Content-Range"] == "bytes */151"


async def test_listings_of_several_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits no page of a listing has no length and no ETag beforehand, but is read to its end."""
    await make(store)
    listed: list[str] = []
    ask = dlo.DynamicLargeObjects._page

    async def page(
        self: dlo.DynamicLargeObjects, request: object, container: str, prefix: str, marker: str = ""
    ) -> object:
        listed.append(marker)
        rows = await ask(self, request, container, prefix, marker)  # type: ignore[arg-type]
        assert isinstance(rows, list)
        return rows[:2]

    monkeypatch.setattr(dlo, "PAGE", 2)
    monkeypatch.setattr(dlo.DynamicLargeObjects, "_page", page)
    reply = await store("GET", "box/whole")
    assert (reply.status, reply.data) == (200, WHOLE)
    assert "Content-Length" not in reply.headers
    assert listed == ["", "s/2"]
    assert (await store("GET", "box/whole", Range="bytes=99-100")).data == b"ab"
    assert (await store("GET", "box/whole", Range="bytes=149-150")).data == WHOLE  # not to be told from the first page


async def test_a_post_can_make_and_unmake_it(store: Store) -> None:
    await make(store)
    await store.post("box/whole", X_Object_Manifest="parts/other")
    assert await store.get("box/whole") == b"not of it"
    await store.post("box/whole")
    assert await store.get("box/whole") == b"itself"


@pytest.mark.parametrize("value", ["parts", "/s", "parts/", "parts//s", "parts/s?x", "parts/s&x"])
async def test_what_is_no_manifest(store: Store, value: str) -> None:
    await store.put("box")
    assert (await store("PUT", "box/whole", b"", X_Object_Manifest=value)).status == 400


async def test_names_are_encoded(store: Store) -> None:
    await store.put("box")
    await store.put("box/%C3%BC%25/1", b"1")
    await store.put("box/whole", X_Object_Manifest="box/%C3%BC%25/")
    assert await store.get("box/whole") == b"1"


async def test_who_may(store: Store) -> None:
    await make(store)
    expected = {"admin": 200, "manager": 200, "member": 200, "reader": 200, "other": 403, "nobody": 401}
    for token, status in expected.items():
        assert (await store("GET", "box/whole", token=token)).status == status, token
    await store.post("box", X_Container_Read=".r:*")
    assert (await store("GET", "box/whole", token="nobody")).status == 401  # it may not list the segments
    await store.post("parts", X_Container_Read=".r:*")
    assert (await store("GET", "box/whole", token="nobody")).status == 401
    await store.post("parts", X_Container_Read=".r:*,.rlistings")
    assert (await store("GET", "box/whole", token="nobody")).data == WHOLE
    await store.post("parts", X_Container_Read=".r:.example.com,.rlistings")
    assert (await store("GET", "box/whole", token="nobody")).status == 401
    reply = await store("GET", "box/whole", token="nobody", Referer="http://www.example.com/")
    assert reply.data == WHOLE


async def test_the_container_of_the_segments_is_gone(store: Store) -> None:
    await make(store, "nowhere/s")
    assert (await store("GET", "box/whole")).status == 404
    assert (await store("HEAD", "box/whole")).status == 404


async def test_large_data_of_unknown_length(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files within a stream, where each piece is framed (Transfer-Encoding: chunked)."""
    await store.put("box")
    data = [bytes([n]) * (2 << 20) for n in range(3)]
    for n, piece in enumerate(data):
        await store.put(f"box/s/{n}", io.BytesIO(piece))
    await store.put("box/whole", X_Object_Manifest="box/s/")
    assert await store.get("box/whole") == b"".join(data)
    monkeypatch.setattr(dlo, "PAGE", 3)
    reply = await store("GET", "box/whole")
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert reply.data == b"".join(data)
