"""Access tokens of OAuth 2.0: POST /v3/OS-OAUTH2/token (RFC 6749, client credentials, section 4.4).

The client is an application credential: its id and its secret, in the header `Authorization: Basic` or in the form
(`client_secret_basic`). The access token is a token of the cloud as any other. Errors are those of section 5.2.
"""

import base64
import binascii
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from cumulet.api.http import Endpoint, Response
from cumulet.core.errors import CloudError, Invalid, Unauthorized
from cumulet.services.identity.auth.issue import issue
from cumulet.services.identity.auth.scope import place_of
from cumulet.services.identity.auth.token import prove
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.claims import APPLICATION_CREDENTIAL
from cumulet.services.identity.notifications import audited
from cumulet.services.identity.oauth1 import FORM

NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}


async def issue_access_token(ctx: Ctx) -> Response:
    """Give a client an access token for its application credential."""
    form = await _form(ctx)
    grant = form.get("grant_type")
    if grant is None:
        return _error(ctx, 400, "invalid_request", "The parameter grant_type is required.")
    if grant != "client_credentials":
        return _error(ctx, 400, "unsupported_grant_type", f"The parameter grant_type {grant[:64]} is not supported.")
    id, secret = _basic(ctx.request.headers.get("Authorization", "")) or (
        form.get("client_id"),
        form.get("client_secret"),
    )
    if not id or not secret:
        return _error(ctx, 401, "invalid_client", "Client authentication failed.")
    try:
        payload = msgspec.Raw(msgspec.json.encode({"id": id, "secret": secret}))
        proof = await prove(ctx, [APPLICATION_CREDENTIAL], {APPLICATION_CREDENTIAL: payload})
        token, session = await issue(ctx, proof, await place_of(ctx, proof, None))
    except Unauthorized as error:
        return _error(ctx, 401, "invalid_client", error.message or "Client authentication failed.")
    except Invalid as error:
        return _error(ctx, 400, "invalid_request", error.message)
    except CloudError as error:
        text = "An unknown error occurred and failed to get an OAuth2.0 access token."
        return _error(ctx, ctx.dialect.status(error), "other_error", text)
    claims = session.claims
    lifetime = (claims.expires_at - claims.issued_at) // 1_000_000
    told = {"access_token": token, "token_type": "Bearer", "expires_in": lifetime}
    return Response.json(told, 200, **NOT_STORED)


async def refuse_other_methods(ctx: Ctx) -> Response:
    """Refused: an access token is asked for by POST."""
    return _error(ctx, 405, "other_error", "The method is not allowed for the requested URL.", Allow="POST")


async def _form(ctx: Ctx) -> dict[str, str]:
    """The fields of the form that was sent; none where it is no form."""
    if ctx.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != FORM:
        return {}
    pairs = parse_qsl((await ctx.request.read()).decode(), keep_blank_values=True)
    return dict(reversed(pairs))  # the first of a name counts


def _basic(header: str) -> tuple[str, str] | None:
    """User and password of a header of the scheme Basic (RFC 7617), if it is one."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value.strip().encode(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError):
        return None
    return user, password


def _error(ctx: Ctx, status: int, code: str, text: str, **headers: str) -> Response:
    """A refusal in the words of RFC 6749."""
    if status == 401:
        headers["WWW-Authenticate"] = f'Keystone uri="{ctx.request.base_url}/v3"'
    body: dict[str, Any] = {"error": code, "error_description": text}
    return Response.json(body, status, **headers, **NOT_STORED)


RULES: dict[str, str] = {}
_PATH = "/v3/OS-OAUTH2/token"
endpoints = [
    Endpoint("POST", _PATH, audited(issue_access_token), auth=False),
    *(Endpoint(method, _PATH, refuse_other_methods, auth=False) for method in ("GET", "PUT", "PATCH", "DELETE")),
]
