"""How settings are described."""

from typing import Any

from msgspec import Meta


def says(sentence: str, default: str | None = None, **limits: Any) -> Meta:
    """Describe a setting; `default` tells in words what a computed or empty default stands for."""
    return Meta(description=sentence, extra={"default": default} if default else None, **limits)
