"""Access keys for EC2 and S3, and the tokens for what was signed with them."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.auth import SigV2Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulet.services.identity import signature
from tests.harness import Reply
from tests.services.identity.conftest import Identity, identity_in

HOST = "ec2.test:8773"


@pytest.fixture
async def cloud(identity: Identity) -> Identity:
    """With a user who holds the role `service`, as those do who ask for these tokens."""
    await identity.person("ec2-api", "service", f"projects/{identity.accounts.admin_project_id}")
    return identity


async def service_token(cloud: Identity) -> str:
    return await cloud.token("ec2-api", scope="admin")


async def key_of(cloud: Identity, token: str, user_id: str, project_id: str) -> Any:
    path = f"/v3/users/{user_id}/credentials/OS-EC2"
    reply = await cloud.call("POST", path, {"tenant_id": project_id}, token=token)
    assert reply.status == 201, reply.data
    return reply.json()["credential"]


async def demo_key(cloud: Identity) -> Any:
    accounts = cloud.accounts
    return await key_of(cloud, await cloud.token("demo"), accounts.demo_user_id, accounts.demo_project_id)


def signed_v2(key: Any, **params: str) -> dict[str, Any]:
    """What a service sends of a request that botocore signed in version 2."""
    data = {"Action": "DescribeInstances", **params}
    request = AWSRequest("POST", f"http://{HOST}/services/Cloud", data=data)
    SigV2Auth(Credentials(key["access"], key["secret"])).add_auth(request)
    sent = {name: str(value) for name, value in request.data.items()}
    made = sent.pop("Signature")
    return {
        "access": key["access"], "signature": made, "verb": "POST", "host": HOST, "path": "/services/Cloud",
        "params": sent, "headers": {}, "body_hash": "",
    }  # fmt: skip


def signed_v4(key: Any, service: str = "ec2") -> dict[str, Any]:
    """The same in version 4."""
    body = "Action=DescribeInstances"
    request = AWSRequest("POST", f"http://{HOST}/services/Cloud", data=body)
    SigV4Auth(Credentials(key["access"], key["secret"]), service, "RegionOne").add_auth(request)
    headers = {**dict(request.headers.items()), "Host": HOST}
    return {
        "access": key["access"], "signature": headers["Authorization"].rpartition("Signature=")[2], "verb": "POST",
        "host": HOST, "path": "/services/Cloud", "params": {"Action": "DescribeInstances"}, "headers": headers,
        "body_hash": hashlib.sha256(body.encode()).hexdigest(),
    }  # fmt: skip


def signed_s3(key: Any, text: bytes = b"GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/bucket") -> dict[str, Any]:
    token = base64.urlsafe_b64encode(text).decode()
    return {"access": key["access"], "token": token, "signature": signature.s3_signature(key["secret"], text)}


async def ask(cloud: Identity, what: str, sent: Any, *, name: str = "credentials", token: str = "") -> Reply:
    return await cloud.call("POST", f"/v3/{what}", {name: sent}, token=token or await service_token(cloud))


# ---- access keys --------------------------------------------------------------------------------------------------------


async def test_a_key_is_a_credential_of_its_own_form(cloud: Identity) -> None:
    demo, accounts = await cloud.token("demo"), cloud.accounts
    key = await demo_key(cloud)
    path = f"/v3/users/{accounts.demo_user_id}/credentials/OS-EC2"
    assert key["tenant_id"] == accounts.demo_project_id and key["trust_id"] is None
    assert key["links"]["self"].endswith(f"{path}/{key['access']}")
    assert (await cloud.call("GET", path, token=demo)).json()["credentials"] == [key]
    assert (await cloud.call("GET", f"{path}/{key['access']}", token=demo)).json()["credential"] == key
    (stored,) = (await cloud.call("GET", "/v3/credentials?type=ec2", token=demo)).json()["credentials"]
    assert stored["id"] == hashlib.sha256(key["access"].encode()).hexdigest()
    assert msgspec.json.decode(stored["blob"])["secret"] == key["secret"]
    files = cloud.runtime.kernel.settings.data.glob("cumulet.sqlite*")
    assert not any(key["secret"].encode() in f.read_bytes() for f in files)
    assert (await cloud.call("DELETE", f"{path}/{key['access']}", token=demo)).status == 204
    assert (await cloud.call("GET", f"{path}/{key['access']}", token=demo)).status == 404
    assert (await cloud.call("DELETE", f"{path}/none", token=demo)).status == 404


async def test_who_may_do_what_with_keys(cloud: Identity) -> None:
    accounts = cloud.accounts
    place = f"projects/{accounts.demo_project_id}"
    reader, other = await cloud.person("rita", "reader", place), await cloud.person("otto", "member", place)
    tokens = {
        "admin": cloud.admin,
        "own reader": await cloud.token("rita", scope="demo"),
        "other": await cloud.token("otto", scope="demo"),
        "domain": await cloud.token("admin", scope={"domain": {"id": "default"}}),
        "system": await cloud.token("admin", scope={"system": {"all": True}}),
    }
    path = f"/v3/users/{reader['id']}/credentials/OS-EC2"
    wanted = {"admin": 201, "system": 201, "own reader": 403, "other": 403, "domain": 403}
    body = {"tenant_id": accounts.demo_project_id}
    made = {who: await cloud.call("POST", path, body, token=tokens[who]) for who in wanted}
    assert {who: reply.status for who, reply in made.items()} == wanted
    access = made["admin"].json()["credential"]["access"]
    seen = {"admin": 200, "system": 200, "own reader": 200, "other": 403, "domain": 403}
    for where in (path, f"{path}/{access}"):
        assert {who: (await cloud.call("GET", where, token=tokens[who])).status for who in seen} == seen
    gone = {"own reader": 403, "other": 403, "domain": 403, "admin": 204}
    assert {who: (await cloud.call("DELETE", f"{path}/{access}", token=tokens[who])).status for who in gone} == gone
    assert (await cloud.call("GET", path, token="")).status == 200
    assert (await cloud.http("GET", path, token="nobody")).status == 401
    assert (await cloud.call("GET", f"/v3/users/{other['id']}/credentials/OS-EC2")).json()["credentials"] == []


async def test_wrong_input_of_keys(cloud: Identity) -> None:
    demo, user = await cloud.token("demo"), cloud.accounts.demo_user_id
    path = f"/v3/users/{user}/credentials/OS-EC2"
    bodies: list[Any] = [{}, {"tenant_id": None}, {"tenant_id": 1}, [], "x"]
    for body in bodies:
        assert (await cloud.call("POST", path, body, token=demo)).status == 400
    assert (await cloud.call("POST", path, {"tenant_id": "none"}, token=demo)).status == 404
    nobody = "/v3/users/none/credentials/OS-EC2"
    assert (await cloud.call("GET", nobody)).status == 404
    assert (await cloud.call("POST", nobody, {"tenant_id": cloud.accounts.demo_project_id})).status == 404
    other = await cloud.made("credentials", type="cert", blob="x", user_id=user)
    assert (await cloud.call("GET", f"{path}/{other['id']}")).status == 404


async def test_a_credential_that_is_no_key_is_not_shown_as_one(cloud: Identity) -> None:
    accounts = cloud.accounts
    blob = '{"access":"abc","secret":"s"}'
    made = await cloud.made(
        "credentials", type="EC2", blob=blob, user_id=accounts.demo_user_id, project_id=accounts.demo_project_id
    )
    assert made["id"] == hashlib.sha256(b"abc").hexdigest()
    assert (await cloud.call("GET", f"/v3/users/{accounts.demo_user_id}/credentials/OS-EC2/abc")).status == 401
    assert (await ask(cloud, "ec2tokens", signed_v2({"access": "abc", "secret": "s"}))).status == 404


# ---- /v3/credentials ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"type": "cert"}, {"blob": "x"}, {"type": "", "blob": "x"}, {"type": 1, "blob": "x"}, {"type": "cert", "blob": {}},
        {"type": "ec2", "blob": "x"}, {"type": "ec2", "blob": "{}"}, {"type": "ec2", "blob": '{"access": 1}'},
        {"type": "ec2", "blob": "[]"}, {"type": "ec2", "blob": '{"access":"a"}', "project_id": None},
        {"type": "ec2", "blob": '{"access":"\\ud800"}'},
    ],
)  # fmt: skip
async def test_what_is_no_credential(cloud: Identity, values: dict[str, Any]) -> None:
    full = {"user_id": cloud.accounts.demo_user_id, "project_id": cloud.accounts.demo_project_id, **values}
    assert (await cloud.call("POST", "/v3/credentials", {"credential": full})).status == 400


async def test_a_credential_names_its_owner(cloud: Identity) -> None:
    body = {"credential": {"type": "totp", "blob": "GEZDGNBVGY3TQOJQ"}}
    assert (await cloud.call("POST", "/v3/credentials", body)).status == 400
    body["credential"]["user_id"] = "none"
    assert (await cloud.call("POST", "/v3/credentials", body)).status == 404


async def test_updates_of_a_credential(cloud: Identity) -> None:
    accounts = cloud.accounts
    own = {"user_id": accounts.demo_user_id, "project_id": accounts.demo_project_id}
    made = await cloud.made("credentials", type="ec2", blob='{"access":"a","secret":"b"}', **own)
    path, demo = f"/v3/credentials/{made['id']}", await cloud.token("demo")
    for wrong in ({}, {"blob": "x"}, {"blob": '{"access":"a","trust_id":"t"}'}, {"blob": '{"access":"a","access_id":"t"}'},
                  {"blob": '{"access":"a","app_cred_id":"t"}'}, {"project_id": None}, {"user_id": None}):  # fmt: skip
        assert (await cloud.call("PATCH", path, {"credential": wrong}, token=demo)).status == 400, wrong
    assert (await cloud.call("PATCH", path, {"credential": {"colour": "blue"}}, token=demo)).status == 200
    assert (await cloud.call("GET", path, token=demo)).json()["credential"]["colour"] == "blue"
    assert (await cloud.call("PATCH", path, {"credential": {"user_id": "none"}})).status == 404
    given = {"credential": {"user_id": accounts.admin_user_id}}
    assert (await cloud.call("PATCH", path, given, token=demo)).status == 403
    assert (await cloud.call("PATCH", path, given)).status == 200
    assert (await cloud.call("PATCH", path, {"credential": {"colour": "red"}}, token=demo)).status == 403


async def test_what_becomes_a_key_needs_a_project(cloud: Identity) -> None:
    accounts = cloud.accounts
    made = await cloud.made("credentials", type="cert", blob="x", user_id=accounts.demo_user_id)
    path = f"/v3/credentials/{made['id']}"
    assert (await cloud.call("PATCH", path, {"credential": {"type": "ec2"}})).status == 400
    named = {"type": "ec2", "project_id": accounts.demo_project_id}
    assert (await cloud.call("PATCH", path, {"credential": named})).status == 200
    assert (await cloud.call("PATCH", path, {"credential": {"blob": "y"}})).status == 400
    assert (await cloud.call("PATCH", path, {"credential": {"type": "cert"}})).status == 200


async def test_filters_of_credentials(cloud: Identity) -> None:
    accounts = cloud.accounts
    for type, user in (
        ("cert", accounts.demo_user_id),
        ("totp", accounts.demo_user_id),
        ("cert", accounts.admin_user_id),
    ):
        await cloud.made("credentials", type=type, blob="x", user_id=user)

    async def found(query: str, token: str = "") -> list[tuple[str, str]]:
        reply = await cloud.call("GET", f"/v3/credentials?{query}", token=token)
        return sorted((c["type"], c["user_id"]) for c in reply.json()["credentials"])

    assert len(await found("")) == 3
    assert await found(f"user_id={accounts.demo_user_id}&type=cert") == [("cert", accounts.demo_user_id)]
    assert await found("type__icontains=TOT") == [("totp", accounts.demo_user_id)]
    assert await found(f"user_id={accounts.admin_user_id}", await cloud.token("demo")) == []


async def test_a_user_may_have_so_many_credentials(tmp_path: Path) -> None:
    async with identity_in(tmp_path, credential_user_limit=1) as cloud:
        await demo_key(cloud)
        body = {"tenant_id": cloud.accounts.demo_project_id}
        path = f"/v3/users/{cloud.accounts.demo_user_id}/credentials/OS-EC2"
        assert (await cloud.call("POST", path, body)).status == 403


# ---- tokens -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signed_v2, signed_v4])
@pytest.mark.parametrize("name", ["credentials", "credential", "ec2Credentials"])
async def test_a_token_for_what_botocore_signed(cloud: Identity, sign: Any, name: str) -> None:
    key = await demo_key(cloud)
    reply = await ask(cloud, "ec2tokens", sign(key), name=name)
    assert reply.status == 200, reply.data
    token = reply.json()["token"]
    assert token["methods"] == ["ec2credential"] and token["user"]["id"] == cloud.accounts.demo_user_id
    assert token["project"]["id"] == cloud.accounts.demo_project_id
    assert {r["name"] for r in token["roles"]} == {"member", "reader"} and token["catalog"]
    own = reply.headers["X-Subject-Token"]
    assert (await cloud.call("GET", "/v3/auth/projects", token=own)).status == 200


async def test_who_may_ask_for_these_tokens(cloud: Identity) -> None:
    key = await demo_key(cloud)
    for what, sent in (("ec2tokens", signed_v4(key)), ("s3tokens", signed_s3(key))):
        assert (await ask(cloud, what, sent, token=await cloud.token("demo"))).status == 403
        assert (await cloud.http("POST", f"/v3/{what}", {"credentials": sent}, token="nobody")).status == 401
        assert (await ask(cloud, what, sent, token=cloud.admin)).status == 200
        assert (await cloud.call("GET", f"/v3/{what}")).status == 405


async def test_what_was_not_signed_by_who_has_the_key(cloud: Identity) -> None:
    key = await demo_key(cloud)
    right = signed_v4(key)
    changes: list[dict[str, Any]] = [
        {"signature": "x"}, {"signature": "é\U0001f600"}, {"signature": ""}, {"signature": None}, {"path": "/other"},
        {"params": {"SignatureVersion": "7"}}, {"headers": {}}, {"access": None}, {"body_hash": "x"},
    ]  # fmt: skip
    for change in changes:
        assert (await ask(cloud, "ec2tokens", {**right, **change})).status == 401, change
    assert (await ask(cloud, "ec2tokens", {**right, "access": "none"})).status == 404
    wrongs: list[dict[str, Any]] = [{"params": []}, {"params": {"a": {}}}, {"verb": 1}, {"access": 1}]
    for wrong in wrongs:
        assert (await ask(cloud, "ec2tokens", {**right, **wrong})).status == 400, wrong
    assert (await cloud.call("POST", "/v3/ec2tokens", {}, token=await service_token(cloud))).status == 401
    assert (await cloud.call("POST", "/v3/ec2tokens", token=await service_token(cloud))).status == 400


async def test_what_was_signed_long_ago(cloud: Identity) -> None:
    key = await demo_key(cloud)
    request = signature.Signed(
        verb="GET", host=HOST, path="/", params={
            "SignatureVersion": "2", "SignatureMethod": "HmacSHA256", "Timestamp": "2015-08-30T12:36:00Z"}
    )  # fmt: skip
    sent = {
        "access": key["access"], "verb": "GET", "host": HOST, "path": "/", "params": dict(request.params),
        "signature": signature.ec2_signature(key["secret"], request),
    }  # fmt: skip
    reply = await ask(cloud, "ec2tokens", sent)
    assert reply.status == 401 and "expired" in reply.json()["error"]["message"]


async def test_a_token_for_what_was_signed_for_s3(cloud: Identity) -> None:
    key = await demo_key(cloud)
    v4 = b"AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/RegionOne/s3/aws4_request\n" + b"0" * 64
    for text in (b"GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/bucket", v4, b"\xff\xfe?>"):
        reply = await ask(cloud, "s3tokens", signed_s3(key, text))
        assert reply.status == 200, reply.data
        assert reply.json()["token"]["methods"] == ["ec2credential"] and "X-Subject-Token" not in reply.headers
    right = signed_s3(key)
    for change, status in (({"signature": "x"}, 401), ({"signature": None}, 401), ({"token": "=="}, 400),
                           ({"token": "a"}, 400), ({"token": "é"}, 400), ({"token": None}, 401),
                           ({"access": "none"}, 404)):  # fmt: skip
        assert (await ask(cloud, "s3tokens", {**right, **change})).status == status, change
    for other in (v4.replace(b"/s3/", b"/ec2/"), v4 + b"\nx", b"AWS4-x"):
        token = base64.b64encode(other).decode()
        assert (await ask(cloud, "s3tokens", {**right, "token": token})).status == 401


@pytest.mark.parametrize(("stored", "guess"), [("null", "None"), ('""', ""), ("1", "1"), ("{}", "{}")])
async def test_nobody_signs_with_the_key_that_has_no_secret(cloud: Identity, stored: str, guess: str) -> None:
    own = {"user_id": cloud.accounts.demo_user_id, "project_id": cloud.accounts.demo_project_id}
    await cloud.made("credentials", type="ec2", blob=f'{{"access":"bare","secret":{stored}}}', **own)
    key = {"access": "bare", "secret": guess}
    assert (await ask(cloud, "s3tokens", signed_s3(key))).status == 401
    request = signature.Signed(params={"SignatureVersion": "0", "Action": "x", "Timestamp": ""})
    sent = {"params": dict(request.params), "signature": signature.ec2_signature(guess, request)}
    assert (await ask(cloud, "ec2tokens", {"access": "bare", **sent})).status == 401


async def test_a_key_is_worth_what_its_owner_is(cloud: Identity) -> None:
    key, accounts = await demo_key(cloud), cloud.accounts

    async def status() -> int:
        return (await ask(cloud, "ec2tokens", signed_v4(key))).status

    assert await status() == 200
    for where, kind in (
        (f"/v3/users/{accounts.demo_user_id}", "user"),
        (f"/v3/projects/{accounts.demo_project_id}", "project"),
    ):
        assert (await cloud.call("PATCH", where, {kind: {"enabled": False}})).status == 200
        assert await status() == 401
        assert (await cloud.call("PATCH", where, {kind: {"enabled": True}})).status == 200
        assert await status() == 200
    place, actor = f"projects/{accounts.demo_project_id}", f"users/{accounts.demo_user_id}"
    assert (await cloud.grant("member", place, actor, "DELETE")).status == 204
    assert await status() == 401
    await cloud.grant("member", place, actor)
    assert (await cloud.call("DELETE", f"/v3/{actor}")).status == 204
    assert await status() == 404


PIECES = (
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["AWS4-HMAC-SHA256", "2", "a/1/r/ec2/aws4_request"])
)  # fmt: skip
NAMES = st.sampled_from(["SignatureVersion", "Timestamp", "X-Amz-Date", "Authorization", "X-Amz-Algorithm", "Action"])
BODIES = st.fixed_dictionaries(
    {"signature": PIECES},
    optional={
        "params": st.dictionaries(NAMES, PIECES, max_size=4) | PIECES,
        "headers": st.dictionaries(NAMES, PIECES, max_size=4) | PIECES,
        "verb": PIECES, "host": PIECES, "path": PIECES, "body_hash": PIECES, "token": PIECES,
    },
)  # fmt: skip


async def test_whatever_is_sent_is_refused(cloud: Identity) -> None:
    key, token = await demo_key(cloud), await service_token(cloud)
    bodies: list[dict[str, Any]] = []

    @settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None)
    @given(BODIES)
    def collect(body: dict[str, Any]) -> None:
        bodies.append(body)

    collect()
    for body in bodies:
        for what in ("ec2tokens", "s3tokens"):
            reply = await ask(cloud, what, {**body, "access": key["access"]}, token=token)
            assert reply.status in (400, 401), (reply.status, body)
