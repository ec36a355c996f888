"""The types that identity's resources have in common."""

from typing import Annotated

from msgspec import Meta

from cumulet.core.types import Column, Shown

Label = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\S"), Column(255)]
"""A name: not empty, not only blanks."""
Label64 = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\S"), Column(64)]
Password = Annotated[str, Meta(min_length=1, max_length=4096)]
DomainId = Annotated[str, Meta(max_length=64), Column(64), Shown(lambda value: value or None)]
"""The domain of an object, kept as "" (so that names can be unique there) and shown as null where it is in none."""
ServiceName = Annotated[str, Meta(min_length=1, max_length=255), Column(255)]
Url = Annotated[str, Meta(max_length=225, pattern=r"^[a-zA-Z0-9+.-]+:.+"), Column(2048)]
"""A URL of an endpoint, as long as upstream takes them."""
