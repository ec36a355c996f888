"""Assertions from a web server in front (mod_shib, mod_auth_mellon, mod_auth_openidc), as headers of the request.

[[source]]
type = "headers"
identity_provider = "acme"
protocol = "saml2"
remote_id_attribute = "Shib-Identity-Provider"
[source.attributes]             # attribute of the assertion = header that carries it; several values stand in between ;
openstack_user = "X-Shib-User"
Shib-Identity-Provider = "X-Shib-Idp"
"""

from msgspec import Struct

from cumulet.api.http import Request
from cumulet.core.errors import Unauthorized
from cumulet.services.identity.federation.asserted import Asserted
from cumulet.services.identity.federation.front_end import FrontEnd, HeaderName, one_header


class HeadersSource(Struct, forbid_unknown_fields=True, frozen=True, tag_field="type", tag="headers"):
    """A source of this type in the file."""

    identity_provider: str
    protocol: str
    attributes: dict[str, HeaderName]
    remote_id_attribute: str = ""


class HeadersReader:
    """Takes the headers that the source names, and no other."""

    def __init__(self, source: HeadersSource, front_end: FrontEnd) -> None:
        self.source = source
        self.front_end = front_end

    async def read(self, request: Request) -> Asserted:
        """What the web server in front asserts; Unauthorized for every other peer."""
        if not self.front_end.is_peer(request):
            raise Unauthorized()
        told = {name: one_header(request, header) for name, header in self.source.attributes.items()}
        attributes = {name: value.split(";") for name, value in told.items() if value}
        if not attributes:
            raise Unauthorized()
        return Asserted(attributes, self.source.remote_id_attribute, self.front_end.remote_user(request)[0])
