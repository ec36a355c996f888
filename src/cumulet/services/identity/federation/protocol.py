"""Protocols of an identity provider: PUT|GET|PATCH|DELETE /v3/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id},
and their list. A protocol names the mapping that says what the provider's assertions mean."""

from typing import Annotated, Any

from msgspec import UNSET, Meta
from sqlalchemy import Connection, delete, update

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Listing
from cumulet.api.resource import FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.types import Column, Id, Str64
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.federation.identity_provider import IdentityProvider, check_id
from cumulet.services.identity.federation.mapping import Mapping
from cumulet.services.identity.federation.shadow import forget_origin
from cumulet.services.identity.rules import system_rules

MappingId = Annotated[str, Meta(min_length=1, max_length=64), Column(64)]
PATH = "/v3/OS-FEDERATION/identity_providers/{id}/protocols"


class FederationProtocol(
    Resource, table="identity_federation_protocol", key="protocol", path=PATH, primary_key=("id", "idp_id")
):
    """A way in which a provider's assertions come."""

    id: Id = read("The ID of the protocol, such as `saml2` or `openid`.", use=FIND)
    idp_id: Id = hidden("The identity provider.")
    mapping_id: MappingId = edit("The mapping that its assertions go through.")
    remote_id_attribute: Str64 | None = edit("The attribute of an assertion that names the provider.", None)


RULES = system_rules("protocol")

p = FederationProtocol.table.c


def _told(ctx: Ctx, protocol: Any, *, listed: bool = False) -> dict[str, Any]:
    """A protocol as it is shown, with links to itself and to its provider. In a list it has all of its attributes, alone
    those that say something, as upstream documents it."""
    provider = f"{ctx.request.base_url}{IdentityProvider.options.path}/{protocol.idp_id}"
    shown = {
        "id": protocol.id,
        "mapping_id": protocol.mapping_id,
        "links": {"self": f"{provider}/protocols/{protocol.id}", "identity_provider": provider},
    }
    if listed:
        shown["idp_id"] = protocol.idp_id
    if listed or protocol.remote_id_attribute is not None:
        shown["remote_id_attribute"] = protocol.remote_id_attribute
    return shown


def find_protocol(tx: Connection, idp_id: str, protocol_id: str) -> FederationProtocol:
    """The protocol; NotFound where the provider has none of this id."""
    found = db.first(tx, FederationProtocol, p.idp_id == idp_id, p.id == protocol_id)
    if found is None:
        raise NotFound(message=f"Could not find federated protocol {protocol_id} for Identity Provider: {idp_id}.")
    return found


def _check_mapping(tx: Connection, mapping_id: str) -> None:
    if db.first(tx, Mapping, Mapping.table.c.id == mapping_id) is None:
        raise Invalid(f"Invalid mapping id: {mapping_id}")


async def list_protocols(ctx: Ctx, id: str) -> Any:
    """List the protocols of an identity provider."""
    return await list_page(
        ctx,
        FederationProtocol,
        lambda _: [p.idp_id == id],
        listing=Listing(sort=(("id", "asc"),)),
        view=lambda row: _told(ctx, row, listed=True),
    )


async def show_protocol(ctx: Ctx, id: str, protocol_id: str) -> Any:
    """Show a protocol of an identity provider."""
    return {"protocol": _told(ctx, await ctx.service.kernel.db.read_inline(find_protocol, id, protocol_id))}


async def create_protocol(ctx: Ctx, id: str, protocol_id: str, body: Any) -> Any:
    """Create a protocol of an identity provider."""
    check_id(protocol_id)
    protocol: FederationProtocol = FederationProtocol.new(body, id=protocol_id, idp_id=id)

    def store(tx: Connection) -> None:
        _check_mapping(tx, protocol.mapping_id)
        db.get(tx, IdentityProvider, id)
        if db.first(tx, FederationProtocol, p.idp_id == id, p.id == protocol_id) is not None:
            raise Conflict(
                f"Conflict occurred attempting to store federation_protocol - Duplicate entry: {protocol_id}."
            )
        db.insert(tx, protocol)

    await ctx.service.write(store)
    return {"protocol": _told(ctx, protocol)}


async def update_protocol(ctx: Ctx, id: str, protocol_id: str, body: Any) -> Any:
    """Change a protocol of an identity provider."""
    if body.mapping_id is UNSET:
        raise Invalid("A change of a protocol names its mapping_id.")
    if body.remote_id_attribute is None:
        raise Invalid("remote_id_attribute cannot be null; an empty text is what it is without.")

    def store(tx: Connection) -> FederationProtocol:
        find_protocol(tx, id, protocol_id)
        _check_mapping(tx, body.mapping_id)
        where = (p.idp_id == id, p.id == protocol_id)
        tx.execute(update(FederationProtocol.table).where(*where).values(body.given()))
        return find_protocol(tx, id, protocol_id)

    return {"protocol": _told(ctx, await ctx.service.write(store))}


async def delete_protocol(ctx: Ctx, id: str, protocol_id: str) -> Response:
    """Remove a protocol with the users whom it alone brought here."""

    def remove(tx: Connection) -> None:
        find_protocol(tx, id, protocol_id)
        tx.execute(delete(FederationProtocol.table).where(p.idp_id == id, p.id == protocol_id))
        forget_origin(tx, ctx.service, id, protocol_id)

    await ctx.service.write(remove)
    return Response(204)


ONE = f"{PATH}/{{protocol_id}}"
endpoints = [
    Endpoint("GET", PATH, list_protocols, "identity:list_protocols", resource=FederationProtocol),
    Endpoint("GET", ONE, show_protocol, "identity:get_protocol", resource=FederationProtocol),
    Endpoint(
        "PUT", ONE, create_protocol, "identity:create_protocol", FederationProtocol, status=201,
        resource=FederationProtocol,
    ),
    Endpoint(
        "PATCH", ONE, update_protocol, "identity:update_protocol", FederationProtocol, "update",
        resource=FederationProtocol,
    ),
    Endpoint("DELETE", ONE, delete_protocol, "identity:delete_protocol", resource=FederationProtocol),
]  # fmt: skip
