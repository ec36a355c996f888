"""Fetching data from addresses that strangers name, without lending them the cloud's place in its own networks.

A URL is taken with http or https, one of the allowed ports and hosts, and a host whose every address is public or of a network
that the settings name. The name is resolved once, by the connection itself, and the connection goes to an address that was
checked: what the name stands for a moment later does not count. Every redirect is looked at like the first URL.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from cumulet.config import Settings, SettingsError
from cumulet.core.errors import Invalid, TooLarge, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
TIMEOUT = aiohttp.ClientTimeout(total=6 * 3600, connect=30, sock_read=60)
REDIRECTS = 5
MOVED = (301, 302, 303, 307, 308)
PIECE = 1 << 20
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """The URL may not be fetched; the text says why."""


class Fetcher:
    """Fetches over HTTP what the settings allow to be fetched."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = {host.lower() for host in _list(settings.image_download_hosts)}
        try:
            ports = _list(settings.image_download_ports)
            self._ports = set() if "*" in ports else {int(port) for port in ports}
            self._private = [ipaddress.ip_network(text) for text in _list(settings.image_download_private)]
        except ValueError as error:
            raise SettingsError(f"`image_download_ports` or `image_download_private`: {error}") from None

    def check_url(self, url: str) -> str:
        """The host of a URL that may be fetched as far as the URL itself tells; Refused else."""
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        except ValueError:
            raise Refused("it is no URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused("only http and https are fetched")
        if parts.username is not None or parts.password is not None:
            raise Refused("there is a user name in it")
        if self._ports and port not in self._ports:
            raise Refused(f"port {port} is not fetched from")
        if self._hosts and parts.hostname.lower() not in self._hosts:
            raise Refused(f"{parts.hostname} is not among the hosts that are fetched from")
        literal = _address(parts.hostname)
        if literal is not None and not self.allows(literal):
            raise Refused(f"{parts.hostname} is not a public address")
        return parts.hostname

    def allows(self, address: Address) -> bool:
        """Whether connections go to this address."""
        inner = _inside(address)
        if any(inner in network for network in self._private if network.version == inner.version):
            return True
        return inner.is_global and not inner.is_multicast and not inner.is_reserved

    async def check(self, url: str) -> None:
        """Refused unless the URL may be fetched; looks its host up."""
        await self.resolve(self.check_url(url))

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[Any]:
        """What a host's name stands for; Refused where that is nothing, or holds an address that is not connected to."""
        try:
            async with asyncio.timeout(10):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise Refused(f"there is no host {host}") from error
        for *_, address in found:
            literal = _address(str(address[0]))
            if literal is None or not self.allows(literal):
                raise Refused(f"{host} is not at a public address")
        return found

    @asynccontextmanager
    async def open(
        self, url: str, *, method: str = "GET", redirects: int = REDIRECTS
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The reply (200) to a request. Refused, Invalid (another reply) or Unavailable (nobody answers)."""
        connector = aiohttp.TCPConnector(resolver=Resolver(self), use_dns_cache=False, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, auto_decompress=False) as session:
            for _ in range(redirects + 1):
                self.check_url(url)
                async with _asked(session, method, url) as reply:
                    if reply.status not in MOVED:
                        yield _good(reply, url)
                        return
                    url = urljoin(url, reply.headers.get("Location", ""))
            raise Invalid(f"{url} is where more than {redirects} redirects have led.")

    async def chunks(self, url: str, most: int) -> AsyncIterator[bytes]:
        """The data at a URL. Errors as of `open`, and TooLarge for more than `most` bytes."""
        async with self.open(url) as reply:
            if (reply.content_length or 0) > most:
                raise TooLarge(f"The data at {url} has more than the {most} bytes that are taken here.")
            async for chunk in body(reply, url):
                yield chunk


async def body(reply: aiohttp.ClientResponse, url: str) -> AsyncIterator[bytes]:
    """The body of a reply; Unavailable where it breaks off."""
    try:
        async for chunk in reply.content.iter_chunked(PIECE):
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"{url} cannot be read to its end: {error}") from error


class Resolver(AbstractResolver):
    """Resolves names for aiohttp to addresses that were checked."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            found = await self._fetcher.resolve(host, port, family)
        except Refused as error:
            raise OSError(str(error)) from error
        return [
            {"hostname": host, "host": address[0], "port": port, "family": kind, "proto": proto, "flags": 0}
            for kind, _type, proto, _name, address in found
        ]

    async def close(self) -> None:
        """Nothing is kept."""


@asynccontextmanager
async def _asked(session: aiohttp.ClientSession, method: str, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    try:
        reply = await session.request(method, url, headers={"Accept-Encoding": "identity"}, allow_redirects=False)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if isinstance(error.__cause__, OSError) and isinstance(error.__cause__.__cause__, Refused):
            raise error.__cause__.__cause__ from None
        raise Unavailable(f"{url} cannot be read: {error}") from error
    async with reply:
        yield reply


def _good(reply: aiohttp.ClientResponse, url: str) -> aiohttp.ClientResponse:
    if reply.status >= 500:
        raise Unavailable(f"{url} answers with {reply.status}.")
    if reply.status != 200:
        raise Invalid(f"{url} answers with {reply.status}.")
    return reply


def _address(text: str) -> Address | None:
    """The address that a host's name is, if it is one, also where it is written in one of libc's odder ways."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except OSError:
        return None


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, if it is one of those."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
