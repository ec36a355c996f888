"""The small layers: health, policies of other sites, names, hosts, ETags, read only, who stores what."""

from pathlib import Path

import pytest

from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.names import Timestamp, partition
from cumulet.services.object_store.node import BackendRequest
from tests.services.object_store.stores import DEMO, TOKENS, Store, object_store


@pytest.mark.parametrize("token", TOKENS)
async def test_healthcheck(store: Store, token: str) -> None:
    reply = await store("GET", "/healthcheck", token=token)
    assert (reply.status, reply.data, reply.headers["Content-Type"]) == (200, b"OK", "text/plain")


async def test_a_node_that_is_taken_out_of_service(tmp_path: Path) -> None:
    flag = tmp_path / "out"
    async with object_store(tmp_path, object_healthcheck_disable=flag) as store:
        assert (await store("GET", "/healthcheck")).status == 200
        flag.touch()
        reply = await store("GET", "/healthcheck")
        assert (reply.status, reply.data) == (503, b"DISABLED BY FILE")


async def test_crossdomain(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_crossdomain='<allow-access-from domain="*.example.com" />') as store:
        reply = await store("GET", "/crossdomain.xml", token="nobody")
        assert reply.headers["Content-Type"] == "application/xml"
        assert reply.data.startswith(b'<?xml version="1.0"?>\n<!DOCTYPE cross-domain-policy')
        assert b'<allow-access-from domain="*.example.com" />' in reply.data
        assert (await store("PUT", "/crossdomain.xml", token="nobody")).status != 200


async def test_names_that_are_not_wanted(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_name_check=True) as store:
        await store.put("c")
        await store.put("c/fine.txt")
        for name in ("a'b", 'a"b', "a`b", "a%3Cb", "a/./b", "a/../b", "a/..", "a" * 256):
            reply = await store("PUT", f"c/{name}")
            assert (reply.status, reply.data[:37]) == (400, b"Object/Container/Account name contain") or len(
                name
            ) == 256
        told = (await store("GET", "/info")).json()["name_check"]
        assert told["maximum_length"] == 255


async def test_names_are_not_checked_by_default(store: Store) -> None:
    await store.put("c")
    await store.put("c/a'b/../c")
    assert "name_check" not in (await store("GET", "/info")).json()


async def test_etags_in_quotation_marks(store: Store) -> None:
    await store.put("c")
    await store.put("c/o", b"x")
    plain = "9dd4e461268c8034f5c8564e155c67a6"
    assert (await store("GET", "c/o")).headers["Etag"] == plain
    await store.post("c", X_Container_Rfc_Compliant_Etags="yes")
    assert (await store("HEAD", "c")).headers["X-Container-Rfc-Compliant-Etags"] == "True"
    for reply in (await store("GET", "c/o"), await store("HEAD", "c/o"), await store("PUT", "c/o", b"x")):
        assert reply.headers["Etag"] == f'"{plain}"'
    await store.post("", X_Account_Rfc_Compliant_Etags="true")
    await store.post("c", X_Container_Rfc_Compliant_Etags="false")
    assert (await store("GET", "c/o")).headers["Etag"] == plain, "the container's word counts more than the account's"
    await store.post("c", X_Remove_Container_Rfc_Compliant_Etags="x")
    assert (await store("GET", "c/o")).headers["Etag"] == f'"{plain}"'
    assert (await store("HEAD", "")).headers["X-Account-Rfc-Compliant-Etags"] == "True"


async def test_etags_in_quotation_marks_by_default(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_etag_quoted=True) as store:
        await store.put("c")
        await store.put("c/o", b"x")
        assert (await store("GET", "c/o")).headers["Etag"].startswith('"')
        assert (await store("GET", "c/o", If_None_Match='"9dd4e461268c8034f5c8564e155c67a6"')).status == 304


