"""The catalogue's resources, version documents, and what every start makes sure of."""

from pathlib import Path
from typing import Any

import bcrypt
import msgspec
import pytest
from sqlalchemy import select

from cumulet.services.identity.password import Passwords
from cumulet.services.identity.runtime import IdentityRuntime
from cumulet.services.identity.user import User
from tests.harness import kernel
from tests.services.identity.conftest import CHEAP, Identity, identity_in, wanted


async def test_version_documents_are_for_anybody(identity: Identity) -> None:
    versions = await identity.http("GET", "/", token="nobody")
    assert versions.status == 300
    (version,) = versions.json()["versions"]["values"]
    assert version["id"] == "v3.14" and version["status"] == "stable"
    assert version["links"] == [{"rel": "self", "href": f"{identity.http.url}/v3/"}]
    assert version["media-types"][0]["type"] == "application/vnd.openstack.identity-v3+json"
    for path in ("/v3", "/v3/"):
        one = await identity.http("GET", path, token="nobody")
        assert one.status == 200 and one.json() == {"version": version}


async def test_what_is_not_there_is_404_without_a_token(identity: Identity) -> None:
    assert (await identity.http("GET", "/v2.0/tokens", token="nobody")).status == 404
    assert (await identity.http("POST", "/v3", {}, token="nobody")).status == 405


async def test_services_and_endpoints_appear_in_tokens(identity: Identity) -> None:
    service = await identity.made("services", type="sample", name="sample", description="a sample", colour="red")
    assert service["enabled"] is True and service["colour"] == "red"
    body = {
        "service_id": service["id"],
        "interface": "public",
        "url": "http://sample.test/$(tenant_id)s",
        "region": "R2",
    }
    endpoint = await identity.made("endpoints", **body)
    assert (endpoint["region"], endpoint["region_id"]) == ("R2", "R2")
    assert (await identity.call("GET", "/v3/regions/R2")).status == 200

    async def seen() -> list[str]:
        catalog = (await identity.login("demo", scope="demo")).json()["token"]["catalog"]
        return [e["url"] for entry in catalog if entry["type"] == "sample" for e in entry["endpoints"]]

    assert await seen() == [f"http://sample.test/{identity.accounts.demo_project_id}"]
    path = f"/v3/endpoints/{endpoint['id']}"
    changed = await identity.call("PATCH", path, {"endpoint": {"url": "http://new.test"}})
    assert changed.status == 200 and changed.json()["endpoint"]["region"] == "R2"
    assert await seen() == ["http://new.test"]
    listed = await identity.call("GET", f"/v3/endpoints?service_id={service['id']}&interface=public&region=R2")
    assert [e["id"] for e in listed.json()["endpoints"]] == [endpoint["id"]]
    await identity.call("PATCH", f"/v3/services/{service['id']}", {"service": {"enabled": False}})
    assert await seen() == []
    assert (await identity.call("DELETE", f"/v3/services/{service['id']}")).status == 204
    assert (await identity.call("GET", path)).status == 404


async def test_endpoints_that_make_no_sense(identity: Identity) -> None:
    service = await identity.made("services", type="sample")
    good = {"service_id": service["id"], "interface": "public", "url": "http://x.test"}
    for wrong, status in (
        ({"interface": "secret"}, 400), ({"url": ""}, 400), ({"service_id": "none"}, 400),
        ({"region_id": "none"}, 400), ({"url": "http://x/$(password)s"}, 400),
        ({"url": "no url"}, 400), ({"url": "http://x/$(project_id)"}, 400), ({"url": "http://" + "x" * 220}, 400),
        ({"enabled": None}, 400), ({"interface": None}, 400),
    ):  # fmt: skip
        reply = await identity.call("POST", "/v3/endpoints", {"endpoint": {**good, **wrong}})
        assert reply.status == status, reply.data


