"""Identity at work: keys, password hashing, revocations, and the memory of who holds which token."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from argon2 import PasswordHasher
from msgspec import Raw
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from cumulet.api.http import encode_json
from cumulet.core import db, notify
from cumulet.core.context import Caller, Context, current
from cumulet.core.db import after_commit
from cumulet.core.db.changes import Change
from cumulet.core.errors import Conflict, Forbidden, Unauthorized
from cumulet.core.kernel import Kernel
from cumulet.services.identity.access_key import NO_KEY, SigningKey, read_access_key
from cumulet.services.identity.auth.delegation import LENDERS
from cumulet.services.identity.bootstrap import ensure_accounts
from cumulet.services.identity.catalog import Catalog, read_catalog
from cumulet.services.identity.claims import BadToken, Claims
from cumulet.services.identity.directory import REFRESH, Directories
from cumulet.services.identity.domain_config import domain_config
from cumulet.services.identity.federation.saml2 import Signer
from cumulet.services.identity.federation.service_provider import enabled_providers
from cumulet.services.identity.federation.shadow import ended_between
from cumulet.services.identity.federation.sources import load_sources
from cumulet.services.identity.fernet import Keys, Vault
from cumulet.services.identity.interface import Accounts, Bootstrap
from cumulet.services.identity.limit import limits_of
from cumulet.services.identity.limit_model import MODELS, check_depth
from cumulet.services.identity.memory import Known, Memory
from cumulet.services.identity.notifications import tell_changes
from cumulet.services.identity.oauth1 import Nonces
from cumulet.services.identity.password import Passwords
from cumulet.services.identity.revocation import Revocations, microseconds
from cumulet.services.identity.session import Session, resolve

P = ParamSpec("P")
T = TypeVar("T")

REMEMBERED = 10_000
"""Tokens that are kept in memory with what they mean."""
CATALOGS = 1_000
"""Catalogues that are kept in memory, each as one user sees it with one project."""


class IdentityRuntime:
    """See `interface.Identity`. `hasher` may be a cheaper one in tests."""

    def __init__(self, kernel: Kernel, *, hasher: PasswordHasher | None = None) -> None:
        self.kernel = kernel
        self.lifetime = kernel.settings.token_lifetime
        self.passwords = Passwords(hasher)
        self.window = kernel.settings.allow_expired_window
        self.keys = Keys(kernel.settings.data / "identity" / "keys", self.lifetime + self.window)
        self.receipt_keys = Keys(kernel.settings.data / "identity" / "receipt_keys", kernel.settings.receipt_lifetime)
        self.vault = Vault(kernel.settings.data / "identity" / "credential_key")
        self.revocations = Revocations()
        self.saml_signer = Signer(kernel.settings.data / "identity" / "saml")
        self.sources = load_sources(kernel.settings.federation)
        self.limit_model = MODELS[kernel.settings.limit_model]
        self.nonces = Nonces()
        self.directories = Directories(self, partial(domain_config, vault=self.vault))
        self.catalogs: Memory[tuple[str | None, str], Raw] = Memory(CATALOGS)
        self._tokens: Memory[bytes, Known] = Memory(REMEMBERED)
        self._access_keys: Memory[str, SigningKey] = Memory(REMEMBERED)
        self._endpoints: Memory[None, Catalog] = Memory(1)
        self._providers: Memory[None, bytes] = Memory(1)
        self._ended_until = microseconds()

    async def start(self) -> None:
        self.keys.load()
        self.receipt_keys.load()
        await self.kernel.db.read(self.revocations.load)
        await self.kernel.db.read(check_depth, self.limit_model)
        self.kernel.tasks.every("identity housekeeping", 3600, self._keep_house)
        self.kernel.tasks.every("memberships that end", 60, self._end_memberships)
        self.kernel.tasks.every("identity directories", REFRESH, self.directories.refresh_all)
        await self._keep_house()

    async def stop(self) -> None:
        self.directories.stop()
        self.passwords.stop()
        await self.sources.stop()

    async def _keep_house(self) -> None:
        self.keys.rotate_if_due()
        self.receipt_keys.rotate_if_due()
        await self.kernel.db.run(self.revocations.prune, self.lifetime + self.window)

    async def _end_memberships(self) -> None:
        """Forget what is remembered of tokens when memberships have ended by time alone."""
        now = microseconds()
        if await self.kernel.db.read(ended_between, self._ended_until, now):
            self._forget()
        self._ended_until = now

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit of work that changes anything of identity. With its commit, what is remembered of tokens is forgotten,
        and whoever listens is told of the changes."""
        heard, ctx = notify.listened(self.kernel.bus), current.get()

        def unit(tx: Connection) -> T:
            if heard:
                with db.noted(tx) as changes:
                    result = fn(tx, *args, **kwargs)
            else:
                result = fn(tx, *args, **kwargs)
            # Last of all: what is looked up anew is then looked up with whatever else the commit has set off, a revocation.
            after_commit(tx, self._forget)
            if heard:
                after_commit(tx, partial(self._tell, changes, ctx))
            return result

        try:
            return await self.kernel.db.run(unit)
        except IntegrityError as error:
            raise Conflict("Conflict occurred: another request has just stored the same.") from error

    def _forget(self) -> None:
        for memory in (self._tokens, self._access_keys, self.catalogs, self._endpoints):
            memory.forget()
        self.directories.forget()

    def _tell(self, changes: list[Change], ctx: Context[Any] | None) -> None:
        self.kernel.tasks.spawn("notifications of identity", tell_changes(self, changes, ctx))

    # ---- tokens ---------------------------------------------------------------------------------------------------------

    async def authenticate(self, token: str, *, allow_expired: bool = False) -> Caller:
        """See `interface.Identity`. From memory, unless something changed."""
        return (await self.known(token, allow_expired=allow_expired)).caller

    async def session(self, token: str) -> Session:
        """What a token means now; Unauthorized if it is wrong, expired or revoked. From memory, unless something changed."""
        return (await self.known(token)).session

    async def known(self, token: str, *, allow_expired: bool = False) -> Known:
        """The same, with all that is remembered of the token. What ends a token with time alone must be in its `expires_at`:
        everything else comes with a `write`, which forgets it. `allow_expired`: one that ended a while ago will do, but is
        not remembered, since others may not use it."""
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        known = self._tokens.get(digest)
        if known is None or known.session.claims.expires_at <= microseconds():
            try:
                known = await self._tokens.keep(digest, self._examined(token))
            except Unauthorized:
                if not allow_expired:
                    raise
                known = await self._examined(token, allow_expired=True)
        return known

    async def _examined(self, token: str, *, allow_expired: bool = False) -> Known:
        session = await self.examine(token, allow_expired=allow_expired)
        return Known(session, session.caller(token))

    async def examine(self, token: str, *, allow_expired: bool = False) -> Session:
        """What a token means now, by the keys, the revocations and the database, whatever is remembered of it."""
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

    async def access_key(self, access: str) -> SigningKey | None:
        """See `interface.Identity`."""
        found = self._access_keys.get(access)
        if found is None or found.until <= microseconds():
            found = await self._access_keys.keep(access, read_access_key(self, access))
        return None if found is NO_KEY else found

    async def catalog(self) -> Catalog:
        """All that catalogues are made of, from memory unless something changed."""
        known = self._endpoints.get(None)
        return await self._endpoints.keep(None, self.kernel.db.read_inline(read_catalog)) if known is None else known

    async def endpoint(self, service_type: str, region: str, interface: str) -> str | None:
        """See `interface.Identity`."""
        wanted = (service_type, region, interface)
        rows = (await self.catalog()).rows
        return next((row.url for row in rows if (row.service_type, row.region_id, row.interface) == wanted), None)

    async def limits(self, service_type: str, project_id: str) -> Mapping[str, int]:
        """See `interface.Identity`."""
        return await self.kernel.db.read_inline(limits_of, service_type, project_id, self.kernel.settings.region)

    async def service_providers(self) -> bytes:
        """The other clouds to which this one vouches for its users, in JSON; nothing where there are none. They change so
        seldom that they are forgotten by `forget_service_providers` alone."""
        told = self._providers.get(None)
        return await self._providers.keep(None, self._read_providers()) if told is None else told

    def forget_service_providers(self) -> None:
        self._providers.forget()

    async def _read_providers(self) -> bytes:
        found = await self.kernel.db.read_inline(enabled_providers)
        return encode_json(found) if found else b""

    async def revoke(self, claims: Claims) -> None:
        """Void one token."""
        await self.write(self.revocations.add, "token", claims.audit_ids[0])

    # ---- the first start ------------------------------------------------------------------------------------------------

    async def ensure_bootstrap(self, wanted: Bootstrap) -> Accounts:
        """See `interface.Identity`."""
        return await ensure_accounts(self, wanted)
