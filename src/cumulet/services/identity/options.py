"""Options of projects, domains and roles: what their field `options` may hold, and what `immutable` forbids."""

from typing import Any, Literal

from cumulet.core.errors import Forbidden

Options = dict[Literal["immutable"], bool | None]
"""The options by name; null takes one away."""


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The options after a change: what is sent wins, null takes away, the others stay."""
    return {name: value for name, value in {**(old or {}), **new}.items() if value is not None}


def refuse_change(item: Any, changes: dict[str, Any]) -> None:
    """Forbidden if the object is immutable, unless all that is asked is that it no longer be."""
    if not _immutable(item):
        return
    only_options = set(changes) <= {"option_values", "extra"} and not changes.get("extra")
    options = changes.get("option_values") or {}
    if not (only_options and "immutable" in options and not options["immutable"]):
        raise Forbidden(f"The {item.kind} {item.id} is immutable; set its option `immutable` to false first, alone.")


def refuse_loss(item: Any) -> None:
    """Forbidden if the object is immutable: it may not be deleted, nor lose or gain a part such as a tag."""
    if _immutable(item):
        raise Forbidden(f"The {item.kind} {item.id} is immutable; set its option `immutable` to false first.")


def _immutable(item: Any) -> bool:
    return bool((item.option_values or {}).get("immutable"))
