"""Access tokens of OAuth 1.0: what a consumer holds of a user: POST /v3/OS-OAUTH1/access_token,
GET /v3/users/{user_id}/OS-OAUTH1/access_tokens, GET|DELETE of one, GET of its roles and of one role.

A consumer gets tokens of the cloud by it (method `oauth1`), with the roles that the user lent, as far as he still has them.
"""

import hmac
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from cumulet.api.crud import list_page, viewer
from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import Resource, hidden, read
from cumulet.core import db
from cumulet.core.errors import NotFound, Unauthorized
from cumulet.core.types import Id, MicroTime, Text, later, new_hex_id, now
from cumulet.services.identity.assignments import imply, roles_on
from cumulet.services.identity.calls import Ctx, refuse_delegated
from cumulet.services.identity.claims import Claims
from cumulet.services.identity.consumer import Keys, consumer_of, read_signed, verify
from cumulet.services.identity.request_token import RequestToken, request_token_of, token_form
from cumulet.services.identity.role import Role
from cumulet.services.identity.rules import ADMIN, undomained
from cumulet.services.identity.session import Lent


class AccessToken(Resource, table="identity_access_token", path="/v3/users/{user_id}/OS-OAUTH1/access_tokens"):
    """A user's leave for a consumer to act for him in a project."""

    id: Id = read("The ID of the access token.")
    sealed: Text = hidden("Its secret, encrypted.")
    consumer_id: Id = read("The consumer who may act.", index=True)
    project_id: Id = read("The project in which he may.")
    authorizing_user_id: Id = read("The user for whom he acts.", index=True)
    role_ids: list[str] = hidden("The roles that the user lends.", [])
    expires_at: MicroTime | None = read("When it ends.")


NOT_LENT = "Cannot manage OAuth access tokens with a token issued via delegation."
_RULE = undomained(f"{ADMIN} and not system_scope:all")
RULES = {
    "identity:get_access_token": _RULE,
    "identity:get_access_token_role": _RULE,
    "identity:list_access_tokens": _RULE,
    "identity:list_access_token_roles": _RULE,
    "identity:delete_access_token": _RULE,
}


# ---- what the consumer does ---------------------------------------------------------------------------------------------


async def create_access_token(ctx: Ctx) -> Response:
    """Get, as a consumer, the access token for a request that the user has said yes to. The request token is spent."""
    signed = await read_signed(ctx, "oauth_consumer_key", "oauth_token", "oauth_verifier")
    consumer_id, request_id = signed.get("oauth_consumer_key"), signed.get("oauth_token")

    def look(tx: Connection) -> tuple[RequestToken, Keys]:
        asked = request_token_of(tx, request_id)
        try:
            keys = Keys(consumer_of(tx, consumer_id).sealed, asked.sealed)
        except NotFound:
            raise Unauthorized("Provided consumer does not exist.") from None
        if asked.consumer_id != consumer_id:
            raise Unauthorized("Provided consumer key does not match stored consumer key.")
        return asked, keys

    asked, keys = await ctx.service.kernel.db.read_inline(look)
    verify(ctx, signed, keys)
    given = signed.get("oauth_verifier").encode(errors="surrogatepass")
    if not hmac.compare_digest((asked.verifier or "").encode(), given) or asked.authorizing_user_id is None:
        raise Unauthorized("Provided verifier does not match stored verifier")
    secret, duration = new_hex_id(), ctx.service.kernel.settings.access_token_duration
    token: AccessToken = AccessToken.new(
        None,
        id=new_hex_id(),
        sealed=ctx.service.vault.seal(secret),
        consumer_id=consumer_id,
        project_id=asked.requested_project_id,
        authorizing_user_id=asked.authorizing_user_id,
        role_ids=asked.role_ids,
        expires_at=later(duration) if duration else None,
    )

    def store(tx: Connection) -> None:
        if not db.remove(tx, RequestToken, request_id):
            raise NotFound(message="Request token not found")
        db.insert(tx, token)

    await ctx.service.write(store)
    return token_form(token.id, secret, token.expires_at)


def access_token_of(tx: Connection, id: str) -> AccessToken:
    """The access token; NotFound where there is none."""
    found = db.first(tx, AccessToken, AccessToken.table.c.id == id)
    if found is None:
        raise NotFound(message="Access token not found")
    return found


def has_ended(token: AccessToken) -> bool:
    return token.expires_at is not None and token.expires_at < now()