@pytest.mark.parametrize("deletes", [True, False])
async def test_read_only(tmp_path: Path, deletes: bool) -> None:
    async with object_store(tmp_path) as store:
        await store.put("c")
        await store.put("c/o", b"x")
    async with object_store(tmp_path, object_read_only=True, object_read_only_deletes=deletes) as store:
        assert await store.get("c/o") == b"x"
        for method, path in (("PUT", "d"), ("PUT", "c/p"), ("POST", "c/o"), ("POST", ""), ("COPY", "c/o")):
            reply = await store(method, path, Destination="c/q")
            assert (reply.status, reply.data) == (405, b"Writes are disabled for this account."), (method, path)
        assert (await store("PUT", "/bucket")).status == (await store("PUT", "/bucket/key")).status == 405
        assert (await store("DELETE", "c/o")).status == (204 if deletes else 405)
        assert "read_only" in (await store("GET", "/info")).json()


@pytest.mark.parametrize("cluster", [True, False])
async def test_an_account_has_its_own_word_on_that(tmp_path: Path, cluster: bool) -> None:
    async with object_store(tmp_path) as store:
        await store.put("c")
    async with object_store(tmp_path, object_read_only=cluster) as store:
        service = store.runtime
        number = partition(service.salt.digest(DEMO), service.rings.account.power)
        for device in service.rings.account.devices(number):
            headers = Headers({"X-Timestamp": Timestamp.now().normal, "X-Account-Sysmeta-Read-Only": str(not cluster)})
            told = BackendRequest("account", "POST", device.name, number, DEMO, headers=headers)
            assert (await service.nodes.call(device, told)).ok
        assert (await store("PUT", "c/o", b"x")).status == (201 if cluster else 405)
        assert (await store("HEAD", "")).headers.get("X-Account-Sysmeta-Read-Only") is None


async def test_recon_and_endpoints_are_off_by_default(store: Store) -> None:
    for path in ("/recon/load", "/endpoints/a/c/o"):
        assert (await store("GET", path)).status not in (200, 500)


async def test_endpoints(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_list_endpoints=True) as store:
        await store.put("c")
        for prefix in ("", "v1/"):
            (url,) = (await store("GET", f"/endpoints/{prefix}{DEMO}/c/o%20b", token="nobody")).json()
            assert url.startswith("http://127.0.0.1:")
            assert url.endswith(f"/{DEMO}/c/o%20b")
        told = (await store("GET", f"/endpoints/v2/{DEMO}/c/o", token="nobody")).json()
        assert told["headers"] == {"X-Backend-Storage-Policy-Index": "0"}
        assert len(told["endpoints"]) == 1
        assert (await store("GET", f"/endpoints/v2/{DEMO}", token="nobody")).json()["headers"] == {}
        assert (await store("GET", f"/endpoints/v3/{DEMO}")).status == 400
        assert (await store("GET", "/endpoints/")).status == 400
        assert (await store("PUT", f"/endpoints/{DEMO}")).status == 405


@pytest.mark.parametrize(
    "check",
    ["load", "mem", "mounted", "unmounted", "devices", "diskusage", "ringmd5", "swiftconfmd5", "quarantined", "sockstat",
     "version", "time", "async", "replication/object", "replication/container", "auditor/account", "updater/object",
     "expirer/object"],
)  # fmt: skip
async def test_recon(tmp_path: Path, check: str) -> None:
    async with object_store(tmp_path, object_recon=True) as store:
        reply = await store("GET", f"/recon/{check}", token="nobody")
        assert reply.status == 200
        assert reply.json() or check in ("mounted", "unmounted")
        assert (await store("GET", f"/recon/{check}/nothing", token="nobody")).status == 404


async def test_recon_counts_what_is_quarantined(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_recon=True) as store:
        place = Path(store.runtime.host.devices.root) / "d1" / "quarantined" / "objects" / "abc"
        place.mkdir(parents=True)
        told = (await store("GET", "/recon/quarantined")).json()
        assert told == {"accounts": 0, "containers": 0, "objects": 1, "policies": {"0": {"objects": 1}}}
