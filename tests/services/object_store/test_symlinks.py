"""Symlinks: dynamic and static ones, chains and loops, what listings tell."""

import hashlib

import msgspec
import pytest

from tests.services.object_store.stores import DEMO, OTHER, Store

EMPTY = hashlib.md5(b"").hexdigest()
ETAG = hashlib.md5(b"hello").hexdigest()


async def make(store: Store) -> None:
    await store.put("box")
    await store.put("far")
    await store.put("far/thing", b"hello", Content_Type="text/x", X_Object_Meta_X="y")
    await store.put("box/link", X_Symlink_Target="far/thing")


async def test_a_link_reads_as_its_target(store: Store) -> None:
    await make(store)
    for method in ("GET", "HEAD"):
        reply = await store(method, "box/link")
        assert (reply.status, reply.data) == (200, b"hello" if method == "GET" else b"")
        assert reply.headers["Content-Location"] == f"/v1/{DEMO}/far/thing"
        assert (reply.headers["Etag"], reply.headers["X-Object-Meta-X"]) == (ETAG, "y")
        assert "X-Symlink-Target" not in reply.headers
        reply = await store(method, "box/link?symlink=get")
        assert (reply.status, reply.data, reply.headers["Etag"]) == (200, b"", EMPTY)
        assert reply.headers["X-Symlink-Target"] == "far/thing"
        assert reply.headers["Content-Type"] == "application/symlink"
    reply = await store("GET", "box/link", Range="bytes=1-2")
    assert (reply.status, reply.data) == (206, b"el")
    assert (await store("GET", "box/link", If_Match=ETAG)).status == 200
    assert (await store("GET", "box/link", If_None_Match=ETAG)).status == 304
    assert (await store("GET", "box/link", If_Match=EMPTY)).status == 412


async def test_a_link_may_come_first_and_stay(store: Store) -> None:
    await make(store)
    await store.put("box/early", X_Symlink_Target="far/later")
    assert (await store("GET", "box/early")).status == 404
    await store.put("far/later", b"now")
    assert await store.get("box/early") == b"now"
    assert (await store("DELETE", "box/early")).status == 204
    assert await store.get("far/later") == b"now"


async def test_a_post_is_of_the_link(store: Store) -> None:
    await make(store)
    reply = await store("POST", "box/link", X_Object_Meta_X="z")
    assert (reply.status, reply.headers["Location"]) == (307, f"/v1/{DEMO}/far/thing")
    assert (await store("HEAD", "box/link")).headers["X-Object-Meta-X"] == "y"
    assert (await store("HEAD", "box/link?symlink=get")).headers["X-Object-Meta-X"] == "z"
    assert (await store("POST", "box/link", X_Symlink_Target="far/thing")).status == 400


async def test_chains_and_loops(store: Store) -> None:
    await make(store)
    await store.put("box/2", X_Symlink_Target="box/link")
    await store.put("box/3", X_Symlink_Target="box/2")
    assert await store.get("box/2") == b"hello"
    reply = await store("GET", "box/3")
    assert (reply.status, b"maximum allowed is 2" in reply.data) == (409, True)
    await store.put("box/a", X_Symlink_Target="box/b")
    await store.put("box/b", X_Symlink_Target="box/a")
    for method in ("GET", "HEAD"):
        assert (await store(method, "box/a")).status == 409


async def test_a_static_link_holds_for_one_state(store: Store) -> None:
    await make(store)
    await store.put("box/static", X_Symlink_Target="far/thing", X_Symlink_Target_Etag=ETAG)
    assert await store.get("box/static") == b"hello"
    shown = (await store("HEAD", "box/static?symlink=get")).headers
    assert (shown["X-Symlink-Target-Etag"], shown["X-Symlink-Target-Bytes"]) == (ETAG, "5")
    assert shown["Content-Type"] == "text/x"
    await store.put("far/thing", b"other")
    for method in ("GET", "HEAD"):
        reply = await store(method, "box/static")
        assert (reply.status, reply.headers["Content-Location"]) == (409, f"/v1/{DEMO}/far/thing")
    assert (await store("PUT", "box/x", X_Symlink_Target="far/thing", X_Symlink_Target_Etag=ETAG)).status == 409
    assert (await store("PUT", "box/x", X_Symlink_Target="far/none", X_Symlink_Target_Etag=ETAG)).status == 409


