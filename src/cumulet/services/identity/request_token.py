"""Request tokens of OAuth 1.0, with which a consumer asks a user for his leave: POST /v3/OS-OAUTH1/request_token,
PUT /v3/OS-OAUTH1/authorize/{request_token_id}."""

import secrets
from typing import Annotated, Any
from urllib.parse import urlencode

from msgspec import Meta, Struct
from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import Resource, hidden, read
from cumulet.core import db
from cumulet.core.errors import Invalid, NotFound, Unauthorized
from cumulet.core.types import Id, MicroTime, Text, later, new_hex_id, now
from cumulet.services.identity import oauth1
from cumulet.services.identity.assignments import roles_on
from cumulet.services.identity.calls import Ctx, refuse_delegated
from cumulet.services.identity.consumer import Keys, consumer_of, read_signed, verify
from cumulet.services.identity.project import Project
from cumulet.services.identity.role import Role
from cumulet.services.identity.rules import ADMIN, undomained

VERIFIER_CHARACTERS = "abcdefghkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""What verifiers are made of: no character that is easily taken for another, since people type them."""
VERIFIER_LENGTH = 8


class RequestToken(Resource, table="identity_request_token", path="/v3/OS-OAUTH1/request_token"):
    """A consumer's question to a user: may I act for you in this project?"""

    id: Id = read("The ID of the request token.")
    sealed: Text = hidden("Its secret, encrypted.")
    consumer_id: Id = read("The consumer who asks.", index=True)
    requested_project_id: Id = read("The project that he asks for.")
    authorizing_user_id: Id | None = read("The user who has said yes.")
    verifier: Id | None = hidden("What the user hands to the consumer as proof of that.")
    role_ids: list[str] = hidden("The roles that the user lends.", [])
    expires_at: MicroTime | None = read("When it ends.")


RULES = {"identity:authorize_request_token": undomained(f"{ADMIN} and not system_scope:all")}


class RoleName(Struct, forbid_unknown_fields=True):
    id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class Roles(Struct):
    roles: list[RoleName] = []


async def create_request_token(ctx: Ctx) -> Response:
    """Ask, as a consumer, for leave to act in a project. The request is signed by the consumer."""
    signed = await read_signed(ctx, "oauth_consumer_key")
    project_id = ctx.request.headers.get("Requested-Project-Id")
    if not project_id:
        raise Invalid(
            "Expecting to find Requested-Project-Id in request. The server could not comply with the request."
        )
    consumer = await ctx.service.kernel.db.read_inline(consumer_of, signed.get("oauth_consumer_key"))
    if not signed.get("oauth_callback"):
        raise Invalid(
            "Validation failed with errors: invalid_request, detail message is: the parameter oauth_callback is missing."
        )
    verify(ctx, signed, Keys(consumer.sealed))
    secret, duration = new_hex_id(), ctx.service.kernel.settings.request_token_duration
    token: RequestToken = RequestToken.new(
        None,
        id=new_hex_id(),
        sealed=ctx.service.vault.seal(secret),
        consumer_id=consumer.id,
        requested_project_id=project_id,
        expires_at=later(duration) if duration else None,
    )

    def store(tx: Connection) -> None:
        if db.first(tx, Project, Project.table.c.id == project_id, ~Project.table.c.is_domain) is None:
            raise NotFound("project", project_id)
        consumer_of(tx, consumer.id)
        db.insert(tx, token)

    await ctx.service.write(store)
    return token_form(token.id, secret, token.expires_at)


def token_form(id: str, secret: str, expires_at: str | None) -> Response:
    """The reply that hands a token out, as a form."""
    values = {"oauth_token": id, "oauth_token_secret": secret}
    if expires_at is not None:
        values["oauth_expires_at"] = f"{expires_at}Z"
    return Response(201, urlencode(values, safe=":").encode(), {"Content-Type": oauth1.FORM})


def request_token_of(tx: Connection, id: str) -> RequestToken:
    """The request token; NotFound where there is none, Unauthorized where it has ended."""
    found = db.first(tx, RequestToken, RequestToken.table.c.id == id)
    if found is None:
        raise NotFound(message="Request token not found")
    if found.expires_at is not None and found.expires_at < now():
        raise Unauthorized("Request token is expired")
    return found


async def authorize_request_token(ctx: Ctx, request_token_id: str, body: Roles) -> Any:
    """Lend roles to the consumer who asks."""
    ctx.require("identity:authorize_request_token")
    if any((role.id is None) == (role.name is None) for role in body.roles):
        raise Invalid("Each of the roles is named by either its id or its name.")
    refuse_delegated(ctx, "Cannot authorize a request token with a token issued via delegation.")
    verifier = "".join(secrets.choice(VERIFIER_CHARACTERS) for _ in range(VERIFIER_LENGTH))
    user_id = ctx.caller.user_id

    def store(tx: Connection) -> None:
        token = request_token_of(tx, request_token_id)
        wanted = {_role_id(tx, role) for role in body.roles}
        held = {role.id for role in roles_on(tx, user_id, "project", token.requested_project_id)}
        if not wanted <= held:
            raise Unauthorized("authorizing user does not have role required")
        given = {"authorizing_user_id": user_id, "verifier": verifier, "role_ids": sorted(wanted)}
        db.update(tx, RequestToken, token.id, **given)

    await ctx.service.write(store)
    return {"token": {"oauth_verifier": verifier}}


def _role_id(tx: Connection, role: RoleName) -> str:
    if role.id is not None:
        return role.id
    c = Role.table.c
    found: str | None = tx.execute(select(c.id).where(c.name == role.name, c.domain_id == "")).scalar()
    if found is None:
        raise NotFound("role", role.name)
    return found


endpoints = [
    Endpoint(
        "POST", "/v3/OS-OAUTH1/request_token", create_request_token, status=201, auth=False, resource=RequestToken
    ),
    Endpoint("PUT", "/v3/OS-OAUTH1/authorize/{request_token_id}", authorize_request_token, body=Roles),
]
