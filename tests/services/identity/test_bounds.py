"""Access keys and clients of OAuth 2 by delegations: they give what the delegation gives, and end with it."""

import asyncio
import base64
from typing import Any

import pytest
import requests
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from tests.harness import Reply
from tests.services.identity.conftest import Identity, wanted
from tests.services.identity.test_ec2 import demo_key, signed_s3, signed_v4


async def app_credential(cloud: Identity, token: str, **values: Any) -> Any:
    path = f"/v3/users/{cloud.accounts.demo_user_id}/application_credentials"
    body = {"application_credential": {"name": "robot", **values}}
    reply = await cloud.call("POST", path, body, token=token)
    assert reply.status == 201, reply.data
    return reply.json()["application_credential"]


async def robot(cloud: Identity, credential: Any) -> str:
    who = {"id": credential["id"], "secret": credential["secret"]}
    body = {"auth": {"identity": {"methods": ["application_credential"], "application_credential": who}}}
    reply = await cloud.http("POST", "/v3/auth/tokens", body, token="nobody")
    assert reply.status == 201, reply.data
    return reply.headers["X-Subject-Token"]


async def new_key(cloud: Identity, token: str, user_id: str = "") -> Reply:
    path = f"/v3/users/{user_id or cloud.accounts.demo_user_id}/credentials/OS-EC2"
    return await cloud.call("POST", path, {"tenant_id": cloud.accounts.demo_project_id}, token=token)


async def exchange(cloud: Identity, key: Any) -> Reply:
    return await cloud.call("POST", "/v3/ec2tokens", {"credentials": signed_v4(key)})


async def test_a_restricted_application_credential_makes_no_keys(identity: Identity) -> None:
    token = await robot(identity, await app_credential(identity, await identity.token("demo")))
    assert (await new_key(identity, token)).status == 403
    key = {"type": "ec2", "blob": '{"access":"a","secret":"b"}', "user_id": identity.accounts.demo_user_id}
    body = {"credential": {**key, "project_id": identity.accounts.demo_project_id}}
    assert (await identity.call("POST", "/v3/credentials", body, token=token)).status == 403
    body["credential"]["type"] = "cert"
    assert (await identity.call("POST", "/v3/credentials", body, token=token)).status == 201


async def test_a_key_by_an_application_credential(identity: Identity) -> None:
    accounts, demo = identity.accounts, await identity.token("demo")
    credential = await app_credential(identity, demo, unrestricted=True, roles=[{"name": "reader"}])
    token = await robot(identity, credential)
    key = {"access": "abc", "secret": "def"}
    body = {
        "type": "ec2", "blob": '{"access":"abc","secret":"def"}', "user_id": accounts.demo_user_id,
        "project_id": accounts.demo_project_id,
    }  # fmt: skip
    made = (await identity.call("POST", "/v3/credentials", {"credential": body}, token=token)).json()["credential"]
    assert f'"app_cred_id":"{credential["id"]}"' in made["blob"]
    for change in ({"type": "cert"}, {"project_id": accounts.admin_project_id}, {"blob": body["blob"]}):
        path = f"/v3/credentials/{made['id']}"
        assert (await identity.call("PATCH", path, {"credential": change}, token=demo)).status == 400, change
    reply = await exchange(identity, key)
    assert reply.status == 200, reply.data
    told = reply.json()["token"]
    assert [role["name"] for role in told["roles"]] == ["reader"] and told["methods"] == ["ec2credential"]
    assert told["application_credential"]["id"] == credential["id"]
    again = reply.headers["X-Subject-Token"]
    whole = {"auth": {"identity": {"methods": ["token"], "token": {"id": again}}, "scope": {
        "project": {"id": accounts.demo_project_id}}}}  # fmt: skip
    assert (await identity.call("POST", "/v3/auth/tokens", whole)).status == 403
    gone = f"/v3/users/{accounts.demo_user_id}/application_credentials/{credential['id']}"
    assert (await identity.call("DELETE", gone, token=demo)).status == 204
    assert (await exchange(identity, key)).status == 401
    assert (await identity.call("GET", "/v3/auth/projects", token=again)).status == 401


