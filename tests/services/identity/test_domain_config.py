"""Configuration of domains: what may be set, what is shown, and what drivers read."""

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import select

from cumulet.services.identity.domain_config import OPTIONS, domain_config
from cumulet.services.identity.reseal import rotate_vault
from cumulet.services.identity.tables import domain_option
from tests.harness import Reply
from tests.services.identity.conftest import Identity

LDAP = {"url": "ldap://directory.test", "user_tree_dn": "ou=people"}


class Domain:
    def __init__(self, identity: Identity, id: str) -> None:
        self.identity, self.id = identity, id

    async def call(self, method: str, rest: str = "", config: Any = None, token: str = "") -> Reply:
        body = None if config is None else {"config": config}
        return await self.identity.call(method, f"/v3/domains/{self.id}/config{rest}", body, token=token)

    async def config(self, rest: str = "") -> Any:
        reply = await self.call("GET", rest)
        assert reply.status == 200, reply.data
        return reply.json()["config"]

    async def read(self) -> Any:
        runtime = self.identity.runtime
        return await runtime.kernel.db.read(domain_config, self.id, runtime.vault)


@pytest.fixture
async def domain(identity: Identity) -> Domain:
    return Domain(identity, (await identity.made("domains", name="directory"))["id"])


async def test_a_domain_is_configured(domain: Domain) -> None:
    assert (await domain.call("GET")).status == 404
    whole = {"identity": {"driver": "ldap"}, "ldap": LDAP}
    made = await domain.call("PUT", "", whole)
    assert made.status == 201 and made.json() == {"config": whole}
    again = await domain.call("PUT", "", {"ldap": LDAP})
    assert again.status == 200 and await domain.config() == {"ldap": LDAP}  # what was there is gone
    changed = await domain.call("PATCH", "", {"identity": {"driver": "sql"}, "ldap": {"url": "ldap://other.test"}})
    assert changed.status == 200
    assert changed.json()["config"] == {"identity": {"driver": "sql"}, "ldap": {**LDAP, "url": "ldap://other.test"}}
    assert await domain.config("/identity") == {"identity": {"driver": "sql"}}
    assert await domain.config("/ldap/url") == {"url": "ldap://other.test"}
    assert (await domain.call("HEAD", "/ldap")).status == 200
    grouped = await domain.call("PATCH", "/ldap", {"ldap": {"page_size": 5, "use_tls": True}})
    assert grouped.json()["config"]["ldap"]["page_size"] == 5 and await domain.config("/ldap/use_tls") == {
        "use_tls": True
    }
    single = await domain.call("PATCH", "/ldap/page_size", {"page_size": 7})
    assert single.json()["config"]["ldap"] == {**LDAP, "url": "ldap://other.test", "page_size": 7, "use_tls": True}
    assert (await domain.call("DELETE", "/ldap/page_size")).status == 204
    assert (await domain.call("GET", "/ldap/page_size")).status == 404
    assert (await domain.call("DELETE", "/ldap")).status == 204 and await domain.config() == {
        "identity": {"driver": "sql"}
    }
    for gone in ("/ldap", "/ldap/url"):
        for method in ("GET", "DELETE"):
            reply = await domain.call(method, gone)
            assert reply.status == 404 and domain.id in reply.json()["error"]["message"]
    assert (await domain.call("PATCH", "/ldap", {"ldap": LDAP})).status == 404
    assert (await domain.call("PATCH", "/identity/list_limit", {"list_limit": 3})).status == 404
    assert (await domain.call("DELETE")).status == 204 and (await domain.call("DELETE")).status == 204


@pytest.mark.parametrize(
    ("rest", "config"),
    [
        ("", {}), ("", {"ldap": {}}), ("", {"ldap": "url"}), ("", {"colours": {"red": 1}}), ("", {"ldap": {"colour": 1}}),
        ("", {"identity": {"password": "x"}}), ("/ldap", {"identity": {"driver": "sql"}}),
        ("/ldap", {"identity": {"driver": "sql"}, "ldap": LDAP}), ("/ldap/url", {"user": "x"}), ("/ldap/url", LDAP),
        ("/colours", {"colours": {"red": 1}}), ("/ldap/colour", {"colour": 1}),
    ],
)  # fmt: skip
async def test_what_a_domain_may_not_set(domain: Domain, rest: str, config: Any) -> None:
    await domain.call("PUT", "", {"identity": {"driver": "ldap"}, "ldap": LDAP})
    for method in ("PUT", "PATCH"):
        if method == "PUT" and rest:
            continue
        reply = await domain.call(method, rest, config)
        assert reply.status == 403
        assert reply.json()["error"]["message"].startswith("Invalid domain specific configuration: ")
    assert await domain.config() == {"identity": {"driver": "ldap"}, "ldap": LDAP}


async def test_bodies_that_are_none(domain: Domain) -> None:
    path = f"/v3/domains/{domain.id}/config"
    for body, status in (({"config": []}, 400), ({"config": "ldap"}, 400), ({}, 403), ([], 400)):
        assert (await domain.identity.call("PUT", path, body)).status == status
    for method in ("GET", "DELETE"):
        for rest in ("/colours", "/ldap/colour"):
            assert (await domain.call(method, rest)).status == 403
    nowhere = Domain(domain.identity, "none")
    for method, config in (("GET", None), ("PUT", {"ldap": LDAP}), ("PATCH", {"ldap": LDAP}), ("DELETE", None)):
        assert (await nowhere.call(method, "", config)).status == 404


