"""Tokens: POST|GET|HEAD|DELETE /v3/auth/tokens."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from cumulet.api.http import Endpoint, Response
from cumulet.core.errors import Invalid, NotFound, Unauthorized
from cumulet.services.identity.auth.issue import issue, known_reply, token_reply
from cumulet.services.identity.auth.method import Proof, combined
from cumulet.services.identity.auth.methods import METHODS
from cumulet.services.identity.auth.receipt import continued, receipt_reply, required
from cumulet.services.identity.auth.scope import Scope, place_of
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.memory import Known
from cumulet.services.identity.notifications import audited
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER

ACCESS_RULES = 1.0
"""The version of access rules, as the header of a validation names it."""

RULES = {
    "identity:validate_token": f"{ADMIN_OR_SYSTEM_READER} or rule:service_role or rule:token_subject",
    "identity:check_token": f"{ADMIN_OR_SYSTEM_READER} or rule:token_subject",
    "identity:revoke_token": f"{ADMIN} or rule:token_subject",
}
TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})


class Identity(Struct):
    """How somebody shows who he is. What each method takes is its own (`by_*.py`) and stands under the method's name."""

    methods: Annotated[list[str], Meta(min_length=1, max_length=8)]


class Auth(Struct):
    identity: Identity
    scope: Scope | Literal["unscoped"] | None = None


class AuthBody(Struct):
    auth: Auth


class _Payloads(Struct):
    identity: dict[str, msgspec.Raw]


class _PayloadsBody(Struct):
    auth: _Payloads


_payloads = msgspec.json.Decoder(_PayloadsBody).decode


async def issue_token(ctx: Ctx, body: AuthBody) -> Response:
    """Log in: a token for who shows that he is a user, for the scope he asks for; a receipt where more is to be shown."""
    payloads = _payloads(await ctx.request.read()).auth.identity
    proof = await continued(ctx, await prove(ctx, body.auth.identity.methods, payloads))
    rules = await required(ctx, proof)
    if rules is not None:
        return await receipt_reply(ctx, proof, rules)
    token, session = await issue(ctx, proof, await place_of(ctx, proof, body.auth.scope))
    return await token_reply(ctx, token, session, 201)


async def prove(ctx: Ctx, methods: list[str], payloads: dict[str, Any]) -> Proof:
    """Check every method that is used; all must tell of the same user."""
    if unknown := [m for m in methods if m not in METHODS]:
        raise Unauthorized(f"Attempted to authenticate with an unsupported method: {', '.join(sorted(unknown))[:200]}.")
    for method in methods:
        if method not in payloads:
            raise Invalid(f"Expecting to find {method} in identity. The server could not comply with the request.")
    return combined([await METHODS[method](ctx, payloads[method]) for method in dict.fromkeys(methods)])


async def _subject(ctx: Ctx, rule: str, *, allow_expired: bool = False) -> tuple[str, Known]:
    """The token that the request is about, if the caller may do this with it."""
    token = ctx.request.headers.get("X-Subject-Token") or ""
    try:
        known = await ctx.service.known(token, allow_expired=allow_expired)
    except Unauthorized:
        raise NotFound(message="Failed to validate token") from None
    ctx.require(rule, {"target.token.user_id": known.session.user.id})
    return token, known


def _knows_access_rules(ctx: Ctx) -> bool:
    """Whether who validates a token says that he holds its user to his access rules."""
    try:
        return float(ctx.request.headers.get("OpenStack-Identity-Access-Rules") or 0) >= ACCESS_RULES
    except ValueError:
        return False


async def show_token(ctx: Ctx) -> Response:
    """Validate a token and show what it is for. One with access rules is only valid to who holds its user to them; with
    `allow_expired` one counts too that ended a while ago."""
    rule = "identity:check_token" if ctx.request.method == "HEAD" else "identity:validate_token"
    late = (ctx.request.query.get("allow_expired") or "").lower() in TRUE
    token, known = await _subject(ctx, rule, allow_expired=late)
    lent = known.session.lent
    if lent is not None and lent.access_rules is not None and not _knows_access_rules(ctx):
        raise NotFound(message="Failed to validate token")
    return await known_reply(ctx, token, known)


async def revoke_token(ctx: Ctx) -> Response:
    """Revoke a token."""
    _, known = await _subject(ctx, "identity:revoke_token")
    await ctx.service.revoke(known.session.claims)
    return Response(204)


endpoints = [
    Endpoint("POST", "/v3/auth/tokens", audited(issue_token), body=AuthBody, status=201, auth=False),
    Endpoint("GET", "/v3/auth/tokens", show_token, beyond_rules=True),
    Endpoint("DELETE", "/v3/auth/tokens", revoke_token),
]
