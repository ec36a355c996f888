"""OAuth 1.0: signatures, against oauthlib as the other side; consumers, request and access tokens, and what they give."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from keystoneauth1.extras import oauth1 as client_plugin
from keystoneauth1.session import Session
from oauthlib.oauth1 import SIGNATURE_HMAC_SHA256, SIGNATURE_HMAC_SHA512, SIGNATURE_PLAINTEXT, Client

from cumulet.services.identity import oauth1
from cumulet.services.identity.oauth1 import Malformed, Nonces
from tests.harness import Reply
from tests.services.identity.conftest import Identity, identity_in, wanted
from tests.services.identity.test_ec2 import signed_s3

METHODS = ["HMAC-SHA1", SIGNATURE_HMAC_SHA256, SIGNATURE_HMAC_SHA512, SIGNATURE_PLAINTEXT]

# ---- signatures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "url",
    [
        "http://identity.test:5000/v3/a",
        "HTTPS://Identity.Test:443/v3/a?b=c%20d&b=a&e=",
        "http://[::1]:80/v3/a?%C3%A9=%26",
    ],
)
@pytest.mark.parametrize("form", ["", "x=1&y=%2B+z"])
def test_it_is_as_oauthlib_signs_it(method: str, url: str, form: str) -> None:
    client = Client("key", "sécret", "token", "token secret", signature_method=method, verifier="v", realm="cloud")
    headers = {"Content-Type": oauth1.FORM} if form else {}
    _, signed, _ = client.sign(url, "POST", form or None, headers)
    base, _, query = url.partition("?")
    request = oauth1.read("POST", base, signed["Authorization"], query, form)
    oauth1.check(request)
    assert oauth1.verifies(request, "sécret", "token secret")
    for wrong in (("sécret", ""), ("secret", "token secret")):
        assert not oauth1.verifies(request, *wrong)
    if method != SIGNATURE_PLAINTEXT:
        other = oauth1.read("POST", base, signed["Authorization"], "b=other", form)
        assert not oauth1.verifies(other, "sécret", "token secret")


def test_it_is_as_the_standards_example_is() -> None:
    """The request for a photo of section 1.2, and the base string of section 3.4.1, of RFC 5849."""
    photo = oauth1.read(
        "GET",
        "http://photos.example.net/photos",
        'OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03", oauth_token="nnch734d00sl2jdk",'
        ' oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131202", oauth_nonce="chapoH",'
        ' oauth_signature="MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D"',
        "file=vacation.jpg&size=original",
    )
    assert oauth1.verifies(photo, "kd94hf93k423kf44", "pfkkdhi9sl3r4s00")
    example = oauth1.read(
        "POST",
        "http://EXAMPLE.COM:80/request",
        'OAuth realm="Example", oauth_consumer_key="9djdj82h48djs9d2", oauth_token="kkk9d7dh3k39sjv7",'
        ' oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131201", oauth_nonce="7d8f3e4a",'
        ' oauth_signature="bYT5CMsGcbgUdFHObYMEfcx6bsw%3D"',
        "b5=%3D%253D&a3=a&c%40=&a2=r%20b",
        "c2&a3=2+q",
    )
    assert oauth1.base_string(example) == (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D"
        "%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1"
        "%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
    )


GOOD = {
    "oauth_consumer_key": "k", "oauth_signature_method": "HMAC-SHA1", "oauth_signature": "s", "oauth_timestamp": "1700000000",
    "oauth_nonce": "n",
}  # fmt: skip


def header(**parameters: str) -> str:
    return "OAuth " + ", ".join(f'{name}="{oauth1.escaped(value)}"' for name, value in parameters.items())


@pytest.mark.parametrize(
    "change",
    [
        {"oauth_signature": ""}, {"oauth_nonce": ""}, {"oauth_consumer_key": ""}, {"oauth_version": "2.0"},
        {"oauth_signature_method": "RSA-SHA1"}, {"oauth_timestamp": "soon"}, {"oauth_timestamp": "170000000"},
        {"oauth_timestamp": "-170000000"}, {"oauth_timestamp": "1700000601"}, {"oauth_timestamp": "1699999399"},
    ],
)  # fmt: skip
def test_what_is_no_signed_request(change: dict[str, str]) -> None:
    oauth1.check(oauth1.read("POST", "http://a/", header(**GOOD)), now=1700000000)
    with pytest.raises(Malformed):
        oauth1.check(oauth1.read("POST", "http://a/", header(**{**GOOD, **change})), now=1700000000)


@pytest.mark.parametrize(
    "text", ["", "OAuth", "Basic x", "OAuth a", 'OAuth a="b', 'OAuth a="1", a="2"', 'OAuth a="1" b="2"', "OAuth ,"]
)
def test_what_is_no_header(text: str) -> None:
    with pytest.raises(Malformed):
        oauth1.check(oauth1.read("POST", "http://a/", text))


def test_parameters_stand_in_the_header_only() -> None:
    with pytest.raises(Malformed):
        oauth1.read("POST", "http://a/", header(**GOOD), query="oauth_token=a")


def test_a_request_is_taken_once() -> None:
    nonces = Nonces(size=2)
    first, second, third = (oauth1.read("POST", "http://a/", header(**{**GOOD, "oauth_nonce": n})) for n in "abc")
    assert nonces.take(first, now=1.0) and not nonces.take(first, now=2.0)
    assert nonces.take(second, now=3.0) and nonces.take(third, now=4.0)  # the first gives way
    assert not nonces.take(third, now=5.0)
    assert nonces.take(third, now=5000.0)


@given(st.text(st.characters()), st.text(st.characters()), st.text(), st.text())
def test_whatever_is_sent_is_verified_or_malformed(text: str, rest: str, query: str, form: str) -> None:
    for start in ("", "OAuth ", 'OAuth oauth_signature="x", oauth_signature_method="HMAC-SHA1", a="'):
        try:
            request = oauth1.read("POST", "http://a/", start + text + '"' + rest, query, form)
            assert not oauth1.verifies(request, "secret", "secret")
            oauth1.check(request)
        except Malformed:
            pass


# ---- over HTTP ----------------------------------------------------------------------------------------------------------


class Consumer:
    """A program that speaks OAuth to the cloud."""

    def __init__(self, cloud: Identity, made: Any) -> None:
        self.cloud, self.id, self.secret = cloud, made["id"], made["secret"]

    async def post(self, path: str, body: Any = None, *, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        """A signed request; `more` is as oauthlib's Client takes it."""
        client = Client(self.id, **{"client_secret": self.secret, **more})
        _, signed, _ = client.sign(f"{self.cloud.http.url}{path}", "POST")
        return await self.cloud.http("POST", path, body, token="nobody", **{**signed, **(headers or {})})

    async def ask(self, project_id: str, **more: Any) -> Reply:
        more = {"callback_uri": "oob", **more}
        return await self.post("/v3/OS-OAUTH1/request_token", headers={"Requested-Project-Id": project_id}, **more)

    async def collect(self, request: dict[str, str], verifier: str, **more: Any) -> Reply:
        keys = {"resource_owner_key": request["oauth_token"], "resource_owner_secret": request["oauth_token_secret"]}
        return await self.post("/v3/OS-OAUTH1/access_token", **{**keys, "verifier": verifier, **more})

    async def login(self, access: dict[str, str], **more: Any) -> Reply:
        body = {"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}}
        keys = {"resource_owner_key": access["oauth_token"], "resource_owner_secret": access["oauth_token_secret"]}
        return await self.post("/v3/auth/tokens", body, **{**keys, **more})


def form(reply: Reply) -> dict[str, str]:
    assert reply.status == 201, reply.data
    assert reply.headers["Content-Type"] == oauth1.FORM
    return dict(parse_qsl(reply.data.decode()))


async def new_consumer(cloud: Identity) -> Consumer:
    body = {"consumer": {"description": "a printer"}}
    return Consumer(cloud, (await cloud.call("POST", "/v3/OS-OAUTH1/consumers", body)).json()["consumer"])


async def authorize(cloud: Identity, request: dict[str, str], *roles: str, token: str = "") -> Reply:
    body = {"roles": [{"name": name} for name in roles]}
    return await cloud.call("PUT", f"/v3/OS-OAUTH1/authorize/{request['oauth_token']}", body, token=token)


async def granted(cloud: Identity, consumer: Consumer, *roles: str) -> dict[str, str]:
    """An access token that the admin has given for his project."""
    request = form(await consumer.ask(cloud.accounts.admin_project_id))
    said = await authorize(cloud, request, *roles)
    assert said.status == 200, said.data
    return form(await consumer.collect(request, said.json()["token"]["oauth_verifier"]))


async def test_consumers(identity: Identity) -> None:
    base = "/v3/OS-OAUTH1/consumers"
    reply = await identity.call("POST", base, {"consumer": {"description": "a printer", "colour": "blue"}})
    made = reply.json()["consumer"]
    assert reply.status == 201 and len(made["secret"]) == 32 and made["links"]["self"].endswith(f"{base}/{made['id']}")
    shown = (await identity.call("GET", f"{base}/{made['id']}")).json()["consumer"]
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert (await identity.call("GET", base)).json()["consumers"] == [shown]
    files = identity.runtime.kernel.settings.data.glob("cumulet.sqlite*")
    assert not any(made["secret"].encode() in f.read_bytes() for f in files)
    path = f"{base}/{made['id']}"
    for wrong in ({}, {"secret": "x"}, {"description": 1}):
        assert (await identity.call("PATCH", path, {"consumer": wrong})).status == 400, wrong
    changed = await identity.call("PATCH", path, {"consumer": {"description": "other"}})
    assert changed.json()["consumer"] == {**shown, "description": "other"}
    demo, domain = await identity.token("demo"), await identity.token("admin", scope={"domain": {"id": "default"}})
    for token in (demo, domain):
        for method in ("GET", "PATCH", "DELETE"):
            body = {"consumer": {"description": "x"}} if method == "PATCH" else None
            assert (await identity.call(method, path, body, token=token)).status == 403
        assert (await identity.call("POST", base, {"consumer": {}}, token=token)).status == 403
    assert (await identity.call("DELETE", path)).status == 204
    assert (await identity.call("GET", path)).status == 404


async def test_the_whole_dance(identity: Identity) -> None:
    accounts, consumer = identity.accounts, await new_consumer(identity)
    access = await granted(identity, consumer, "member")
    reply = await consumer.login(access)
    assert reply.status == 201, reply.data
    token = reply.json()["token"]
    assert token["methods"] == ["oauth1"] and token["user"]["id"] == accounts.admin_user_id
    assert token["project"]["id"] == accounts.admin_project_id
    assert {role["name"] for role in token["roles"]} == {"member", "reader"}
    assert token["OS-OAUTH1"] == {"access_token_id": access["oauth_token"], "consumer_id": consumer.id}
    assert token["expires_at"] <= access["oauth_expires_at"]
    own = reply.headers["X-Subject-Token"]
    again = (await identity.call("GET", "/v3/auth/tokens", X_Subject_Token=own)).json()["token"]
    assert again["OS-OAUTH1"] == token["OS-OAUTH1"]
    assert (await identity.call("GET", "/v3/users", token=own)).status == 403
    rescope = {"auth": {"identity": {"methods": ["token"], "token": {"id": own}}, "scope": "unscoped"}}
    assert (await identity.call("POST", "/v3/auth/tokens", rescope)).status == 403


async def test_access_tokens_of_a_user(identity: Identity) -> None:
    accounts, consumer = identity.accounts, await new_consumer(identity)
    access = await granted(identity, consumer, "member", "reader")
    base = f"/v3/users/{accounts.admin_user_id}/OS-OAUTH1/access_tokens"
    path = f"{base}/{access['oauth_token']}"
    shown = (await identity.call("GET", path)).json()["access_token"]
    assert shown == {
        "id": access["oauth_token"], "consumer_id": consumer.id, "project_id": accounts.admin_project_id,
        "authorizing_user_id": accounts.admin_user_id, "expires_at": access["oauth_expires_at"],
        "links": {"self": f"{identity.http.url}{path}", "roles": f"{identity.http.url}{path}/roles"},
    }  # fmt: skip
    assert (await identity.call("GET", base)).json()["access_tokens"] == [shown]
    roles = (await identity.call("GET", f"{path}/roles")).json()["roles"]
    assert {role["name"] for role in roles} == {"member", "reader"}
    role = (await identity.call("GET", f"{path}/roles/{roles[0]['id']}")).json()["role"]
    assert role["id"] == roles[0]["id"]
    assert (await identity.call("GET", f"{path}/roles/{await identity.role('admin')}")).status == 404
    other = f"/v3/users/{accounts.demo_user_id}/OS-OAUTH1/access_tokens/{access['oauth_token']}"
    statuses = [(await identity.call(method, f"{other}{end}")).status for method, end in (
        ("GET", ""), ("DELETE", ""), ("GET", "/roles"), ("GET", f"/roles/{roles[0]['id']}"))]  # fmt: skip
    assert statuses == [404, 401, 404, 401]
    demo = await identity.token("demo")
    for method, where in (("GET", base), ("GET", path), ("DELETE", path), ("GET", f"{path}/roles")):
        assert (await identity.call(method, where, token=demo)).status == 403
        system = await identity.token("admin", scope={"system": {"all": True}})
        assert (await identity.call(method, where, token=system)).status == 403
    own = (await consumer.login(access)).headers["X-Subject-Token"]
    assert (await identity.call("GET", "/v3/auth/projects", token=own)).status == 200
    assert (await identity.call("DELETE", path)).status == 204
    assert (await identity.call("GET", "/v3/auth/projects", token=own)).status == 401
    assert (await identity.call("GET", path)).status == 404
    assert (await consumer.login(access)).status == 404


async def test_what_a_delegation_cannot_do(identity: Identity) -> None:
    consumer, accounts = await new_consumer(identity), identity.accounts
    access = await granted(identity, consumer, "admin")
    own = (await consumer.login(access)).headers["X-Subject-Token"]
    request = form(await consumer.ask(accounts.admin_project_id))
    assert (await authorize(identity, request, "member", token=own)).status == 403
    base = f"/v3/users/{accounts.admin_user_id}/OS-OAUTH1/access_tokens"
    for method, path in (
        ("GET", base),
        ("GET", f"{base}/{access['oauth_token']}"),
        ("DELETE", f"{base}/{access['oauth_token']}"),
    ):
        assert (await identity.call(method, path, token=own)).status == 403


async def test_a_key_made_by_a_delegation_gives_what_the_delegation_gives(identity: Identity) -> None:
    consumer, accounts = await new_consumer(identity), identity.accounts
    access = await granted(identity, consumer, "member")
    own = (await consumer.login(access)).headers["X-Subject-Token"]
    path = f"/v3/users/{accounts.admin_user_id}/credentials/OS-EC2"
    mine = (await identity.call("POST", path, {"tenant_id": accounts.admin_project_id}, token=own)).json()["credential"]
    assert (await identity.call("POST", path, {"tenant_id": accounts.demo_project_id}, token=own)).status == 403
    whole = (await identity.call("POST", path, {"tenant_id": accounts.demo_project_id})).json()["credential"]
    totp = await identity.made("credentials", type="totp", blob="x", user_id=accounts.admin_user_id)
    listed = (await identity.call("GET", path, token=own)).json()["credentials"]
    assert [key["access"] for key in listed] == [mine["access"]]
    (stored,) = (await identity.call("GET", "/v3/credentials", token=own)).json()["credentials"]
    for method in ("GET", "DELETE"):
        assert (await identity.call(method, f"{path}/{whole['access']}", token=own)).status == 403
        assert (await identity.call(method, f"/v3/credentials/{totp['id']}", token=own)).status == 403
    made = {"type": "totp", "blob": "y", "user_id": accounts.admin_user_id}
    assert (await identity.call("POST", "/v3/credentials", {"credential": made}, token=own)).status == 403
    for change in (
        {"type": "cert"}, {"project_id": accounts.demo_project_id}, {"user_id": accounts.demo_user_id},
        {"blob": f'{{"access":"{mine["access"]}","secret":"x"}}'},
    ):  # fmt: skip
        where = f"/v3/credentials/{stored['id']}"
        assert (await identity.call("PATCH", where, {"credential": change})).status == 400, change
    sent = signed_s3(mine)
    reply = await identity.call("POST", "/v3/s3tokens", {"credentials": sent})
    token = reply.json()["token"]
    assert {role["name"] for role in token["roles"]} == {"member", "reader"}
    assert token["OS-OAUTH1"]["access_token_id"] == access["oauth_token"] and token["methods"] == ["ec2credential"]
    assert token["expires_at"] <= access["oauth_expires_at"]
    await identity.call("DELETE", f"/v3/OS-OAUTH1/consumers/{consumer.id}")
    assert (await identity.call("POST", "/v3/s3tokens", {"credentials": sent})).status == 401


async def test_a_key_by_a_delegation_is_for_its_own_user(identity: Identity) -> None:
    consumer, accounts = await new_consumer(identity), identity.accounts
    own = (await consumer.login(await granted(identity, consumer, "admin"))).headers["X-Subject-Token"]
    path = f"/v3/users/{accounts.demo_user_id}/credentials/OS-EC2"
    assert (await identity.call("POST", path, {"tenant_id": accounts.admin_project_id}, token=own)).status == 403


async def test_what_voids_a_consumers_tokens(identity: Identity) -> None:
    consumer, accounts = await new_consumer(identity), identity.accounts
    access = await granted(identity, consumer, "member")
    own = (await consumer.login(access)).headers["X-Subject-Token"]
    assert (await identity.call("GET", "/v3/auth/projects", token=own)).status == 200
    assert (await identity.call("DELETE", f"/v3/OS-OAUTH1/consumers/{consumer.id}")).status == 204
    assert (await identity.call("GET", "/v3/auth/projects", token=own)).status == 401
    assert (await consumer.login(access)).status == 404
    tokens = f"/v3/users/{accounts.admin_user_id}/OS-OAUTH1/access_tokens"
    assert (await identity.call("GET", tokens)).json()["access_tokens"] == []


async def test_roles_that_the_user_has_lost(identity: Identity) -> None:
    accounts, place = identity.accounts, f"projects/{identity.accounts.demo_project_id}"
    boss = await identity.person("boss", "admin", place)
    token = await identity.token("boss", scope="demo")
    consumer = await new_consumer(identity)
    request = form(await consumer.ask(accounts.demo_project_id))
    said = await authorize(identity, request, "member", token=token)
    access = form(await consumer.collect(request, said.json()["token"]["oauth_verifier"]))
    own = (await consumer.login(access)).headers["X-Subject-Token"]
    assert (await identity.grant("admin", place, f"users/{boss['id']}", "DELETE")).status == 204
    assert (await identity.call("GET", "/v3/auth/projects", token=own)).status == 401
    assert (await consumer.login(access)).status == 401


async def test_request_tokens_that_are_refused(identity: Identity) -> None:
    consumer, project = await new_consumer(identity), identity.accounts.admin_project_id
    path = "/v3/OS-OAUTH1/request_token"
    assert (await identity.http("POST", path, token="nobody", Requested_Project_Id=project)).status == 400
    for authorization in ("Basic x", "OAuth", "OAuth é", 'OAuth oauth_consumer_key="x"', "OAuth " + "a" * 20000):
        headers = {"Authorization": authorization, "Requested-Project-Id": project}
        assert (await identity.http("POST", path, token="nobody", **headers)).status in (400, 404), authorization
    hosts = {"Host": "[", "Requested-Project-Id": project}
    assert (await consumer.post(path, headers=hosts, callback_uri="oob")).status == 400
    assert (await consumer.post(path, callback_uri="oob")).status == 400
    assert (await consumer.ask(project, callback_uri=None)).status == 400
    assert (await consumer.ask(project, client_secret="wrong")).status == 401
    assert (await consumer.ask(project, timestamp="1000000000")).status == 400
    assert (await consumer.ask(project, nonce="abc")).status == 201
    assert (await consumer.ask("none")).status == 404
    consumer.id = "none"
    assert (await consumer.ask(project)).status == 404
    assert (await identity.call("GET", path)).status == 405


async def test_a_request_is_not_taken_twice(identity: Identity) -> None:
    consumer = await new_consumer(identity)
    access = await granted(identity, consumer, "member")
    client = Client(consumer.id, consumer.secret, access["oauth_token"], access["oauth_token_secret"], nonce="abc")
    _, signed, _ = client.sign(f"{identity.http.url}/v3/auth/tokens", "POST")
    body = {"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}}
    replies = [await identity.http("POST", "/v3/auth/tokens", body, token="nobody", **signed) for _ in range(2)]
    assert [reply.status for reply in replies] == [201, 401]


async def test_authorizations_that_are_refused(identity: Identity) -> None:
    consumer, accounts = await new_consumer(identity), identity.accounts
    request = form(await consumer.ask(accounts.admin_project_id))
    path = f"/v3/OS-OAUTH1/authorize/{request['oauth_token']}"
    wrongs: list[Any] = ["x", [{}], [{"id": "a", "name": "b"}], [{"id": 1}], [{"name": ""}], [{"colour": "blue"}]]
    for roles in wrongs:
        assert (await identity.call("PUT", path, {"roles": roles})).status == 400, roles
    assert (await authorize(identity, request, "no-such-role")).status == 404
    assert (await identity.call("PUT", path, {"roles": [{"id": "none"}]})).status == 401
    assert (await authorize(identity, request, "service")).status == 401
    assert (await authorize(identity, request, "member", token=await identity.token("demo"))).status == 403
    assert (await authorize(identity, {"oauth_token": "none"}, "member")).status == 404
    theirs = form(await consumer.ask(accounts.demo_project_id))
    assert (await authorize(identity, theirs, "member")).status == 401


async def test_access_tokens_that_are_refused(identity: Identity) -> None:
    consumer, other = await new_consumer(identity), await new_consumer(identity)
    request = form(await consumer.ask(identity.accounts.admin_project_id))
    assert (await consumer.collect(request, "abcdefgh")).status == 401  # nobody has said yes
    verifier = (await authorize(identity, request, "member")).json()["token"]["oauth_verifier"]
    assert (await consumer.collect(request, "wrong")).status == 401
    assert (await consumer.collect(request, "é\U0001f600")).status == 401
    assert (await consumer.collect(request, "")).status == 400
    assert (await consumer.collect(request, verifier, resource_owner_secret="wrong")).status == 401
    assert (await consumer.collect(request, verifier, resource_owner_key="none")).status == 404
    assert (await consumer.collect(request, verifier, resource_owner_key=None)).status == 400
    assert (await other.collect(request, verifier)).status == 401
    form(await consumer.collect(request, verifier))
    assert (await consumer.collect(request, verifier)).status == 404  # it is spent


async def test_logins_that_are_refused(identity: Identity) -> None:
    consumer, other = await new_consumer(identity), await new_consumer(identity)
    access = await granted(identity, consumer, "member")
    assert (await consumer.login(access, resource_owner_secret="wrong")).status == 401
    assert (await consumer.login(access, client_secret="wrong")).status == 401
    assert (await consumer.login(access, resource_owner_key="none")).status == 404
    assert (await consumer.login(access, resource_owner_key=None)).status == 400
    assert (await other.login(access)).status == 401
    body = {"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}}
    assert (await identity.http("POST", "/v3/auth/tokens", body, token="nobody")).status == 400
    without_roles = await granted(identity, consumer)
    assert (await consumer.login(without_roles)).status == 401


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let what ends in the future have ended."""

    def let(module: str) -> None:
        monkeypatch.setattr(f"cumulet.services.identity.{module}.now", lambda: "2100-01-01T00:00:00.000000")

    return let


async def test_what_has_ended(identity: Identity, past: Callable[[str], None]) -> None:
    consumer = await new_consumer(identity)
    access = await granted(identity, consumer, "member")
    request = form(await consumer.ask(identity.accounts.admin_project_id))
    past("request_token")
    assert (await authorize(identity, request, "member")).status == 401
    assert (await consumer.collect(request, "abcdefgh")).status == 401
    own = (await consumer.login(access)).headers["X-Subject-Token"]
    past("access_token")
    assert (await consumer.login(access)).status == 401
    assert (await identity.call("GET", "/v3/auth/projects", token=own)).status == 401


async def test_what_never_ends(tmp_path: Path) -> None:
    async with identity_in(tmp_path, request_token_duration=0, access_token_duration=0) as cloud:
        access = await granted(cloud, await new_consumer(cloud), "member")
        assert "oauth_expires_at" not in access


@pytest.mark.clients
async def test_keystoneauth_logs_in_by_an_access_token(identity: Identity) -> None:
    await identity.runtime.ensure_bootstrap(wanted(identity_url=f"{identity.http.url}/v3"))
    consumer = await new_consumer(identity)
    access = await granted(identity, consumer, "member")

    def run() -> Any:
        plugin = client_plugin.V3OAuth1(
            f"{identity.http.url}/v3", consumer_key=consumer.id, consumer_secret=consumer.secret,
            access_key=access["oauth_token"], access_secret=access["oauth_token_secret"],
        )  # fmt: skip
        with requests.Session() as connection:
            found = plugin.get_access(Session(session=connection))
        return found.project_id, found.oauth_access_token_id, found.oauth_consumer_id

    got = await asyncio.to_thread(run)
    assert got == (identity.accounts.admin_project_id, access["oauth_token"], consumer.id)
