"""The tables that are no resources: who is in which group, who holds which role where, which role implies which, what was
revoked, what a trust or an application credential passes on, what logins leave behind; which endpoints a project's catalogue
has, which policy goes for which endpoints, how a domain is configured."""

from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table

from cumulet.core.db import metadata
from cumulet.core.db.table import LONG_TEXT

membership = Table(
    "identity_membership",
    metadata,
    Column("user_id", String(64), primary_key=True),
    Column("group_id", String(64), primary_key=True, index=True),
)

assignment = Table(
    "identity_assignment",
    metadata,
    Column("actor_type", String(8), primary_key=True),  # user | group
    Column("actor_id", String(64), primary_key=True),
    Column("target_type", String(8), primary_key=True),  # project | domain | system
    Column("target_id", String(64), primary_key=True, index=True),
    Column("role_id", String(64), primary_key=True, index=True),
    Column("inherited", Boolean, primary_key=True),  # by the projects below the target, not by itself
)

implied_role = Table(
    "identity_implied_role",
    metadata,
    Column("prior_role_id", String(64), primary_key=True),
    Column("implied_role_id", String(64), primary_key=True),
)

revocation = Table(
    "identity_revocation",
    metadata,
    Column("kind", String(8), primary_key=True),  # token | user | project | domain | idp
    Column("subject", String(64), primary_key=True),
    Column("revoked_at", BigInteger, nullable=False),  # tokens issued until then are void; microseconds since 1970
)

endpoint_of_project = Table(
    "identity_endpoint_of_project",
    metadata,
    Column("endpoint_id", String(64), primary_key=True),
    Column("project_id", String(64), primary_key=True, index=True),
)

endpoint_group_of_project = Table(
    "identity_endpoint_group_of_project",
    metadata,
    Column("endpoint_group_id", String(64), primary_key=True),
    Column("project_id", String(64), primary_key=True, index=True),
)

policy_association = Table(
    "identity_policy_association",  # of one endpoint, of a service, or of a service in a region; what is not named is ""
    metadata,
    Column("endpoint_id", String(64), primary_key=True),
    Column("service_id", String(64), primary_key=True, index=True),
    Column("region_id", String(255), primary_key=True),
    Column("policy_id", String(64), nullable=False, index=True),
)

domain_option = Table(
    "identity_domain_option",
    metadata,
    Column("domain_id", String(64), primary_key=True),
    Column("section", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", LONG_TEXT, nullable=True),  # JSON, of an option that may be shown
    Column("sealed", LONG_TEXT, nullable=True),  # the same of a sensitive one, encrypted
)

trust_role = Table(
    "identity_trust_role",
    metadata,
    Column("trust_id", String(64), primary_key=True),
    Column("role_id", String(64), primary_key=True, index=True),
)

application_credential_role = Table(
    "identity_application_credential_role",
    metadata,
    Column("application_credential_id", String(64), primary_key=True),
    Column("role_id", String(64), primary_key=True, index=True),
)

application_credential_rule = Table(
    "identity_application_credential_rule",
    metadata,
    Column("application_credential_id", String(64), primary_key=True),
    Column("access_rule_id", String(64), primary_key=True, index=True),
)

password_history = Table(
    "identity_password_history",
    metadata,
    Column("user_id", String(64), primary_key=True),
    Column("created_at", BigInteger, primary_key=True, autoincrement=False),  # microseconds since 1970
    Column("hash", String(255), nullable=False),
)

failed_login = Table(
    "identity_failed_login",
    metadata,
    Column("user_id", String(64), primary_key=True),  # "": of nobody who could be locked out
    Column("failures", Integer, nullable=False),
    Column("failed_at", BigInteger, nullable=False),  # microseconds since 1970
)

used_passcode = Table(
    "identity_used_passcode",
    metadata,
    Column("user_id", String(64), primary_key=True),
    Column("credential_id", String(64), primary_key=True),
    Column("step", BigInteger, nullable=False),  # the time step (RFC 6238) of the newest passcode that was taken
)

SYSTEM = "system"
"""The id of the one target of type `system`."""
