"""Who may do what: rules in oslo.policy's language, compiled to functions.

    role:admin or (role:member and project_id:%(project_id)s)

`%(name)s` is an attribute of the target (a mapping or an object, dots go deeper); the left side is an attribute of the
caller's token, or a literal ('public':%(visibility)s, True:%(shared)s). `rule:name` is another rule, `@` always, `!` never.
Services declare defaults under upstream's rule names; an operator's file overrides single rules.
Reference: the documentation of oslo.policy, "Policy rule expressions".
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from cumulet.core.context import Caller
from cumulet.core.errors import CloudError

REMEMBERED = 20_000
"""How many answers about callers' own things are kept: most calls ask for one that was given before."""

Check = Callable[[Caller, Any], bool]

TOKEN = re.compile(
    r"\s*(\(|\)|and\b|or\b|not\b|@|!|(?:'[^']*'|\"[^\"]*\"|[^\s():]+):(?:%\([^)]*\)s|[^\s()]+))", re.IGNORECASE
)

ADMIN = "role:admin"
ADMIN_OR_OWNER_READER = "role:admin or (role:reader and project_id:%(project_id)s)"
ADMIN_OR_OWNER_MEMBER = "role:admin or (role:member and project_id:%(project_id)s)"
ADMIN_OR_OWNER_MANAGER = "role:admin or (role:manager and project_id:%(project_id)s)"
ANYBODY = "@"


class PolicyError(CloudError):
    """A rule that cannot be understood."""


class Policy:
    """Every rule of the cloud, compiled. Asking for a rule that nobody declared is an error of the program."""

    def __init__(self, defaults: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> None:
        self.texts = {**defaults, **(overrides or {})}
        self._checks: dict[str, Check] = {}
        self._own: dict[tuple[str, Caller], bool] = {}
        for name, text in self.texts.items():
            self._checks[name] = Parser(name, text, self).parse()

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

    def check(self, name: str) -> Check:
        return self._checks[name]

    def granted(self, rules: frozenset[str], caller: Caller) -> frozenset[str]:
        """Those of `rules` that let this caller act on something of his own."""
        target = {"project_id": caller.project_id, "user_id": caller.user_id, "tenant_id": caller.project_id}
        checks = self._checks
        return frozenset([rule for rule in rules if checks[rule](caller, target)])


class Parser:
    """Recursive descent: or < and < not < ( )."""

    def __init__(self, name: str, text: str, policy: Policy) -> None:
        self.name, self.text, self.policy = name, text, policy
        self.tokens = self._split(text.strip())
        self.position = 0

    def _split(self, text: str) -> list[str]:
        tokens, at = [], 0
        while at < len(text):
            match = TOKEN.match(text, at)
            if match is None:
                raise PolicyError(f"policy rule {self.name}: cannot read {text[at:]!r} in {self.text!r}")
            tokens.append(match[1])
            at = match.end()
        return tokens

    def parse(self) -> Check:
        if not self.tokens:
            return lambda caller, target: True
        check = self._or()
        if self.position < len(self.tokens):
            raise PolicyError(f"policy rule {self.name}: unexpected {self.tokens[self.position]!r} in {self.text!r}")
        return check

    def _peek(self) -> str:
        return self.tokens[self.position].lower() if self.position < len(self.tokens) else ""

    def _or(self) -> Check:
        checks = [self._and()]
        while self._peek() == "or":
            self.position += 1
            checks.append(self._and())
        if len(checks) == 1:
            return checks[0]
        if len(checks) == 2:
            first, second = checks
            return lambda caller, target: first(caller, target) or second(caller, target)
        return lambda caller, target: any(c(caller, target) for c in checks)

    def _and(self) -> Check:
        checks = [self._not()]
        while self._peek() == "and":
            self.position += 1
            checks.append(self._not())
        if len(checks) == 1:
            return checks[0]
        if len(checks) == 2:
            first, second = checks
            return lambda caller, target: first(caller, target) and second(caller, target)
        return lambda caller, target: all(c(caller, target) for c in checks)

    def _not(self) -> Check:
        if self._peek() == "not":
            self.position += 1
            inner = self._not()
            return lambda caller, target: not inner(caller, target)
        return self._atom()

    def _atom(self) -> Check:
        if self.position >= len(self.tokens):
            raise PolicyError(f"policy rule {self.name}: {self.text!r} ends too early")
        token = self.tokens[self.position]
        self.position += 1
        if token == "(":
            inner = self._or()
            if self._peek() != ")":
                raise PolicyError(f"policy rule {self.name}: a ')' is missing in {self.text!r}")
            self.position += 1
            return inner
        if token == "@":
            return lambda caller, target: True
        if token == "!":
            return lambda caller, target: False
        if ":" not in token:
            raise PolicyError(f"policy rule {self.name}: unexpected {token!r} in {self.text!r}")
        return self._match(*_parts(token))

    def _match(self, left: str, right: str) -> Check:
        if left == "role":
            role = right.lower()
            return lambda caller, target: role in caller.roles
        if left == "rule":
            policy = self.policy
            if right not in policy.texts:
                raise PolicyError(f"policy rule {self.name} refers to rule:{right}, which does not exist")
            return lambda caller, target: policy.check(right)(caller, target)
        if left == "is_admin":
            wanted = right.lower() in ("true", "1")
            return lambda caller, target: caller.is_admin is wanted
        if left == "system_scope":
            return lambda caller, target: caller.system
        value = _value(right)
        if left[0] in "'\"" or left.lower() in ("true", "false", "none"):
            literal = left.strip("'\"")
            return lambda caller, target: str(value(target)) == literal
        if not right.startswith("%("):  # domain_id:None is a token without a domain
            return lambda caller, target: str(_attribute(caller, left)) == right
        return lambda caller, target: (mine := _attribute(caller, left)) is not None and str(mine) == str(value(target))


def _parts(token: str) -> tuple[str, str]:
    if token[0] in "'\"":
        end = token.index(token[0], 1)
        return token[: end + 1], token[end + 2 :]
    left, _, right = token.partition(":")
    return left, right


def _value(right: str) -> Callable[[Any], Any]:
    if right.startswith("%("):
        path = right[2:-2].split(".")
        return lambda target: _walk(target, path)
    return lambda target: right


def _walk(target: Any, path: list[str]) -> Any:
    if isinstance(target, Mapping) and ".".join(path) in target:
        return target[".".join(path)]
    for name in path:
        target = target.get(name) if isinstance(target, Mapping) else getattr(target, name, None)
    return target


def _attribute(caller: Caller, name: str) -> Any:
    return getattr(caller, "project_id" if name == "tenant_id" else name, None)