async def test_regions_have_chosen_ids_and_a_tree(identity: Identity) -> None:
    north = await identity.made("regions", id="north")
    assert north["id"] == "north" and north["parent_region_id"] is None
    assert (await identity.call("PUT", "/v3/regions/town", {"region": {"parent_region_id": "north"}})).status == 201
    assert (await identity.call("PUT", "/v3/regions/town", {"region": {}})).status == 409
    assert (await identity.call("PUT", "/v3/regions/a", {"region": {"id": "b"}})).status == 400
    assert (await identity.call("PATCH", "/v3/regions/north", {"region": {"parent_region_id": "town"}})).status == 400
    listed = (await identity.call("GET", "/v3/regions?parent_region_id=north")).json()["regions"]
    assert [r["id"] for r in listed] == ["town"]
    assert (await identity.call("DELETE", "/v3/regions/RegionOne")).status == 403
    assert (await identity.call("DELETE", "/v3/regions/north")).status == 204
    assert (await identity.call("GET", "/v3/regions/town")).status == 404  # which was below it
    assert len((await identity.made("regions"))["id"]) == 32


async def test_services_that_make_no_sense(identity: Identity) -> None:
    service = await identity.made("services", type="sample", name="sample", colour="red")
    for wrong in (
        {"type": ""},
        {"type": 1},
        {"name": None},
        {"name": ""},
        {"name": 1},
        {"enabled": "yes"},
        {"id": "other"},
    ):
        if "id" not in wrong:
            reply = await identity.call("POST", "/v3/services", {"service": {"type": "sample", **wrong}})
            assert reply.status == 400, wrong
        changed = await identity.call("PATCH", f"/v3/services/{service['id']}", {"service": wrong})
        assert changed.status == 400, wrong
    assert (await identity.call("PATCH", f"/v3/services/{service['id']}", {"service": {}})).status == 400
    assert (await identity.call("GET", f"/v3/services/{service['id']}")).json()["service"] == service
    for query, found in (("name=sample", 1), ("type=sample&name=sample", 1), ("type=other", 0)):
        assert len((await identity.call("GET", f"/v3/services?{query}")).json()["services"]) == found


async def test_a_service_without_endpoints_is_in_the_catalogue(identity: Identity) -> None:
    service = await identity.made("services", type="sample", name="sample")
    catalog = (await identity.call("GET", "/v3/auth/catalog")).json()["catalog"]
    assert {"id": service["id"], "type": "sample", "name": "sample", "endpoints": []} in catalog


async def test_regions_that_make_no_sense(identity: Identity) -> None:
    await identity.made("regions", id="north", description="cold")
    for wrong, status in (
        ({"parent_region_id": ""}, 400), ({"parent_region_id": "none"}, 404), ({"description": 1}, 400), ({}, 400),
        ({"parent_region_id": "north"}, 400), ({"id": "south"}, 400),
    ):  # fmt: skip
        assert (await identity.call("PATCH", "/v3/regions/north", {"region": wrong})).status == status, wrong
    assert (await identity.call("PUT", "/v3/regions/west", {"region": {"parent_region_id": "none"}})).status == 404
    assert (await identity.call("POST", "/v3/regions", {"region": {"id": "n" * 256}})).status == 400
    assert (await identity.call("POST", "/v3/regions", {"region": {"id": "north"}})).status == 409
    assert (await identity.call("GET", "/v3/regions?colour=red")).status == 400
    plain = await identity.call("PATCH", "/v3/regions/north", {"region": {"description": None, "colour": "white"}})
    assert plain.json()["region"]["description"] == "" and plain.json()["region"]["colour"] == "white"
    assert (await identity.made("regions", id="", description=None))["description"] == ""


async def test_a_region_goes_with_those_below_it(identity: Identity) -> None:
    for id, above in (("north", None), ("town", "north"), ("street", "town"), ("south", None)):
        await identity.made("regions", id=id, parent_region_id=above)
    service = await identity.made("services", type="sample")
    row = {"service_id": service["id"], "interface": "public", "url": "http://x.test"}
    endpoint = await identity.made("endpoints", **row, region_id="street")
    assert (await identity.call("DELETE", "/v3/regions/north")).status == 403
    assert (await identity.call("DELETE", f"/v3/endpoints/{endpoint['id']}")).status == 204
    assert (await identity.call("DELETE", "/v3/regions/north")).status == 204
    assert {r["id"] for r in (await identity.call("GET", "/v3/regions")).json()["regions"]} == {"RegionOne", "south"}


