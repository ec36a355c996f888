"""The language of policy rules, which is oslo.policy's: from a text to a tree of checks.

    role:admin or (role:member and project_id:%(project_id)s)

A check is `left:right`. Right, `%(name)s` is an attribute of the target (a mapping or an object, dots go deeper), and all
else is itself; both may be mixed. Left is one of

    rule      another rule, by name
    role      a role of the caller;  `service_role` of the service that hands his request on
    field     `field:port:device_owner=~^network:`: an attribute of the target is this value, or matches this expression
    a literal `'public'`, `True`, `None`, `42`: what stands right of it is the same
    all else  an attribute of the caller's token (CREDENTIALS)

`@` always holds, and so does an empty rule; `!` never does. Words are joined with `not`, `and`, `or`, which bind in this
order, and parentheses. The older form, a list (or) of lists (and) of checks, is taken too (`from_lists`).

Two things differ, for safety's sake. What the token does not have is like nothing: a token without a project is not of the
same project as a target without one (`domain_id:None` still asks for a token without a domain). And `http:` checks are
refused, since a decision would wait for, and hang on, a server elsewhere.
Reference: the documentation of oslo.policy, "Policy rule expressions".
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from cumulet.core.context import Caller
from cumulet.core.errors import CloudError

Check = Callable[[Caller, Any], bool]

MAX_DEPTH = 64
"""Levels of parentheses and of `not`: many more than a rule that anybody reads has."""
MISSING: Any = type("MISSING", (), {"__repr__": lambda self: "MISSING"})()
"""What the target does not have."""

CREDENTIALS: Mapping[str, Callable[[Caller], Any]] = {
    "user_id": lambda c: c.user_id,
    "user": lambda c: c.user_id,
    "user_name": lambda c: c.user_name,
    "user_domain_id": lambda c: c.user_domain_id,
    "project_id": lambda c: c.project_id,
    "tenant_id": lambda c: c.project_id,
    "tenant": lambda c: c.project_id,
    "project_name": lambda c: c.project_name,
    "project_domain_id": lambda c: c.project_domain_id,
    "domain_id": lambda c: c.domain_id,
    "system_scope": lambda c: "all" if c.system else None,
    "roles": lambda c: c.roles,
    "is_admin": lambda c: c.is_admin,
    "is_admin_project": lambda c: True,  # no project is set apart from the others
    "token.is_admin_project": lambda c: True,
    "token.user.id": lambda c: c.user_id,
    "token.user.name": lambda c: c.user_name,
    "token.user.domain.id": lambda c: c.user_domain_id,
    "token.project.id": lambda c: c.project_id,
    "token.project.name": lambda c: c.project_name,
    "token.project.domain.id": lambda c: c.project_domain_id,
    "token.domain.id": lambda c: c.domain_id,
    "is_delegated_auth": lambda c: bool(c.delegation),
    "trust_id": lambda c: c.trust_id,
    "trust.id": lambda c: c.trust_id,
    "trustor_id": lambda c: c.trustor_id,
    "trust.trustor_user_id": lambda c: c.trustor_id,
    "trustee_id": lambda c: c.trustee_id,
    "trust.trustee_user_id": lambda c: c.trustee_id,
    "service_user_id": lambda c: c.service.user_id if c.service else None,
    "service_user_domain_id": lambda c: c.service.user_domain_id if c.service else None,
    "service_project_id": lambda c: c.service.project_id if c.service else None,
    "service_project_domain_id": lambda c: c.service.project_domain_id if c.service else None,
    "service_roles": lambda c: c.service.roles if c.service else frozenset(),
}
"""What rules may know of the caller, under the names of oslo.context and of a token's body."""


class PolicyError(CloudError):
    """A rule that cannot be understood. `rule` is its name, `reason` the sentence without it."""

    def __init__(self, reason: str, *, rule: str = "") -> None:
        super().__init__(f"policy rule {rule}: {reason}" if rule else reason)
        self.reason = reason
        self.rule = rule


class Fixed(Struct, frozen=True):
    """`@` and `!`."""

    holds: bool


class Asks(Struct, frozen=True):
    """One check."""

    check: Check


class Refers(Struct, frozen=True):
    """To another rule."""

    rule: str


class Not(Struct, frozen=True):
    part: "Node"


class Every(Struct, frozen=True):
    parts: tuple["Node", ...]


class Either(Struct, frozen=True):
    parts: tuple["Node", ...]


Node = Fixed | Asks | Refers | Not | Every | Either


