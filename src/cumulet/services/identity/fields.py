"""The types that identity's resources have in common."""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from cumulet.core.errors import Invalid
from cumulet.core.types import Column, Shown, now, timestamp

Label = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\S"), Column(255)]
"""A name: not empty, not only blanks."""
Label64 = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\S"), Column(64)]
Password = Annotated[str, Meta(min_length=1)]
"""A password that is to be set. Of a very long one only the beginning counts (`password.py`)."""
DomainId = Annotated[str, Meta(max_length=64), Column(64), Shown(lambda value: value or None)]
"""The domain of an object, kept as "" (so that names can be unique there) and shown as null where it is in none."""
ServiceName = Annotated[str, Meta(min_length=1, max_length=255), Column(255)]
Url = Annotated[str, Meta(max_length=225, pattern=r"^[a-zA-Z0-9+.-]+:.+"), Column(2048)]
"""A URL of an endpoint, as long as upstream takes them."""
PlainTime = Annotated[str, Column(26)]
"""A moment in UTC with its microseconds, sent as upstream sends it here: without a zone."""
Day = Annotated[str, Column(10)]


def future(text: str) -> str:
    """A moment that a client gives something its end with, as a `Time`; Invalid where it is none or is past."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        kept = timestamp(moment)
    except (ValueError, OverflowError):
        raise Invalid(f"'{text[:64]}' is not a time; one is written like 2026-01-31T09:15:00.000000Z.") from None
    if moment <= datetime.now(UTC):
        raise Invalid("The 'expires_at' must not be before now.")
    return kept


def has_ended(expires_at: str | None) -> bool:
    """Whether the end that something was given (a `Time`; None is never) has come."""
    return expires_at is not None and expires_at <= now()


def microseconds_of(time: str) -> int:
    """A `Time` as a token tells it: microseconds since 1970."""
    since = datetime.fromisoformat(time).replace(tzinfo=UTC) - datetime.fromtimestamp(0, UTC)
    return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds
