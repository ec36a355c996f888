"""From a proof to a token, and what is told of a token."""

import base64
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from cumulet.api.http import Response, encode_json
from cumulet.core.errors import Unauthorized
from cumulet.services.identity.auth.method import Proof
from cumulet.services.identity.auth.place import Place
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.catalog import catalog_for
from cumulet.services.identity.claims import Claims, Federation
from cumulet.services.identity.memory import Known
from cumulet.services.identity.notifications import tell_token
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.session import Session, UserRef


async def issue(ctx: Ctx, proof: Proof, place: Place) -> tuple[str, Session]:
    """A new token and what it means; Unauthorized where its user has no role there or what lends it to him has ended,
    Forbidden where nothing is lent any more."""
    runtime, since = ctx.service, proof.since
    own = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
    end = since.expires_at if since else proof.issued_at + runtime.lifetime * 1_000_000
    claims = Claims(
        user_id=place.user_id or proof.user_id,
        methods=proof.methods,
        issued_at=proof.issued_at,
        expires_at=end if proof.expires_at is None else min(end, proof.expires_at),
        audit_ids=(own, since.audit_ids[-1]) if since else (own,),
        scope=place.scope,
        scope_id=place.scope_id,
        via=place.via or proof.via,
        via_id=place.via_id or proof.via_id,
        federation=None if place.user_id else proof.federation,  # which tells of who asks, not of whom he speaks for
        thumbprint=proof.thumbprint,
    )
    session = await runtime.resolve(claims)
    if session.lent is not None and session.lent.expires_at is not None:
        claims = replace(claims, expires_at=min(claims.expires_at, session.lent.expires_at))
        session = replace(session, claims=claims)
    if claims.expires_at <= microseconds():
        raise Unauthorized()
    if place.spend is not None:
        await runtime.write(place.spend)
    await tell_token(ctx, claims.user_id)
    return runtime.keys.seal(claims), session


async def token_reply(ctx: Ctx, token: str, session: Session, status: int) -> Response:
    """The reply that tells of a token, which itself is in a header."""
    return await _reply(ctx, token, session, encode_json({"token": token_body(session)}), status)


async def known_reply(ctx: Ctx, token: str, known: Known) -> Response:
    """The same, of a token that may have been told of before."""
    if not known.told:
        known.told = encode_json({"token": token_body(known.session)})
    return await _reply(ctx, token, known.session, known.told, 200)


async def _reply(ctx: Ctx, token: str, session: Session, told: bytes, status: int) -> Response:
    headers = {"Content-Type": "application/json", "X-Subject-Token": token, "Vary": "X-Auth-Token"}
    if session.claims.scope and "nocatalog" not in ctx.request.query:
        seen = await catalog(ctx, session.project.id if session.project else None, session.user.id)
        told = b"".join((told[:-2], b',"catalog":', seen, b"}}"))  # one for many tokens, and much longer than the rest
    if providers := await ctx.service.service_providers():
        told = b"".join((told[:-2], b',"service_providers":', providers, b"}}"))
    return Response(status, told, headers)


def token_body(session: Session) -> dict[str, Any]:
    """What is told of a token, but for the catalogue and the service providers."""
    claims = session.claims
    token: dict[str, Any] = {
        "methods": claims.methods,
        "user": session.user,
        "audit_ids": claims.audit_ids,
        "expires_at": told_time(claims.expires_at),
        "issued_at": told_time(claims.issued_at),
    }
    if session.project is not None:
        token |= {"project": session.project, "is_domain": False}
    elif session.domain is not None:
        token["domain"] = session.domain
    elif session.system:
        token["system"] = {"all": True}
    if claims.federation is not None:
        token["user"] = _federated(session.user, claims.federation)
    if session.lent is not None:
        token |= session.lent.shown
    if claims.scope:
        token["roles"] = session.roles
    return token


def _federated(user: UserRef, federation: Federation) -> dict[str, Any]:
    """A user as he is told of, with where he comes from; he has no password here that could expire."""
    origin = {
        "groups": [{"id": id} for id in federation.group_ids],
        "identity_provider": {"id": federation.idp_id},
        "protocol": {"id": federation.protocol_id},
    }
    return {"domain": user.domain, "id": user.id, "name": user.name, "OS-FEDERATION": origin}


async def catalog(ctx: Ctx, project_id: str | None, user_id: str) -> Raw:
    """The catalogue as a token for this project sees it, in JSON."""
    key = (project_id, user_id)
    kept = ctx.service.catalogs.get(key)
    return await ctx.service.catalogs.keep(key, _catalog(ctx, *key)) if kept is None else kept


async def _catalog(ctx: Ctx, project_id: str | None, user_id: str) -> Raw:
    return Raw(encode_json(catalog_for(await ctx.service.catalog(), project_id, user_id)))


def told_time(microseconds: int) -> str:
    """A token's time as it is sent."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
