"""Method `oauth1`: a request for a token that a consumer signed with an access token (RFC 5849). The token that it gets speaks
for the user who gave the access token, in the project that he gave it for, and cannot be exchanged for another one."""

import msgspec
from sqlalchemy import Connection

from cumulet.core.errors import NotFound, Unauthorized
from cumulet.services.identity.access_token import AccessToken, access_token_of, has_ended
from cumulet.services.identity.auth.method import Proof
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.claims import ACCESS_TOKEN
from cumulet.services.identity.consumer import Keys, consumer_of, read_signed, verify
from cumulet.services.identity.revocation import microseconds


async def prove_oauth1(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """Verify the request's signature. The payload says nothing: all is in the header `Authorization`."""
    signed = await read_signed(ctx, "oauth_token", "oauth_consumer_key")

    def look(tx: Connection) -> tuple[AccessToken, Keys]:
        token = access_token_of(tx, signed.get("oauth_token"))
        try:
            consumer = consumer_of(tx, signed.get("oauth_consumer_key"))
        except NotFound:
            raise Unauthorized("Could not validate the access token") from None
        return token, Keys(consumer.sealed, token.sealed)

    token, keys = await ctx.service.kernel.db.read_inline(look)
    if has_ended(token):
        raise Unauthorized("Access token is expired")
    verify(ctx, signed, keys, "Could not validate the access token")
    if token.consumer_id != signed.get("oauth_consumer_key"):
        raise Unauthorized("Could not validate the access token")
    return Proof(
        user_id=token.authorizing_user_id,
        methods=("oauth1",),
        issued_at=microseconds(),
        via=ACCESS_TOKEN,
        via_id=token.id,
        scope=("project", token.project_id),
    )
