"""keystoneauth's own plugins and the SDK log in by OpenID Connect, unmodified."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import openstack
import pytest
from keystoneauth1 import exceptions, loading, session

from tests.services.identity.conftest import wanted
from tests.services.identity.federation.conftest import Acme

T = TypeVar("T")

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]


async def run(acme: Acme, work: Callable[..., T], plugin: str, **options: Any) -> T:
    url = f"{acme.identity.http.url}/v3"
    await acme.identity.runtime.ensure_bootstrap(wanted(identity_url=url))
    common = {"auth_url": url, "identity_provider": "acme", "protocol": "openid", "project_id": acme.project}
    provider = {
        "client_id": "cumulet", "client_secret": "client-secret",
        "discovery_endpoint": f"{acme.issuer.url}/.well-known/openid-configuration",
    }  # fmt: skip
    if plugin != "v3oidcaccesstoken":
        common |= provider

    def in_thread() -> T:
        auth: Any = loading.get_plugin_loader(plugin).load_from_options(**common, **options)
        made = session.Session(auth=auth)
        try:
            return work(made)
        finally:
            made.session.close()

    return await asyncio.to_thread(in_thread)


def access(made: session.Session) -> Any:
    assert made.auth is not None
    return made.auth.get_access(made)  # type: ignore[attr-defined]


async def test_an_access_token(acme: Acme) -> None:
    found = await run(acme, access, "v3oidcaccesstoken", access_token=acme.issuer.token("ann"))
    assert found.is_federated and found.username == "ann" and found.project_id == acme.project
    assert set(found.role_names) == {"member", "reader"}


async def test_a_password_at_the_provider(acme: Acme) -> None:
    found = await run(acme, access, "v3oidcpassword", username="ann", password="acme-secret")
    assert found.username == "ann" and found.project_id == acme.project
    with pytest.raises(exceptions.BadRequest):
        await run(acme, access, "v3oidcpassword", username="ann", password="wrong")


async def test_a_program_at_the_provider(acme: Acme) -> None:
    acme.issuer.claims["robot"] = {"email": "robot@acme.test", "groups": ["crew"]}
    found = await run(acme, access, "v3oidcclientcredentials")
    assert found.username == "robot" and found.is_federated


async def test_the_sdk_works_with_a_federated_token(acme: Acme) -> None:
    def work(made: session.Session) -> Any:
        cloud: Any = openstack.connection.Connection(session=made, region_name="RegionOne", identity_api_version="3")
        found = [p.name for p in cloud.identity.user_projects(access(made).user_id)]
        cloud.close()
        return found

    await acme.changed(authorization_ttl=5)
    assert await run(acme, work, "v3oidcaccesstoken", access_token=acme.issuer.token("ann")) == ["work"]


async def test_the_sdk_manages_what_federation_rests_on(acme: Acme) -> None:
    def work(_: session.Session) -> None:
        url = f"{acme.identity.http.url}/v3"
        cloud = openstack.connect(
            auth_url=url, username="admin", password="admin-secret", project_name="admin", user_domain_id="default",
            project_domain_id="default", region_name="RegionOne",
        )  # fmt: skip
        identity: Any = cloud.identity
        made = identity.create_identity_provider(id="other", description="x", is_enabled=True, remote_ids=["a"])
        assert made.domain_id and made.is_enabled and identity.find_identity_provider("other").remote_ids == ["a"]
        assert {p.id for p in identity.identity_providers()} == {"acme", "other"}
        rules = [{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "u"}]}]
        assert identity.create_mapping(id="rules", rules=rules).rules == rules
        identity.create_federation_protocol("other", id="openid", mapping_id="rules")
        assert identity.get_federation_protocol("other", "openid").mapping_id == "rules"
        assert [p.id for p in identity.federation_protocols("other")] == ["openid"]
        identity.update_federation_protocol("other", "openid", mapping_id="oidc")
        identity.delete_federation_protocol("other", "openid")
        assert identity.update_identity_provider("other", description="y").description == "y"
        identity.delete_identity_provider("other")
        provider = {"auth_url": "https://sp.test/a", "sp_url": "https://sp.test/b"}
        identity.create_service_provider(id="sp", **provider)
        assert identity.update_service_provider("sp", is_enabled=True).is_enabled
        identity.delete_service_provider("sp")
        identity.update_mapping("rules", rules=rules)
        identity.delete_mapping("rules")
        cloud.close()

    await run(acme, work, "v3oidcaccesstoken", access_token=acme.issuer.token("ann"))
