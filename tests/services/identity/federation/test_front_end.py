"""What a web server in front may say, and that nobody else may say it: attributes of SAML, single sign-on, `external`."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import requests
from aiohttp import web

from cumulet.api.http import Request
from cumulet.services.identity.federation.front_end import FrontEnd, FrontEndTable
from tests.services.identity.federation.conftest import IDP, SECRET, Acme, put

AUTH = f"{IDP}/protocols/saml2/auth"
NAME = "https://idp.acme.test/saml"
TOLD = {"X-Shib-User": "ann", "X-Shib-Groups": "staff;crew", "X-Shib-Idp": NAME}


class Proxy:
    """Stands in front of the cloud as Apache would: takes its own headers out of what clients send, and puts them in."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.url = ""
        self.tells: dict[str, str] = {**TOLD, "X-Front-End-Secret": SECRET}

    async def pass_on(self, request: web.Request) -> web.Response:
        own = {name.lower() for name in [*self.tells, "X-Front-End-Secret", "X-Remote-User", "X-Remote-Domain", "Host"]}
        headers = {k: v for k, v in request.headers.items() if k.lower() not in own} | self.tells
        async with aiohttp.ClientSession() as session:
            async with session.request(
                request.method, f"{self.behind}{request.path_qs}", headers=headers, data=await request.read()
            ) as reply:
                kept = {k: v for k, v in reply.headers.items() if k in ("Content-Type", "X-Subject-Token")}
                return web.Response(status=reply.status, headers=kept, body=await reply.read())


@pytest.fixture
async def proxy(acme: Acme) -> AsyncIterator[Proxy]:
    found = Proxy(acme.identity.http.url)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    yield found
    await runner.cleanup()


async def ask(url: str, method: str = "GET", **what: Any) -> requests.Response:
    return await asyncio.to_thread(requests.request, method, url, timeout=30, allow_redirects=False, **what)


async def test_attributes_come_through_the_web_server(acme: Acme, proxy: Proxy) -> None:
    for method in ("GET", "POST"):
        reply = await ask(proxy.url + AUTH, method)
        assert reply.status_code == 201, reply.text
        user = reply.json()["token"]["user"]
        assert user["name"] == "ann" and user["OS-FEDERATION"]["groups"] == [{"id": acme.crew}]
    assert (await acme.scoped(reply.headers["X-Subject-Token"])).status == 201


async def test_what_clients_send_through_it_is_not_believed(acme: Acme, proxy: Proxy) -> None:
    reply = await ask(proxy.url + AUTH, headers={"X-Shib-User": "admin", "x-shib-groups": "admins"})
    assert reply.json()["token"]["user"]["name"] == "ann"


async def test_nobody_else_is_believed(acme: Acme) -> None:
    for headers in (TOLD, {**TOLD, "X-Front-End-Secret": ""}, {**TOLD, "X-Front-End-Secret": SECRET[:-1] + "x"}):
        reply = await ask(acme.identity.http.url + AUTH, headers=headers)
        assert reply.status_code == 401, headers
    assert (await ask(acme.identity.http.url + AUTH, headers={**TOLD, "X-Front-End-Secret": SECRET})).status_code == 201


async def test_headers_that_are_there_twice_are_refused(acme: Acme) -> None:
    for twice in ("X-Shib-User", "X-Front-End-Secret"):
        headers = [*TOLD.items(), ("X-Front-End-Secret", SECRET), (twice, "admin")]
        async with (
            aiohttp.ClientSession() as session,
            session.get(acme.identity.http.url + AUTH, headers=headers) as reply,
        ):
            assert reply.status == 401


def asked_from(remote: str, secret: str = SECRET) -> Request:
    return Request("GET", "/", "", {"X-Front-End-Secret": secret}, None, remote=remote)  # type: ignore[arg-type]


def test_the_web_server_is_known_by_its_address() -> None:
    front_end = FrontEnd(FrontEndTable(addresses=["192.0.2.0/28", "2001:db8::1"], secret=SECRET))
    for remote in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::1%eth0"):
        assert front_end.is_peer(asked_from(remote)), remote
        assert not front_end.is_peer(asked_from(remote, "")), remote
    for remote in ("192.0.2.17", "127.0.0.1", "::1", "2001:db8::2", "", "unix:", "::ffff:192.0.2.17"):
        assert not front_end.is_peer(asked_from(remote)), remote


async def test_the_provider_must_be_the_one_that_is_asked_for(acme: Acme, proxy: Proxy) -> None:
    for name, status in (("https://idp.other.test", 403), ("", 400), (f"{NAME};https://x.test", 403), (NAME, 201)):
        proxy.tells["X-Shib-Idp"] = name
        assert (await ask(proxy.url + AUTH)).status_code == status, name
    body = {"mapping_id": "saml", "remote_id_attribute": "openstack_user"}
    await put(acme.identity, "identity_providers/acme/protocols/saml2", "protocol", 200, "PATCH", **body)
    assert (await ask(proxy.url + AUTH)).status_code == 403
    proxy.tells["X-Shib-User"] = NAME
    assert (await ask(proxy.url + AUTH)).status_code == 201


