"""Identity providers: PUT|GET|PATCH|DELETE /v3/OS-FEDERATION/identity_providers/{id}, and their list."""

from typing import Annotated, Any

from msgspec import UNSET, Meta
from sqlalchemy import Connection, delete, insert, select, update

from cumulet.api.query import Listing
from cumulet.api.resource import FILTER, FIND, Resource, edit, once, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import Id, Str64, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change
from cumulet.services.identity.federation.shadow import MINUTE, forget_origin
from cumulet.services.identity.federation.tables import remote_name, timed_membership
from cumulet.services.identity.project import Project, check_domain, insert_project
from cumulet.services.identity.rules import system_rules

RemoteId = Annotated[str, Meta(max_length=255)]
MAX_MINUTES = 100 * 366 * 24 * 60


class IdentityProvider(
    Resource,
    table="identity_provider",
    path="/v3/OS-FEDERATION/identity_providers",
    below=("protocols",),
):
    """An organisation that says who its users are."""

    id: Id = read("The ID of the identity provider.", use=FIND)
    domain_id: Str64 | None = once(
        "The domain of its users; one of its own is made where none is named.", None, index=True
    )
    enabled: bool = edit("Whether its users can have tokens.", False, FILTER)
    description: Text | None = edit("What it is.", None)
    remote_ids: Annotated[list[RemoteId], Meta(max_length=1000)] | None = edit("The names it calls itself by.", [])
    authorization_ttl: Annotated[int, Meta(ge=0, le=MAX_MINUTES)] | None = edit(
        "For how many minutes a login keeps its user in the groups that it put him into.", None
    )


RULES = system_rules("identity_provider")


def check_id(id: str) -> None:
    """Invalid unless an object can be kept under this id."""
    if not 0 < len(id) <= 64:
        raise Invalid("The id in the URL has more than the 64 characters that are taken.")


def refuse_nothing(body: Any) -> None:
    """Invalid where a change changes nothing."""
    if not body.given():
        raise Invalid("The request body changes nothing: at least one attribute is expected.")


async def create_identity_provider(ctx: Ctx, id: str, body: Any) -> IdentityProvider:
    """Store the provider, with a domain of its own if it is given none."""
    ctx.require("identity:create_identity_provider")
    check_id(id)
    domain_id = body.domain_id or new_hex_id()
    provider: IdentityProvider = IdentityProvider.new(
        body, id=id, domain_id=domain_id, remote_ids=_names(body.remote_ids)
    )

    def store(tx: Connection) -> None:
        if db.first(tx, IdentityProvider, IdentityProvider.table.c.id == id) is not None:
            raise Conflict(f"Conflict occurred attempting to store identity_provider - Duplicate entry: {id}.")
        if body.domain_id:
            check_domain(tx, domain_id)
        else:
            description = f"The users of the identity provider {id}."
            row = Project.new(None, id=domain_id, name=domain_id, is_domain=True, domain_id="", parent_id=None)
            row.description = description
            insert_project(tx, row)
        _store_names(tx, provider)
        db.insert(tx, provider)

    await ctx.service.write(store)
    return provider


def _names(given: Any) -> list[str]:
    """Remote ids as they are kept; Invalid where one is there twice."""
    if given is None or given is UNSET:
        return []
    if len(set(given)) < len(given):
        raise Invalid("remote_ids has the same name twice.")
    return sorted(given)


def _store_names(tx: Connection, provider: Any) -> None:
    """Make the provider known by its names; Conflict where one is another's."""
    c = remote_name.c
    names = provider.remote_ids or []
    taken = tx.execute(select(c.remote_id).where(c.remote_id.in_(names), c.idp_id != provider.id)).scalar()
    if taken is not None:
        raise Conflict(f"Conflict occurred attempting to store identity_provider - Duplicate remote ID: {taken}.")
    tx.execute(delete(remote_name).where(c.idp_id == provider.id))
    if names:
        tx.execute(insert(remote_name), [{"remote_id": name, "idp_id": provider.id} for name in names])


async def update_identity_provider(ctx: Ctx, provider: IdentityProvider, body: Any) -> Any:
    """Change the provider; disabling it voids what its users hold."""
    refuse_nothing(body)
    more = {} if body.remote_ids is UNSET else {"remote_ids": _names(body.remote_ids)}

    def store(tx: Connection) -> Any:
        changed = change(tx, IdentityProvider, provider.id, body, **more)
        if more:
            _store_names(tx, changed)
        if "authorization_ttl" in body.given():
            t = timed_membership.c
            ends = t.verified_at + (changed.authorization_ttl or 0) * MINUTE
            tx.execute(update(timed_membership).where(t.idp_id == provider.id).values(expires_at=ends))
        if not changed.enabled:
            ctx.service.revocations.add(tx, "idp", provider.id)
        return changed

    return await ctx.service.write(store)


async def delete_identity_provider(ctx: Ctx, provider: IdentityProvider) -> None:
    await ctx.service.write(remove_identity_provider, ctx.service, provider.id)


def remove_identity_provider(tx: Connection, service: Any, id: str) -> None:
    """Remove a provider with its protocols, its names, and the users that nobody else knows."""
    protocol = db.metadata.tables["identity_federation_protocol"]
    tx.execute(delete(protocol).where(protocol.c.idp_id == id))
    tx.execute(delete(remote_name).where(remote_name.c.idp_id == id))
    tx.execute(delete(timed_membership).where(timed_membership.c.idp_id == id))
    forget_origin(tx, service, id)
    service.revocations.add(tx, "idp", id)
    db.remove(tx, IdentityProvider, id)


def remove_providers_of(tx: Connection, service: Any, domain_id: str) -> None:
    """Remove the providers whose users live in a domain."""
    c = IdentityProvider.table.c
    for (id,) in tx.execute(select(c.id).where(c.domain_id == domain_id)).all():
        remove_identity_provider(tx, service, id)


endpoints = calls(
    IdentityProvider,
    put=create_identity_provider,
    update=update_identity_provider,
    delete=delete_identity_provider,
    listing=Listing(sort=(("id", "asc"),)),
)
