"""Logins by an identity provider: GET|POST /v3/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}/auth."""

from cumulet.api.http import Endpoint, Response
from cumulet.services.identity.auth.issue import issue, token_reply
from cumulet.services.identity.auth.place import NOWHERE
from cumulet.services.identity.auth.receipt import continued, receipt_reply, required
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.federation.login import prove_assertion
from cumulet.services.identity.notifications import audited
from cumulet.services.identity.session import Session


async def log_in(ctx: Ctx, idp_id: str, protocol_id: str) -> tuple[str, Session] | Response:
    """A token without a scope for whom the provider says it is; the receipt, where he has to show more."""
    proof = await continued(ctx, await prove_assertion(ctx, idp_id, protocol_id))
    rules = await required(ctx, proof)
    if rules is not None:
        return await receipt_reply(ctx, proof, rules)
    return await issue(ctx, proof, NOWHERE)


async def federated_login(ctx: Ctx, id: str, protocol_id: str) -> Response:
    """Log in by what an identity provider asserts: a token without a scope."""
    found = await log_in(ctx, id, protocol_id)
    return found if isinstance(found, Response) else await token_reply(ctx, *found, 201)


RULES: dict[str, str] = {}
AUTH = "/v3/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}/auth"
endpoints = [
    Endpoint("GET", AUTH, audited(federated_login), auth=False, status=201),
    Endpoint("POST", AUTH, audited(federated_login), auth=False, status=201),
]
