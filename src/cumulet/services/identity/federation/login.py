"""Proofs that rest on what an identity provider asserts; the methods `mapped`, `openid` and `saml2`.

The assertion comes from a source (`sources.py`), goes through the protocol's mapping (`rules.py`), and becomes a user who was
here already (type `local`) or one who stands for the provider's (`shadow.py`).
"""

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from cumulet.core import db
from cumulet.core.errors import Forbidden, Invalid, NotFound, Unauthorized
from cumulet.services.identity.auth.by_token import prove_token
from cumulet.services.identity.auth.method import Proof, decoded
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.claims import Federation
from cumulet.services.identity.federation.asserted import Asserted
from cumulet.services.identity.federation.identity_provider import IdentityProvider
from cumulet.services.identity.federation.mapping import Mapping
from cumulet.services.identity.federation.protocol import FederationProtocol, find_protocol
from cumulet.services.identity.federation.rules import DomainRef, Mapped, MappingFailed, apply, parsed
from cumulet.services.identity.federation.shadow import Visitor, domain_of, settled, shadow
from cumulet.services.identity.federation.tables import used_assertion
from cumulet.services.identity.group import Group
from cumulet.services.identity.login import welcome
from cumulet.services.identity.project import Project
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.user import User

STEP = "3.0"
"""The version of mappings from which on users lose what their provider tells of no more."""
UNIQUE_LENGTH = 255
GRACE = 120_000_000
"""Microseconds for which an assertion is remembered beyond its end: longer than clocks may differ."""


class Origin(Struct, frozen=True):
    """What is kept here of where an assertion comes from."""

    provider: IdentityProvider
    protocol: FederationProtocol
    mapping: Mapping


def find_origin(tx: Connection, idp_id: str, protocol_id: str) -> Origin:
    """NotFound where there is no such provider or protocol, Forbidden where the provider is disabled."""
    provider = db.first(tx, IdentityProvider, IdentityProvider.table.c.id == idp_id)
    if provider is None:
        raise NotFound(message=f"Could not find Identity Provider: {idp_id}.")
    if not provider.enabled:
        raise Forbidden(f"Identity Provider {idp_id} is disabled")
    protocol = find_protocol(tx, idp_id, protocol_id)
    mapping = db.first(tx, Mapping, Mapping.table.c.id == protocol.mapping_id)
    if mapping is None:
        raise NotFound(message=f"Could not find mapping: {protocol.mapping_id}.")
    return Origin(provider, protocol, mapping)


async def prove_assertion(ctx: Ctx, idp_id: str, protocol_id: str) -> Proof:
    """Who the provider says is asking; Unauthorized where it says nothing, or nothing that the mapping makes somebody of."""
    database = ctx.service.kernel.db
    at = microseconds()
    origin = await database.read_inline(find_origin, idp_id, protocol_id)
    reader = ctx.service.sources.reader(idp_id, protocol_id)
    if reader is None:
        raise Unauthorized(f"This cloud has no source of assertions of {idp_id} by {protocol_id}.")
    asserted = await reader.read(ctx.request)
    check_remote_id(origin, asserted)
    version = origin.mapping.schema_version or "1.0"
    try:
        mapped = apply(parsed(origin.mapping.rules, version), version, asserted.attributes)
    except (MappingFailed, Invalid) as error:
        raise Unauthorized(error.message) from None
    if asserted.once:
        await _use_up(ctx, idp_id, asserted)
    if mapped.user.local:
        local = await database.read_inline(_local_user, mapped)
        await welcome(ctx.service, local)
        return Proof(user_id=local.id, methods=(protocol_id,), issued_at=at)
    visitor = await database.read_inline(_visitor, origin, mapped, asserted.remote_user)
    known = await database.read_inline(settled, visitor)
    if known is not None:
        user_id = known
    else:
        await ctx.service.directories.refuse(visitor.domain_id)
        user_id, at = await ctx.service.write(shadow, ctx.service, visitor)
    await welcome(ctx.service, await database.read_inline(db.get, User, user_id))
    return Proof(
        user_id=user_id,
        methods=(protocol_id,),
        issued_at=at,
        federation=Federation(idp_id, protocol_id, visitor.group_ids),
    )


async def _use_up(ctx: Ctx, idp_id: str, asserted: Asserted) -> None:
    """Remember the assertion; Unauthorized where somebody logged in by it before."""

    def store(tx: Connection) -> None:
        c = used_assertion.c
        tx.execute(delete(used_assertion).where(c.expires_at <= microseconds() - GRACE))
        if tx.execute(select(c.idp_id).where(c.idp_id == idp_id, c.assertion_id == asserted.once)).first() is not None:
            raise Unauthorized("The login was refused: the assertion was used before.")
        until = int(asserted.until * 1_000_000)
        tx.execute(insert(used_assertion).values(idp_id=idp_id, assertion_id=asserted.once, expires_at=until))

    try:
        await ctx.service.kernel.db.run(store)
    except IntegrityError:
        raise Unauthorized("The login was refused: the assertion was used before.") from None


