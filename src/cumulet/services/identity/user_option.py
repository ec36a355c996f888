"""The options of users: what security compliance and multi-factor rules make of each. Unknown ones are refused, null unsets."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from cumulet.core.errors import Invalid

Flag = bool | UnsetType | None
Rule = Annotated[list[str], Meta(min_length=1)]


class UserOptions(Struct, forbid_unknown_fields=True):
    """Upstream's options, under upstream's names."""

    ignore_change_password_upon_first_use: Flag = UNSET
    ignore_password_expiry: Flag = UNSET
    ignore_lockout_failure_attempts: Flag = UNSET
    lock_password: Flag = UNSET
    ignore_user_inactivity: Flag = UNSET
    multi_factor_auth_enabled: Flag = UNSET
    multi_factor_auth_rules: list[Rule] | UnsetType | None = UNSET


def merged(old: dict[str, Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The options after those that were given are set, or unset where they are null; Invalid where one is not upstream's."""
    try:
        options = msgspec.convert(given, UserOptions)
    except msgspec.ValidationError as error:
        raise Invalid(f"Invalid input for options: {error}") from None
    rules = options.multi_factor_auth_rules or []
    if any(len(set(rule)) < len(rule) or rules.count(rule) > 1 for rule in rules):
        raise Invalid(
            "Invalid input for multi_factor_auth_rules: a list of different lists of different names of methods is expected."
        )
    return {name: value for name, value in {**(old or {}), **given}.items() if value is not None}


def has(options: dict[str, Any] | None, name: str) -> bool:
    """Whether an option is switched on."""
    return (options or {}).get(name) is True