class Token(Struct, frozen=True):
    text: str
    at: int  # in characters from the rule's beginning, from 1
    word: bool = True  # a check; otherwise one of ( ) and or not


def parse(text: str) -> Node:
    """The tree of a rule; PolicyError says what is wrong, and where."""
    return Parser(text).parse()


def from_lists(rule: Sequence[Any]) -> str:
    """A rule that is written as a list, in words; PolicyError where it holds anything but checks."""
    if not rule:
        return "@"
    groups = []
    for inner in rule:
        checks = [inner] if isinstance(inner, str) else inner
        if not isinstance(checks, Sequence) or not all(isinstance(check, str) for check in checks):
            raise PolicyError("a rule that is a list holds checks, or lists of checks")
        for check in checks:
            if len(check.split()) != 1 or check.startswith("(") or isinstance(parse(check), Every | Either | Not):
                raise PolicyError(f"{check!r} must be one check, since it stands in a list")
        if checks:
            groups.append(f"({' and '.join(checks)})")
    return " or ".join(groups) or "!"


def referred(node: Node) -> Iterator[str]:
    """The rules that a rule refers to."""
    match node:
        case Refers(rule):
            yield rule
        case Not(part):
            yield from referred(part)
        case Every(parts) | Either(parts):
            for part in parts:
                yield from referred(part)


