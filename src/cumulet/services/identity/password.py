"""Passwords: argon2id off the event loop, a few at once; hashes from elsewhere are verified, and replaced at the next login.

Reference: the OWASP Password Storage Cheat Sheet (19 MiB, two passes, one lane).
"""

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cumulet.core.errors import Unavailable
from cumulet.services.identity.imported_hash import is_imported, verify_imported

T = TypeVar("T")

THREADS = 2
WAITING = 256
"""How many may wait for their turn: a flood of logins is refused before it fills memory."""
NICENESS = 3
"""How much the hashing threads stand back: beside a flood of wrong passwords all other requests have the processor first. Not
more, or busy servers on this host would keep everybody from logging in."""
MAX_BYTES = 4096
"""What counts of a password, as upstream's max_password_length: the rest of a longer one is cut off."""


LONGEST = 2.0
"""The longest that a failed login is drawn out, in seconds."""


def strong() -> PasswordHasher:
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Passwords:
    """Makes and verifies hashes in two threads of its own. `hasher` may be a cheaper one in tests."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or strong()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="password", initializer=_stand_back)
        self._waiting = 0
        self._imported_takes = 0.0

    def stop(self) -> None:
        self._pool.shutdown()

    async def hash(self, password: str) -> str:
        """A new hash; Unavailable when too many wait."""
        return await self._run(functools.partial(self._hasher.hash, _bytes(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the hash is of this password. Without a hash (no such user) it costs as much and is False."""
        return await self._run(functools.partial(self._verify, stored, password))

    async def is_one_of(self, stored: Sequence[str], password: str) -> bool:
        """Whether any of the hashes is of this password."""
        return bool(stored) and await self._run(lambda: any(self._verify(one, password) for one in stored))

    async def even_out(self, started: float) -> None:
        """Draw a login that failed out to what one with an imported hash takes, if any is in use: those are slower, and would
        tell of the users that have one. `started` is its `time.perf_counter()`."""
        await asyncio.sleep(max(0.0, started + self._imported_takes - time.perf_counter()))

    def is_outdated(self, stored: str) -> bool:
        """Whether a hash should be made anew: it was imported, or made with other parameters than today's."""
        return is_imported(stored) or self._hasher.check_needs_rehash(stored)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING:
            raise Unavailable("Too many logins are under way; try again in some seconds.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    @functools.cached_property
    def _of_nobody(self) -> str:
        return self._hasher.hash(b"nobody has this password")

    def _verify(self, stored: str | None, password: str) -> bool:
        if stored is not None and is_imported(stored):
            started = time.perf_counter()
            right = verify_imported(stored, _bytes(password))
            # What others are drawn out to is what this one will be, with some room; it follows the machine's load.
            takes = max(0.9 * self._imported_takes, 1.1 * (time.perf_counter() - started))
            self._imported_takes = min(takes, LONGEST)
            return right
        try:
            self._hasher.verify(stored or self._of_nobody, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None


def _bytes(password: str) -> bytes:
    return password.encode(errors="surrogatepass")[:MAX_BYTES]


def _stand_back() -> None:
    """Lower the priority of the calling thread (Linux keeps one for each thread)."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
