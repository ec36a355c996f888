"""The operator's policy file: YAML or JSON with rules under upstream's names, each of which overrides one default.

    "identity:list_users": "role:admin or role:auditor"    # the rule of this name, in every service that has one
    "auditor_or_admin": "role:auditor or role:admin"       # a new one, for others here to refer to
    network:                                                # rules of one service: these win over those above
      "admin_or_owner": "rule:auditor_or_admin or project_id:%(project_id)s"

Everything is checked before the program serves anybody: a wrong file is a PolicyFileError of one sentence, with its line.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from cumulet.api.policy import Policy
from cumulet.api.policy_language import PolicyError, from_lists, near, parse, referred
from cumulet.api.service import Service

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

LARGEST = 1 << 20
"""Bytes of a policy file: some thirty times as many as all defaults."""


class PolicyFileError(Exception):
    """The file cannot be used; the text names the file, the line and what is wrong with it."""


class Written(Struct, frozen=True):
    """A rule as the file has it."""

    text: str
    line: int


class PolicyFile(Struct, frozen=True):
    """What a file says, its rules read but not yet compared with any service's: `shared` ones and those of one service."""

    path: Path
    shared: Mapping[str, Written]
    sections: Mapping[str, Mapping[str, Written]]
    lines: Mapping[str, int]  # where each section begins

    def error(self, line: int, reason: str) -> PolicyFileError:
        return PolicyFileError(f"the policy file {self.path} is wrong in line {line}: {reason}")


NONE = PolicyFile(Path(), {}, {}, {})


def policies(services: Iterable[Service], file: PolicyFile = NONE) -> dict[str, Policy]:
    """The policy of each service, by its type: its defaults, and what the file overrides. Raises PolicyFileError."""
    services = list(services)
    by_name = {name: service.type for service in services for name in (service.type, service.upstream)}
    sections: dict[str, dict[str, Written]] = {}
    for name, rules in file.sections.items():
        if name not in by_name:
            hint = near(name, list(by_name), f"; the services are {', '.join(s.type for s in services)}")
            raise file.error(file.lines[name], f"`{name}` holds rules and so must be a service{hint}")
        sections.setdefault(by_name[name], {}).update(rules)
    found, used = {}, set()
    for service in services:
        rules = _overrides(file, service, sections.get(service.type, {}))
        used |= set(rules)
        try:
            found[service.type] = Policy(service.rules, {name: rule.text for name, rule in rules.items()})
        except PolicyError as error:
            if error.rule not in rules:
                raise  # a default is wrong, which no file can make it
            raise file.error(rules[error.rule].line, f"rule `{error.rule}`: {error.reason}") from None
    for name, rule in file.shared.items():
        if name not in used:
            hint = near(name, [n for service in services for n in service.rules])
            raise file.error(rule.line, f"no service has a rule `{name}`, and no rule here refers to it{hint}")
    return found


def _overrides(file: PolicyFile, service: Service, section: Mapping[str, Written]) -> dict[str, Written]:
    """What the file overrides of a service, and the rules of the file's own that those refer to."""
    known = {**file.shared, **section}
    rules = {name: rule for name, rule in known.items() if name in service.rules}
    waiting = list(rules)
    while waiting:
        for name in referred(parse(rules[waiting.pop()].text)):
            if name in known and name not in rules:
                rules[name] = known[name]
                waiting.append(name)
    for name, rule in section.items():
        if name not in rules:
            hint = near(name, list(service.rules))
            raise file.error(rule.line, f"{service.type} has no rule `{name}`, and no rule here refers to it{hint}")
    return rules


def read(path: Path) -> PolicyFile:
    """The rules of a file, each of which can be read. Raises PolicyFileError."""
    root = _compose(path, _text(path))
    file = PolicyFile(path, {}, {}, {})
    if root is None or (root.id == "scalar" and root.value in ("", "null", "~")):
        return file
    if root.id != "mapping":
        raise file.error(_line(root), 'names and rules are expected, as in `"identity:list_users": "role:admin"`')
    shared: dict[str, Written] = {}
    sections: dict[str, dict[str, Written]] = {}
    lines: dict[str, int] = {}
    for name, value, line in _pairs(file, root):
        if value.id == "mapping":
            sections[name] = {n: _written(file, n, v, at) for n, v, at in _pairs(file, value)}
            lines[name] = line
        else:
            shared[name] = _written(file, name, value, line)
    return PolicyFile(path, shared, sections, lines)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise PolicyFileError(f"the policy file {path} cannot be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise PolicyFileError(f"the policy file {path} is larger than the {LARGEST} bytes that are taken")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyFileError(f"the policy file {path} is wrong in line {line}: it is not encoded in UTF-8") from None
    # In JSON a tab can only stand between words, and there YAML, which is what reads both, takes spaces alone.
    return text.replace("\t", " ") if text.lstrip().startswith("{") else text


def _compose(path: Path, text: str) -> "Node | None":
    """The file as a tree with its lines; nothing of it is ever made into an object."""
    import yaml  # only who has a file waits for it

    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        hint = ""
        if mark is not None and mark.buffer is not None and mark.buffer[mark.pointer : mark.pointer + 1] in "@!%`":
            hint = "; a rule that begins with such a character must be in quotes"
        words = " ".join(filter(None, (error.context, error.problem)))
        raise PolicyFileError(f"the policy file {path} is wrong in line {line}: no valid YAML, {words}{hint}") from None
    except yaml.YAMLError as error:
        words = " ".join(str(error).split())
        raise PolicyFileError(f"the policy file {path} is no valid YAML: {words}") from None
    except RecursionError:
        raise PolicyFileError(f"the policy file {path} is nested too deeply") from None


def _line(node: "Node") -> int:
    return int(node.start_mark.line) + 1


def _pairs(file: PolicyFile, node: "MappingNode") -> Iterator[tuple[str, Any, int]]:
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = _line(key)
        if key.id != "scalar":
            raise file.error(line, "the name of a rule is expected")
        if key.value in seen:
            raise file.error(line, f"`{key.value}` is there already, in line {seen[key.value]}")
        seen[key.value] = line
        yield key.value, value, line


def _written(file: PolicyFile, name: str, node: "Node", line: int) -> Written:
    """One rule, which can be read."""
    kind = node.tag.rpartition(":")[2]
    try:
        if node.id == "sequence":
            text = from_lists([_plain(item) for item in node.value])
        elif node.id == "scalar" and kind == "str":
            text = node.value
        elif node.id == "scalar" and kind == "null":
            raise PolicyError('it has no value; write "@" to let everybody in, "!" to let nobody in')
        elif node.id == "scalar" and node.tag.startswith("!"):
            raise PolicyError(
                f'a rule is a text, so write it in quotes: "{node.tag}{" " if node.value else ""}{node.value}"'
            )
        else:
            raise PolicyError(
                f"a rule is a text in quotes, or a list of checks, and not {getattr(node, 'value', '')!r}"
            )
        parse(text)
    except PolicyError as error:
        raise file.error(line, f"rule `{name}`: {error.reason}") from None
    return Written(text, line)


def _plain(node: "Node") -> Any:
    """A check, or a list of checks, of a rule that is a list."""
    if node.id == "sequence":
        return [item.value if item.id == "scalar" else None for item in node.value]
    return node.value if node.id == "scalar" else None
