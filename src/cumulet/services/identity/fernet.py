"""Keys that rotate, in files: those that seal tokens (`Keys`), and those that seal what is stored (`Vault`).

A key is a file named by its number; the highest seals, all open. A file is never written twice, so a look at the names tells
whether a key was added by another process (`cumulet keys rotate`): that is done before sealing, and when a token or a stored
secret cannot be opened. So a running program takes up new keys, and needs no word from who made them.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from msgspec import Struct

from cumulet.files import write_atomic
from cumulet.services.identity.claims import BadToken, Claims, pack, unpack

ROTATE_AFTER = 24 * 3600.0


class KeyFile(Struct, frozen=True):
    """A key as it is listed: seconds since it was made, and whether it is the one that seals."""

    number: int
    age: float
    seals: bool


class KeyRing:
    """The keys in one directory (mode 0700, each file 0600). Every change is made under the directory's lock, and in one
    step: whoever is killed, or reads in between, meets the keys as they were or as they will be."""

    def __init__(self, directory: Path, first: Path | None = None) -> None:
        self.directory = directory
        self.first = first  # a key from the time when there was only this one
        self._known: list[int] = []
        self._fernets: list[Fernet] = []

    def listed(self) -> list[KeyFile]:
        """All keys, the one that seals first."""
        numbers = self.numbers()
        return [KeyFile(n, self.age(n), n == numbers[-1]) for n in reversed(numbers)]

    def numbers(self) -> list[int]:
        found = [int(name) for name in self._listdir() if name.isdecimal()]
        if self.first is not None and self.first.exists():
            found.append(0)
        return sorted(found)

    def age(self, number: int) -> float:
        return time.time() - os.stat(self.path(number)).st_mtime

    def path(self, number: int) -> Path:
        return self.first if number == 0 and self.first is not None else self.directory / str(number)

    def open(self) -> list[Fernet]:
        """Every key, the newest first; the first is made where there is none."""
        if not self._fernets and not self.numbers():
            with self.locked():
                if not self.numbers():
                    self._make(1)
        self.refresh()
        return self._fernets

    def opened(self) -> list[Fernet]:
        """The keys as they were last looked at."""
        return self._fernets or self.open()

    def refresh(self) -> bool:
        """Take up what has changed in the directory; whether anything has."""
        while (numbers := self.numbers()) != self._known:
            try:
                self._fernets = [Fernet(self.path(n).read_bytes()) for n in reversed(numbers)]
            except FileNotFoundError:  # one was just dropped
                continue
            self._known = numbers
            return True
        return False

    def add(self) -> int:
        """Make a new key, which seals from now on; its number."""
        with self.locked():
            number = (self.numbers() or [0])[-1] + 1
            self._make(number)
        self.refresh()
        return number

    def drop(self, numbers: list[int]) -> None:
        """Remove keys that open nothing any more."""
        with self.locked():
            for number in numbers:
                self.path(number).unlink(missing_ok=True)
        self.refresh()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory, as no other process does meanwhile, and clear away what one left that was killed."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for left_over in self.directory.glob(".*"):
                left_over.unlink()
            yield
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _make(self, number: int) -> None:
        write_atomic(self.path(number), Fernet.generate_key(), mode=0o600)
        owner = os.stat(self.directory)
        if os.geteuid() == 0 and owner.st_uid != 0:  # root may rotate the keys of a program that runs as somebody else
            os.chown(self.path(number), owner.st_uid, owner.st_gid)

    def _listdir(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []


class Keys:
    """The keys of tokens. `lifetime` is how long a token may be used, in seconds.

    A key is made when the newest is a day old (or a token's lifetime, if that is longer), and goes once no token sealed with
    it can still be used.
    """

    def __init__(self, directory: Path, lifetime: float) -> None:
        self.ring = KeyRing(directory)
        self.lifetime = lifetime
        self._fernet: MultiFernet | None = None

    def load(self) -> None:
        """Read the keys, and make the first."""
        if self.ring.directory.exists():
            with self.ring.locked():  # clears away what a process left that was killed
                pass
        self._fernet = MultiFernet(self.ring.open())

    def rotate(self) -> None:
        """Make a new key to seal with, drop those that no valid token needs."""
        self.drop_unneeded()
        self.ring.add()
        self.load()

    def drop_unneeded(self) -> None:
        """Drop the keys of which the successor is older than any token that may still be used."""
        old = [n for n, successor in pairwise(self.ring.numbers()) if self.ring.age(successor) > self.lifetime]
        if old:
            self.ring.drop(old)
            self.load()

    def rotate_if_due(self) -> bool:
        """Rotate if the newest key is old enough; whether it was."""
        self.drop_unneeded()
        due = self.ring.age(self.ring.numbers()[-1]) > max(ROTATE_AFTER, self.lifetime)
        if due:
            self.rotate()
        return due

    def seal(self, claims: Claims) -> str:
        """The token."""
        self._take_up()
        assert self._fernet is not None
        return self._fernet.encrypt(pack(claims)).rstrip(b"=").decode()

    def open(self, token: str) -> Claims:
        """What a token says; BadToken where it was not made here. Whether it has expired is for the caller to see."""
        assert self._fernet is not None
        try:
            sealed = f"{token}{'=' * (-len(token) % 4)}".encode()
        except UnicodeEncodeError:
            raise BadToken from None
        try:
            return unpack(self._fernet.decrypt(sealed))
        except InvalidToken:
            if not self._take_up():
                raise BadToken from None
        try:
            return unpack(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise BadToken from None

    def _take_up(self) -> bool:
        changed = self.ring.refresh()
        if changed:
            self._fernet = MultiFernet(self.ring.open())
        return changed


class Vault:
    """Seals what is stored. `path` was its only key once; the others are in the directory of that name with an `s`."""

    def __init__(self, path: Path) -> None:
        self.ring = KeyRing(path.with_name(f"{path.name}s"), path)

    def seal(self, text: str) -> str:
        return self.ring.open()[0].encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text; ValueError if none of the keys opens it."""
        data = sealed.encode()
        while True:
            try:
                return MultiFernet(self.ring.opened()).decrypt(data).decode()
            except InvalidToken:
                if not self.ring.refresh():
                    raise ValueError("no key opens what is stored") from None

    def is_current(self, sealed: str) -> bool:
        """Whether the newest key sealed this."""
        try:
            self.ring.open()[0].decrypt(sealed.encode())
        except InvalidToken:
            return False
        return True
