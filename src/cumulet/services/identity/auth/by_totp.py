"""Method `totp`: a passcode that the user's device makes from a secret and the time (RFC 6238).

The secret is the blob (base32) of the user's credentials of type `totp`. A passcode of the present half minute is taken, and
of a few before it (`totp_previous_windows`), each once.
"""

import base64
import hmac
import time
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from cumulet.core.errors import Invalid
from cumulet.services.identity.auth.by_password import user_named
from cumulet.services.identity.auth.method import Proof, decoded
from cumulet.services.identity.auth.scope import DomainRef
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.credential import Credential
from cumulet.services.identity.login import admit
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.tables import used_passcode

PERIOD = 30
DIGITS = 6


class UserPasscode(Struct):
    passcode: str
    id: str | None = None
    name: str | None = None
    domain: DomainRef | None = None


class TotpMethod(Struct):
    user: UserPasscode


async def prove_totp(ctx: Ctx, payload: msgspec.Raw) -> Proof:
    """Verify the passcode. A wrong one counts for the user's lockout as a wrong password does: there are not many of them."""
    login = decoded(payload, TotpMethod, "totp").user
    at = microseconds()
    if login.id is None and (login.name is None or login.domain is None):
        raise Invalid(
            "Expecting to find id, or name and domain, in user. The server could not comply with the request."
        )
    service = ctx.service
    user = await service.kernel.db.read_inline(user_named, login)
    user_id = "" if user is None else user.id
    secrets = [(row.id, service.vault.open(row.blob)) for row in await service.kernel.db.read_inline(_secrets, user_id)]
    now = int(time.time()) // PERIOD
    steps = range(now, now - service.kernel.settings.totp_previous_windows - 1, -1)
    found = [(id, step) for id, secret in secrets for step in steps if is_passcode(secret, step, login.passcode)]
    await admit(service, user, bool(found) and await _use(ctx, user_id, found))
    return Proof(user_id=user.id, methods=("totp",), issued_at=at)


def _secrets(tx: Connection, user_id: str) -> list[Any]:
    c = Credential.table.c
    return list(tx.execute(select(c.id, c.blob).where(c.user_id == user_id, c.type == "totp")))


def is_passcode(secret: str, step: int, passcode: str) -> bool:
    """Whether this is the passcode of a time step; False as well where the secret is no base32."""
    made = passcode_at(secret, step)
    return made is not None and hmac.compare_digest(made.encode(), passcode.encode(errors="surrogatepass"))


def passcode_at(secret: str, step: int) -> str | None:
    """The passcode of a time step (RFC 4226, section 5.3); None where the secret is no base32."""
    bare = secret.strip().replace(" ", "").rstrip("=").upper()
    try:
        key = base64.b32decode(bare + "=" * (-len(bare) % 8))
    except ValueError:
        return None
    digest = hmac.digest(key, step.to_bytes(8, "big"), "sha1")
    start = digest[-1] & 15
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


async def _use(ctx: Ctx, user_id: str, found: list[tuple[str, int]]) -> bool:
    """Whether one of the (credential, step) was not used before; it is now."""
    try:
        return await ctx.service.kernel.db.run(_take, user_id, found)
    except IntegrityError:  # used by another request at the same time
        return False


def _take(tx: Connection, user_id: str, found: list[tuple[str, int]]) -> bool:
    u = used_passcode.c
    for credential_id, step in found:
        mine = (u.user_id == user_id, u.credential_id == credential_id)
        if tx.execute(update(used_passcode).where(*mine, u.step < step).values(step=step)).rowcount:
            return True
        if tx.execute(select(u.step).where(*mine)).first() is None:
            tx.execute(insert(used_passcode).values(user_id=user_id, credential_id=credential_id, step=step))
            return True
    return False
