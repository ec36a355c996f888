"""The account server, asked as proxies and container servers ask it, on real files."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.object_store.databases import Node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with Node(tmp_path) as node:
        yield node


async def test_an_account_is_made_and_told_of(node: Node) -> None:
    assert (await node("HEAD", "a")).status == 404
    assert (await node("PUT", "a", X_Account_Meta_Color="blue")).status == 201
    assert (await node("PUT", "a")).status == 202
    assert (
        await node("POST", "a", X_Account_Meta_Size="big", X_Account_Sysmeta_Core_Access_Control="{}")
    ).status == 204
    told = await node("HEAD", "a")
    assert told.status == 204
    for name, value in {
        "X-Account-Meta-Color": "blue",
        "X-Account-Meta-Size": "big",
        "X-Account-Sysmeta-Core-Access-Control": "{}",
        "X-Account-Container-Count": "0",
        "X-Account-Object-Count": "0",
        "X-Account-Bytes-Used": "0",
    }.items():
        assert told.headers[name] == value
    assert await node.rows("a") == []
    assert (await node("POST", "b")).status == 404


async def test_a_deleted_account_says_so_and_is_not_made_again(node: Node) -> None:
    await node("PUT", "a", X_Account_Meta_Color="blue")
    await node("PUT", "a/c")
    assert (await node("DELETE", "a")).status == 204
    gone = await node("HEAD", "a")
    assert (gone.status, gone.headers["X-Account-Status"]) == (404, "Deleted")
    assert (await node("DELETE", "a")).status == 404
    again = await node("PUT", "a")
    assert (again.status, again.headers["X-Account-Status"]) == (403, "Deleted")
    assert (await node.report("a/c", **_counts())).status == 404
    assert (await node.report("a/c", X_Account_Override_Deleted="yes", **_counts())).status == 201


def _counts(objects: int = 0, size: int = 0, put: str = "1500000000.00000", delete: str = "0") -> dict[str, str]:
    return {
        "X_Put_Timestamp": put,
        "X_Delete_Timestamp": delete,
        "X_Object_Count": str(objects),
        "X_Bytes_Used": str(size),
    }


async def test_what_containers_report_is_counted(node: Node) -> None:
    await node("PUT", "a")
    assert (await node.report("a/c1", **_counts(3, 30))).status == 201
    assert (await node.report("a/c2", X_Backend_Storage_Policy_Index="1", **_counts(2, 5))).status == 201
    assert (await node.report("a/c3", X_Timestamp="1400000000.00000", **_counts(9, 9))).status == 201
    late, early = node.now(), "1400000000.00000"
    assert (await node.report("a/c1", X_Timestamp=late, **_counts(4, 40))).status == 201
    assert (await node.report("a/c1", X_Timestamp=early, **_counts(1, 10))).status == 201
    gone = _counts(0, 0, delete="1600000000.00000")
    assert (await node.report("a/c3", **gone)).status == 204
    told = (await node("HEAD", "a")).headers
    assert [told[f"X-Account-{what}"] for what in ("Container-Count", "Object-Count", "Bytes-Used")] == ["2", "6", "45"]
    prefix = "X-Account-Storage-Policy-silver-"
    assert [told[prefix + what] for what in ("Container-Count", "Object-Count", "Bytes-Used")] == ["1", "2", "5"]
    assert await node.rows("a") == [
        {
            "name": "c1",
            "count": 4,
            "bytes": 40,
            "last_modified": "2017-07-14T02:40:00.000000",
            "storage_policy": "gold",
        },
        {
            "name": "c2",
            "count": 2,
            "bytes": 5,
            "last_modified": "2017-07-14T02:40:00.000000",
            "storage_policy": "silver",
        },
    ]


async def test_a_bad_report_is_refused(node: Node) -> None:
    await node("PUT", "a")
    assert (await node.report("a/c")).status == 400
    assert (await node.report("a/c", **(_counts() | {"X_Object_Count": "three"}))).status == 400
