"""What a unit of work changes, for whoever wants to tell of it afterwards.

`noted(tx)` collects, while it is entered, what the functions of `store.py` insert, update and remove by key; `note` adds what
they do not see (rows without a class, many rows at once). Where nobody collects, both cost a look.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection

KEY = "changes"
CREATED, UPDATED, DELETED = "created", "updated", "deleted"


class Change(Struct, frozen=True):
    """One object that was changed; `about` is what is to be told of it beside its key."""

    kind: str
    operation: str
    id: str
    about: dict[str, Any] = {}


@contextmanager
def noted(tx: Connection) -> Iterator[list[Change]]:
    """Collect what this unit of work changes."""
    changes: list[Change] = []
    tx.info[KEY] = changes
    try:
        yield changes
    finally:
        del tx.info[KEY]


def note(tx: Connection, kind: str, operation: str, id: Any, **about: Any) -> None:
    """Say that an object was created, updated or deleted."""
    changes = tx.info.get(KEY)
    if changes is not None:
        changes.append(Change(kind, operation, str(id), about))
