"""The form of a token: its claims, sealed with Fernet under keys that rotate.

A key is a file named by its number; the highest seals, all open. A key is made when the newest is a day old (or a token's
lifetime, if that is longer), and goes once no token sealed with it can still be valid.
"""

import os
import time
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from cumulet.files import write_atomic
from cumulet.services.identity.claims import BadToken, Claims, pack, unpack

ROTATE_AFTER = 24 * 3600.0


class Keys:
    """The keys in one directory (mode 0700, each file 0600). `lifetime` is a token's, in seconds."""

    def __init__(self, directory: Path, lifetime: float) -> None:
        self.directory = directory
        self.lifetime = lifetime
        self._fernet: MultiFernet | None = None

    def load(self) -> None:
        """Read the keys, and make the first."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        for left_over in self.directory.glob(".*"):  # of a start that was killed while it wrote a key
            left_over.unlink()
        if not self._numbers():
            self._make(1)
        self._fernet = MultiFernet([Fernet(self._path(n).read_bytes()) for n in reversed(self._numbers())])

    def rotate(self) -> None:
        """Make a new key to seal with, drop those that no valid token needs."""
        numbers = self._numbers()
        self._make(numbers[-1] + 1)
        for number, successor in pairwise(numbers):
            if self._age(successor) > self.lifetime:
                self._path(number).unlink()
        self.load()

    def rotate_if_due(self) -> bool:
        """Rotate if the newest key is old enough; whether it was."""
        due = self._age(self._numbers()[-1]) > max(ROTATE_AFTER, self.lifetime)
        if due:
            self.rotate()
        return due

    def seal(self, claims: Claims) -> str:
        """The token."""
        assert self._fernet is not None
        return self._fernet.encrypt(pack(claims)).rstrip(b"=").decode()

    def open(self, token: str) -> Claims:
        """What a token says; BadToken where it was not made here. Whether it has expired is for the caller to see."""
        assert self._fernet is not None
        try:
            data = self._fernet.decrypt(f"{token}{'=' * (-len(token) % 4)}".encode())
        except (InvalidToken, UnicodeEncodeError):
            raise BadToken from None
        return unpack(data)

    def _numbers(self) -> list[int]:
        return sorted(int(f.name) for f in self.directory.iterdir() if f.name.isdecimal())

    def _path(self, number: int) -> Path:
        return self.directory / str(number)

    def _age(self, number: int) -> float:
        return time.time() - os.stat(self._path(number)).st_mtime

    def _make(self, number: int) -> None:
        write_atomic(self._path(number), Fernet.generate_key(), mode=0o600)


class Vault:
    """Seals what is stored, under one key in a file (mode 0600) that is made when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _fernet(self) -> Fernet:
        if not self._path.exists():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._path, Fernet.generate_key(), mode=0o600)
        return Fernet(self._path.read_bytes())

    def seal(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        return self._fernet.decrypt(sealed.encode()).decode()
