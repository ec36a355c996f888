"""Logins that need more than one proof: the rules of a user, and receipts for what he has shown so far.

A user's option `multi_factor_auth_rules` lists sets of methods, one of which he must have used in full. Whoever has used a part
gets a 401 with a receipt, and goes on with it in the header `Openstack-Auth-Receipt`. Receipts are sealed as tokens are, under
keys of their own, and are void when the user's tokens are.
"""

import base64
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select

from cumulet.api.http import Response
from cumulet.core.errors import Unauthorized
from cumulet.services.identity.auth.issue import told_time
from cumulet.services.identity.auth.method import Proof
from cumulet.services.identity.auth.methods import METHODS
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.claims import BadToken, Claims
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.user import User

HEADER = "Openstack-Auth-Receipt"


async def continued(ctx: Ctx, proof: Proof) -> Proof:
    """The proof with the methods of the request's receipt, if it brings one; Unauthorized where that is not good."""
    receipt = ctx.request.headers.get(HEADER)
    if not receipt:
        return proof
    try:
        claims = ctx.service.receipt_keys.open(receipt)
    except BadToken:
        raise Unauthorized() from None
    if claims.expires_at <= microseconds() or claims.user_id != proof.user_id or ctx.service.revocations.voids(claims):
        raise Unauthorized()
    return msgspec.structs.replace(proof, methods=tuple(dict.fromkeys((*claims.methods, *proof.methods))))


async def required(ctx: Ctx, proof: Proof) -> list[list[str]] | None:
    """None where the proof is enough for its user; else the sets of methods that would be, among those he has begun."""
    options = await ctx.service.kernel.db.read_inline(_options, proof.user_id)
    if options.get("multi_factor_auth_enabled") is False:
        return None
    return unmet(options.get("multi_factor_auth_rules") or [], proof.methods)


_user_options = select(User.table.c.option_values).where(User.table.c.id == bindparam("id"))


def _options(tx: Connection, user_id: str) -> dict[str, Any]:
    return tx.execute(_user_options, {"id": user_id}).scalar() or {}


def unmet(rules: Iterable[Iterable[str]], used: Iterable[str]) -> list[list[str]] | None:
    """The rules that `used` begins, if it fulfils none; None where one is fulfilled, or none is left that can be.

    Methods that are not there count in no rule, so that nobody is locked out for good.
    """
    possible = [[method for method in rule if method in METHODS] for rule in rules]
    possible = [rule for rule in possible if rule]
    shown = set(used)
    if not possible or any(shown.issuperset(rule) for rule in possible):
        return None
    return [rule for rule in possible if shown.intersection(rule)]


async def receipt_reply(ctx: Ctx, proof: Proof, rules: list[list[str]]) -> Response:
    """The 401 that tells what is still to be shown, with the receipt for what was."""
    service = ctx.service
    at = microseconds()
    claims = Claims(
        user_id=proof.user_id,
        methods=proof.methods,
        issued_at=at,
        expires_at=at + service.kernel.settings.receipt_lifetime * 1_000_000,
        audit_ids=(base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode(),),
    )
    user = (await service.resolve(claims)).user
    body = {
        "receipt": {
            "methods": claims.methods,
            "user": {"id": user.id, "name": user.name, "domain": user.domain},
            "expires_at": told_time(claims.expires_at),
            "issued_at": told_time(claims.issued_at),
        },
        "required_auth_methods": rules,
    }
    return Response.json(body, 401, **{HEADER: service.receipt_keys.seal(claims), "Vary": "X-Auth-Token"})
