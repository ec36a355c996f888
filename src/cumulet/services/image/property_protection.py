"""Property protections: an operator's file that says who may create, read, update and delete which custom properties.

    [x_billing_.*]
    create = admin
    read = admin,member
    update = admin
    delete = !

Sections are regular expressions, matched against the beginning of a property's name; the first that fits decides, and what
none fits nobody may touch. A rule is a list of roles, `@` (everybody) or `!` (nobody); in the format `policies` it is the
name of one rule of policy. Reference: "Property protections" in glance's administration guide.
"""

import configparser
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from cumulet.config import SettingsError
from cumulet.core.context import Authorizer, Caller

Operation = Literal["create", "read", "update", "delete"]
OPERATIONS: tuple[Operation, ...] = ("create", "read", "update", "delete")
Format = Literal["roles", "policies"]


class Protection(Struct, frozen=True):
    """What one section says."""

    pattern: re.Pattern[str]
    rules: Mapping[Operation, frozenset[str]]  # operation -> the roles, or the one policy rule


class Protections(Struct, frozen=True):
    """What the whole file says. Without a file nothing is protected."""

    sections: tuple[Protection, ...] = ()
    policies: bool = False

    def allows(self, policy: Authorizer, caller: Caller, operation: Operation, name: str) -> bool:
        """Whether the caller may do this with a custom property of this name."""
        if not self.sections:
            return True
        for section in self.sections:
            if section.pattern.match(name):
                return self._permits(policy, caller, section.rules[operation])
        return False

    def _permits(self, policy: Authorizer, caller: Caller, allowed: frozenset[str]) -> bool:
        if "@" in allowed or "!" in allowed or not allowed:
            return "@" in allowed
        if self.policies:
            return all(policy.allows(rule, caller, None) for rule in allowed)
        handed_on = caller.service.roles if caller.service else frozenset()
        return not allowed.isdisjoint(caller.roles | handed_on)


def read_protections(file: Path | None, style: Format, known: frozenset[str]) -> Protections:
    """The protections that a file asks for; SettingsError where it cannot be used. `known`: the rules policy has."""
    if file is None:
        return Protections()
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise SettingsError(f"cannot read the property protections in {file}: {error}") from error
    own: dict[Operation, frozenset[str]] = {operation: frozenset({"@"}) for operation in OPERATIONS}
    sections = [Protection(re.compile("os_glance"), own)]  # the service's own, not for files to say
    for title in parser.sections():
        if not title.startswith("os_glance"):
            sections.append(_section(file, title, parser[title], style, known))
    return Protections(tuple(sections), style == "policies")


def _section(file: Path, title: str, given: Mapping[str, str], style: Format, known: frozenset[str]) -> Protection:
    where = f"the property protections in {file}, section [{title}]"
    rules: dict[Operation, frozenset[str]] = {}
    for operation in OPERATIONS:
        if operation not in given:
            raise SettingsError(f"{where}: `{operation}` is missing; it may be empty, for nobody")
        allowed = frozenset(part.strip().lower() for part in given[operation].split(",")) - {""}
        if {"@", "!"} <= allowed:
            raise SettingsError(f"{where}: `{operation}` cannot be both @ and !")
        if style == "policies" and len(allowed) > 1:
            raise SettingsError(f"{where}: `{operation}` names several policy rules; one is possible")
        if style == "policies" and (unknown := allowed - known - {"@", "!"}):
            raise SettingsError(f"{where}: there is no policy rule {', '.join(unknown)}")
        rules[operation] = allowed
    try:
        return Protection(re.compile(title), rules)
    except re.error as error:
        raise SettingsError(f"{where}: the title is no regular expression: {error}") from error