async def test_text_is_utf_8(acme: Acme, proxy: Proxy) -> None:
    for sent, status, name in (("J\u00f6rg".encode(), 201, "J\u00f6rg"), ("J\u00f6rg".encode("latin-1"), 401, None)):
        head = f"GET {AUTH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Front-End-Secret: {SECRET}\r\nX-Shib-Idp: {NAME}\r\n"
        host, port = acme.identity.http.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode() + b"X-Shib-User: " + sent + b"\r\n\r\n")
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert reply.startswith(f"HTTP/1.1 {status} ".encode())
        told = json.loads(reply.partition(b"\r\n\r\n")[2])
        assert told.get("token", {}).get("user", {}).get("name") == name


async def test_no_attribute_is_no_login(acme: Acme, proxy: Proxy) -> None:
    proxy.tells = {"X-Front-End-Secret": SECRET}
    assert (await ask(proxy.url + AUTH)).status_code == 401
    proxy.tells["X-Shib-Idp"] = NAME
    assert (await ask(proxy.url + AUTH)).status_code == 401


async def test_the_web_servers_user_is_the_name_for_rules_without_one(acme: Acme, proxy: Proxy) -> None:
    await acme.mapping([{"local": [{"group": {"id": acme.crew}}], "remote": [{"type": "openstack_user"}]}], "saml")
    assert (await ask(proxy.url + AUTH)).status_code == 401
    proxy.tells["X-Remote-User"] = "bob"
    assert (await ask(proxy.url + AUTH)).json()["token"]["user"]["name"] == "bob"


# ---- single sign-on -----------------------------------------------------------------------------------------------------

WEBSSO = "/v3/auth/OS-FEDERATION/websso/saml2"
OF_ACME = "/v3/auth/OS-FEDERATION/identity_providers/acme/protocols/saml2/websso"
DASHBOARD = "https://dashboard.test/auth/websso/"


@pytest.mark.parametrize("path", [WEBSSO, OF_ACME])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_dashboard_is_sent_the_token(acme: Acme, proxy: Proxy, path: str, method: str) -> None:
    reply = await ask(f"{proxy.url}{path}", method, params={"origin": DASHBOARD})
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f'action="{DASHBOARD}"' in reply.text and 'method="post"' in reply.text and ".submit()" in reply.text
    token = reply.text.partition('id="token" value="')[2].partition('"')[0]
    shown = await acme.identity.call("GET", "/v3/auth/tokens", X_Subject_Token=token)
    assert shown.json()["token"]["user"]["name"] == "ann"


@pytest.mark.parametrize("path", [WEBSSO, OF_ACME])
async def test_no_other_place_is_sent_a_token(acme: Acme, proxy: Proxy, path: str) -> None:
    assert (await ask(proxy.url + path)).status_code == 400
    for origin in ("https://evil.test/", DASHBOARD + "x", DASHBOARD.rstrip("/"), "http://dashboard.test/auth/websso/",
                   f'{DASHBOARD}"><script>', "https://dashboard.test@evil.test/auth/websso/", "javascript:x"):  # fmt: skip
        reply = await ask(proxy.url + path, params={"origin": origin})
        assert reply.status_code == 401 and "<" not in reply.text.replace('"><script>', ""), origin
    assert (await ask(acme.identity.http.url + path, params={"origin": DASHBOARD})).status_code == 401


async def test_sign_on_finds_the_provider_by_its_name(acme: Acme, proxy: Proxy) -> None:
    for name in ("https://nobody.test", ""):
        proxy.tells["X-Shib-Idp"] = name
        assert (await ask(proxy.url + WEBSSO, params={"origin": DASHBOARD})).status_code == 401
    assert (
        await ask(f"{proxy.url}/v3/auth/OS-FEDERATION/websso/none", params={"origin": DASHBOARD})
    ).status_code == 401
    proxy.tells["X-Shib-Idp"] = NAME
    await acme.changed(enabled=False)
    assert (await ask(proxy.url + WEBSSO, params={"origin": DASHBOARD})).status_code == 403


# ---- external -----------------------------------------------------------------------------------------------------------


async def by_external(url: str, **headers: str) -> requests.Response:
    auth = {"identity": {"methods": ["external"], "external": {}}, "scope": "unscoped"}
    return await ask(f"{url}/v3/auth/tokens", "POST", json={"auth": auth}, headers=headers)


async def test_the_web_server_says_who_it_is(acme: Acme, proxy: Proxy) -> None:
    assert (await by_external(proxy.url)).status_code == 401
    assert (await by_external(proxy.url, **{"X-Remote-User": "admin"})).status_code == 401
    proxy.tells["X-Remote-User"] = "demo"
    reply = await by_external(proxy.url)
    assert reply.status_code == 201, reply.text
    token = reply.json()["token"]
    assert token["methods"] == ["external"] and token["user"]["id"] == acme.identity.accounts.demo_user_id
    proxy.tells["X-Remote-Domain"] = "acme"
    assert (await by_external(proxy.url)).status_code == 401
    user = await acme.identity.made("users", name="demo", domain_id=acme.domain)
    assert (await by_external(proxy.url)).json()["token"]["user"]["id"] == user["id"]
    await acme.identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"enabled": False}})
    assert (await by_external(proxy.url)).status_code == 401


async def test_external_is_nobodys_else(acme: Acme) -> None:
    for secret in ("", "x" * 20):
        headers = {"X-Remote-User": "admin", "X-Front-End-Secret": secret}
        assert (await by_external(acme.identity.http.url, **headers)).status_code == 401
