"""Quotas of containers and accounts."""

from pathlib import Path

import pytest

from tests.services.object_store.stores import DEMO, Store, object_store

FULL = (413, b"Upload exceeds quota.")


async def put(store: Store, path: str, data: bytes, **more: str) -> tuple[int, bytes]:
    reply = await store("PUT", path, data, **more)
    return reply.status, reply.data


async def test_bytes_of_a_container(store: Store) -> None:
    await store.put("c", X_Container_Meta_Quota_Bytes="10")
    assert (await put(store, "c/a", b"12345"))[0] == 201
    assert await put(store, "c/b", b"123456") == FULL
    assert (await put(store, "c/b", b"12345"))[0] == 201
    assert await put(store, "c/a", b"1") == FULL, "what it replaces does not count"
    await store("DELETE", "c/a")
    assert (await put(store, "c/b2", b"1"))[0] == 201
    await store.post("c", X_Remove_Container_Meta_Quota_Bytes="x")
    assert (await put(store, "c/b", b"x" * 100))[0] == 201


async def test_objects_in_a_container(store: Store) -> None:
    await store.put("c", X_Container_Meta_Quota_Count="2")
    for name in ("a", "b"):
        assert (await put(store, f"c/{name}", b""))[0] == 201
    assert await put(store, "c/c", b"") == FULL
    assert (await store("POST", "c/a", X_Object_Meta_A="b")).status == 202


async def test_who_may_not_write_learns_nothing_of_quotas(store: Store) -> None:
    await store.put("c", X_Container_Meta_Quota_Count="0")
    for token, status in (("nobody", 401), ("other", 403)):
        assert (await put(store, f"/v1/{DEMO}/c/o", b"", token=token))[0] == status


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "²"])
async def test_quotas_are_numbers(store: Store, value: str) -> None:
    await store.put("c")
    for name, what in (("Bytes", b"bytes"), ("Count", b"count")):
        reply = await store("POST", "c", headers={f"X-Container-Meta-Quota-{name}": value})
        assert (reply.status, reply.data) == (400, b"Invalid " + what + b" quota.")


@pytest.mark.parametrize(
    "header",
    ["X-Account-Quota-Bytes", "X-Account-Meta-Quota-Bytes", "X-Account-Quota-Count", "X-Remove-Account-Quota-Bytes",
     "X-Account-Quota-Bytes-Policy-Policy-0", "X-Account-Quota-Count-Policy-Policy-0"],
)  # fmt: skip
@pytest.mark.parametrize("token", ["admin", "member", "reader", "other", "nobody"])
async def test_who_sets_quotas_of_an_account(store: Store, token: str, header: str) -> None:
    await store.put("c")
    reply = await store("POST", "", token=token, headers={header: "5"})
    assert reply.status == (204 if token == "admin" else 403)


async def test_bytes_of_an_account(store: Store) -> None:
    await store.put("c")
    await store.post("", token="admin", X_Account_Quota_Bytes="10")
    assert (await store("HEAD", "")).headers["X-Account-Quota-Bytes"] == "10"
    assert (await put(store, "c/a", b"x" * 11)) == FULL
    assert (await put(store, "c/a", b"x" * 10))[0] == 201
    await store.runtime.host.catalogue.reports.deliver()  # type: ignore[union-attr]
    assert await put(store, "c/b", b"x") == FULL
    assert (await put(store, f"/v1/{DEMO}/c/b", b"x", token="admin"))[0] == 201, "a reseller may"
    assert (await put(store, f"/v1/{DEMO}/c/b", b"x", token="other"))[0] == 403
    await store.post("", token="admin", X_Remove_Account_Quota_Bytes="x")
    assert "X-Account-Quota-Bytes" not in (await store("HEAD", "")).headers
    assert (await put(store, "c/c", b"x" * 100))[0] == 201


async def test_objects_in_an_account(store: Store) -> None:
    await store.put("c")
    await store.post("", token="admin", X_Account_Quota_Count="1")
    assert (await put(store, "c/a", b""))[0] == 201
    await store.runtime.host.catalogue.reports.deliver()  # type: ignore[union-attr]
    assert await put(store, "c/b", b"") == FULL


async def test_the_older_name(store: Store) -> None:
    await store.put("c")
    await store.post("", token="admin", X_Account_Meta_Quota_Bytes="3")
    headers = (await store("HEAD", "")).headers
    assert headers["X-Account-Meta-Quota-Bytes"] == headers["X-Account-Quota-Bytes"] == "3"
    assert await put(store, "c/a", b"1234") == FULL
    reply = await store("POST", "", token="admin", X_Account_Quota_Bytes="many")
    assert reply.status == 400


async def test_quotas_of_a_policy(store: Store) -> None:
    await store.put("c")
    await store.post("", token="admin", headers={"X-Account-Quota-Bytes-Policy-Policy-0": "3"})
    assert (await store("HEAD", "")).headers["X-Account-Quota-Bytes-Policy-Policy-0"] == "3"
    assert await put(store, "c/a", b"1234") == (413, b"Upload exceeds policy quota.")
    assert (await put(store, "c/a", b"123"))[0] == 201


async def test_uploads_of_unknown_length_count_afterwards(tmp_path: Path) -> None:
    async with object_store(tmp_path) as store:
        await store.put("c", X_Container_Meta_Quota_Bytes="3")

        async def pieces() -> object:
            yield b"1234"

        assert (await store("PUT", "c/a", pieces())).status == 201
        assert await put(store, "c/b", b"") == FULL
