"""Tokens for what was signed with an access key: POST /v3/ec2tokens, POST /v3/s3tokens.

Services that speak Amazon's protocols ask these, with what their client sent; they see who signed it, and what he may do. The
token speaks for the credential's owner and project (method `ec2credential`); one that was made by a delegation gives what the
delegation gives.
"""

import base64
import binascii
from typing import Any

from msgspec import Struct, field

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import Invalid, NotFound, Unauthorized
from cumulet.services.identity.auth.issue import issue, token_reply
from cumulet.services.identity.auth.method import Proof
from cumulet.services.identity.auth.place import Place
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.credential import EC2, LEAVES, Credential, ec2_blob, ec2_id, reveal
from cumulet.services.identity.notifications import audited
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.session import Session
from cumulet.services.identity.signature import Malformed, Signed, is_fresh, signed_at, verifies_ec2, verifies_s3

RULES = {
    "identity:ec2tokens_validate": "rule:service_or_admin",
    "identity:s3tokens_validate": "rule:service_or_admin",
}

Params = dict[str, str | int | float | bool | None]


class SignedBody(Struct):
    """What was signed, as the service tells it. EC2's requests come in parts, S3's as the string that was signed."""

    access: str | None = None
    signature: str | None = None
    verb: str = ""
    host: str = ""
    path: str = ""
    params: Params = {}
    headers: Params = {}
    body_hash: str = ""
    token: str | None = None


class SignedRequest(Struct):
    """The three names that clients have for the same."""

    credentials: SignedBody | None = None
    credential: SignedBody | None = None
    ec2: SignedBody | None = field(default=None, name="ec2Credentials")


async def ec2_token(ctx: Ctx, body: SignedRequest) -> Response:
    """Authenticate a request of EC2: a token for who signed it."""
    sent, credential, blob = await _read(ctx, body, "EC2 signature not supplied.")
    secret = _secret(blob)
    request = Signed(
        verb=sent.verb, host=sent.host, path=sent.path, params=_texts(sent.params), headers=_texts(sent.headers),
        body_hash=sent.body_hash,
    )  # fmt: skip
    try:
        if not verifies_ec2(secret, request, sent.signature or ""):
            raise Unauthorized("Invalid EC2 signature.")
        if not is_fresh(signed_at(request), ctx.service.kernel.settings.auth_ttl * 60):
            raise Unauthorized("Credential is expired")
    except Malformed as error:
        raise Unauthorized(f"Invalid EC2 signature: {error}.") from None
    return await token_reply(ctx, *await _token(ctx, credential, blob), 200)


async def s3_token(ctx: Ctx, body: SignedRequest) -> Response:
    """Authenticate a request of S3: who signed it. The token itself is not handed out."""
    sent, credential, blob = await _read(ctx, body, "Credential signature mismatch")
    secret = _secret(blob)
    try:
        signed = base64.b64decode((sent.token or "").encode().translate(_URL_SAFE), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Invalid("The token of the credentials is not what was signed, in base64.") from None
    try:
        if not verifies_s3(secret, signed, sent.signature or ""):
            raise Unauthorized("Credential signature mismatch")
    except Malformed as error:
        raise Unauthorized(f"Invalid EC2 signature: {error}.") from None
    reply = await token_reply(ctx, *await _token(ctx, credential, blob), 200)
    del reply.headers["X-Subject-Token"]
    return reply


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _texts(values: Params) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


async def _read(ctx: Ctx, body: SignedRequest, unsigned: str) -> tuple[SignedBody, Credential, dict[str, Any]]:
    """(what was sent, the credential it was signed with, its blob)."""
    sent = body.credentials or body.credential or body.ec2
    if sent is None or sent.access is None:
        raise Unauthorized("EC2 Signature not supplied")
    id = ec2_id(sent.access)
    found = await ctx.service.kernel.db.read_inline(db.first, Credential, Credential.table.c.id == id)
    if found is None or found.type != EC2:
        raise NotFound(message="EC2 access key not found.")
    if not sent.signature:
        raise Unauthorized(unsigned)
    credential = reveal(ctx, found)
    return sent, credential, ec2_blob(credential.blob)


def _secret(blob: dict[str, Any]) -> str:
    """The key's secret. A blob may come without one, or with an empty one: nobody signs with that."""
    secret = blob.get("secret")
    if not isinstance(secret, str) or not secret:
        raise Unauthorized("This EC2 access key has no secret.")
    return secret


async def _token(ctx: Ctx, credential: Credential, blob: dict[str, Any]) -> tuple[str, Session]:
    """A token for the owner of the credential, within the bounds that it was made in."""
    via, via_id = next(((kind, blob[name]) for kind, name in LEAVES.items() if blob.get(name)), ("", ""))
    proof = Proof(user_id=credential.user_id, methods=("ec2credential",), issued_at=microseconds())
    return await issue(ctx, proof, Place("project", credential.project_id or "", via=via, via_id=str(via_id)))


endpoints = [
    Endpoint("POST", "/v3/ec2tokens", audited(ec2_token), "identity:ec2tokens_validate", body=SignedRequest),
    Endpoint("POST", "/v3/s3tokens", audited(s3_token), "identity:s3tokens_validate", body=SignedRequest),
]
