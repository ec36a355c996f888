"""openstacksdk, keystoneauth and python-openstackclient make delegations and log in by them, unmodified."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import exceptions
from keystoneauth1.identity import v3
from keystoneauth1.session import Session
from openstack.connection import Connection

from tests.services.identity.conftest import PASSWORDS, Identity, wanted
from tests.services.identity.test_client import with_client

OPENSTACK = str(Path(sys.executable).parent / "openstack")

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]


async def test_the_sdk_makes_application_credentials_and_logs_in_by_them(identity: Identity) -> None:
    rule = {"service": "identity", "method": "GET", "path": "/v3/**"}

    def work(cloud: Any) -> None:
        url, user = cloud.auth["auth_url"], cloud.current_user_id
        made = cloud.identity.create_application_credential(user, "program", roles=[{"name": "reader"}])
        assert made.secret and made.project_id == cloud.current_project_id
        assert cloud.identity.find_application_credential(user, "program").id == made.id
        assert [c.id for c in cloud.identity.application_credentials(user)] == [made.id]
        bound = cloud.identity.create_application_credential(user, "bound", access_rules=[rule], unrestricted=True)
        assert [r.path for r in cloud.identity.access_rules(user)] == [rule["path"]]
        by_id = v3.ApplicationCredential(
            url, application_credential_id=made.id, application_credential_secret=made.secret
        )
        by_name = v3.ApplicationCredential(
            url,
            application_credential_name="program",
            application_credential_secret=made.secret,
            username="demo",
            user_domain_id="default",
        )
        for auth in (by_id, by_name):
            access: Any = auth.get_access(Session(auth))
            assert access.role_names == ["reader"] and access.project_id == cloud.current_project_id
            assert access.application_credential_id == made.id
        program: Any = Connection(session=Session(by_id), region_name="RegionOne", identity_api_version="3")
        with pytest.raises(Exception, match="managing additional application credentials"):
            program.identity.create_application_credential(user, "further")
        access_rule = cloud.identity.get_access_rule(user, bound.access_rules[0]["id"])
        for credential in (made, bound):
            cloud.identity.delete_application_credential(user, credential)
        cloud.identity.delete_access_rule(user, access_rule)
        assert list(cloud.identity.access_rules(user)) == []
        with pytest.raises(exceptions.Unauthorized):
            by_id.get_auth_ref(Session(by_id))

    await with_client(identity, "demo", work)


async def test_the_sdk_makes_trusts_and_the_trustee_logs_in_by_them(identity: Identity) -> None:
    trustee = await identity.made("users", name="trustee", password="secret")

    def work(cloud: Any) -> None:
        url = cloud.auth["auth_url"]
        trust = cloud.identity.create_trust(
            trustor_user_id=cloud.current_user_id,
            trustee_user_id=trustee["id"],
            project_id=cloud.current_project_id,
            roles=[{"name": "reader"}],
            is_impersonation=True,
        )
        found = list(cloud.identity.trusts(trustor_user_id=cloud.current_user_id))
        assert [t.id for t in found] == [trust.id] and cloud.identity.get_trust(trust).is_impersonation
        auth = v3.Password(url, user_id=trustee["id"], password="secret", trust_id=trust.id)
        access = auth.get_access(Session(auth))
        assert access.trust_scoped and access.trustee_user_id == trustee["id"] and access.role_names == ["reader"]
        assert access.user_id == access.trustor_user_id == cloud.current_user_id
        lent = Connection(session=Session(auth), region_name="RegionOne", identity_api_version="3")
        assert lent.identity.get_user(cloud.current_user_id).name == "demo"
        cloud.identity.delete_trust(trust)
        with pytest.raises(exceptions.Unauthorized):
            auth.get_auth_ref(Session(auth))

    await with_client(identity, "demo", work)


async def test_the_command_line(identity: Identity) -> None:
    await identity.runtime.ensure_bootstrap(wanted(identity_url=f"{identity.http.url}/v3"))
    trustee = (await identity.made("users", name="trustee", password="secret"))["id"]
    demo_id, project_id = identity.accounts.demo_user_id, identity.accounts.demo_project_id
    reader = await identity.role("reader")
    url = {"OS_AUTH_URL": f"{identity.http.url}/v3", "OS_IDENTITY_API_VERSION": "3"}
    demo = {
        **url, "OS_USERNAME": "demo", "OS_PASSWORD": PASSWORDS["demo"], "OS_PROJECT_NAME": "demo",
        "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default",
    }  # fmt: skip

    async def run(env: dict[str, str], *words: str) -> Any:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        json_wanted = () if words[-2:-1] == ("delete",) else ("-f", "json")
        process = await asyncio.create_subprocess_exec(
            OPENSTACK, *words, *json_wanted, env={**clean, **env}, stdout=-1, stderr=-1
        )
        out, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        found = json.loads(out) if out.strip() else None
        return {name.lower(): value for name, value in found.items()} if isinstance(found, dict) else found

    credential = await run(demo, "application", "credential", "create", "program", "--role", "reader")
    by_credential = {
        **url, "OS_AUTH_TYPE": "v3applicationcredential", "OS_APPLICATION_CREDENTIAL_ID": credential["id"],
        "OS_APPLICATION_CREDENTIAL_SECRET": credential["secret"],
    }  # fmt: skip
    assert (await run(by_credential, "token", "issue"))["project_id"] == project_id
    trust = await run(demo, "trust", "create", demo_id, trustee, "--project", project_id, "--role", reader)
    trusted = {
        **url, "OS_USERNAME": "trustee", "OS_PASSWORD": "secret", "OS_USER_DOMAIN_ID": "default",
        "OS_TRUST_ID": trust["id"],
    }  # fmt: skip
    assert (await run(trusted, "token", "issue"))["project_id"] == project_id
    await run(demo, "trust", "delete", trust["id"])
    await run(demo, "application", "credential", "delete", "program")
    assert await run(demo, "application", "credential", "list") == []
