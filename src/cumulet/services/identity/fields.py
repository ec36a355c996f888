"""The types that identity's resources have in common."""

from typing import Annotated

from msgspec import Meta

from cumulet.core.types import Column, Shown

Label = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\S"), Column(255)]
"""A name: not empty, not only blanks."""
Label64 = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\S"), Column(64)]
Password = Annotated[str, Meta(min_length=1)]
"""A password that is to be set. Of a very long one only the beginning counts (`password.py`)."""
DomainId = Annotated[str, Meta(max_length=64), Column(64), Shown(lambda value: value or None)]
"""The domain of an object, kept as "" (so that names can be unique there) and shown as null where it is in none."""
Url = Annotated[str, Meta(min_length=1, max_length=2048)]
PlainTime = Annotated[str, Column(26)]
"""A moment in UTC with its microseconds, sent as upstream sends it here: without a zone."""
Day = Annotated[str, Column(10)]
