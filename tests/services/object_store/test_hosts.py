"""Containers by host name: domain remap, and sites' own domains."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest

from tests.services.object_store.stores import Store, object_store

DOMAIN = "storage.example.com"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with object_store(tmp_path, object_storage_domain=f"{DOMAIN}, .other.example.com") as store:
        await store.put("c", X_Container_Read=".r:*")
        await store.put("c/o b", b"data")
        await store.put("c/v1", b"not a version")
        yield store


@pytest.mark.parametrize(
    "account", ["AUTH_project-demo", "AUTH-project-demo", "auth-project-demo", "Auth_project-demo"]
)
@pytest.mark.parametrize("domain", [DOMAIN, f"{DOMAIN}:8080", "other.example.com", DOMAIN.upper()])
async def test_hosts_of_containers_and_accounts(store: Store, account: str, domain: str) -> None:
    host = f"{account}.{domain}"
    assert await store.get("/o%20b", Host=f"c.{host}") == b"data"
    assert await store.get("/c/o%20b", Host=host) == b"data"
    assert b"o b" in await store.get("/c", Host=host)
    assert await store.get("/", Host=host) == b"c\n"
    assert await store.get("/v1", Host=f"c.{host}") == b"not a version"
    assert (await store("GET", "/o%20b", Host=f"c.{host}", token="nobody")).status == 200


async def test_other_hosts(store: Store) -> None:
    assert (await store("GET", "/o", Host=f"a.c.AUTH_x.{DOMAIN}")).status == 400
    assert (await store("GET", f"/v1/{store.account}/c/o%20b", Host="elsewhere.example.com")).status == 200
    assert (await store("GET", f"/v1/{store.account}/c/o%20b", Host=f"c.RESELLER_x.{DOMAIN}")).status == 200


async def test_a_version_in_the_path(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"object_domain_mangle": True, "object_domain_default_prefix": "AUTH"}
    async with object_store(tmp_path, object_storage_domain=DOMAIN, **settings) as store:
        await store.put("c")
        await store.put("c/o", b"data")
        assert await store.get("/v1/o", Host=f"c.AUTH_project-demo.{DOMAIN}") == b"data"
        await store.put("/v1/AUTH_plain/c", token="admin")
        assert await store.get("/v1", Host=f"plain.{DOMAIN}", token="admin") == b"c\n"
        told = (await store("GET", "/info")).json()["domain_remap"]
        assert told == {"default_reseller_prefix": "AUTH"}


async def test_redirects_keep_the_host(store: Store) -> None:
    await store.post("c", X_Container_Meta_Web_Index="index.html", X_Container_Read=".r:*,.rlistings")
    await store.put("c/dir/index.html", b"hello")
    host = f"c.AUTH_project-demo.{DOMAIN}"
    reply = await store("GET", "/dir", Host=host, token="nobody")
    assert (reply.status, reply.headers["Location"]) == (301, f"http://{host}/dir/")
    assert await store.get("/dir/", Host=host, token="nobody") == b"hello"


class Answers(asyncio.DatagramProtocol):
    """A DNS server."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = dns.message.from_wire(data)
        name = query.question[0].name
        self.asked.append(str(name))
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        target = self.known.get(str(name))
        if target:
            reply.answer.append(dns.rrset.from_text(name, 300, "IN", "CNAME", target))
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(reply.to_wire(), address)


@pytest.fixture
async def names() -> AsyncIterator[Answers]:
    known = {
        "www.example.org.": f"c.AUTH-project-demo.{DOMAIN}.",
        "far.example.org.": "www.example.org.",
        "loop.example.org.": "loop.example.org.",
        "further.example.org.": "far.example.org.",
    }
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(lambda: Answers(known), local_addr=("127.0.0.1", 0))
    yield answers
    transport.close()


@pytest.fixture
async def sites(tmp_path: Path, names: Answers) -> AsyncIterator[Store]:
    port = names.transport.get_extra_info("sockname")[1]
    settings: dict[str, Any] = {"object_cname_depth": 2, "object_cname_servers": f"127.0.0.1:{port}"}
    settings["endpoint_host"] = "cloud.example.net"
    async with object_store(tmp_path, object_storage_domain=DOMAIN, **settings) as store:
        await store.put("c", X_Container_Read=".r:*,.rlistings")
        await store.put("c/o", b"data")
        yield store


async def test_a_site_of_its_own(sites: Store, names: Answers) -> None:
    for host in ("www.example.org", "www.example.org:8080", "far.example.org"):
        assert await sites.get("/o", Host=host, token="nobody") == b"data"
    await sites.get("/o", Host="www.example.org", token="nobody")
    assert names.asked.count("www.example.org.") == 1, "what DNS says is remembered"
    reply = await sites("POST", "c", X_Container_Meta_Web_Index="index.html")
    assert reply.status == 204
    await sites.put("c/dir/index.html", b"hello")
    reply = await sites("GET", "/dir", Host="www.example.org:8080", token="nobody")
    assert (reply.status, reply.headers["Location"]) == (301, "http://www.example.org:8080/dir/")


@pytest.mark.parametrize("host", ["loop.example.org", "further.example.org", "none.example.org"])
async def test_domains_that_lead_nowhere(sites: Store, host: str) -> None:
    reply = await sites("GET", "/o", Host=host, token="nobody")
    assert reply.status == 400
    assert reply.data.startswith(b"CNAME lookup failed")


async def test_addresses_are_not_looked_up(sites: Store, names: Answers) -> None:
    assert await sites.get("c/o") == b"data"
    assert await sites.get("c/o", Host="cloud.example.net:8080") == b"data", "nor is the cloud's own name"
    assert names.asked == []
