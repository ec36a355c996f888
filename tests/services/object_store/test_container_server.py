"""The container server, asked as proxies and object servers ask it, on real files."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.object_store.databases import Node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with Node(tmp_path) as node:
        assert (await node("PUT", "a")).status == 201
        yield node


async def test_a_container_is_made_once_and_told_of(node: Node) -> None:
    assert (await node("HEAD", "a/c")).status == 404
    assert (
        await node("PUT", "a/c", X_Container_Meta_Color="blue", X_Container_Read=".r:*", X_Secret="no")
    ).status == 201
    again = await node("PUT", "a/c")
    assert again.status == 202
    assert again.headers["X-Backend-Storage-Policy-Index"] == "0"
    told = await node("HEAD", "a/c")
    assert told.status == 204
    assert told.headers["X-Container-Meta-Color"] == "blue"
    assert told.headers["X-Container-Read"] == ".r:*"
    assert "X-Secret" not in told.headers
    assert (told.headers["X-Container-Object-Count"], told.headers["X-Container-Bytes-Used"]) == ("0", "0")
    assert told.headers["Last-Modified"].endswith("GMT")
    assert await node.names("a") == ["c"]


async def test_bad_calls_are_told_what_is_wrong(node: Node) -> None:
    assert (await node("PUT", "a/c", X_Timestamp="yesterday")).status == 400
    assert (await node("PUT", "a/c", X_Backend_Storage_Policy_Index="7")).status == 400
    assert (await node("BREW", "a/c")).status == 405
    assert (await node("POST", "a/none")).status == 404
    assert (await node("GET", "a/none")).status == 404
    assert (await node("DELETE", "a/none")).status == 404
    assert (await node.put_object("a/none/o")).status == 404
    await node("PUT", "a/c")
    assert (await node("GET", "a/c", "limit=10001")).status == 412
    assert (await node("PUT", "a/c/o", X_Size="many")).status == 400


async def test_only_later_metadata_counts(node: Node) -> None:
    early, late = node.now(), node.now()
    await node("PUT", "a/c")
    await node("POST", "a/c", X_Timestamp=late, X_Container_Meta_One="late")
    await node("POST", "a/c", X_Timestamp=early, X_Container_Meta_One="early", X_Container_Meta_Two="2")
    told = await node("HEAD", "a/c")
    assert (told.headers["X-Container-Meta-One"], told.headers["X-Container-Meta-Two"]) == ("late", "2")
    await node("POST", "a/c", X_Container_Meta_One="", X_Container_Sysmeta_Kept="yes")
    told = await node("HEAD", "a/c")
    assert "X-Container-Meta-One" not in told.headers
    assert told.headers["X-Container-Sysmeta-Kept"] == "yes"


async def test_too_much_metadata_changes_nothing(node: Node) -> None:
    await node("PUT", "a/c")
    many = {f"X_Container_Meta_N{n}": "v" for n in range(91)}
    refused = await node("POST", "a/c", "", None, **many)
    assert refused.status == 400
    assert (await node("POST", "a/c", X_Container_Meta_Long="v" * 4096)).status == 400
    assert not [name for name in (await node("HEAD", "a/c")).headers if name.startswith("X-Container-Meta")]


async def test_rows_are_counted_and_listed_when_they_are_acknowledged(node: Node) -> None:
    await node("PUT", "a/c")
    assert (await node.put_object("a/c/o1", 10)).status == 201
    assert (await node.put_object("a/c/o2", 5)).status == 201
    told = await node("HEAD", "a/c")
    assert (told.headers["X-Container-Object-Count"], told.headers["X-Container-Bytes-Used"]) == ("2", "15")
    assert (await node("DELETE", "a/c/o1")).status == 204
    assert (await node("DELETE", "a/c/never")).status == 204
    assert await node.names("a/c") == ["o2"]
    told = await node("HEAD", "a/c")
    assert (told.headers["X-Container-Object-Count"], told.headers["X-Container-Bytes-Used"]) == ("1", "5")
    account = await node("HEAD", "a")
    assert (account.headers["X-Account-Object-Count"], account.headers["X-Account-Bytes-Used"]) == ("1", "5")
    assert account.headers["X-Account-Storage-Policy-gold-Object-Count"] == "1"


async def test_a_row_has_what_clients_are_told(node: Node) -> None:
    await node("PUT", "a/c")
    at = "1402443167.05458"
    await node.put_object(
        "a/c/o",
        4,
        X_Timestamp=at,
        X_Content_Type='text/plain; swift_bytes=99;charset="utf-8"',
        X_Etag="abc; s3_etag=def; symlink_target=c/o2",
    )
    assert await node.rows("a/c") == [
        {
            "name": "o",
            "hash": "abc; s3_etag=def; symlink_target=c/o2",
            "bytes": 99,
            "content_type": 'text/plain;charset="utf-8"',
            "last_modified": "2014-06-10T23:32:47.054580",
        }
    ]
    assert (await node("HEAD", "a/c")).headers["X-Container-Bytes-Used"] == "4"


async def test_an_older_update_loses_and_a_new_content_type_wins(node: Node) -> None:
    await node("PUT", "a/c")
    first, second, third = node.now(), node.now(), node.now()
    await node.put_object("a/c/o", 7, X_Timestamp=second)
    await node.put_object("a/c/o", 3, X_Timestamp=first)
    await node("DELETE", "a/c/o", X_Timestamp=first)
    await node.put_object("a/c/o", 7, X_Timestamp=second, X_Content_Type="x/new", X_Content_Type_Timestamp=third)
    (row,) = await node.rows("a/c")
    assert (row["bytes"], row["content_type"]) == (7, "x/new")
    await node("DELETE", "a/c/o")
    assert await node.rows("a/c") == []


async def test_only_an_empty_container_is_deleted_and_an_old_put_does_not_bring_it_back(node: Node) -> None:
    await node("PUT", "a/c", X_Container_Meta_Color="blue")
    await node.put_object("a/c/o")
    assert (await node("DELETE", "a/c")).status == 409
    early = node.now()
    await node("DELETE", "a/c/o")
    assert (await node("DELETE", "a/c", X_Timestamp="1000000000.00000")).status == 409
    assert (await node("DELETE", "a/c")).status == 204
    gone = await node("HEAD", "a/c")
    assert gone.status == 404
    assert gone.headers["X-Backend-DELETE-Timestamp"] > gone.headers["X-Backend-PUT-Timestamp"]
    assert (await node("DELETE", "a/c")).status == 404
    assert await node.names("a") == []
    assert (await node("PUT", "a/c", X_Timestamp=early)).status == 409
    assert (await node("PUT", "a/c", X_Backend_Storage_Policy_Index="1")).status == 201
    told = await node("HEAD", "a/c")
    assert told.headers["X-Backend-Storage-Policy-Index"] == "1"
    assert "X-Container-Meta-Color" not in told.headers


async def test_the_policy_of_a_container_does_not_change(node: Node) -> None:
    await node("PUT", "a/c", X_Backend_Storage_Policy_Default="1")
    conflict = await node("PUT", "a/c", X_Backend_Storage_Policy_Index="0")
    assert conflict.status == 409
    assert conflict.headers["X-Backend-Storage-Policy-Index"] == "1"
    (row,) = await node.rows("a")
    assert row["storage_policy"] == "silver"


async def test_a_put_reports_to_the_devices_that_the_proxy_names(node: Node) -> None:
    where = {"X_Account_Host": "127.0.0.1:6001", "X_Account_Device": "d1", "X_Account_Partition": "3"}
    assert (await node("PUT", "nobody/c", "", None, **where)).status == 404
    assert (await node("PUT", "a/c", X_Account_Host="127.0.0.1:6001,x:1", X_Account_Device="d1")).status == 400


async def test_containers_of_the_program_make_themselves(node: Node) -> None:
    assert (await node.put_object(".expiring/1700000000/x")).status == 201
    assert await node.names(".expiring/1700000000") == ["x"]
    assert await node.names(".expiring") == ["1700000000"]


async def test_a_device_that_is_not_there_is_507(node: Node) -> None:
    (node.devices / "d1").rename(node.devices / "away")
    assert (await node("HEAD", "a/c")).status == 507
    assert (await node("PUT", "a/c")).status == 507


async def test_many_rows_at_once(node: Node) -> None:
    await node("PUT", "a/c")
    body = (
        b'[{"name":"x","created_at":"1400000000.00000","size":3,"content_type":"t/p","etag":"e","deleted":0},'
        b'{"name":"y","created_at":"1400000000.00000","size":3,"content_type":"t/p","etag":"e","deleted":1}]'
    )
    assert (await node("UPDATE", "a/c", "", body)).status == 202
    assert (await node("UPDATE", "a/c", "", b'[{"name":"x"}]')).status == 400
    assert await node.names("a/c") == ["x"]
