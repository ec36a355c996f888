"""Identity providers, protocols, mappings and service providers over HTTP: what is taken, shown, refused, and by whom."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity
from tests.services.identity.federation.conftest import put

BASE = "/v3/OS-FEDERATION"
RULES: list[Any] = [{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "user"}]}]
CLOUD: dict[str, Any] = {"auth_url": "https://sp.test/auth", "sp_url": "https://sp.test/ecp"}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "identity_provider": ("identity_providers", {"description": "d"}, {"description": "other"}),
    "mapping": ("mappings", {"rules": RULES}, {"rules": [*RULES, *RULES]}),
    "service_provider": ("service_providers", CLOUD, {"sp_url": "https://other.test"}),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_one_is_made_under_its_id_shown_changed_and_removed(identity: Identity, kind: str) -> None:
    path, body, change = KINDS[kind]
    made = await put(identity, f"{path}/one", kind, **body)
    assert made["id"] == "one" and made["links"]["self"].endswith(f"{BASE}/{path}/one")
    shown = await identity.call("GET", f"{BASE}/{path}/one")
    assert shown.json() == {kind: made}
    assert (await identity.call("HEAD", f"{BASE}/{path}/one")).status == 200
    listed = (await identity.call("GET", f"{BASE}/{path}")).json()
    assert listed[path] == [made] and set(listed["links"]) == {"self", "previous", "next"}
    again = await identity.call("PUT", f"{BASE}/{path}/one", {kind: body})
    assert again.status == 409
    changed = await put(identity, f"{path}/one", kind, 200, "PATCH", **change)
    assert {**made, **change} == changed
    assert (await identity.call("DELETE", f"{BASE}/{path}/one")).status == 204
    for method in ("GET", "DELETE"):
        assert (await identity.call(method, f"{BASE}/{path}/one")).status == 404
    assert (await identity.call("PATCH", f"{BASE}/{path}/one", {kind: change})).status == 404


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("identity_provider", {"enabled": "perhaps"}),
        ("identity_provider", {"description": 3}),
        ("identity_provider", {"remote_ids": "x"}),
        ("identity_provider", {"remote_ids": [1]}),
        ("identity_provider", {"remote_ids": ["x", "x"]}),
        ("identity_provider", {"remote_ids": ["x" * 256]}),
        ("identity_provider", {"authorization_ttl": -1}),
        ("identity_provider", {"authorization_ttl": 10**12}),
        ("identity_provider", {"authorization_ttl": "soon"}),
        ("identity_provider", {"unknown": 1}),
        ("mapping", {}),
        ("mapping", {"rules": []}),
        ("mapping", {"rules": None}),
        ("mapping", {"rules": RULES, "schema_version": "9"}),
        ("mapping", {"rules": [{"local": []}]}),
        ("service_provider", {}),
        ("service_provider", {"auth_url": CLOUD["auth_url"]}),
        ("service_provider", {**CLOUD, "sp_url": "nowhere"}),
        ("service_provider", {**CLOUD, "auth_url": "https://x\r\nSet-Cookie: y"}),
        ("service_provider", {**CLOUD, "auth_url": "https://" + "x" * 225}),
        ("service_provider", {**CLOUD, "enabled": 3}),
        ("service_provider", {**CLOUD, "relay_state_prefix": "x" * 257}),
        ("service_provider", {**CLOUD, "unknown": 3}),
    ],
)
async def test_what_makes_no_sense_is_refused(identity: Identity, kind: str, body: dict[str, Any]) -> None:
    path = KINDS[kind][0]
    assert (await identity.call("PUT", f"{BASE}/{path}/one", {kind: body})).status == 400
    await put(identity, f"{path}/two", kind, **KINDS[kind][1])
    if set(body) - {"auth_url"}:
        assert (await identity.call("PATCH", f"{BASE}/{path}/two", {kind: body})).status == 400
    assert (await identity.call("PATCH", f"{BASE}/{path}/two", {kind: {}})).status == 400
    assert (await identity.call("PUT", f"{BASE}/{path}/{'x' * 65}", {kind: KINDS[kind][1]})).status == 400


async def test_defaults(identity: Identity) -> None:
    provider = await put(identity, "identity_providers/one", "identity_provider")
    assert not provider["enabled"] and provider["remote_ids"] == [] and provider["authorization_ttl"] is None
    assert provider["links"]["protocols"].endswith("/identity_providers/one/protocols")
    domain = (await identity.call("GET", f"/v3/domains/{provider['domain_id']}")).json()["domain"]
    assert domain["enabled"] and "one" in domain["description"]
    assert (await put(identity, "mappings/one", "mapping", rules=RULES))["schema_version"] == "1.0"
    cloud = await put(identity, "service_providers/one", "service_provider", **CLOUD, relay_state_prefix=None)
    assert not cloud["enabled"] and cloud["relay_state_prefix"] == "ss:mem:" and cloud["description"] is None
    kept = await put(identity, "service_providers/two", "service_provider", **CLOUD, relay_state_prefix="x")
    assert kept["relay_state_prefix"] == "x"


@pytest.mark.parametrize("path", ["identity_providers", "service_providers"])
async def test_lists_are_filtered(identity: Identity, path: str) -> None:
    kind = path.removesuffix("s")
    for name, enabled in (("a", True), ("b", False), ("c", True)):
        await put(identity, f"{path}/{name}", kind, **KINDS[kind][1], enabled=enabled)
    for query, found in (("", "abc"), ("?enabled=true", "ac"), ("?enabled=False", "b"), ("?id=b", "b"), ("?id=x", "")):
        listed = (await identity.call("GET", f"{BASE}/{path}{query}")).json()[path]
        assert "".join(i["id"] for i in listed) == found, query


async def test_a_remote_id_is_one_providers(identity: Identity) -> None:
    one = await put(identity, "identity_providers/one", "identity_provider", remote_ids=["b", "a"])
    assert one["remote_ids"] == ["a", "b"]
    reply = await identity.call(
        "PUT", f"{BASE}/identity_providers/two", {"identity_provider": {"remote_ids": ["c", "a"]}}
    )
    assert reply.status == 409 and "remote ID" in reply.json()["error"]["message"]
    assert len((await identity.call("GET", "/v3/domains")).json()["domains"]) == 2  # none was left behind
    await put(identity, "identity_providers/two", "identity_provider", remote_ids=["c"])
    reply = await identity.call("PATCH", f"{BASE}/identity_providers/two", {"identity_provider": {"remote_ids": ["a"]}})
    assert reply.status == 409
    await put(identity, "identity_providers/one", "identity_provider", 200, "PATCH", remote_ids=["b"])
    await put(identity, "identity_providers/two", "identity_provider", 200, "PATCH", remote_ids=["a"])
    await put(identity, "identity_providers/two", "identity_provider", 200, "PATCH", remote_ids=None)
    await identity.call("DELETE", f"{BASE}/identity_providers/one")
    await put(identity, "identity_providers/three", "identity_provider", remote_ids=["a", "b"])


async def test_a_domain_is_given_once_and_must_be_there(identity: Identity) -> None:
    made = await put(identity, "identity_providers/one", "identity_provider", domain_id="default")
    assert made["domain_id"] == "default"
    for body, status in (({"domain_id": "none"}, 404), ({"domain_id": None}, 201)):
        reply = await identity.call("PUT", f"{BASE}/identity_providers/two", {"identity_provider": body})
        assert reply.status == status
    change = {"identity_provider": {"domain_id": "default"}}
    assert (await identity.call("PATCH", f"{BASE}/identity_providers/two", change)).status == 400


async def test_protocols_belong_to_a_provider(identity: Identity) -> None:
    await put(identity, "mappings/m", "mapping", rules=RULES)
    await put(identity, "mappings/n", "mapping", rules=RULES)
    for provider in ("one", "two"):
        await put(identity, f"identity_providers/{provider}", "identity_provider")
    place = "identity_providers/one/protocols"
    bodies: list[dict[str, Any]] = [
        {},
        {"mapping_id": ""},
        {"mapping_id": "none"},
        {"mapping_id": "m", "x": 1},
        {"mapping_id": 3},
    ]
    for body in bodies:
        assert (await identity.call("PUT", f"{BASE}/{place}/openid", {"protocol": body})).status == 400, body
    made = await put(identity, f"{place}/openid", "protocol", mapping_id="m")
    assert made["mapping_id"] == "m" and "remote_id_attribute" not in made
    assert made["links"]["identity_provider"].endswith("/identity_providers/one")
    assert made["links"]["self"].endswith("/identity_providers/one/protocols/openid")
    await put(
        identity, "identity_providers/two/protocols/openid", "protocol", mapping_id="m", remote_id_attribute="idp"
    )
    assert (await identity.call("PUT", f"{BASE}/{place}/openid", {"protocol": {"mapping_id": "m"}})).status == 409
    assert (
        await identity.call("PUT", f"{BASE}/identity_providers/x/protocols/y", {"protocol": {"mapping_id": "m"}})
    ).status == 404
    assert (await identity.call("GET", f"{BASE}/{place}/openid")).json() == {"protocol": made}
    listed = (await identity.call("GET", f"{BASE}/{place}")).json()["protocols"]
    assert listed == [{**made, "idp_id": "one", "remote_id_attribute": None}]
    for body in (
        {},
        {"remote_id_attribute": "x"},
        {"mapping_id": "none"},
        {"mapping_id": "n", "remote_id_attribute": None},
    ):
        assert (await identity.call("PATCH", f"{BASE}/{place}/openid", {"protocol": body})).status == 400, body
    changed = await put(identity, f"{place}/openid", "protocol", 200, "PATCH", mapping_id="n", remote_id_attribute="x")
    assert (changed["mapping_id"], changed["remote_id_attribute"]) == ("n", "x")
    for method in ("GET", "DELETE"):
        assert (await identity.call(method, f"{BASE}/{place}/none")).status == 404
    assert (await identity.call("PATCH", f"{BASE}/{place}/none", {"protocol": {"mapping_id": "m"}})).status == 404
    assert (await identity.call("DELETE", f"{BASE}/{place}/openid")).status == 204
    assert (await identity.call("GET", f"{BASE}/{place}")).json()["protocols"] == []
    assert (await identity.call("DELETE", f"{BASE}/identity_providers/two")).status == 204
    assert (await identity.call("GET", f"{BASE}/identity_providers/two/protocols/openid")).status == 404


async def test_who_may(identity: Identity) -> None:
    """An admin of a project or the system changes, a reader of the system sees; a token of a domain is good for neither."""
    await put(identity, "mappings/m", "mapping", rules=RULES)
    await put(identity, "identity_providers/p", "identity_provider")
    await put(identity, "identity_providers/p/protocols/m", "protocol", mapping_id="m")
    await put(identity, "service_providers/s", "service_provider", **CLOUD)
    await identity.person("watcher", "reader", "system")
    await identity.person("steward", "admin", "domains/default")
    await identity.person("boss", "admin", "system")
    await identity.person("head", "manager", f"projects/{identity.accounts.demo_project_id}")
    system = {"system": {"all": True}}
    tokens = {
        "boss": await identity.token("boss", scope=system),
        "watcher": await identity.token("watcher", scope=system),
        "steward": await identity.token("steward", scope={"domain": {"id": "default"}}),
        "head": await identity.token("head", scope="demo"),
        "demo": await identity.token("demo", scope="demo"),
        "unscoped": await identity.token("demo", scope="unscoped"),
        "nobody": "nobody",
    }
    places = ("mappings", "identity_providers", "identity_providers/p/protocols", "service_providers")
    changes: dict[str, Any] = {
        "mappings/m": {"mapping": {"rules": RULES}},
        "identity_providers/p": {"identity_provider": {"description": "x"}},
        "identity_providers/p/protocols/m": {"protocol": {"mapping_id": "m"}},
        "service_providers/s": {"service_provider": CLOUD},
    }
    for who, token in tokens.items():
        refused = 401 if who == "nobody" else 403
        sees, may = who in ("boss", "watcher"), who == "boss"
        for place in (*places, *changes):
            reply = await identity.http("GET", f"{BASE}/{place}", token=token)
            assert reply.status == (200 if sees else refused), (who, place)
        for place, body in changes.items():
            missing = f"{BASE}/{place.rpartition('/')[0]}/none"
            assert (await identity.http("GET", missing, token=token)).status == (404 if sees else refused), (who, place)
            assert (await identity.http("PATCH", f"{BASE}/{place}", body, token=token)).status == (
                200 if may else refused
            )
            assert (await identity.http("PUT", f"{BASE}/{place}", body, token=token)).status == (
                409 if may else refused
            )
            if not may:
                assert (await identity.http("DELETE", f"{BASE}/{place}", token=token)).status == refused, (who, place)