def lend_by_access_token(tx: Connection, claims: Claims) -> Lent:
    """See `session.Lender`: the roles that were lent, and all that they imply, as far as the user has them there himself."""
    token = db.first(tx, AccessToken, AccessToken.table.c.id == claims.via_id)
    if token is None or has_ended(token) or (claims.scope, claims.scope_id) != ("project", token.project_id):
        raise Unauthorized()
    lent = imply(tx, set(token.role_ids))
    held = roles_on(tx, token.authorizing_user_id, "project", token.project_id)
    ends = token.expires_at and datetime.fromisoformat(token.expires_at).replace(tzinfo=UTC)
    return Lent(
        roles=tuple(role for role in held if role.id in lent),
        shown={"OS-OAUTH1": {"access_token_id": token.id, "consumer_id": token.consumer_id}},
        expires_at=int(ends.timestamp() * 1_000_000) if ends else None,
    )


# ---- what the user does -------------------------------------------------------------------------------------------------


def _view(ctx: Ctx) -> Any:
    """A function from an access token to its reply."""
    show, base = AccessToken.view(), f"{ctx.request.base_url}/v3/users/"

    def view(token: AccessToken) -> Any:
        own = f"{base}{token.authorizing_user_id}/OS-OAUTH1/access_tokens/{token.id}"
        return {**msgspec.to_builtins(show(token)), "links": {"self": own, "roles": f"{own}/roles"}}

    return view


async def _one(ctx: Ctx, rule: str, user_id: str, id: str) -> AccessToken:
    ctx.require(rule)
    found = await ctx.service.kernel.db.read_inline(access_token_of, id)
    if found.authorizing_user_id != user_id:
        raise NotFound(message="Access token not found")
    return found


async def list_access_tokens(ctx: Ctx, user_id: str) -> Any:
    """List the access tokens that a user has given."""
    ctx.require("identity:list_access_tokens")
    refuse_delegated(ctx, NOT_LENT)
    c = AccessToken.table.c
    return await list_page(ctx, AccessToken, lambda _: [c.authorizing_user_id == user_id], view=_view(ctx))


async def show_access_token(ctx: Ctx, user_id: str, access_token_id: str) -> Any:
    """Show an access token; its secret is not told."""
    found = await _one(ctx, "identity:get_access_token", user_id, access_token_id)
    refuse_delegated(ctx, NOT_LENT)
    return {"access_token": _view(ctx)(found)}


async def delete_access_token(ctx: Ctx, user_id: str, access_token_id: str) -> Response:
    """Take an access token back; the tokens that the consumer has by it are void."""
    ctx.require("identity:delete_access_token")
    refuse_delegated(ctx, NOT_LENT)

    def remove(tx: Connection) -> None:
        if access_token_of(tx, access_token_id).authorizing_user_id != user_id:
            raise Unauthorized("User IDs do not match")
        db.remove(tx, AccessToken, access_token_id)

    await ctx.service.write(remove)
    return Response(204)


async def list_access_token_roles(ctx: Ctx, user_id: str, access_token_id: str) -> Any:
    """List the roles that an access token lends."""
    token = await _one(ctx, "identity:list_access_token_roles", user_id, access_token_id)
    return await list_page(ctx, Role, lambda _: [Role.table.c.id.in_(token.role_ids)])


async def show_access_token_role(ctx: Ctx, user_id: str, access_token_id: str, role_id: str) -> Any:
    """Show one of the roles that an access token lends."""
    ctx.require("identity:get_access_token_role")

    def look(tx: Connection) -> Role:
        token = access_token_of(tx, access_token_id)
        if token.authorizing_user_id != user_id:
            raise Unauthorized("User IDs do not match")
        if role_id not in token.role_ids:
            raise NotFound("role", role_id)
        return db.get(tx, Role, role_id)

    role = await ctx.service.kernel.db.read_inline(look)
    return {"role": viewer(ctx, Role, frozenset())(role)}


_COLLECTION = "/v3/users/{user_id}/OS-OAUTH1/access_tokens"
_MEMBER = f"{_COLLECTION}/{{access_token_id}}"
endpoints = [
    Endpoint("POST", "/v3/OS-OAUTH1/access_token", create_access_token, status=201, auth=False),
    Endpoint("GET", _COLLECTION, list_access_tokens, resource=AccessToken),
    Endpoint("GET", _MEMBER, show_access_token, resource=AccessToken),
    Endpoint("DELETE", _MEMBER, delete_access_token, resource=AccessToken),
    Endpoint("GET", f"{_MEMBER}/roles", list_access_token_roles, resource=Role),
    Endpoint("GET", f"{_MEMBER}/roles/{{role_id}}", show_access_token_role, resource=Role),
]
