"""CNAME lookup: a site's own domain, of which DNS says that it is another name of one under `object_storage_domain`.

The answers of DNS are remembered for as long as they say. Domain remap, which comes next, does the rest.
Reference: https://docs.openstack.org/swift/latest/middleware.html#cname-lookup
"""

import ipaddress
import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from cumulet.config import SettingsError
from cumulet.services.object_store.layers.hosts import host_of, storage_domains, told_again
from cumulet.services.object_store.message import Handler, Request, Response, refuse
from cumulet.services.object_store.words import listed

if TYPE_CHECKING:
    import dns.asyncresolver

    from cumulet.services.object_store.runtime import ObjectStoreRuntime

MOST = 10_000
"""Names that are remembered."""
NOTHING = 60
"""Seconds for which it is remembered that a name is nothing else's."""


def cname_lookup(service: "ObjectStoreRuntime", app: Handler) -> Handler:
    settings = service.kernel.settings
    return CnameLookup(service, app) if settings.object_storage_domain and settings.object_cname_depth else app


class CnameLookup:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        settings = service.kernel.settings
        self.app = app
        self.domains = storage_domains(settings.object_storage_domain)
        self.own = settings.endpoint_host.lower()
        self.depth = settings.object_cname_depth
        self.names = Names(settings.object_cname_servers)
        service.told["cname_lookup"] = {"lookup_depth": self.depth}

    async def __call__(self, request: Request) -> Response:
        given, port = host_of(request)
        if not given or _is_address(given) or self._ours(given):
            return await self.app(request)
        name: str | None = given
        for _ in range(self.depth):
            found = await self.names.cname(name) if name else None
            if not found or found == name:
                return refuse(400, "CNAME lookup failed to resolve to a valid domain")
            if self._ours(found):
                return await self._under(request, f"{found}:{port}" if port else found)
            name = found
        return refuse(400, f"CNAME lookup failed after {self.depth} tries")

    async def _under(self, request: Request, host: str) -> Response:
        asked = request.headers["Host"]
        scheme = request.base_url.partition("://")[0]
        request.headers["Host"] = host
        request.base_url = f"{scheme}://{host}"
        response = await self.app(request)
        return told_again(response, rf"^(https?://){re.escape(host)}(/.*)?$", asked)

    def _ours(self, name: str) -> bool:
        """Whether a host is one under the domains, or the one that the catalogue names."""
        return f".{name.lower()}".endswith(self.domains) or name.lower() == self.own


class Names:
    """What DNS says of names."""

    def __init__(self, servers: str) -> None:
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._servers = [_server(text) for text in listed(servers)]

    async def cname(self, name: str) -> str:
        """What a name is another name of; "" where it is of none, or DNS does not answer."""
        known = self._known.get(name)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        seconds, found = await self._ask(name)
        if seconds:
            self._known[name] = (time.monotonic() + seconds, found)
            self._known.move_to_end(name)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return found

    async def _ask(self, name: str) -> tuple[float, str]:
        """(how long it counts, what DNS says)."""
        import dns.exception  # imported with the first question
        import dns.resolver

        try:
            answer = await self._made().resolve(name, "CNAME")
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return NOTHING, ""
        except (dns.exception.DNSException, OSError):
            return 0, ""
        rrset = answer.rrset
        if not rrset:
            return NOTHING, ""
        return rrset.ttl, str(next(iter(rrset)).target).rstrip(".")

    def _made(self) -> "dns.asyncresolver.Resolver":
        """Made when it is first needed: a host without /etc/resolv.conf is none where nothing is looked up."""
        if self._resolver is None:
            import dns.asyncresolver

            self._resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                self._resolver.nameservers = [address for address, _ in self._servers]
                self._resolver.nameserver_ports = {address: port for address, port in self._servers if port}
        return self._resolver


def _server(text: str) -> tuple[str, int]:
    """(address, port or 0) of 192.0.2.1, 192.0.2.1:5353, 2001:db8::1 or [2001:db8::1]:5353."""
    match = re.fullmatch(r"\[([^]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?|([0-9a-fA-F:]+)", text)
    address = match and (match[1] or match[3] or match[5])
    if not match or not _is_address(address or ""):
        wanted = "an IP address, and :PORT after it where it is not the usual one"
        raise SettingsError(f"`object_cname_servers` names {text!r}, but each must be {wanted}")
    return str(address), int(match[2] or match[4] or 0)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
