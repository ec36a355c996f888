"""Method `external`: the web server in front has found out who it is (Kerberos, client certificates) and says so."""

import msgspec
from sqlalchemy import Connection, select

from cumulet.core.errors import Unauthorized
from cumulet.services.identity.auth.method import Proof
from cumulet.services.identity.bootstrap import DEFAULT
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.project import Project
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.user import User


async def prove_external(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """The user of this name in the domain that the web server names, or the default one; Unauthorized for whoever comes past
    the web server."""
    front_end = ctx.service.sources.front_end
    if front_end is None or not front_end.table.external or not front_end.is_peer(ctx.request):
        raise Unauthorized("No authenticated user")
    at = microseconds()
    name, domain = front_end.remote_user(ctx.request)
    found = await ctx.service.kernel.db.read_inline(_user_named, name, domain) if name else None
    if found is None:
        raise Unauthorized("No authenticated user")
    return Proof(user_id=found, methods=("external",), issued_at=at)


def _user_named(tx: Connection, name: str, domain: str) -> str | None:
    u, p = User.table.c, Project.table.c
    where = p.name == domain if domain else p.id == DEFAULT
    statement = select(u.id).join(Project.table, p.id == u.domain_id)
    found: str | None = tx.execute(statement.where(u.name == name, where, p.is_domain, u.enabled, p.enabled)).scalar()
    return found
