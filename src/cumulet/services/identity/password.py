"""Passwords: argon2id off the event loop, a few at once; bcrypt hashes from elsewhere are verified.

Reference: the OWASP Password Storage Cheat Sheet (19 MiB, two passes, one lane).
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cumulet.core.errors import Unavailable

T = TypeVar("T")

THREADS = 2
WAITING = 256
"""How many may wait for their turn: a flood of logins is refused before it fills memory."""
BCRYPT_BYTES = 72
"""What bcrypt takes of a password; upstream cuts it there."""


def strong() -> PasswordHasher:
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Passwords:
    """Makes and verifies hashes in two threads of its own. `hasher` may be a cheaper one in tests."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or strong()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._waiting = 0

    def stop(self) -> None:
        self._pool.shutdown()

    async def hash(self, password: str) -> str:
        """A new hash; Unavailable when too many wait."""
        return await self._run(functools.partial(self._hasher.hash, _bytes(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the hash is of this password. Without a hash (no such user) it costs as much and is False."""
        return await self._run(functools.partial(self._verify, stored, password))

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
        if stored is not None and stored.startswith(("$2a$", "$2b$", "$2y$")):
            return bcrypt.checkpw(_bytes(password)[:BCRYPT_BYTES], stored.encode())
        try:
            self._hasher.verify(stored or self._of_nobody, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None


def _bytes(password: str) -> bytes:
    return password.encode()
