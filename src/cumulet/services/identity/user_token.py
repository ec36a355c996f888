"""All tokens of a user at once: DELETE /v3/users/{id}/tokens."""

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import NotFound
from cumulet.services.identity.calls import Ctx, target
from cumulet.services.identity.rules import ADMIN
from cumulet.services.identity.user import User

RULES = {"identity:revoke_user_tokens": f"{ADMIN} or user_id:%(target.user.id)s"}


async def revoke_all(ctx: Ctx, id: str) -> Response:
    """Void all tokens of a user: his own, for who cannot change his password, or anybody's as an admin."""
    user = await ctx.service.kernel.db.read_inline(db.first, User, User.table.c.id == id)
    ctx.require("identity:revoke_user_tokens", target(user))
    if user is None:
        raise NotFound("user", id)
    await ctx.service.write(ctx.service.revocations.add, "user", id)
    return Response(204)


endpoints = [Endpoint("DELETE", "/v3/users/{id}/tokens", revoke_all)]