def near(name: str, known: Sequence[str], otherwise: str = "") -> str:
    """`; did you mean ...?`, where something is near."""
    import difflib  # only for this message: starts are faster without

    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{found[0]}`?" if found else otherwise


class Parser:
    """Recursive descent: or < and < not < ( )."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.position = 0
        self.depth = 0

    def parse(self) -> Node:
        if not self.tokens:
            return Fixed(True)
        node = self._or()
        if self.position < len(self.tokens):
            raise self._unexpected(self.tokens[self.position])
        return node

    def _peek(self) -> str:
        if self.position == len(self.tokens) or self.tokens[self.position].word:
            return ""
        return self.tokens[self.position].text

    def _or(self) -> Node:
        parts = [self._and()]
        while self._peek() == "or":
            self.position += 1
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _and(self) -> Node:
        parts = [self._not()]
        while self._peek() == "and":
            self.position += 1
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _not(self) -> Node:
        if self._peek() != "not":
            return self._atom()
        with_self = self.tokens[self.position]
        self.position += 1
        return Not(self._deeper(with_self, self._not))

    def _atom(self) -> Node:
        if self.position == len(self.tokens):
            raise PolicyError(f"{self.text!r} ends too early: a check is expected after it")
        token = self.tokens[self.position]
        if token.text == "(" and not token.word:
            self.position += 1
            inner = self._deeper(token, self._or)
            if self._peek() != ")":
                raise PolicyError(f"the '(' at character {token.at} of {self.text!r} is not closed")
            self.position += 1
            return inner
        if not token.word:
            raise self._unexpected(token)
        self.position += 1
        try:
            return check(token.text)
        except PolicyError as error:
            raise PolicyError(f"{error.reason} (at character {token.at} of {self.text!r})") from None

    def _deeper(self, token: Token, rest: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise PolicyError(f"more than {MAX_DEPTH} levels, at character {token.at}")
        node = rest()
        self.depth -= 1
        return node

    def _unexpected(self, token: Token) -> PolicyError:
        before = "" if token.text in ("and", "or", ")") or not self.position else "; is an `and` or an `or` missing?"
        return PolicyError(f"unexpected {token.text!r} at character {token.at} of {self.text!r}{before}")


def _tokens(text: str) -> Iterator[Token]:
    """Words are told apart by space; parentheses at their ends, other than those of `%(name)s`, are taken off."""
    for found in re.finditer(r"\S+", text):
        word, at = found[0], found.start() + 1
        while word.startswith("("):
            yield Token("(", at, word=False)
            word, at = word[1:], at + 1
        inner = word.rstrip(")")
        if inner.lower() in ("and", "or", "not"):
            yield Token(inner.lower(), at, word=False)
        elif inner:
            yield Token(inner, at)
        for n in range(len(inner), len(word)):
            yield Token(")", at + n, word=False)


# ---- checks -------------------------------------------------------------------------------------------------------------


def check(word: str) -> Node:
    """The meaning of one check."""
    if word in ("@", "!"):
        return Fixed(word == "@")
    left, colon, right = word.partition(":")
    if word[0] in "'\"" and (end := word.find(word[0], 1)) > 0:
        left, colon, right = word[: end + 1], word[end + 1 : end + 2], word[end + 2 :]
    if colon != ":" or not left or not right:
        raise PolicyError(f"{word!r} is no check: `left:right`, `@` or `!` is expected")
    if left in ("http", "https", "remote"):
        raise PolicyError(f"`{left}:` checks are not supported: no decision here waits for a server elsewhere")
    if left == "rule":
        return Refers(right)
    if left == "field":
        return Asks(_field(right))
    value = template(right)
    if left == "role":
        return Asks(_role(value, right, lambda caller: caller.roles))
    if left in ("service_role", "service_roles"):
        return Asks(_role(value, right, CREDENTIALS["service_roles"]))
    literal = _literal(left)
    if literal is not None:
        return Asks(lambda _caller, target: (found := value(target)) is not MISSING and str(found) == literal)
    return Asks(_credential(left, right, value))


def _literal(left: str) -> str | None:
    if left[0] in "'\"":
        if len(left) < 2 or left[-1] != left[0]:
            raise PolicyError(f"the quote of {left} is not closed")
        return left[1:-1]
    return left if left in ("True", "False", "None") or re.fullmatch(r"-?\d+(\.\d+)?", left) else None


def _role(value: Callable[[Any], Any], right: str, held: Callable[[Caller], frozenset[str]]) -> Check:
    if "%" in right:
        return lambda caller, target: isinstance(named := value(target), str) and named.lower() in held(caller)
    role = right.lower()
    if held is CREDENTIALS["service_roles"]:
        return lambda caller, _target: role in held(caller)
    return lambda caller, _target: role in caller.roles


def _credential(left: str, right: str, value: Callable[[Any], Any]) -> Check:
    mine = CREDENTIALS.get(left)
    if mine is None:
        raise PolicyError(f"a token has no `{left}`{near(left, list(CREDENTIALS))}")
    if left == "is_admin":
        wanted = right.lower() in ("true", "1")
        return lambda caller, _target: caller.is_admin is wanted
    if left == "roles":
        return lambda caller, target: isinstance(named := value(target), str) and named.lower() in caller.roles
    if "%" not in right:  # domain_id:None is a token without a domain
        return lambda caller, _target: str(mine(caller)) == right
    return lambda caller, target: (
        (own := mine(caller)) is not None
        and (theirs := value(target)) is not None
        and theirs is not MISSING
        and str(own) == str(theirs)
    )


def _field(right: str) -> Check:
    """`resource:attribute=value` or `resource:attribute=~expression`, as neutron has it."""
    found = re.fullmatch(r"[^:=]+:([^=]+)=(.+)", right)
    if found is None:
        raise PolicyError("a field check is `field:resource:attribute=value`")
    path, wanted = found[1].split("."), found[2]
    if not wanted.startswith("~"):
        return lambda _caller, target: (it := walk(target, path)) is not MISSING and str(it) == wanted
    try:
        matches = re.compile(wanted[1:]).match
    except re.error as error:
        raise PolicyError(f"{wanted[1:]!r} is no regular expression: {error}") from None
    return lambda _caller, target: (it := walk(target, path)) not in (None, MISSING) and matches(str(it)) is not None


def template(right: str) -> Callable[[Any], Any]:
    """A function from the target to what the right side of a check stands for there; MISSING where it is not there."""
    parts = re.split(r"%\(([^()]+)\)s", right)
    if any("%" in plain.replace("%%", "") for plain in parts[::2]):
        raise PolicyError(f"{right!r} has a % that is neither `%(name)s` nor `%%`")
    if len(parts) == 3 and not parts[0] and not parts[2]:
        path = parts[1].split(".")
        return lambda target: walk(target, path)
    plain = [part.replace("%%", "%") for part in parts[::2]]
    if len(plain) == 1:
        return lambda _target: plain[0]
    paths = [part.split(".") for part in parts[1::2]]

    def filled(target: Any) -> Any:
        found = [walk(target, path) for path in paths]
        if MISSING in found:
            return MISSING
        return plain[0] + "".join(f"{value}{text}" for value, text in zip(found, plain[1:], strict=True))

    return filled


def walk(target: Any, path: list[str]) -> Any:
    """The attribute at `path`, or MISSING. A mapping may have it under its whole, dotted name."""
    if isinstance(target, Mapping) and (whole := ".".join(path)) in target:
        return target[whole]
    for name in path:
        target = target.get(name, MISSING) if isinstance(target, Mapping) else getattr(target, name, MISSING)
    return target
