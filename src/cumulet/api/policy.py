"""Who may do what: the rules of one service, compiled to functions (`policy_language.py` tells how they read).

Services declare defaults under upstream's rule names; an operator's file overrides single rules (`policy_file.py`). Each
service has rules of its own: what `rule:admin_or_owner` is in one, it need not be in another (ADR 7).
"""

from collections.abc import Mapping
from typing import Any

from cumulet.api.policy_language import Asks, Check, Either, Every, Fixed, Node, Not, PolicyError, Refers, near, parse
from cumulet.core.context import Caller

__all__ = ["ADMIN", "ADMIN_OR_OWNER_MANAGER", "ADMIN_OR_OWNER_MEMBER", "ADMIN_OR_OWNER_READER", "ANYBODY", "Policy",
           "PolicyError"]  # fmt: skip

REMEMBERED = 20_000
"""How many answers about callers' own things are kept: most calls ask for one that was given before."""
MAX_CHAIN = 64
"""Rules that refer to each other in a row."""

ADMIN = "role:admin"
ADMIN_OR_OWNER_READER = "role:admin or (role:reader and project_id:%(project_id)s)"
ADMIN_OR_OWNER_MEMBER = "role:admin or (role:member and project_id:%(project_id)s)"
ADMIN_OR_OWNER_MANAGER = "role:admin or (role:manager and project_id:%(project_id)s)"
ANYBODY = "@"


class Policy:
    """Every rule of a service, compiled. Asking for a rule that nobody declared is an error of the program.

    PolicyError if a rule cannot be read, refers to one that is not there, or to itself.
    """

    def __init__(self, defaults: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> None:
        self.texts = {**defaults, **(overrides or {})}
        self._own: dict[tuple[str, Caller], bool] = {}
        self._checks = Compiler(self.texts, frozenset(overrides or ())).compile()

    def allows(self, rule: str, caller: Caller, target: Any = None) -> bool:
        """Whether `rule` lets the caller act on `target` (default: something that is the caller's own)."""
        if target is not None:
            return self._checks[rule](caller, target)
        answer = self._own.get((rule, caller))
        if answer is None:
            if len(self._own) >= REMEMBERED:
                self._own.clear()
            own = {"project_id": caller.project_id, "user_id": caller.user_id, "tenant_id": caller.project_id}
            answer = self._own[rule, caller] = self._checks[rule](caller, own)
        return answer

    def granted(self, rules: frozenset[str], caller: Caller) -> frozenset[str]:
        """Those of `rules` that let this caller act on something of his own."""
        target = {"project_id": caller.project_id, "user_id": caller.user_id, "tenant_id": caller.project_id}
        checks = self._checks
        return frozenset([rule for rule in rules if checks[rule](caller, target)])


class Compiler:
    """From texts to functions. A reference becomes the very function that it refers to."""

    def __init__(self, texts: Mapping[str, str], overridden: frozenset[str]) -> None:
        self.texts = texts
        self.overridden = overridden
        self.done: dict[str, Check] = {}

    def compile(self) -> dict[str, Check]:
        for name in self.texts:
            self._rule(name, ())
        return self.done

    def _rule(self, name: str, path: tuple[str, ...]) -> Check:
        if name in self.done:
            return self.done[name]
        if name in path:
            circle = path[path.index(name) :]
            blamed = next((n for n in circle if n in self.overridden), name)
            at = circle.index(blamed)
            told = " -> ".join([*circle[at:], *circle[:at], blamed])
            raise PolicyError(f"it refers to itself: {told}", rule=blamed)
        if len(path) >= MAX_CHAIN:
            raise PolicyError(f"it refers to others through more than {MAX_CHAIN} rules", rule=path[0])
        try:
            node = parse(self.texts[name])
        except PolicyError as error:
            raise PolicyError(error.reason, rule=name) from None
        check = self.done[name] = self._check(node, (*path, name))
        return check

    def _check(self, node: Node, path: tuple[str, ...]) -> Check:
        match node:
            case Asks(check):
                return check
            case Fixed(holds):
                return lambda _caller, _target: holds
            case Refers(rule):
                if rule not in self.texts:
                    hint = near(rule, list(self.texts))
                    raise PolicyError(f"it refers to `rule:{rule}`, which is not declared{hint}", rule=path[-1])
                return self._rule(rule, path)
            case Not(part):
                inner = self._check(part, path)
                return lambda caller, target: not inner(caller, target)
            case Every(parts):
                return _every([self._check(part, path) for part in parts])
            case Either(parts):
                return _either([self._check(part, path) for part in parts])


def _every(checks: list[Check]) -> Check:
    if len(checks) == 2:
        first, second = checks
        return lambda caller, target: first(caller, target) and second(caller, target)
    return lambda caller, target: all(check(caller, target) for check in checks)


def _either(checks: list[Check]) -> Check:
    if len(checks) == 2:
        first, second = checks
        return lambda caller, target: first(caller, target) or second(caller, target)
    return lambda caller, target: any(check(caller, target) for check in checks)
