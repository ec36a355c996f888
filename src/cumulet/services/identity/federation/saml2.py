"""This cloud as an identity provider (Keystone to Keystone): POST /v3/auth/OS-FEDERATION/saml2 and its `/ecp` exchange a token
for an assertion of SAML 2.0 that another cloud believes; GET /v3/OS-FEDERATION/saml2/metadata is what that cloud needs for it.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import Forbidden, NotFound, Unavailable
from cumulet.files import write_atomic
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.federation.saml_xml import Statement, metadata, response
from cumulet.services.identity.federation.service_provider import ServiceProvider
from cumulet.services.identity.group import Group
from cumulet.services.identity.project import Project
from cumulet.services.identity.session import Session
from cumulet.services.identity.tables import membership

BITS = 3072
YEARS = 10
XML = "text/xml"


class Named(Struct, forbid_unknown_fields=True):
    id: str


class TokenOf(Struct, forbid_unknown_fields=True):
    token: Named
    methods: list[Any] = msgspec.field(default_factory=list)


class ForProvider(Struct, forbid_unknown_fields=True):
    service_provider: Named


class Exchange(Struct, forbid_unknown_fields=True):
    identity: TokenOf
    scope: ForProvider


class ExchangeBody(Struct):
    auth: Exchange


class Signer:
    """The key that assertions are signed with, and its certificate: two files, made when they are first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = asyncio.Lock()
        self._pair: tuple[bytes, str] | None = None

    async def pair(self) -> tuple[bytes, str]:
        """(key, certificate) in PEM."""
        async with self._lock:
            if self._pair is None:
                self._pair = await asyncio.to_thread(self._read)
        return self._pair

    def _read(self) -> tuple[bytes, str]:
        key, certificate = self._directory / "key.pem", self._directory / "certificate.pem"
        if not certificate.exists():  # it is written last
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = _make_pair()
            write_atomic(key, made[0], mode=0o600)
            write_atomic(certificate, made[1], mode=0o600)
        return key.read_bytes(), certificate.read_text()


def _make_pair() -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Cumulet identity provider")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, certificate.public_bytes(Encoding.PEM)


async def _own_url(ctx: Ctx) -> str:
    """Where this API is for the public, as the catalogue says: what a client writes into its request names nobody."""
    for row in (await ctx.service.catalog()).rows:
        if row.service_type == "identity" and row.interface == "public":
            return str(row.url).rstrip("/")
    raise Unavailable(
        "The catalogue has no public endpoint of identity, so this cloud has no name as an identity provider."
    )


def _issuer(url: str) -> str:
    return f"{url}/OS-FEDERATION/saml2/idp"


async def _statement(ctx: Ctx, body: ExchangeBody) -> tuple[ServiceProvider, Statement]:
    """What is to be said of the token's holder; Forbidden where the token is not good for it."""
    provider = await ctx.service.kernel.db.read_inline(_provider, body.auth.scope.service_provider.id)
    session: Session = await ctx.service.session(body.auth.identity.token.id)
    if session.claims.via:
        raise Forbidden(rule="What was lent by a delegation cannot be passed on to another cloud")
    if session.project is None:
        raise Forbidden(rule="Use a project scoped token when attempting to create a SAML assertion")
    attributes = {
        "openstack_user": [session.user.name],
        "openstack_roles": [role.name for role in session.roles],
        "openstack_project": [session.project.name],
        "openstack_project_domain": [session.project.domain.name],
        "openstack_user_domain": [session.user.domain.name],
        "openstack_groups": await ctx.service.kernel.db.read_inline(_groups, session.user.id),
    }
    issuer = _issuer(await _own_url(ctx))
    return provider, Statement(
        issuer=issuer, recipient=provider.sp_url, subject=session.user.name, attributes=attributes
    )


def _provider(tx: Connection, id: str) -> ServiceProvider:
    provider = db.first(tx, ServiceProvider, ServiceProvider.table.c.id == id)
    if provider is None:
        raise NotFound(message=f"Could not find Service Provider: {id}.")
    if not provider.enabled:
        raise Forbidden(f"Service Provider {id} is disabled")
    return provider


def _groups(tx: Connection, user_id: str) -> list[str]:
    """The user's groups, each with its domain, as mappings read them."""
    g, p = Group.table.c, Project.table.c
    statement = (
        select(g.name, p.name.label("domain"))
        .join_from(Group.table, Project.table, p.id == g.domain_id)
        .join(membership, membership.c.group_id == g.id)
        .where(membership.c.user_id == user_id)
        .order_by(g.name)
    )
    rows = tx.execute(statement)
    return [f"JSON:{msgspec.json.encode({'name': r.name, 'domain': {'name': r.domain}}).decode()}" for r in rows]


async def _answer(ctx: Ctx, body: ExchangeBody, *, ecp: bool) -> Response:
    provider, statement = await _statement(ctx, body)
    relay_state = f"{provider.relay_state_prefix or ''}{uuid4().hex}" if ecp else None
    key, certificate = await ctx.service.saml_signer.pair()
    data = await asyncio.to_thread(response, statement, key, certificate, relay_state)
    headers = {"Content-Type": XML, "X-sp-url": provider.sp_url, "X-auth-url": provider.auth_url}
    return Response(200, data, {**headers, "Cache-Control": "no-store"})


async def create_assertion(ctx: Ctx, body: ExchangeBody) -> Response:
    """Exchange a token for an assertion that a service provider believes."""
    return await _answer(ctx, body, ecp=False)


async def create_ecp_assertion(ctx: Ctx, body: ExchangeBody) -> Response:
    """Exchange a token for an assertion in the envelope that clients pass on by themselves (ECP)."""
    return await _answer(ctx, body, ecp=True)


async def show_metadata(ctx: Ctx) -> Response:
    """Show what service providers need to know of this cloud: its name, its certificate."""
    url = await _own_url(ctx)
    _, certificate = await ctx.service.saml_signer.pair()
    data = await asyncio.to_thread(metadata, _issuer(url), f"{url}/auth/OS-FEDERATION/saml2", certificate)
    return Response(200, data, {"Content-Type": XML})


RULES: dict[str, str] = {}
endpoints = [
    Endpoint("POST", "/v3/auth/OS-FEDERATION/saml2", create_assertion, body=ExchangeBody, auth=False),
    Endpoint("POST", "/v3/auth/OS-FEDERATION/saml2/ecp", create_ecp_assertion, body=ExchangeBody, auth=False),
    Endpoint("GET", "/v3/OS-FEDERATION/saml2/metadata", show_metadata, auth=False),
]
