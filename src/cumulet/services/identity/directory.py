"""Domains whose users and groups are in a directory (LDAP): which these are, what is seen of them, and logins by them.

Of every user and group that is seen the database keeps a copy, under upstream's public id, so that roles, groups, credentials
and tokens are those of any other user; `local_id` is the directory's own id. The directory is the truth: what has changed
there is stored here as it is seen, and a copy whose original is gone is disabled and no longer shown (its roles are kept, in
case it comes back). Questions to directories block, so they are asked in threads of their own, few at once, with time-outs;
one that is down is not asked again for a moment.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from cumulet.core.errors import Forbidden, Unauthorized, Unavailable
from cumulet.services.identity.directory_copy import Seen, copied, differs, domains_with_copies, public_id, store
from cumulet.services.identity.drivers import Person, SourceError, Team, UserSource
from cumulet.services.identity.user import READ_ONLY

if TYPE_CHECKING:
    from cumulet.services.identity.runtime import IdentityRuntime

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("cumulet.identity.directory")

DomainConfig = Callable[[Connection, str], Mapping[str, Mapping[str, Any]]]
"""From a domain's id to its configuration: options by group, as `/v3/domains/{id}/config` has them."""
THREADS = 8
AT_ONCE = 2
"""How many questions one directory is asked at once: a slow one leaves threads to the others."""
WAITING = 64
"""How many may wait for one directory."""
REST = 5.0
"""For how many seconds a directory that does not answer is left alone."""
REFRESH = 600.0
"""How often all copies are compared with what they are of, in seconds."""


def no_config(tx: Connection, domain_id: str) -> Mapping[str, Mapping[str, Any]]:
    """The configuration of domains that have none."""
    return {}


def _ldap(options: Mapping[str, Any]) -> UserSource:
    from cumulet.services.identity.drivers.ldap import LdapSource  # a library that only few clouds need

    return LdapSource(options)


SOURCES: Mapping[str, Callable[[Mapping[str, Any]], UserSource]] = {"ldap": _ldap}
"""By the driver's name in a domain's configuration; the group of its options has the same name."""


