"""Copies inside the cloud."""

import hashlib

import msgspec
import pytest

from tests.services.object_store.stores import DEMO, OTHER, Store


async def make(store: Store) -> None:
    await store.put("box")
    await store.put("far")
    await store.put("box/thing", b"hello", Content_Type="text/x", X_Object_Meta_X="y", Content_Disposition="inline")


async def copy(store: Store, how: str, **headers: str) -> None:
    """Copy box/thing to far/copy, one way or the other."""
    if how == "COPY":
        reply = await store("COPY", "box/thing", Destination="far/copy", **headers)
    else:
        reply = await store("PUT", "far/copy", X_Copy_From="/box/thing", **headers)
    assert reply.status == 201, reply.data
    assert reply.headers["X-Copied-From"] == "box/thing"
    assert reply.headers["X-Copied-From-Account"] == DEMO
    assert "X-Copied-From-Last-Modified" in reply.headers
    assert reply.headers["Etag"] == hashlib.md5(b"hello").hexdigest()


@pytest.mark.parametrize("how", ["COPY", "PUT"])
async def test_a_copy_and_what_goes_along(store: Store, how: str) -> None:
    await make(store)
    await copy(store, how, X_Object_Meta_Z="new")
    reply = await store("GET", "far/copy")
    assert (reply.data, reply.headers["Content-Type"]) == (b"hello", "text/x")
    assert (reply.headers["X-Object-Meta-X"], reply.headers["X-Object-Meta-Z"]) == ("y", "new")
    assert reply.headers["Content-Disposition"] == "inline"
    assert await store.get("box/thing") == b"hello"


@pytest.mark.parametrize("how", ["COPY", "PUT"])
async def test_fresh_metadata(store: Store, how: str) -> None:
    await make(store)
    await copy(store, how, X_Fresh_Metadata="true", X_Object_Meta_Z="new", Content_Type="text/z")
    reply = await store("GET", "far/copy")
    assert (reply.data, reply.headers["Content-Type"], reply.headers["X-Object-Meta-Z"]) == (b"hello", "text/z", "new")
    assert "X-Object-Meta-X" not in reply.headers


async def test_onto_itself(store: Store) -> None:
    await make(store)
    reply = await store("COPY", "box/thing", Destination="box/thing", X_Object_Meta_X="z", Content_Type="text/z")
    assert reply.status == 201
    reply = await store("GET", "box/thing")
    assert (reply.data, reply.headers["X-Object-Meta-X"], reply.headers["Content-Type"]) == (b"hello", "z", "text/z")


async def test_of_a_part(store: Store) -> None:
    await make(store)
    assert (await store("PUT", "far/copy", X_Copy_From="box/thing", Range="bytes=1-3")).status == 201
    reply = await store("GET", "far/copy")
    assert (reply.status, reply.data) == (200, b"ell")
    assert reply.headers["Etag"] == hashlib.md5(b"ell").hexdigest()


async def test_of_large_objects(store: Store) -> None:
    await make(store)
    await store.put(
        "box/slo?multipart-manifest=put", msgspec.json.encode([{"path": "/box/thing"}, {"path": "/box/thing"}])
    )
    await store.put("box/dlo", X_Object_Manifest="box/thi")
    for name, whole in (("slo", b"hellohello"), ("dlo", b"hello")):
        assert (await store("COPY", f"box/{name}", Destination=f"far/{name}")).status == 201
        assert (await store("COPY", f"box/{name}?multipart-manifest=get", Destination=f"far/{name}-too")).status == 201
        told = (await store("HEAD", f"far/{name}")).headers
        assert "X-Static-Large-Object" not in told
        assert "X-Object-Manifest" not in told
        assert told["Etag"] == hashlib.md5(whole).hexdigest()
        assert (await store("GET", f"far/{name}", If_Match=told["Etag"])).data == whole
        assert await store.get(f"far/{name}-too") == whole
    assert (await store("HEAD", "far/slo-too")).headers["X-Static-Large-Object"] == "True"
    assert (await store("HEAD", "far/dlo-too")).headers["X-Object-Manifest"] == "box/thi"
    rows = {row["name"]: row for row in (await store("GET", "far?format=json")).json()}
    assert "slo_etag" not in rows["slo"]
    assert rows["slo-too"]["bytes"] == 10