async def test_a_key_of_another_is_not_seen_by_a_delegation(identity: Identity) -> None:
    demo = await identity.token("demo")
    await identity.made("credentials", type="totp", blob="secret", user_id=identity.accounts.demo_user_id)
    await demo_key(identity)
    token = await robot(identity, await app_credential(identity, demo, unrestricted=True))
    found = (await identity.call("GET", "/v3/credentials", token=token)).json()["credentials"]
    assert [c["type"] for c in found] == ["ec2"]


@pytest.mark.parametrize("impersonation", [True, False])
async def test_a_key_by_a_trust(identity: Identity, impersonation: bool) -> None:
    accounts = identity.accounts
    trustee = await identity.made("users", name="trudy", password="secret", domain_id="default")
    body = {
        "trustor_user_id": accounts.demo_user_id, "trustee_user_id": trustee["id"], "impersonation": impersonation,
        "project_id": accounts.demo_project_id, "roles": [{"name": "member"}], "expires_at": "2099-01-01T00:00:00.000000Z",
    }  # fmt: skip
    demo = await identity.token("demo")
    trust = (await identity.call("POST", "/v3/OS-TRUST/trusts", {"trust": body}, token=demo)).json()["trust"]
    token = await identity.token("trudy", scope={"OS-TRUST:trust": {"id": trust["id"]}})
    owner = accounts.demo_user_id if impersonation else trustee["id"]
    key = (await new_key(identity, token, owner)).json()["credential"]
    assert key["trust_id"] == trust["id"]
    other = trustee["id"] if impersonation else accounts.demo_user_id
    assert (await new_key(identity, token, other)).status == 403
    reply = await identity.call("POST", "/v3/s3tokens", {"credentials": signed_s3(key)})
    assert reply.status == 200, reply.data
    told = reply.json()["token"]
    assert told["user"]["id"] == owner and told["OS-TRUST:trust"]["id"] == trust["id"]
    assert {role["name"] for role in told["roles"]} == {"member", "reader"}
    assert (await identity.call("DELETE", f"/v3/OS-TRUST/trusts/{trust['id']}", token=demo)).status == 204
    assert (await exchange(identity, key)).status == 401


async def test_an_access_token_of_oauth_2(identity: Identity) -> None:
    credential = await app_credential(identity, await identity.token("demo"))
    basic = base64.b64encode(f"{credential['id']}:{credential['secret']}".encode()).decode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    in_form = f"&client_id={credential['id']}&client_secret={credential['secret']}"
    for headers, form in (({**kind, "Authorization": f"Basic {basic}"}, ""), (kind, in_form)):
        data = f"grant_type=client_credentials{form}"
        reply = await identity.http("POST", "/v3/OS-OAUTH2/token", data=data, token="nobody", **headers)
        assert reply.status == 200, reply.data
        told = reply.json()
        assert told["token_type"] == "Bearer" and told["expires_in"] == 14400
        assert reply.headers["Cache-Control"] == "no-store"
        shown = await identity.call("GET", "/v3/auth/tokens", X_Subject_Token=told["access_token"])
        assert shown.json()["token"]["application_credential"]["id"] == credential["id"]
    wrong = base64.b64encode(f"{credential['id']}:wrong".encode()).decode()
    headers = {**kind, "Authorization": f"Basic {wrong}"}
    reply = await identity.http(
        "POST", "/v3/OS-OAUTH2/token", data="grant_type=client_credentials", token="nobody", **headers
    )
    assert reply.status == 401 and reply.json()["error"] == "invalid_client"


@pytest.mark.clients
async def test_keystoneauth_gets_an_access_token_of_oauth_2(identity: Identity) -> None:
    await identity.runtime.ensure_bootstrap(wanted(identity_url=f"{identity.http.url}/v3"))
    credential = await app_credential(identity, await identity.token("demo"))
    url = identity.http.url

    def run() -> tuple[dict[str, str] | None, int]:
        plugin = v3.OAuth2ClientCredential(
            auth_url=f"{url}/v3",
            oauth2_endpoint=f"{url}/v3/OS-OAUTH2/token",
            oauth2_client_id=credential["id"],
            oauth2_client_secret=credential["secret"],
        )
        with requests.Session() as connection:
            session = Session(auth=plugin, session=connection)
            return session.get_auth_headers(), session.get(f"{url}/v3/auth/projects").status_code

    headers, status = await asyncio.to_thread(run)
    assert headers is not None and headers["Authorization"].startswith("Bearer gAAAA") and status == 200