async def test_policies_are_kept(identity: Identity) -> None:
    policy = await identity.made("policies", type="application/json", blob="{}")
    path = f"/v3/policies/{policy['id']}"
    changed = await identity.call("PATCH", path, {"policy": {"blob": '{"a": 1}', "note": "new"}})
    assert changed.json()["policy"]["blob"] == '{"a": 1}' and changed.json()["policy"]["note"] == "new"
    assert (await identity.call("PATCH", path, {"policy": {"blob": {"a": 1}}})).status == 400
    assert [p["id"] for p in (await identity.call("GET", "/v3/policies")).json()["policies"]] == [policy["id"]]
    assert (await identity.call("DELETE", path)).status == 204


# ---- every start --------------------------------------------------------------------------------------------------------


async def test_bootstrap_can_be_run_again(tmp_path: Path) -> None:
    async with identity_in(tmp_path) as identity:
        first = identity.accounts
        assert first.created
        await identity.call("PATCH", f"/v3/users/{first.demo_user_id}", {"user": {"password": "changed"}})
        await identity.grant("member", f"projects/{first.demo_project_id}", f"users/{first.demo_user_id}", "DELETE")
        again = await identity.runtime.ensure_bootstrap(wanted("http://moved.test"))
        assert not again.created
        assert again.admin_user_id == first.admin_user_id and again.demo_project_id == first.demo_project_id
        reply = await identity.login("demo", "changed", scope="unscoped")
        assert reply.status == 201  # his password was left alone
        assert (await identity.login("demo", "changed", scope="demo")).status == 401  # and what was taken from him
        network = (await identity.call("GET", "/v3/auth/catalog")).json()["catalog"]
        urls = [e["url"] for entry in network if entry["type"] == "network" for e in entry["endpoints"]]
        assert urls == ["http://moved.test"]
        counts = {k: len((await identity.call("GET", f"/v3/{k}")).json()[k]) for k in ("users", "roles", "services")}
        assert counts == {"users": 2, "roles": 5, "services": 3}


async def test_bootstrap_gives_back_what_the_admin_lost(identity: Identity) -> None:
    admin = f"users/{identity.accounts.admin_user_id}"
    await identity.grant("admin", "system", admin, "DELETE")
    await identity.runtime.ensure_bootstrap(wanted())
    assert (await identity.grant("admin", "system", admin, "HEAD")).status == 204


async def test_bootstrap_is_all_or_nothing(tmp_path: Path) -> None:
    async with kernel(tmp_path) as parts:
        runtime = IdentityRuntime(parts, hasher=CHEAP)
        entries: Any = [*wanted().endpoints, None]  # which cannot be stored
        with pytest.raises(AttributeError):
            await runtime.ensure_bootstrap(msgspec.structs.replace(wanted(), endpoints=entries))
        users = await parts.db.read(lambda tx: tx.execute(select(User.table)).all())
        assert users == []
        assert (await runtime.ensure_bootstrap(wanted())).created
        await runtime.stop()


# ---- passwords ----------------------------------------------------------------------------------------------------------


async def test_the_default_hash_is_argon2id_of_19_mib() -> None:
    passwords = Passwords()
    stored = await passwords.hash("secret")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify(stored, "secret")
    assert not await passwords.verify(stored, "Secret")
    assert not await passwords.verify(None, "nobody has this password")
    assert not await passwords.verify("not a hash", "secret")
    passwords.stop()


async def test_bcrypt_hashes_from_elsewhere_are_verified() -> None:
    passwords = Passwords(CHEAP)
    for password in ("secret", "long" * 50, "ümläut"):
        stored = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()
        assert await passwords.verify(stored, password)
        assert not await passwords.verify(stored, "x" + password)
    passwords.stop()
