"""The tables of federation that are no resources: names of providers, who came from where, memberships that end."""

from sqlalchemy import BigInteger, Boolean, Column, String, Table

from cumulet.core.db import metadata

remote_name = Table(
    "identity_remote_id",
    metadata,
    Column("remote_id", String(255), primary_key=True),  # one name is one provider's
    Column("idp_id", String(64), nullable=False, index=True),
)

federated_user = Table(
    "identity_federated_user",
    metadata,
    Column("idp_id", String(64), primary_key=True),
    Column("protocol_id", String(64), primary_key=True),
    Column("unique_id", String(255), primary_key=True),  # as the provider knows him
    Column("user_id", String(64), nullable=False, index=True),
    Column("made", Boolean, nullable=False),  # a login made the user, who goes with the last provider that knows him
)

timed_membership = Table(
    "identity_timed_membership",
    metadata,
    Column("user_id", String(64), primary_key=True),
    Column("group_id", String(64), primary_key=True, index=True),
    Column("idp_id", String(64), primary_key=True),
    Column("verified_at", BigInteger, nullable=False),  # the last login, in microseconds since 1970
    Column("expires_at", BigInteger, nullable=False),  # the provider's authorization_ttl later
)

used_assertion = Table(
    "identity_used_assertion",
    metadata,
    Column("idp_id", String(64), primary_key=True),
    Column("assertion_id", String(255), primary_key=True),
    Column("expires_at", BigInteger, nullable=False, index=True),  # microseconds since 1970
)
