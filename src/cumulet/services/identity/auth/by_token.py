"""Method `token`: a token that is still valid, for another one with another scope. It ends when the first one does.

A token by the leave of an application credential stays one, with its scope; those by other delegations cannot be continued.
"""

import msgspec
from msgspec import Struct

from cumulet.core.errors import Forbidden, NotFound, Unauthorized
from cumulet.services.identity.auth.method import Proof, decoded
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.claims import APPLICATION_CREDENTIAL
from cumulet.services.identity.revocation import microseconds


class TokenMethod(Struct):
    id: str


async def prove_token(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """Whoever holds a token is its user. One that is wrong, has expired or was revoked is not found, as upstream has it."""
    try:
        session = await ctx.service.session(decoded(payload, TokenMethod, "token").id)
    except Unauthorized:
        raise NotFound(message="Could not find token: it is wrong, has expired or was revoked.") from None
    claims = session.claims
    if claims.via not in ("", APPLICATION_CREDENTIAL):
        kind = claims.via
        raise Forbidden(
            rule=f"Using {kind}-scoped token to create another token. Create a new {kind}-scoped token instead"
        )
    return Proof(
        user_id=claims.user_id,
        methods=("token", *(m for m in claims.methods if m != "token")),
        issued_at=microseconds(),
        since=claims,
        via=claims.via,
        via_id=claims.via_id,
        scope=(claims.scope, claims.scope_id) if claims.via else None,
        federation=claims.federation,
        thumbprint=claims.thumbprint,
    )
