"""The identity service: all its calls and rules, from the files of its resources."""

from cumulet.api.dialect import IDENTITY
from cumulet.api.service import Service
from cumulet.services.identity import (
    access_rule,
    access_token,
    application_credential,
    consumer,
    credential,
    domain,
    ec2_credential,
    endpoint,
    grant,
    group,
    policy,
    project,
    region,
    request_token,
    retired,
    revoke_event,
    role,
    role_assignment,
    rules,
    service,
    trust,
    user,
    user_password,
    user_token,
    version,
)
from cumulet.services.identity.auth import available, ec2_token, oauth2, token

PARTS = (
    token,
    available,
    ec2_token,
    oauth2,
    domain,
    project,
    user,
    user_password,
    group,
    role,
    grant,
    role_assignment,
    service,
    endpoint,
    region,
    credential,
    ec2_credential,
    consumer,
    request_token,
    access_token,
    policy,
    revoke_event,
    retired,
    user_token,
    trust,
    application_credential,
    access_rule,
)

CALLS = [call for part in PARTS for call in part.endpoints]

SERVICE = Service(
    type="identity",
    upstream="keystone",
    ports=("identity", "identity-admin"),
    dialect=IDENTITY,
    endpoints=[*version.documents(CALLS), *CALLS],
    rules={**rules.RULES, **{name: text for part in PARTS for name, text in part.RULES.items()}},
)
