"""Assertions of SAML 2.0 that the request itself carries, signed: a response, or one in the envelope of ECP, as another cloud
makes it for its users (Keystone to Keystone).

    [[source]]
    type = "saml"
    identity_provider = "other-cloud"
    protocol = "saml2"
    issuer = "https://other.example:5000/v3/OS-FEDERATION/saml2/idp"    # as its metadata name it
    certificate = "other-cloud.pem"         # beside this file
    recipients = ["https://here.example:5000/v3/OS-FEDERATION/identity_providers/other-cloud/protocols/saml2/auth"]

`recipients` are the URLs (and entity names) of this cloud that the issuer writes assertions for: the `sp_url` of its service
provider.
"""

import asyncio
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from cumulet.api.http import Request
from cumulet.core.errors import Unauthorized
from cumulet.services.identity.federation.asserted import Asserted, Turns
from cumulet.services.identity.federation.saml_xml import SamlError, verified

ISSUER = "Shib-Identity-Provider"
"""The attribute in which the issuer stands, as mod_shib calls it."""
LIMIT = 256 << 10
AT_ONCE, WAITING = 4, 64


class SamlSource(Struct, forbid_unknown_fields=True, frozen=True, tag_field="type", tag="saml"):
    """A source of this type in the file."""

    identity_provider: str
    protocol: str
    issuer: Annotated[str, Meta(min_length=1)]
    certificate: str
    recipients: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]


class SamlReader:
    """Verifies assertions of one issuer."""

    def __init__(self, source: SamlSource, directory: Path) -> None:
        """ValueError or OSError where the certificate cannot be read."""
        from cryptography.x509 import load_pem_x509_certificate

        pem = (directory / source.certificate).read_bytes()
        load_pem_x509_certificate(pem)
        self.source = source
        self._certificate = pem.decode("ascii")
        self._turns = Turns(AT_ONCE, WAITING)

    async def read(self, request: Request) -> Asserted:
        """What the assertion in the body says; Unauthorized where there is none to be believed."""
        source = self.source
        try:
            async with self._turns.one():
                data = await request.read(LIMIT)
                if not data:
                    raise Unauthorized()
                found = await asyncio.to_thread(verified, data, source.issuer, self._certificate, source.recipients)
        except SamlError as error:
            raise Unauthorized(f"The login was refused: the assertion is not believed, {error.message}.") from None
        attributes = {**found.attributes, ISSUER: [source.issuer]}
        return Asserted(attributes, ISSUER, once=found.id, until=found.ends)