async def test_of_a_broken_large_object(store: Store) -> None:
    await make(store)
    await store.put("box/second", b"2" * 100_000)
    rows = [{"path": "/box/thing"}, {"path": "/box/second"}]
    await store.put("box/slo?multipart-manifest=put", msgspec.json.encode(rows))
    await store("DELETE", "box/second")
    assert (await store("COPY", "box/slo", Destination="far/copy")).status == 409
    assert (await store("HEAD", "far/copy")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "headers", "data", "status"),
    [
        ("COPY", "box/thing", {}, None, 412),
        ("COPY", "box/thing", {"Destination": "far"}, None, 412),
        ("COPY", "box/thing", {"Destination": "far/copy", "Destination-Account": "a/b"}, None, 412),
        ("COPY", "box/none", {"Destination": "far/copy"}, None, 404),
        ("COPY", "box/thing", {"Destination": "none/copy"}, None, 404),
        ("COPY", "box/thing", {"Destination": "far/copy", "If-Match": "0"}, None, 412),
        ("PUT", "far/copy", {"X-Copy-From": "box"}, b"", 412),
        ("PUT", "far/copy", {"X-Copy-From": "box/none"}, b"", 404),
        ("PUT", "far/copy", {"X-Copy-From": "box/thing"}, b"data", 400),
        ("PUT", "far/copy?multipart-manifest=put", {"X-Copy-From": "box/thing"}, b"", 400),
    ],
)
async def test_what_cannot_be_copied(
    store: Store, method: str, path: str, headers: dict[str, str], data: bytes | None, status: int
) -> None:
    await make(store)
    reply = await store(method, path, data, headers=headers)
    assert reply.status == status
    assert (await store("HEAD", "far/copy")).status == 404


async def test_across_accounts(store: Store) -> None:
    await make(store)
    url = f"/v1/{OTHER}/near"
    assert (await store("PUT", url, token="other")).status == 201
    into = {"Destination": "near/copy", "Destination-Account": OTHER}
    for token, status in {"member": 403, "other": 403, "nobody": 401}.items():
        assert (await store("COPY", "box/thing", token=token, headers=into)).status == status, token
    await store.post("box", X_Container_Read="project-other:*")
    assert (await store("COPY", "box/thing", token="other", headers=into)).status == 201
    assert (await store("GET", f"{url}/copy", token="other")).data == b"hello"
    out_of = {"X-Copy-From": "box/thing", "X-Copy-From-Account": DEMO}
    assert (await store("PUT", f"{url}/again", token="other", headers=out_of)).status == 201
    assert (await store("PUT", f"{url}/again", token="member", headers=out_of)).status == 403
    for token, status in {"admin": 201, "manager": 201, "reader": 403}.items():
        reply = await store("COPY", "box/thing", token=token, Destination="far/copy")
        assert reply.status == status, token


async def test_a_reply_that_is_begun_at_once(store: Store) -> None:
    await make(store)
    path = "far/copy?heartbeat=on"
    reply = await store("PUT", path, X_Copy_From="box/thing", Accept="application/json")
    assert reply.status == 202
    told = msgspec.json.decode(reply.data)
    assert (told["Response Status"], told["X-Copied-From"], told["Errors"]) == ("201 Created", "box/thing", [])
    reply = await store("PUT", "none/copy?heartbeat=on", X_Copy_From="box/thing", Accept="application/json")
    assert msgspec.json.decode(reply.data)["Errors"] == [["box/thing", "404 Not Found"]]


async def test_options_say_that_it_can_be_copied(store: Store) -> None:
    await make(store)
    assert "COPY" in (await store("OPTIONS", "box/thing")).headers["Allow"]
    assert "COPY" not in (await store("OPTIONS", "box")).headers["Allow"]