async def test_passwords_are_for_drivers_alone(domain: Domain) -> None:
    url = "ldap://cn=reader:%(password)s@directory.test"
    made = await domain.call("PUT", "", {"ldap": {"url": url, "password": "hush-hush", "page_size": 5}})
    assert made.json()["config"] == {"ldap": {"url": url, "page_size": 5}} == await domain.config()
    for rest in ("/ldap/password", "/ldap", ""):
        assert b"hush-hush" not in (await domain.call("GET", rest)).data
    assert (await domain.call("GET", "/ldap/password")).status == 404
    rows = await domain.identity.runtime.kernel.db.read(
        lambda tx: tx.execute(select(domain_option.c.value, domain_option.c.sealed)).all()
    )
    assert rows and not any("hush-hush" in str(row) for row in rows)
    wanted = {"url": "ldap://cn=reader:hush-hush@directory.test", "password": "hush-hush", "page_size": 5}
    assert await domain.read() == {"ldap": wanted}
    runtime = domain.identity.runtime
    for _ in range(3):  # by then the key that it was sealed with is gone
        assert await asyncio.to_thread(rotate_vault, runtime.kernel.db.engine, runtime.vault) == 1
    assert await domain.read() == {"ldap": wanted}
    assert (await domain.call("PATCH", "/ldap/password", {"password": "new"})).json()["config"] == await domain.config()
    assert (await domain.read())["ldap"]["url"] == "ldap://cn=reader:new@directory.test"
    assert (await domain.call("DELETE", "/ldap/password")).status == 204
    assert (await domain.read())["ldap"] == {"url": url, "page_size": 5}
    assert (await domain.call("DELETE", "/ldap/password")).status == 404


@pytest.mark.parametrize("text", ["%(passwd)s", "%(password", "100%", "%(password)d"])
async def test_references_that_lead_nowhere_stay(domain: Domain, text: str, caplog: pytest.LogCaptureFixture) -> None:
    await domain.call("PUT", "", {"ldap": {"user": text, "password": "hush-hush"}})
    with caplog.at_level(logging.WARNING):
        assert (await domain.read())["ldap"]["user"] == text
    assert domain.id in caplog.text and "hush-hush" not in caplog.text


async def test_a_domain_takes_its_configuration_with_it(domain: Domain) -> None:
    await domain.call("PUT", "", {"ldap": LDAP})
    await domain.identity.call("PATCH", f"/v3/domains/{domain.id}", {"domain": {"enabled": False}})
    assert (await domain.identity.call("DELETE", f"/v3/domains/{domain.id}")).status == 204
    assert await domain.read() == {}


async def test_defaults_are_told(identity: Identity) -> None:
    async def told(rest: str) -> Reply:
        return await identity.call("GET", f"/v3/domains/config{rest}/default")

    assert (await told("")).json() == {"config": OPTIONS}
    assert (await told("/identity")).json() == {"config": {"identity": {"driver": "sql", "list_limit": None}}}
    assert (await told("/ldap/url")).json() == {"config": {"url": "ldap://localhost"}}
    for rest in ("/ldap/password", "/ldap/colour", "/colours", "/colours/red"):
        assert (await told(rest)).status == 403
    assert "password" not in OPTIONS["ldap"]


async def test_rules_for_passwords_are_for_everybody(domain: Domain) -> None:
    identity = domain.identity
    token = await identity.token("demo", scope="unscoped")
    base = "/v3/domains/default/config/security_compliance"
    whole = await identity.call("GET", base, token=token)
    assert whole.status == 200
    assert set(whole.json()["config"]["security_compliance"]) == {"password_regex", "password_regex_description"}
    one = await identity.call("GET", f"{base}/password_regex", token=token)
    assert one.status == 200 and set(one.json()["config"]) == {"password_regex"}
    assert (await identity.call("GET", f"{base}/lockout_duration", token=token)).status == 403
    assert (await domain.call("GET", "/security_compliance", token=token)).status == 403
    assert (
        await identity.call("PATCH", base, {"config": {"security_compliance": {"password_regex": "."}}})
    ).status == 403


async def test_who_configures_domains(domain: Domain) -> None:
    identity = domain.identity
    await domain.call("PUT", "", {"ldap": LDAP})
    watcher = await identity.person("watcher", "reader", "system")
    ruler = await identity.person("ruler", "admin", f"domains/{domain.id}", domain.id)
    boss = await identity.person("boss", "manager", f"projects/{identity.accounts.demo_project_id}")
    tokens = {
        "watcher": await identity.token(watcher["id"], by_id=True, scope={"system": {"all": True}}),
        "ruler": await identity.token(ruler["id"], by_id=True, scope={"domain": {"id": domain.id}}),
        "boss": await identity.token(boss["id"], by_id=True, scope="demo"),
        "demo": await identity.token("demo", scope="demo"),
    }
    for name, token in tokens.items():
        wanted = 200 if name == "watcher" else 403
        for rest in ("", "/ldap", "/ldap/url"):
            assert (await domain.call("GET", rest, token=token)).status == wanted, name
            for method, config in (("PATCH", {"ldap": {"url": "x"}}), ("DELETE", None)):
                assert (await domain.call(method, rest, config, token=token)).status == 403, name
        assert (await domain.call("PUT", "", {"ldap": LDAP}, token=token)).status == 403, name
        for rest in ("", "/ldap", "/ldap/url"):
            assert (await identity.call("GET", f"/v3/domains/config{rest}/default", token=token)).status == wanted, name
    assert (await identity.http("GET", f"/v3/domains/{domain.id}/config", token="nobody")).status == 401
