"""Logins of a dashboard's users (web single sign-on): GET|POST /v3/auth/OS-FEDERATION/websso/{protocol_id} and
/v3/auth/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}/websso.

The reply is a page that sends the token to the dashboard by itself. It goes to dashboards of the file alone.
"""

from html import escape

from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import Invalid, Unauthorized
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.federation.asserted import Asserted
from cumulet.services.identity.federation.auth import log_in
from cumulet.services.identity.federation.login import remote_id
from cumulet.services.identity.federation.protocol import FederationProtocol
from cumulet.services.identity.federation.sources import as_compared
from cumulet.services.identity.federation.tables import remote_name
from cumulet.services.identity.notifications import audited

PAGE = """<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml">
  <head><meta charset="utf-8"><title>Signing in</title></head>
  <body>
    <form id="sso" name="sso" action="{host}" method="post">
      <p>You are signed in. This goes on by itself; if it does not, press the button.</p>
      <input type="hidden" name="token" id="token" value="{token}">
      <noscript><input type="submit" value="Go on"></noscript>
    </form>
    <script>window.onload = function () {{ document.forms["sso"].submit(); }}</script>
  </body>
</html>
"""


def _dashboard(ctx: Ctx) -> str:
    """Where the token is to be sent; Unauthorized where that is no dashboard that is trusted."""
    origin: str | None = ctx.request.query.get("origin")
    if not origin:
        raise Invalid("Request must have an origin query parameter")
    if as_compared(origin) not in ctx.service.sources.trusted_dashboards:
        raise Unauthorized(f"{origin[:255]} is not a trusted dashboard host")
    return origin


async def _sign_in(ctx: Ctx, idp_id: str, protocol_id: str) -> Response:
    host = _dashboard(ctx)
    found = await log_in(ctx, idp_id, protocol_id)
    if isinstance(found, Response):
        return found
    page = PAGE.format(host=escape(host), token=escape(found[0]))
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
    }
    return Response(200, page.encode(), headers)


async def sign_in(ctx: Ctx, protocol_id: str) -> Response:
    """Sign a dashboard's user in by whatever identity provider the assertion names."""
    for idp_id, reader in ctx.service.sources.of_protocol(protocol_id):
        try:
            asserted = await reader.read(ctx.request)
        except Unauthorized:
            continue
        found = await ctx.service.kernel.db.read_inline(_named_by, idp_id, protocol_id, asserted)
        if found == idp_id:
            return await _sign_in(ctx, idp_id, protocol_id)
    raise Unauthorized("Missing entity ID from environment")


def _named_by(tx: Connection, idp_id: str, protocol_id: str, asserted: Asserted) -> str | None:
    """The identity provider that the assertion names, as this source's protocol reads it."""
    p = FederationProtocol.table.c
    protocol = db.first(tx, FederationProtocol, p.idp_id == idp_id, p.id == protocol_id)
    if protocol is None:
        return None
    name = remote_id(protocol.remote_id_attribute, asserted)
    c = remote_name.c
    found: str | None = tx.execute(select(c.idp_id).where(c.remote_id == name)).scalar() if name else None
    return found


async def sign_in_by(ctx: Ctx, id: str, protocol_id: str) -> Response:
    """Sign a dashboard's user in by one identity provider."""
    return await _sign_in(ctx, id, protocol_id)


RULES: dict[str, str] = {}
ANY = "/v3/auth/OS-FEDERATION/websso/{protocol_id}"
ONE = "/v3/auth/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}/websso"
endpoints = [
    Endpoint("GET", ANY, audited(sign_in), auth=False),
    Endpoint("POST", ANY, audited(sign_in), auth=False),
    Endpoint("GET", ONE, audited(sign_in_by), auth=False),
    Endpoint("POST", ONE, audited(sign_in_by), auth=False),
]
