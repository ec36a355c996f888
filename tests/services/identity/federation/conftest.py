"""A cloud that knows one organisation, `acme`, by OpenID Connect and by the headers of a web server in front."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.identity.conftest import Identity, identity_in
from tests.services.identity.federation.issuer import Issuer, issuer_on_loopback

SECRET = "a-secret-of-the-front-end"
IDP = "/v3/OS-FEDERATION/identity_providers/acme"
FILE = """
trusted_dashboards = ["https://Dashboard.test/auth/websso/"]

[front_end]
addresses = ["127.0.0.1"]
secret = "{secret}"
external = true

[[source]]
type = "oidc"
identity_provider = "acme"
protocol = "openid"
issuer = "{issuer}"
audience = ["cumulet"]

[[source]]
type = "oidc"
identity_provider = "acme"
protocol = "opaque"
issuer = "{issuer}"
audience = ["cumulet"]
verify = "introspection"
client_id = "cumulet"
client_secret = "client-secret"

[[source]]
type = "headers"
identity_provider = "acme"
protocol = "saml2"
remote_id_attribute = "Shib-Identity-Provider"
[source.attributes]
openstack_user = "X-Shib-User"
openstack_groups = "X-Shib-Groups"
Shib-Identity-Provider = "X-Shib-Idp"
"""
OIDC_RULES: list[Any] = [
    {
        "local": [
            {"user": {"id": "{0}", "name": "{1}", "email": "{2}"}},
            {"groups": "{3}", "domain": {"name": "acme"}},
        ],
        "remote": [{"type": t} for t in ("HTTP_OIDC_SUB", "HTTP_OIDC_SUB", "HTTP_OIDC_EMAIL", "OIDC-groups")],
    },
]  # fmt: skip
SAML_RULES: list[Any] = [
    {"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "openstack_user"}]},
    {"local": [{"groups": "{0}", "domain": {"name": "acme"}}], "remote": [{"type": "openstack_groups"}]},
]


async def put(identity: Identity, path: str, kind: str, status: int = 201, method: str = "PUT", **values: Any) -> Any:
    reply = await identity.call(method, f"/v3/OS-FEDERATION/{path}", {kind: values})
    assert reply.status == status, reply.data
    return reply.json()[kind]


class Acme:
    """The organisation as the cloud knows it."""

    def __init__(self, identity: Identity, issuer: Issuer, domain: str, project: str, crew: str) -> None:
        self.identity, self.issuer, self.domain, self.project, self.crew = identity, issuer, domain, project, crew

    async def login(self, token: str = "", protocol: str = "openid", **headers: str) -> Any:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return await self.identity.http("POST", f"{IDP}/protocols/{protocol}/auth", token="nobody", **headers)

    async def token(self, who: str = "ann") -> str:
        reply = await self.login(self.issuer.token(who))
        assert reply.status == 201, reply.data
        return str(reply.headers["X-Subject-Token"])

    async def scoped(self, token: str, scope: Any = None) -> Any:
        auth = {
            "identity": {"methods": ["token"], "token": {"id": token}},
            "scope": scope or {"project": {"id": self.project}},
        }
        return await self.identity.http("POST", "/v3/auth/tokens", {"auth": auth}, token="nobody")

    async def mapping(self, rules: Any, id: str = "oidc", version: str = "1.0") -> None:
        await put(self.identity, f"mappings/{id}", "mapping", 200, "PATCH", rules=rules, schema_version=version)

    async def changed(self, **values: Any) -> Any:
        return await put(self.identity, "identity_providers/acme", "identity_provider", 200, "PATCH", **values)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuer_on_loopback() as running:
        yield running


@pytest.fixture
async def acme(tmp_path: Path, issuer: Issuer) -> AsyncIterator[Acme]:
    file = tmp_path / "federation.toml"
    file.write_text(FILE.format(secret=SECRET, issuer=issuer.url))
    async with identity_in(tmp_path, federation=file) as identity:
        domain = (await identity.made("domains", name="acme"))["id"]
        project = (await identity.made("projects", name="work", domain_id=domain))["id"]
        crew = (await identity.made("groups", name="crew", domain_id=domain))["id"]
        assert (await identity.grant("member", f"projects/{project}", f"groups/{crew}")).status == 204
        remote_ids = [issuer.url, "https://idp.acme.test/saml"]
        await put(
            identity,
            "identity_providers/acme",
            "identity_provider",
            domain_id=domain,
            enabled=True,
            remote_ids=remote_ids,
        )
        await put(identity, "mappings/oidc", "mapping", rules=OIDC_RULES)
        await put(identity, "mappings/saml", "mapping", rules=SAML_RULES)
        for protocol, mapping in (("openid", "oidc"), ("opaque", "oidc"), ("saml2", "saml"), ("unheard", "saml")):
            await put(identity, f"identity_providers/acme/protocols/{protocol}", "protocol", mapping_id=mapping)
        yield Acme(identity, issuer, domain, project, crew)
