"""Identity at work: keys, password hashing, revocations, and the memory of who holds which token."""

import hashlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from argon2 import PasswordHasher
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from cumulet.core import db, notify
from cumulet.core.context import Caller, Context, current
from cumulet.core.db import after_commit
from cumulet.core.db.changes import Change
from cumulet.core.errors import Conflict, Forbidden, Unauthorized
from cumulet.core.kernel import Kernel
from cumulet.services.identity.auth.delegation import LENDERS
from cumulet.services.identity.bootstrap import ensure_accounts
from cumulet.services.identity.claims import BadToken, Claims
from cumulet.services.identity.endpoint import CatalogRow, read_catalog
from cumulet.services.identity.fernet import Keys, Vault
from cumulet.services.identity.interface import Accounts, Bootstrap
from cumulet.services.identity.notifications import tell_changes
from cumulet.services.identity.password import Passwords
from cumulet.services.identity.revocation import Revocations, microseconds
from cumulet.services.identity.session import Session, resolve

P = ParamSpec("P")
T = TypeVar("T")

REMEMBERED = 10_000
"""Tokens whose holders are kept in memory."""


class IdentityRuntime:
    """See `interface.Identity`. `hasher` may be a cheaper one in tests."""

    def __init__(self, kernel: Kernel, *, hasher: PasswordHasher | None = None) -> None:
        self.kernel = kernel
        self.lifetime = kernel.settings.token_lifetime
        self.passwords = Passwords(hasher)
        self.window = kernel.settings.allow_expired_window
        self.keys = Keys(kernel.settings.data / "identity" / "keys", self.lifetime + self.window)
        self.vault = Vault(kernel.settings.data / "identity" / "credential_key")
        self.revocations = Revocations()
        self._callers: dict[bytes, tuple[int, Caller]] = {}
        self._catalog: list[CatalogRow] | None = None
        self._generation = 0

    async def start(self) -> None:
        self.keys.load()
        await self.kernel.db.read(self.revocations.load)
        self.kernel.tasks.every("identity housekeeping", 3600, self._keep_house)
        await self._keep_house()

    async def stop(self) -> None:
        self.passwords.stop()

    async def _keep_house(self) -> None:
        self.keys.rotate_if_due()
        await self.kernel.db.run(self.revocations.prune, self.lifetime + self.window)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work that changes anything of identity. With its commit, what is remembered of tokens is forgotten,
        and whoever listens is told of the changes."""
        heard, ctx = notify.listened(self.kernel.bus), current.get()

        def unit(tx: Connection) -> T:
            after_commit(tx, self._forget)
            if not heard:
                return fn(tx, *args, **kwargs)
            with db.noted(tx) as changes:
                result = fn(tx, *args, **kwargs)
            after_commit(tx, partial(self._tell, changes, ctx))
            return result

        try:
            return await self.kernel.db.run(unit)
        except IntegrityError as error:
            raise Conflict("Conflict occurred: another request has just stored the same.") from error

    def _forget(self) -> None:
        self._generation += 1
        self._callers.clear()
        self._catalog = None

    def _tell(self, changes: list[Change], ctx: Context[Any] | None) -> None:
        self.kernel.tasks.spawn("notifications of identity", tell_changes(self, changes, ctx))

    # ---- tokens ---------------------------------------------------------------------------------------------------------

    async def authenticate(self, token: str, *, allow_expired: bool = False) -> Caller:
        """See `interface.Identity`. From memory, unless something changed."""
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        known = self._callers.get(digest)
        if known is not None and known[0] > time.time():
            return known[1]
        generation = self._generation
        session = await self.session(token, allow_expired=allow_expired)
        caller = session.caller(token)
        if generation == self._generation and session.claims.expires_at > microseconds():
            if len(self._callers) >= REMEMBERED:
                del self._callers[next(iter(self._callers))]
            self._callers[digest] = (session.claims.expires_at // 1_000_000, caller)
        return caller

    async def session(self, token: str, *, allow_expired: bool = False) -> Session:
        """What a token means now; Unauthorized if it is wrong, expired (`allow_expired`: for long) or revoked."""
        try:
            claims = self.keys.open(token)
        except BadToken:
            raise Unauthorized() from None
        end = claims.expires_at + (self.window * 1_000_000 if allow_expired else 0)
        if end <= microseconds() or self.revocations.voids(claims):
            raise Unauthorized()
        try:
            return await self.resolve(claims)
        except Forbidden:
            raise Unauthorized() from None

    async def resolve(self, claims: Claims) -> Session:
        """What these claims mean now; Unauthorized where they mean nothing any more, Forbidden where that is for a delegation
        that gives nothing."""
        return await self.kernel.db.read_inline(resolve, claims, self.revocations, LENDERS)

    async def catalog(self) -> list[CatalogRow]:
        """Every endpoint that is enabled."""
        if self._catalog is None:
            generation = self._generation
            rows = await self.kernel.db.read_inline(read_catalog)
            if generation != self._generation:
                return rows
            self._catalog = rows
        return self._catalog

    async def revoke(self, claims: Claims) -> None:
        """Void one token."""
        await self.write(self.revocations.add, "token", claims.audit_ids[0])

    # ---- the first start ------------------------------------------------------------------------------------------------

    async def ensure_bootstrap(self, wanted: Bootstrap) -> Accounts:
        """See `interface.Identity`."""
        return await ensure_accounts(self, wanted)