def remote_id(origin_attribute: str | None, asserted: Asserted) -> str | None:
    """How the provider names itself in the assertion."""
    values = asserted.attributes.get(origin_attribute or asserted.remote_id_attribute)
    return values[0] if values and len(values) == 1 else None


def check_remote_id(origin: Origin, asserted: Asserted) -> None:
    """Forbidden where the assertion comes from another provider than this one, Invalid where it does not say."""
    attribute = origin.protocol.remote_id_attribute or asserted.remote_id_attribute
    if not attribute or not origin.provider.remote_ids:
        return
    if attribute not in asserted.attributes:
        raise Invalid("Could not find Identity Provider identifier in environment")
    if remote_id(attribute, asserted) not in origin.provider.remote_ids:
        raise Forbidden("Incoming identity provider identifier not included among the accepted identifiers.")


def _local_user(tx: Connection, mapped: Mapped) -> User:
    """The user who was here already; Unauthorized where there is none."""
    user = mapped.user
    if user.id:
        found = db.first(tx, User, User.table.c.id == user.id, User.table.c.gone_since.is_(None))
    elif user.name and user.domain is not None:
        found = user_in(tx, user.name, user.domain)
    else:
        raise Unauthorized("The mapping names a local user by neither his id nor his name and domain.")
    if found is None:
        raise Unauthorized()
    return found


def user_in(tx: Connection, name: str, domain: DomainRef) -> User | None:
    """The user of this name in a domain, if he is there."""
    u, p = User.table.c, Project.table.c
    named = p.id == domain.id if domain.id else p.name == domain.name
    home = select(p.id).where(named, p.is_domain).scalar_subquery()
    return db.first(tx, User, u.name == name, u.domain_id == home, u.gone_since.is_(None))


def _visitor(tx: Connection, origin: Origin, mapped: Mapped, remote_user: str) -> Visitor:
    """What the rules made of him, with ids for names; Unauthorized where that is nobody."""
    provider, user = origin.provider, mapped.user
    name = user.name or remote_user
    unique = user.id or name
    if not unique.strip():
        raise Unauthorized(
            "Could not map user while setting ephemeral user identity. Either mapping rules must specify user id/name or "
            "REMOTE_USER environment variable must be set."
        )
    if len(unique) > UNIQUE_LENGTH:
        raise Unauthorized(f"The identity provider's id of the user has more than {UNIQUE_LENGTH} characters.")
    home = provider.domain_id or ""
    return Visitor(
        idp_id=provider.id,
        protocol_id=origin.protocol.id,
        unique_id=unique,
        name=name or unique,
        email=user.email,
        domain_id=domain_of(tx, user.domain, home),
        group_ids=_group_ids(tx, origin, mapped),
        projects=tuple((domain_of(tx, project.domain, home), project) for project in mapped.projects),
        in_step=origin.mapping.schema_version == STEP,
        ttl=provider.authorization_ttl or 0,
    )


def _group_ids(tx: Connection, origin: Origin, mapped: Mapped) -> tuple[str, ...]:
    """The ids of the groups: one that is named by its id must be there, one by its name counts if it is."""
    g = Group.table.c
    there = set(tx.execute(select(g.id).where(g.id.in_(mapped.group_ids))).scalars())
    for id in mapped.group_ids:
        if id not in there:
            raise Unauthorized(f"Group {id} returned by mapping {origin.mapping.id} was not found in the backend.")
    home = origin.provider.domain_id or ""
    wanted = {(domain_of(tx, group.domain, home), group.name) for group in mapped.groups}
    named = select(g.id, g.domain_id, g.name).where(g.name.in_({name for _, name in wanted}))
    there |= {row.id for row in tx.execute(named) if (row.domain_id, row.name) in wanted}
    return tuple(sorted(there))


# ---- methods ------------------------------------------------------------------------------------------------------------


class MappedMethod(Struct):
    """What the methods take: where the assertion comes from, or a token that came from one."""

    identity_provider: str | None = None
    protocol: str | None = None
    id: str | None = None


async def prove_mapped(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """Methods `mapped`, `openid` and `saml2`."""
    given = decoded(payload, MappedMethod, "mapped")
    if given.id is not None:
        proof = await prove_token(ctx, payload)
        if proof.federation is None:
            raise Unauthorized()
        return proof
    if given.identity_provider is None or given.protocol is None:
        raise Invalid("Expecting to find identity_provider and protocol in mapped.")
    return await prove_assertion(ctx, given.identity_provider, given.protocol)
