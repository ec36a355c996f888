"""Subnet pools: ranges that subnets are cut from; and address scopes, within which they do not overlap.

GET, POST /v2.0/subnetpools · GET, PUT, DELETE /v2.0/subnetpools/{id}
GET, POST /v2.0/address-scopes · GET, PUT, DELETE /v2.0/address-scopes/{id}
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Annotated, Any

from msgspec import Meta
from sqlalchemy import ColumnElement, Connection, or_, select

from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.resource import AUTO, FIND, edit, once, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import Str255, Uuid
from cumulet.services.network.allocate import net
from cumulet.services.network.standard import (
    Ctx,
    Standard,
    calls,
    change,
    changeable,
    charge,
    field_rules,
    owner,
    stamps,
)
from cumulet.services.network.subnet import SUBNETS, Net, parse_cidr

Prefixlen = Annotated[int, Meta(ge=0, le=128)]


class AddressScope(
    Standard,
    table="network_address_scopes",
    path="/v2.0/address-scopes",
    key="address_scope",
    plural="address_scopes",
    lax=True,
):
    """A space in which addresses are unique."""

    name: Str255 = edit("A name, which need not be unique.", "", FIND)
    ip_version: Annotated[int, Meta(ge=4, le=6)] = once("4 or 6.", use=FIND)
    shared: bool = edit("Whether every project may use it.", False, FIND, set="{verb}_address_scope:shared")


class SubnetPool(
    Standard, table="network_subnetpools", path="/v2.0/subnetpools", key="subnetpool", plural="subnetpools", lax=True
):
    """Ranges that subnets are cut from."""

    name: Str255 = edit("A name, which need not be unique.", use=FIND)
    prefixes: Annotated[list[str], Meta(min_length=1)] = edit("The ranges.")
    ip_version: int = read("4 or 6.", use=FIND)
    default_prefixlen: Prefixlen = edit("The length of a prefix where none is named.", AUTO, FIND)
    min_prefixlen: Prefixlen = edit("The length of the largest prefix.", AUTO, FIND)
    max_prefixlen: Prefixlen = edit("The length of the smallest prefix.", AUTO, FIND)
    default_quota: Annotated[int, Meta(ge=0)] | None = edit("How much a project may take of it.", None, FIND)
    address_scope_id: Uuid | None = edit("The scope its addresses are unique in.", None, FIND)
    shared: bool = once("Whether every project may use it.", False, FIND, set="{verb}_subnetpool:shared")
    is_default: bool = edit("Whether it is taken when none is named.", False, FIND, set="{verb}_subnetpool:is_default")


POOLS, SCOPES = SubnetPool.table, AddressScope.table
RULES = {
    **{
        f"{verb}_{name}": ADMIN_OR_OWNER_READER if verb == "get" else ADMIN_OR_OWNER_MEMBER
        for name in ("subnetpool", "address_scope")
        for verb in ("get", "create", "update", "delete")
    },
    **field_rules(ADMIN, "subnetpool", ("create", "update"), ("shared", "is_default")),
    **field_rules(ADMIN, "address_scope", ("create", "update"), ("shared",)),
}


def visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """A project sees its own pools and the shared ones."""
    if ctx.caller.is_admin:
        return ()
    return (or_(POOLS.c.project_id == ctx.caller.project_id, POOLS.c.shared),)


def scope_visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """A project sees its own address scopes and the shared ones."""
    if ctx.caller.is_admin:
        return ()
    return (or_(SCOPES.c.project_id == ctx.caller.project_id, SCOPES.c.shared),)


# ---- pools --------------------------------------------------------------------------------------------------------------


def _ranges(prefixes: Sequence[str]) -> tuple[list[str], int]:
    """(the ranges in their shortest form, their IP version)."""
    found: list[Any] = [parse_cidr(p) for p in prefixes]
    versions = {n.version for n in found}
    if len(versions) != 1:
        raise Invalid("Prefixes in a subnetpool must be of the same IP version.", code="PrefixVersionMismatch")
    return [str(n) for n in collapse_addresses(found)], versions.pop()


def _lengths(given: dict[str, Any], old: SubnetPool | None, version: int) -> dict[str, int]:
    longest = 32 if version == 4 else 128
    low = given.get("min_prefixlen", old.min_prefixlen if old else (8 if version == 4 else 64))
    high = given.get("max_prefixlen", old.max_prefixlen if old else longest)
    default = given.get("default_prefixlen", old.default_prefixlen if old else low)
    if high > longest:
        raise Invalid(
            f"Invalid subnet prefix length: {high} is more than {longest}.", code="IllegalSubnetPoolPrefixBounds"
        )
    if not low <= default <= high:
        raise Invalid(
            f"Illegal prefix bounds: min_prefixlen={low}, default_prefixlen={default}, max_prefixlen={high}.",
            code="IllegalSubnetPoolPrefixBounds",
        )
    return {"min_prefixlen": low, "max_prefixlen": high, "default_prefixlen": default}


def _check_scope(tx: Connection, ctx: Ctx, scope_id: str | None, version: int) -> None:
    if scope_id is not None:
        scope = db.get(tx, AddressScope, scope_id, *scope_visible(ctx))
        if scope.ip_version != version:
            raise Invalid(
                f"subnetpool cannot be associated with address scope {scope_id}: their IP versions differ.",
                code="IllegalSubnetPoolIpVersionAssociationToAddressScope",
            )


def _check_default(tx: Connection, version: int, pool_id: str = "") -> None:
    other = (POOLS.c.is_default, POOLS.c.ip_version == version, POOLS.c.id != pool_id)
    if db.first(tx, SubnetPool, *other) is not None:
        raise Invalid(
            "A default subnetpool for this IP family has already been set. Only one default may exist per IP family"
        )


def default_pool(tx: Connection, ctx: Ctx, version: int) -> str:
    """The ID of the pool that is taken when none is named."""
    pool = db.first(tx, SubnetPool, POOLS.c.is_default, POOLS.c.ip_version == version, *visible(ctx))
    if pool is None:
        raise Invalid(f"Bad subnets request: No default subnetpool found for IPv{version}.", code="BadRequest")
    return pool.id


def add_pool(tx: Connection, ctx: Ctx, body: Any) -> SubnetPool:
    project_id = owner(ctx, body)
    charge(tx, "subnetpool", SubnetPool, project_id)
    prefixes, version = _ranges(body.prefixes)
    _check_scope(tx, ctx, body.address_scope_id, version)
    lengths = _lengths(body.given(), None, version)
    if body.is_default:
        _check_default(tx, version)
    pool = SubnetPool.new(body, **stamps(project_id), prefixes=prefixes, ip_version=version, **lengths)
    db.insert(tx, pool)
    return pool


def _change(tx: Connection, ctx: Ctx, id: str, body: Any) -> SubnetPool:
    pool = changeable(tx, ctx, SubnetPool, id, visible, "update_subnetpool")
    given = body.given()
    if "prefixes" in given:
        given["prefixes"], version = _ranges(given["prefixes"])
        if version != pool.ip_version:
            raise Invalid("Prefixes in a subnetpool must be of the same IP version.", code="PrefixVersionMismatch")
        ranges = [net(p) for p in given["prefixes"]]
        for old in pool.prefixes:
            if not any(net(old).subnet_of(new) for new in ranges):  # type: ignore[arg-type]
                raise Invalid("Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.",
                              code="IllegalSubnetPoolUpdate")  # fmt: skip
    given.update(_lengths(given, pool, pool.ip_version))
    if given.get("is_default"):
        _check_default(tx, pool.ip_version, id)
    if "address_scope_id" in given:
        _check_scope(tx, ctx, given["address_scope_id"], pool.ip_version)
    return change(tx, pool, **given)


def _remove(tx: Connection, ctx: Ctx, id: str) -> None:
    changeable(tx, ctx, SubnetPool, id, visible, "delete_subnetpool")
    if tx.execute(select(SUBNETS.c.id).where(SUBNETS.c.subnetpool_id == id).limit(1)).first() is not None:
        raise Conflict(f"Unable to delete subnet pool: Subnet pool {id} is in use.", code="SubnetPoolDeleteError")
    db.remove(tx, SubnetPool, id)


def take(tx: Connection, ctx: Ctx, pool_id: str, cidr: str | None, prefixlen: int | None, version: int | None) -> Net:
    """A free prefix of the pool: the one asked for, or the first of the length asked for."""
    pool = db.get(tx, SubnetPool, pool_id, *visible(ctx))
    if version is not None and version != pool.ip_version:
        raise Invalid("Bad subnets request: the subnet's ip_version differs from the pool's.", code="BadRequest")
    query = select(SUBNETS.c.cidr).where(SUBNETS.c.subnetpool_id == pool_id)
    taken: list[Any] = [net(used) for used in tx.execute(query).scalars()]
    ranges: list[Any] = [net(prefix) for prefix in pool.prefixes]
    if cidr is not None:
        wanted: Any = parse_cidr(cidr)
        if not any(wanted.version == r.version and wanted.subnet_of(r) for r in ranges) or any(
            wanted.overlaps(t) for t in taken
        ):
            raise Invalid("Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.",
                          code="SubnetAllocationError")  # fmt: skip
        return wanted  # type: ignore[no-any-return]
    length = pool.default_prefixlen if prefixlen is None else prefixlen
    if not pool.min_prefixlen <= length <= pool.max_prefixlen:
        raise Invalid(
            f"Unable to allocate subnet with prefix length {length}, the pool allows {pool.min_prefixlen} to "
            f"{pool.max_prefixlen}.",
            code="MinPrefixSubnetAllocationError" if length < pool.min_prefixlen else "MaxPrefixSubnetAllocationError",
        )
    found = _first_free(ranges, taken, length)
    if found is None:
        raise Conflict(
            "Failed to allocate subnet: Insufficient prefix space to allocate subnet size.",
            code="SubnetAllocationError",
        )
    return found


def _first_free(ranges: Sequence[Any], taken: Sequence[Any], length: int) -> Net | None:
    """The first prefix of this length that overlaps with none taken; steps over what is taken, never through it."""
    for whole in ranges:
        if whole.prefixlen > length:
            continue
        make = IPv4Network if whole.version == 4 else IPv6Network
        size = 1 << (whole.max_prefixlen - length)
        at, end = int(whole.network_address), int(whole.broadcast_address)
        for used in sorted((t for t in taken if t.overlaps(whole)), key=lambda t: int(t.network_address)):
            if at + size - 1 < int(used.network_address):
                break
            at = max(at, -(-(int(used.broadcast_address) + 1) // size) * size)
        if at + size - 1 <= end:
            return make((at, length))
    return None


# ---- address scopes -----------------------------------------------------------------------------------------------------


def add_scope(tx: Connection, ctx: Ctx, body: Any) -> AddressScope:
    if body.ip_version == 5:
        raise Invalid("Invalid input for ip_version. Reason: '5' is not in [4, 6].")
    scope = AddressScope.new(body, **stamps(owner(ctx, body)))
    db.insert(tx, scope)
    return scope


def _change_scope(tx: Connection, ctx: Ctx, id: str, body: Any) -> AddressScope:
    scope = changeable(tx, ctx, AddressScope, id, scope_visible, "update_address_scope")
    return change(tx, scope, **body.given())


def _remove_scope(tx: Connection, ctx: Ctx, id: str) -> None:
    changeable(tx, ctx, AddressScope, id, scope_visible, "delete_address_scope")
    if tx.execute(select(POOLS.c.id).where(POOLS.c.address_scope_id == id).limit(1)).first() is not None:
        raise Conflict(
            f"Unable to complete operation on address scope {id}. There are one or more subnet pools in use on the address "
            "scope",
            code="AddressScopeInUse",
        )
    db.remove(tx, AddressScope, id)


endpoints = [
    *calls(SubnetPool, visible, add_pool, _change, _remove),
    *calls(AddressScope, scope_visible, add_scope, _change_scope, _remove_scope),
]
