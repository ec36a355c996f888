"""The types that resources are declared with: what is valid, and how it is stored and shown.

A type is an `Annotated` alias. `msgspec.Meta` says what is valid; `Column` how the database keeps it (by default: from
the Python type); `Shown` turns the stored value into the one that is sent.
"""

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from msgspec import Meta, Struct


class Column(Struct, frozen=True):
    """How the database keeps a value: text of `length` characters (0: of any length)."""

    length: int = 0


class Shown(Struct, frozen=True):
    """How a stored value is sent."""

    convert: Callable[[Any], Any]


def _second(value: str | None) -> str | None:
    return f"{value[:19]}Z" if value else value


def _micro(value: str | None) -> str | None:
    return f"{value}Z" if value else value


UUID_PATTERN = r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"

Id = Annotated[str, Column(64)]
"""The id of a resource as the database keeps it; any text is a valid question."""
Uuid = Annotated[str, Meta(pattern=UUID_PATTERN, max_length=36), Column(64)]
Name = Annotated[str, Meta(min_length=1, max_length=255), Column(255)]
Str64 = Annotated[str, Meta(max_length=64), Column(64)]
Str255 = Annotated[str, Meta(max_length=255), Column(255)]
Text = Annotated[str, Column(0)]
Time = Annotated[str, Column(26), Shown(_second)]
"""A moment in UTC, kept as text of 26 characters (2026-01-31T09:15:00.123456) that sorts as time does; sent to the second."""
MicroTime = Annotated[str, Column(26), Shown(_micro)]
"""The same, sent with its microseconds."""

_UUID = re.compile(UUID_PATTERN)


def is_uuid(text: str) -> bool:
    return _UUID.match(text) is not None


def new_id() -> str:
    """A random UUID in its usual form."""
    return str(uuid.uuid4())


def new_hex_id() -> str:
    """A random UUID without dashes, as identity writes its ids."""
    return uuid.uuid4().hex


def now() -> str:
    """This moment as a `Time`."""
    return timestamp(datetime.now(UTC))


def later(seconds: float) -> str:
    """The moment `seconds` from now as a `Time`."""
    return timestamp(datetime.now(UTC) + timedelta(seconds=seconds))


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
