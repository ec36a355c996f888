"""Access keys as other parts of the program use them: who signs with one, and whether what was signed with it is right. The
secret stays in here. (POST /v3/s3tokens is the same for services elsewhere: `auth/ec2_token.py`.)
"""

from typing import Any

from cumulet.core import db
from cumulet.core.context import Caller
from cumulet.core.errors import CloudError
from cumulet.services.identity.claims import Claims
from cumulet.services.identity.credential import EC2, LEAVES, Credential, ec2_blob, ec2_id
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.session import Session
from cumulet.services.identity.signature import Malformed, verifies_s3, verifies_s3_part

REMEMBERED_FOR = 60 * 1_000_000
"""Microseconds for which a key is remembered. What ends with time alone (a user, a trust) is noticed after so long."""


class SigningKey:
    """See `interface.AccessKey`."""

    __slots__ = ("_secret", "caller", "until")

    def __init__(self, secret: str, caller: Caller, until: int) -> None:
        self._secret = secret
        self.caller = caller
        self.until = until

    def verifies(self, signed: bytes, signature: str) -> bool:
        try:
            return verifies_s3(self._secret, signed, signature)
        except Malformed:
            return False

    def verifies_part(self, signed: bytes, signature: str) -> bool:
        try:
            return verifies_s3_part(self._secret, signed, signature)
        except Malformed:
            return False


NO_KEY = SigningKey("", Caller(user_id=""), 0)
"""Where there is none of that name; it verifies nothing, and is never handed out."""


async def read_access_key(runtime: Any, access: str) -> SigningKey:
    """The key of this name as it is now; NO_KEY where there is none, or where its owner may not use it any more."""
    id = ec2_id(access)
    found = await runtime.kernel.db.read_inline(db.first, Credential, Credential.table.c.id == id)
    if found is None or found.type != EC2:
        return NO_KEY
    try:
        blob = ec2_blob(runtime.vault.open(found.blob))
        secret = blob.get("secret")
        if not isinstance(secret, str) or not secret:
            return NO_KEY
        session: Session = await runtime.resolve(_claims(found, blob))
    except CloudError:
        return NO_KEY
    until = microseconds() + REMEMBERED_FOR
    if session.lent is not None and session.lent.expires_at is not None:
        until = min(until, session.lent.expires_at)
    return SigningKey(secret, session.caller(""), until)


def _claims(credential: Any, blob: dict[str, Any]) -> Claims:
    """What a token for the owner of a key would say, within the bounds that the key was made in."""
    via, via_id = next(((kind, str(blob[name])) for kind, name in LEAVES.items() if blob.get(name)), ("", ""))
    now = microseconds()
    return Claims(
        user_id=credential.user_id, methods=("ec2credential",), issued_at=now, expires_at=now + REMEMBERED_FOR,
        audit_ids=("",), scope="project", scope_id=credential.project_id or "", via=via, via_id=via_id,
    )  # fmt: skip
