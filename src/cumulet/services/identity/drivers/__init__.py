"""Where the users and groups of a domain come from, if not from the cloud's own database: a directory, which is only read.

The database needs no driver: it keeps the users of every domain that has no source, and a copy of those that were seen of one
that has (`directory.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct


class SourceError(Exception):
    """A source does not answer, or not in a way that can be used. The text is for the log; callers are told less."""


class Person(Struct, frozen=True, kw_only=True):
    """A user as his source has him. `id` and `dn` are the source's own names for him."""

    id: str
    dn: str
    name: str
    enabled: bool = True
    default_project_id: str | None = None
    extra: Mapping[str, Any] = {}


class Team(Struct, frozen=True, kw_only=True):
    """A group as its source has it. `members` are ids of persons."""

    id: str
    name: str
    description: str = ""
    members: Sequence[str] = ()


class UserSource(Protocol):
    """A directory of users and groups. All calls block, each for a few seconds at most, and raise SourceError."""

    def person(self, *, id: str = "", name: str = "") -> Person | None:
        """The user of this id, or of this name."""
        ...

    def people(self) -> Sequence[Person]:
        """All users."""
        ...

    def teams(self, people: Sequence[Person]) -> Sequence[Team]:
        """All groups; `people` are all users, to know members by."""
        ...

    def teams_of(self, person: Person) -> Sequence[Team]:
        """The groups that a user is in, without their members."""
        ...

    def is_password(self, person: Person | None, password: str) -> bool:
        """Whether this is the user's password. Of nobody (no such user) it is not, which takes as long to find out."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...