class Directory:
    """The directory of one domain."""

    def __init__(
        self,
        service: "IdentityRuntime",
        domain_id: str,
        driver: str,
        options: Mapping[str, Any],
        pool: ThreadPoolExecutor,
    ) -> None:
        self.service = service
        self.domain_id = domain_id
        self.driver, self.options = driver, options
        self._pool = pool
        self._source: UserSource | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._rests_until = 0.0

    async def ask(self, question: Callable[Concatenate[UserSource, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask the source in a thread; Unavailable where it does not answer, or did not just now."""
        if self._waiting >= WAITING:
            raise self._unavailable()
        self._waiting += 1
        try:
            async with self._turns:
                if time.monotonic() < self._rests_until:
                    raise self._unavailable()
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, lambda: question(self._open(), *args, **kwargs))
        except SourceError as error:
            log.warning("the directory of domain %s failed: %s", self.domain_id, error)
            self._rests_until = time.monotonic() + REST
            raise self._unavailable() from error
        finally:
            self._waiting -= 1

    def _open(self) -> UserSource:
        if self._source is None:
            try:
                self._source = SOURCES[self.driver](self.options)
            except ImportError as error:
                raise SourceError(f"the driver {self.driver} cannot be loaded: {error}") from error
        return self._source

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"The directory of the users of domain {self.domain_id} does not answer; try again later.")

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    # ---- what is seen ---------------------------------------------------------------------------------------------------

    async def refresh(self, name: str | None = None) -> None:
        """Bring the copies of all users and groups up to date, or of the one user of this name."""
        if name is not None:
            person, teams = await self.ask(_one, name=name)
            known = await self.service.kernel.db.read_inline(copied, self.domain_id, name)
            if person is not None:
                await self._keep([person], teams)
            elif known is not None:  # who had the name has another one now, or is gone
                await self.refresh_user(known)
            return
        people, teams = await self.ask(_all)
        await self._keep(people, teams, whole=True)

    async def refresh_user(self, user: Any) -> None:
        """Bring the copy of one user up to date, his groups included."""
        person, teams = await self.ask(_one, id=user.local_id)
        await self._keep([] if person is None else [person], teams, asked=user.local_id)

    async def _keep(
        self, people: Sequence[Person], teams: Sequence[Team], *, whole: bool = False, asked: str | None = None
    ) -> None:
        """Store what is not as it was. Nothing is written, and no token forgotten, where all is."""
        seen = Seen(domain_id=self.domain_id, people=people, teams=teams, whole=whole, asked=asked)
        if await self.service.kernel.db.read(differs, seen):
            await self.service.write(store, seen)

    # ---- logging in -----------------------------------------------------------------------------------------------------

    async def login(self, password: str, *, id: str = "", name: str = "") -> str:
        """The id of the user whose password this is; Unauthorized where there is no such user, or he has another one."""
        person, teams, right = await self.ask(_bind, password, id=id, name=name)
        if person is None or not right or not person.enabled:
            raise Unauthorized()
        await self._keep([person], teams, asked=person.id)
        return public_id(self.domain_id, "user", person.id)


def _one(source: UserSource, *, id: str = "", name: str = "") -> tuple[Person | None, Sequence[Team]]:
    person = source.person(id=id, name=name)
    return person, () if person is None else source.teams_of(person)


def _all(source: UserSource) -> tuple[Sequence[Person], Sequence[Team]]:
    people = source.people()
    return people, source.teams(people)


def _bind(source: UserSource, password: str, *, id: str, name: str) -> tuple[Person | None, Sequence[Team], bool]:
    """The user, his groups, and whether it is his password."""
    person = source.person(id=id, name=name)
    right = source.is_password(person, password)
    return person, source.teams_of(person) if person is not None and right else (), right


class Directories:
    """The directories of all domains, by what the domains' configurations say now."""

    def __init__(self, service: "IdentityRuntime", config: DomainConfig = no_config) -> None:
        self.service = service
        self.config = config
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="directory")
        self._known: dict[str, Directory] = {}
        self._checked: dict[str, Directory | None] = {}

    def forget(self) -> None:
        """Read configurations anew: something of identity has changed."""
        self._checked.clear()

    async def of(self, domain_id: str | None) -> Directory | None:
        """The directory of a domain; None where its users are in the database."""
        if not domain_id:
            return None
        if domain_id not in self._checked:
            if len(self._checked) >= 10_000:  # domains that nobody has, asked for one after the other
                self._checked.clear()
            self._checked[domain_id] = await self._configured(domain_id)
        return self._checked[domain_id]

    async def _configured(self, domain_id: str) -> Directory | None:
        config = await self.service.kernel.db.read_inline(self.config, domain_id)
        driver = str(config.get("identity", {}).get("driver"))
        known = self._known.get(domain_id)
        if driver not in SOURCES:
            self._drop(domain_id)
            return None
        options = config.get(driver, {})
        if known is None or (known.driver, known.options) != (driver, options):
            self._drop(domain_id)
            known = self._known[domain_id] = Directory(self.service, domain_id, driver, options, self._pool)
        return known

    def _drop(self, domain_id: str) -> None:
        known = self._known.pop(domain_id, None)
        if known is not None:
            known.close()

    async def refuse(self, domain_id: str) -> None:
        """Forbidden where the domain's users and groups are in a directory."""
        if await self.of(domain_id) is not None:
            raise Forbidden(READ_ONLY)

    async def refresh_item(self, item: Any) -> None:
        """Bring the copy of a user, or of all groups, up to date. Nothing to do where it is no copy."""
        directory = await self.of(item.domain_id) if item.local_id is not None else None
        if directory is None:
            return
        if item.kind == "user":
            await directory.refresh_user(item)
        else:
            await directory.refresh()

    async def refresh_all(self) -> None:
        """Compare all copies with the directories they are of; those of a directory that was taken away are gone."""
        for domain_id in await self.service.kernel.db.read(domains_with_copies):
            directory = await self.of(domain_id)
            try:
                if directory is not None:
                    await directory.refresh()
                else:
                    await self.service.write(store, Seen(domain_id=domain_id, people=(), teams=(), whole=True))
            except Unavailable:
                continue  # said in the log already

    def stop(self) -> None:
        for domain_id in list(self._known):
            self._drop(domain_id)
        self._pool.shutdown(wait=False, cancel_futures=True)
