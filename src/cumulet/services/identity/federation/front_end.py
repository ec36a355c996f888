"""The web server in front, whose headers are believed: nobody else's are.

It is known by its address and by a secret, and it must take out what clients send under the names of its headers.
"""

import hmac
import ipaddress
from typing import Annotated

from msgspec import Meta, Struct

from cumulet.api.http import Request
from cumulet.core.errors import Unauthorized

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
BROKEN = "\ufffd"
"""What stands for bytes that are no text (api/server.py)."""
HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+$")]


class FrontEndTable(Struct, forbid_unknown_fields=True, frozen=True):
    """The table `front_end` of the file."""

    addresses: Annotated[list[str], Meta(min_length=1)]
    secret: Annotated[str, Meta(min_length=16)]
    secret_header: HeaderName = "X-Front-End-Secret"
    external: bool = False
    remote_user_header: HeaderName = "X-Remote-User"
    remote_domain_header: HeaderName = "X-Remote-Domain"


class FrontEnd:
    """Reads the headers of requests that come through the web server in front."""

    def __init__(self, table: FrontEndTable) -> None:
        """ValueError where an address is none."""
        self.table = table
        self._networks = [ipaddress.ip_network(address) for address in table.addresses]

    def is_peer(self, request: Request) -> bool:
        """Whether the request comes from the web server in front: from its address, and with the secret."""
        try:
            address = ipaddress.ip_address(request.remote.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if not any(address in network for network in self._networks):
            return False
        return hmac.compare_digest(one_header(request, self.table.secret_header).encode(), self.table.secret.encode())

    def remote_user(self, request: Request) -> tuple[str, str]:
        """(who the web server says it is, his domain's name or nothing)"""
        return one_header(request, self.table.remote_user_header), one_header(request, self.table.remote_domain_header)


def one_header(request: Request, name: str) -> str:
    """A header's value; Unauthorized where it is there twice, since one of them may be a client's, and where it is not UTF-8,
    since two names must not look the same."""
    found = [value for key, value in request.headers.items() if key.lower() == name.lower()]
    if len(found) > 1:
        raise Unauthorized(f"The header {name} is there more than once.")
    if found and BROKEN in found[0]:
        raise Unauthorized(f"The header {name} is not encoded in UTF-8.")
    return found[0] if found else ""
