"""Addresses: which are free, and whose they are.

One row per allocated address; its key (network, address) is what makes two owners impossible. `number` is the address as 32
hexadecimal digits, which sort as addresses do, so that the next free one is found through an index however many there are.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from sqlalchemy import Column, Connection, Index, String, Table, bindparam, delete, func, select

from cumulet.core.db import metadata
from cumulet.core.errors import Conflict, Invalid

if TYPE_CHECKING:
    from cumulet.services.network.subnet import Subnet

PROBES = 32
"""Addresses that are tried at the start of a pool, and as many at random, before the whole pool is read."""

AUTO_MODES = frozenset({"slaac", "dhcpv6-stateless"})

table = Table(
    "network_allocations",
    metadata,
    Column("network_id", String(64), primary_key=True),
    Column("ip_address", String(45), primary_key=True),
    Column("subnet_id", String(64), nullable=False),
    Column("port_id", String(64), nullable=False, index=True),
    Column("number", String(32), nullable=False),
    Index("network_allocations_number", "subnet_id", "number"),
)
a = table.c


class FixedIp(Struct, forbid_unknown_fields=True):
    """An address of a port; in a request either part may be left to the cloud."""

    subnet_id: str | None = None
    ip_address: str | None = None


@lru_cache(4096)
def net(cidr: str) -> IPv4Network | IPv6Network:
    return ip_network(cidr)


def number(address: int) -> str:
    return f"{address:032x}"


def text(digits: str, version: int) -> str:
    """The address of a `number`."""
    value = int(digits, 16)
    return str(ip_address(value.to_bytes(4 if version == 4 else 16, "big")))


def is_auto(subnet: "Subnet") -> bool:
    """Whether guests make up their own addresses there (SLAAC), from their MAC."""
    return subnet.ip_version == 6 and subnet.ipv6_address_mode in AUTO_MODES


def eui64(cidr: str, mac: str) -> str:
    """The address that a guest with this MAC gives itself in a /64 (RFC 4291, appendix A)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    interface = int.from_bytes(bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]]), "big")
    return str(ip_address((int(net(cidr).network_address) + interface).to_bytes(16, "big")))


_last = select(func.max(a.number)).where(
    a.subnet_id == bindparam("subnet"), a.number >= bindparam("low"), a.number <= bindparam("high")
)
_taken = select(a.number).where(a.subnet_id == bindparam("subnet"), a.number.in_(bindparam("those", expanding=True)))
_range = select(a.number).where(
    a.subnet_id == bindparam("subnet"), a.number >= bindparam("low"), a.number <= bindparam("high")
)
_held = select(a.ip_address).where(
    a.network_id == bindparam("network"), a.ip_address.in_(bindparam("those", expanding=True))
)


def next_free(tx: Connection, subnet: "Subnet") -> str | None:
    """A free address of the subnet's pools, or None. Addresses are used in order and reused late."""
    for pool in subnet.allocation_pools:
        low, high = int(ip_address(pool.start)), int(ip_address(pool.end))
        last = tx.execute(_last, {"subnet": subnet.id, "low": number(low), "high": number(high)}).scalar()
        following = low if last is None else int(last, 16) + 1
        found = following if following <= high else _gap(tx, subnet.id, low, high)
        if found is not None:
            return text(number(found), subnet.ip_version)
    return None


def _gap(tx: Connection, subnet_id: str, low: int, high: int) -> int | None:
    """A free address below the highest one in use."""
    first = range(low, min(high, low + PROBES) + 1)
    tried: list[int] = [*first, *(random.randint(low, high) for _ in range(PROBES))]  # noqa: S311 - any spread will do
    taken = set(tx.execute(_taken, {"subnet": subnet_id, "those": [number(n) for n in tried]}).scalars())
    for candidate in tried:
        if number(candidate) not in taken:
            return candidate
    held = set(tx.execute(_range, {"subnet": subnet_id, "low": number(low), "high": number(high)}).scalars())
    if len(held) > high - low:
        return None
    return next((n for n in range(low, high + 1) if number(n) not in held), None)


def plain(address: str) -> str:
    """The usual form of an address; Invalid where it is none."""
    try:
        return str(ip_address(address if "%" not in address else ""))
    except ValueError:
        raise Invalid(f"'{address}' is not a valid IP address.") from None


def choose(
    tx: Connection, network_id: str, mac: str, subnets: Sequence["Subnet"], wanted: Sequence[FixedIp] | None
) -> list[FixedIp]:
    """The addresses of a port: those `wanted`, or (None) one of each IP version that the network has.

    Conflict where an address is taken or none is left, Invalid where the network has no such subnet or address.
    """
    if wanted is None:
        return _any(tx, network_id, mac, subnets)
    chosen = [_one(tx, network_id, mac, subnets, wish) for wish in wanted if wish.ip_address]
    _check_free(tx, network_id, [str(c.ip_address) for c in chosen])
    for wish in wanted:
        if not wish.ip_address:
            chosen.append(_one(tx, network_id, mac, subnets, wish, frozenset(str(c.ip_address) for c in chosen)))
    return chosen


