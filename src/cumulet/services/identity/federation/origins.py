"""Where a user is known from: the attribute `federated` of users."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, Connection, delete, insert, select

from cumulet.api.query import Filter
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import timestamp
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.federation.tables import federated_user, timed_membership
from cumulet.services.identity.revocation import microseconds

Key = Annotated[str, Meta(min_length=1, max_length=64)]
f = federated_user.c


class KnownBy(Struct):
    """A protocol of a provider, and the id by which the provider knows the user."""

    protocol_id: Key
    unique_id: Annotated[str, Meta(min_length=1, max_length=255)]


class Origin(Struct):
    """An identity provider that knows a user."""

    idp_id: Key
    protocols: Annotated[list[KnownBy], Meta(min_length=1, max_length=100)]


Origins = Annotated[list[Origin], Meta(max_length=100)]


def store_origins(tx: Connection, user_id: str, origins: Sequence[Origin]) -> None:
    """Let the user be known from there, and from nowhere else. Invalid where there is no such provider or protocol, Conflict
    where the provider means somebody else by the id."""
    protocol = db.metadata.tables["identity_federation_protocol"].c
    provider = db.metadata.tables["identity_provider"].c
    made = bool(tx.execute(select(f.user_id).where(f.user_id == user_id, f.made)).first())
    tx.execute(delete(federated_user).where(f.user_id == user_id))
    for origin in origins:
        if tx.execute(select(provider.id).where(provider.id == origin.idp_id)).first() is None:
            raise Invalid(f"Could not find Identity Provider: {origin.idp_id}")
        for known in origin.protocols:
            there = select(protocol.id).where(protocol.idp_id == origin.idp_id, protocol.id == known.protocol_id)
            if tx.execute(there).first() is None:
                raise Invalid(
                    f"Could not find federated protocol {known.protocol_id} for Identity Provider: {origin.idp_id}."
                )
            row = {"idp_id": origin.idp_id, "protocol_id": known.protocol_id, "unique_id": known.unique_id}
            if tx.execute(select(f.user_id).filter_by(**row)).first() is not None:
                raise Conflict(
                    "Conflict occurred attempting to store federated_user - the provider's id is another user's."
                )
            tx.execute(insert(federated_user).values(**row, user_id=user_id, made=made))


def _origins(tx: Connection, user_id: str) -> list[Origin]:
    found: dict[str, list[KnownBy]] = {}
    rows = select(f.idp_id, f.protocol_id, f.unique_id).where(f.user_id == user_id)
    for idp_id, *known in tx.execute(rows.order_by(f.idp_id, f.protocol_id, f.unique_id)):
        found.setdefault(idp_id, []).append(KnownBy(*known))
    return [Origin(idp_id, known) for idp_id, known in found.items()]


async def with_origins(ctx: Ctx, user: Any, reply: Any) -> Any:
    """The reply about one user, with where he is known from if that is anywhere."""
    found = await ctx.service.kernel.db.read_inline(_origins, user.id)
    return {"user": {**reply["user"], "federated": found}} if found else reply


def membership_ends(tx: Connection, user_id: str) -> dict[str, str]:
    """Until when the user is in each group that a login put him into, if that is not over yet."""
    t = timed_membership.c
    rows = select(t.group_id, t.expires_at).where(t.user_id == user_id, t.expires_at > microseconds())
    latest: dict[str, int] = {}
    for group_id, end in tx.execute(rows):
        latest[group_id] = max(end, latest.get(group_id, 0))
    return {group_id: f"{timestamp(datetime.fromtimestamp(end / 1_000_000, UTC))}Z" for group_id, end in latest.items()}


def _by(column: ColumnElement[str], id: ColumnElement[str]) -> Filter:
    return lambda values: id.in_(select(f.user_id).where(column.in_(values)))


def origin_filters(id: ColumnElement[str]) -> dict[str, Filter]:
    """The filters of a list of users by where they are known from; `id` is the column of the users' ids."""
    return {name: _by(f[name], id) for name in ("idp_id", "protocol_id", "unique_id")}