async def test_a_static_link_to_a_large_object(store: Store) -> None:
    await make(store)
    await store.put("far/whole?multipart-manifest=put", msgspec.json.encode([{"path": "/far/thing"}]))
    told = (await store("HEAD", "far/whole")).headers
    await store.put("box/static", X_Symlink_Target="far/whole", X_Symlink_Target_Etag=told["X-Manifest-Etag"])
    assert await store.get("box/static") == b"hello"
    row = next(row for row in (await store("GET", "box?format=json")).json() if row["name"] == "static")
    assert (row["symlink_bytes"], row["slo_etag"]) == (5, told["Etag"])


async def test_listings_tell_of_links(store: Store) -> None:
    await make(store)
    await store.put("box/static", X_Symlink_Target="far/thing", X_Symlink_Target_Etag=ETAG)
    link, static = (await store("GET", "box?format=json")).json()
    assert link["symlink_path"] == static["symlink_path"] == f"/v1/{DEMO}/far/thing"
    assert (link["hash"], link["bytes"]) == (static["hash"], static["bytes"]) == (EMPTY, 0)
    assert (static["symlink_etag"], static["symlink_bytes"]) == (ETAG, 5)
    assert "symlink_etag" not in link
    assert b"symlink_path" not in (await store("GET", "box?format=xml")).data


async def test_copies_are_of_the_target_or_of_the_link(store: Store) -> None:
    await make(store)
    await store("COPY", "box/link", Destination="box/real")
    assert (await store("GET", "box/real?symlink=get")).data == b"hello"
    reply = await store("COPY", "box/link?symlink=get", Destination="box/again")
    assert reply.status == 201
    assert (await store("HEAD", "box/again?symlink=get")).headers["X-Symlink-Target"] == "far/thing"
    assert await store.get("box/again") == b"hello"
    rows = {row["name"]: row for row in (await store("GET", "box?format=json")).json()}
    assert rows["again"]["symlink_path"] == f"/v1/{DEMO}/far/thing"


@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        ({"X-Symlink-Target": "far/thing"}, b"x", 400),
        ({"X-Symlink-Target": "/far/thing"}, b"", 412),
        ({"X-Symlink-Target": "far"}, b"", 412),
        ({"X-Symlink-Target": "far/"}, b"", 412),
        ({"X-Symlink-Target": "box/x"}, b"", 400),
        ({"X-Symlink-Target": "far/thing", "X-Symlink-Target-Account": "a/b"}, b"", 412),
        ({"X-Symlink-Target": "far/thing", "X-Symlink-Target-Etag": 'a";b'}, b"", 400),
    ],
)
async def test_what_is_no_link(store: Store, headers: dict[str, str], data: bytes, status: int) -> None:
    await make(store)
    assert (await store("PUT", "box/x", data, headers=headers)).status == status
    assert (await store("HEAD", "box/x")).status == 404


async def test_across_accounts_who_may_read_the_target(store: Store) -> None:
    await make(store)
    url = f"/v1/{OTHER}/near"
    assert (await store("PUT", url, token="other")).status == 201
    headers = {"X-Symlink-Target": "far/thing", "X-Symlink-Target-Account": DEMO}
    assert (await store("PUT", f"{url}/link", token="other", headers=headers)).status == 201
    for token, status in {"admin": 200, "other": 403, "member": 403, "nobody": 401}.items():
        assert (await store("GET", f"{url}/link", token=token)).status == status, token
    await store.post("far", X_Container_Read="project-other:*")
    reply = await store("GET", f"{url}/link", token="other")
    assert (reply.data, reply.headers["Content-Location"]) == (b"hello", f"/v1/{DEMO}/far/thing")
    assert (await store("GET", f"{url}?format=json", token="other")).json()[0][
        "symlink_path"
    ] == f"/v1/{DEMO}/far/thing"
    for token, status in {"reader": 403, "other": 403, "nobody": 401}.items():
        assert (await store("PUT", "box/x", token=token, headers=headers)).status == status, token


async def test_names_are_encoded(store: Store) -> None:
    await make(store)
    await store.put("far/%C3%BC%2F%25", b"umlaut")
    await store.put("box/x", X_Symlink_Target="far/%C3%BC%2F%25")
    reply = await store("GET", "box/x")
    assert (reply.data, reply.headers["Content-Location"]) == (b"umlaut", f"/v1/{DEMO}/far/%C3%BC/%25")