def _any(tx: Connection, network_id: str, mac: str, subnets: Sequence["Subnet"]) -> list[FixedIp]:
    found = []
    for version in (4, 6):
        candidates = [s for s in subnets if s.ip_version == version and not is_auto(s)]
        for subnet in candidates:
            address = next_free(tx, subnet)
            if address:
                found.append(FixedIp(subnet.id, address))
                break
        else:
            if candidates:
                raise _none_left(network_id)
    found += [FixedIp(s.id, eui64(s.cidr, mac)) for s in subnets if is_auto(s)]
    return found


def _one(
    tx: Connection,
    network_id: str,
    mac: str,
    subnets: Sequence["Subnet"],
    wish: FixedIp,
    mine: frozenset[str] = frozenset(),
) -> FixedIp:
    if wish.ip_address:
        return _given(network_id, subnets, wish.subnet_id, plain(wish.ip_address))
    if not wish.subnet_id:
        raise Invalid("IP allocation requires subnet_id or ip_address.")
    subnet = next((s for s in subnets if s.id == wish.subnet_id), None)
    if subnet is None:
        raise _wrong_subnet(network_id, wish.subnet_id)
    if is_auto(subnet):
        return FixedIp(subnet.id, eui64(subnet.cidr, mac))
    address = next_free(tx, subnet)
    if address in mine:  # another address of the same port, not stored yet
        address = _other_than(tx, subnet, mine)
    if address is None:
        raise _none_left(network_id)
    return FixedIp(subnet.id, address)


def _other_than(tx: Connection, subnet: "Subnet", mine: frozenset[str]) -> str | None:
    for pool in subnet.allocation_pools:
        low, high = int(ip_address(pool.start)), int(ip_address(pool.end))
        held = set(tx.execute(_range, {"subnet": subnet.id, "low": number(low), "high": number(high)}).scalars())
        for candidate in range(low, high + 1):
            address = text(number(candidate), subnet.ip_version)
            if number(candidate) not in held and address not in mine:
                return address
    return None


def _given(network_id: str, subnets: Sequence["Subnet"], subnet_id: str | None, address: str) -> FixedIp:
    """The fixed IP of an address that was asked for."""
    value = ip_address(address)
    if subnet_id is None:
        subnet = next((s for s in subnets if s.ip_version == value.version and value in net(s.cidr)), None)
        if subnet is None:
            raise Invalid(
                f"IP address {address} is not a valid IP for any of the subnets on the specified network.",
                code="InvalidIpForNetwork",
            )
    else:
        subnet = next((s for s in subnets if s.id == subnet_id), None)
        if subnet is None:
            raise _wrong_subnet(network_id, subnet_id)
    whole = net(subnet.cidr)
    hosts_apart = whole.num_addresses > 2
    edges = (whole.network_address, whole.broadcast_address) if whole.version == 4 else (whole.network_address,)
    if value.version != subnet.ip_version or value not in whole or (hosts_apart and value in edges):
        raise Invalid(f"IP address {address} is not a valid IP for the specified subnet.", code="InvalidIpForSubnet")
    return FixedIp(subnet.id, address)


def _check_free(tx: Connection, network_id: str, addresses: list[str]) -> None:
    if len(set(addresses)) < len(addresses):
        raise Invalid("Duplicate IP addresses in fixed_ips.", code="InvalidInput")
    if not addresses:
        return
    taken = tx.execute(_held, {"network": network_id, "those": addresses}).scalars().first()
    if taken is not None:
        raise Conflict(
            f"Unable to complete operation for network {network_id}. The IP address {taken} is in use.",
            code="IpAddressAlreadyAllocated",
        )


def _none_left(network_id: str) -> Conflict:
    return Conflict(f"No more IP addresses available on network {network_id}.", code="IpAddressGenerationFailure")


def _wrong_subnet(network_id: str, subnet_id: str) -> Invalid:
    return Invalid(
        f"Failed to create port on network {network_id}, because fixed_ips included invalid subnet {subnet_id}.",
        code="InvalidInput",
    )


def hold(tx: Connection, network_id: str, port_id: str, fixed_ips: Sequence[FixedIp]) -> None:
    """Store whose these addresses are. IntegrityError where one was taken at the same moment."""
    rows: list[dict[str, Any]] = [
        {
            "network_id": network_id,
            "ip_address": fixed.ip_address,
            "subnet_id": fixed.subnet_id,
            "port_id": port_id,
            "number": number(int(ip_address(str(fixed.ip_address)))),
        }
        for fixed in fixed_ips
    ]
    if rows:
        tx.execute(table.insert(), rows)


_release = delete(table).where(a.port_id == bindparam("port"), a.ip_address.in_(bindparam("those", expanding=True)))


def release(tx: Connection, port_id: str, addresses: Sequence[str]) -> None:
    if addresses:
        tx.execute(_release, {"port": port_id, "those": list(addresses)})


def new_mac() -> str:
    """A hardware address of the cloud's own prefix."""
    return "fa:16:3e:" + ":".join(f"{b:02x}" for b in random.randbytes(3))  # noqa: S311 - a name, no secret
