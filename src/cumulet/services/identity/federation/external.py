"""Method `external`: the web server in front has found out who it is (Kerberos, client certificates) and says so."""

import msgspec

from cumulet.core.errors import Unauthorized
from cumulet.services.identity.auth.method import Proof
from cumulet.services.identity.calls import DEFAULT_DOMAIN, Ctx
from cumulet.services.identity.federation.login import user_in
from cumulet.services.identity.federation.rules import DomainRef
from cumulet.services.identity.login import welcome
from cumulet.services.identity.revocation import microseconds


async def prove_external(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """The user of this name in the domain that the web server names, or the default one; Unauthorized for whoever comes past
    the web server."""
    front_end = ctx.service.sources.front_end
    if front_end is None or not front_end.table.external or not front_end.is_peer(ctx.request):
        raise Unauthorized("No authenticated user")
    at = microseconds()
    name, domain = front_end.remote_user(ctx.request)
    meant = DomainRef(name=domain) if domain else DomainRef(id=DEFAULT_DOMAIN)
    user = await ctx.service.kernel.db.read_inline(user_in, name, meant) if name else None
    if user is None:
        raise Unauthorized("No authenticated user")
    await welcome(ctx.service, user)
    return Proof(user_id=user.id, methods=("external",), issued_at=at)
