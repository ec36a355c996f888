"""Mapping rules: from what an identity provider asserts of somebody to who he is here. Pure functions.

Reference: keystone's documentation, "Mapping Combinations" (schema versions 1.0, 2.0 and 3.0). Where it reads lists out of
text, these functions keep them as lists: what a provider asserts is never taken apart but at the semicolons.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from cumulet.core.errors import CloudError, Invalid

VERSIONS = ("1.0", "2.0", "3.0")
PLACE = re.compile(r"\{\{|\}\}|\{(\d{0,4})\}")
WHOLE = re.compile(r"\{(\d{1,4})\}")
JSON = "JSON:"
"""How a provider's value begins that names a group together with its domain."""

Assertion = Mapping[str, Sequence[str]]
"""What a provider says of somebody: attributes and their values."""


class MappingFailed(CloudError):
    """The rules make nobody of this assertion."""


# ---- what rules look like -----------------------------------------------------------------------------------------------


class DomainRule(Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


class UserRule(Struct, forbid_unknown_fields=True):
    id: str = ""
    name: str = ""
    email: str = ""
    domain: DomainRule | None = None
    type: Literal["ephemeral", "local"] = "ephemeral"


class GroupRule(Struct, forbid_unknown_fields=True):
    """Either `id`, or `name` and `domain`."""

    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    domain: DomainRule | UnsetType = UNSET


class RoleRule(Struct, forbid_unknown_fields=True):
    name: str


class ProjectRule(Struct, forbid_unknown_fields=True):
    name: str
    roles: list[RoleRule]
    domain: DomainRule | UnsetType = UNSET  # from 2.0


class LocalRule(Struct, forbid_unknown_fields=True):
    user: UserRule | UnsetType = UNSET
    group: GroupRule | UnsetType = UNSET
    groups: str | UnsetType = UNSET
    group_ids: str | UnsetType = UNSET
    projects: list[ProjectRule] | UnsetType = UNSET
    projects_json: str | UnsetType = UNSET  # from 3.0
    domain: DomainRule | UnsetType = UNSET


class RemoteRule(Struct, forbid_unknown_fields=True):
    """One condition on the assertion; at most one of the four lists."""

    type: str
    any_one_of: list[str] | UnsetType = UNSET
    not_any_of: list[str] | UnsetType = UNSET
    whitelist: list[str] | UnsetType = UNSET
    blacklist: list[str] | UnsetType = UNSET
    regex: bool | UnsetType = UNSET

    @property
    def listed(self) -> list[tuple[str, list[str]]]:
        """The lists that it has, by their names."""
        lists = ((n, getattr(self, n)) for n in ("any_one_of", "not_any_of", "whitelist", "blacklist"))
        return [(name, values) for name, values in lists if values is not UNSET]


class Rule(Struct, forbid_unknown_fields=True):
    local: list[LocalRule]
    remote: Annotated[list[RemoteRule], Meta(min_length=1)]


Rules = Annotated[list[Rule], Meta(min_length=1)]


def parsed(rules: Any, version: str) -> list[Rule]:
    """Rules that can be applied; Invalid says what is wrong with them and where."""
    if version not in VERSIONS:
        raise Invalid(f"Invalid schema_version {str(version)[:20]!r}: it can be {', '.join(VERSIONS)}.")
    try:
        found: list[Rule] = msgspec.convert(rules, Rules)
    except msgspec.ValidationError as error:
        raise Invalid(f"Invalid mapping: {str(error).replace('`$', '`rules')}.") from None
    for number, rule in enumerate(found):
        for remote in rule.remote:
            _check_remote(remote, f"rules[{number}].remote")
        for local in rule.local:
            _check_local(local, version, f"rules[{number}].local")
    return found


def _check_remote(remote: RemoteRule, place: str) -> None:
    lists = remote.listed
    if len(lists) > 1:
        raise Invalid(
            f"Invalid mapping: {place} has {' and '.join(n for n, _ in lists)} at once; one of them is taken."
        )
    if not lists and remote.regex is not UNSET:
        raise Invalid(f"Invalid mapping: {place} has regex without a list that it could be about.")
    if lists and remote.regex is True:
        for pattern in lists[0][1]:
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise Invalid(
                    f"Invalid mapping: {pattern[:100]!r} in {place} is no regular expression: {error}."
                ) from None


def _check_local(local: LocalRule, version: str, place: str) -> None:
    group = local.group
    if not isinstance(group, UnsetType):
        by_id, by_name = group.id is not UNSET, group.name is not UNSET
        if by_id == by_name or by_name != (group.domain is not UNSET):
            raise Invalid(f"Invalid mapping: a group in {place} has either an id, or a name and a domain.")
    projects = [] if isinstance(local.projects, UnsetType) else local.projects
    if version == "1.0" and any(project.domain is not UNSET for project in projects):
        raise Invalid(f"Invalid mapping: projects in {place} can have a domain from schema_version 2.0 on.")
    if version != "3.0" and local.projects_json is not UNSET:
        raise Invalid(f"Invalid mapping: projects_json in {place} is taken from schema_version 3.0 on.")


# ---- what they make of an assertion -------------------------------------------------------------------------------------


class DomainRef(Struct, frozen=True):
    """A domain by id or by name."""

    id: str = ""
    name: str = ""


class MappedUser(Struct, frozen=True):
    """Who it is; `domain` None is that of the identity provider. A `local` one must be there already."""

    id: str = ""
    name: str = ""
    email: str = ""
    domain: DomainRef | None = None
    local: bool = False


class MappedGroup(Struct, frozen=True):
    name: str
    domain: DomainRef


class MappedProject(Struct, frozen=True):
    name: str
    roles: tuple[str, ...]
    domain: DomainRef | None = None


class Mapped(Struct, frozen=True):
    """What the rules make of an assertion."""

    user: MappedUser
    group_ids: tuple[str, ...] = ()
    groups: tuple[MappedGroup, ...] = ()
    projects: tuple[MappedProject, ...] = ()


Values = Sequence[Sequence[str]]
"""What stands for {0}, {1}, ...: the values of each remote attribute that a rule carries over."""


def apply(rules: Sequence[Rule], version: str, assertion: Assertion) -> Mapped:
    """Who the assertion is about; MappingFailed where no rule applies, or one refers to what is not there."""
    locals_ = [
        (local, values)
        for rule in rules
        if (values := matched(rule.remote, assertion)) is not None
        for local in rule.local
    ]
    if not locals_:
        raise MappingFailed("Could not map any federated user properties to identity values: no rule applies.")
    user = next((_user(local.user, values) for local, values in locals_ if not isinstance(local.user, UnsetType)), None)
    group_ids: list[str] = []
    groups: list[MappedGroup] = []
    projects: list[MappedProject] = []
    for local, values in locals_:
        group_ids += _group_ids(local, values)
        groups += _groups(local, values)
        if local.projects is not UNSET or local.projects_json is not UNSET:
            projects = _projects(local, values)
    user = user or MappedUser()
    last, last_values = locals_[-1]
    if version != "1.0":  # the domain beside the last of them is that of all that names none
        default = _domain(last.domain, last_values)
        user = user if user.domain else msgspec.structs.replace(user, domain=default)
        projects = [p if p.domain else msgspec.structs.replace(p, domain=default) for p in projects]
    return Mapped(user, tuple(dict.fromkeys(group_ids)), tuple(dict.fromkeys(groups)), tuple(projects))


def matched(remote: Sequence[RemoteRule], assertion: Assertion) -> Values | None:
    """The values that a rule carries over; None where it does not apply to the assertion."""
    carried: list[Sequence[str]] = []
    for condition in remote:
        values = assertion.get(condition.type)
        if not values:
            return None
        for name, listed in condition.listed:
            hits = _hits(values, listed, condition.regex is True)
            if name == "any_one_of" and not hits:
                return None
            if name == "not_any_of" and hits:
                return None
            values = [v for v in values if (v in hits) == (name == "whitelist")]
        if condition.any_one_of is UNSET and condition.not_any_of is UNSET:
            carried.append(values)
    return carried


def _hits(values: Sequence[str], listed: Sequence[str], regex: bool) -> set[str]:
    if regex:
        return {value for value in values if any(re.search(pattern, value) for pattern in listed)}
    return set(values) & set(listed)


def _value(place: int, values: Values) -> Sequence[str]:
    if place >= len(values):
        raise MappingFailed(
            f"The mapping refers to {{{place}}}, but its remote part carries over {len(values)} attributes."
        )
    return values[place]


def text(template: str, values: Values) -> str:
    """The template with {0}, {1}, ... filled in; several values stand there as a list, none as nothing."""
    next_place = iter(range(len(values) + 1))

    def fill(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        found = _value(int(match[1]) if match[1] else next(next_place, len(values)), values)
        return str(list(found)) if len(found) > 1 else "".join(found)

    return PLACE.sub(fill, template)


def many(template: str, values: Values) -> list[str]:
    """The same where several values are welcome: those of a place that stands alone, a written list, or one text."""
    if whole := WHOLE.fullmatch(template):
        return [value for value in _value(int(whole[1]), values) if value]
    if template.startswith("["):
        try:
            written = ast.literal_eval(template)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            written = None
        if isinstance(written, list) and all(isinstance(item, str) for item in written):
            return written
    return [filled] if (filled := text(template, values)) else []


def _domain(rule: DomainRule | UnsetType | None, values: Values) -> DomainRef | None:
    if rule is None or isinstance(rule, UnsetType):
        return None
    id_, name = (text(part, values) if isinstance(part, str) else "" for part in (rule.id, rule.name))
    return DomainRef(id_, "" if id_ else name) if id_ or name else None


def _user(rule: UserRule, values: Values) -> MappedUser:
    return MappedUser(
        id=text(rule.id, values),
        name=text(rule.name, values),
        email=text(rule.email, values),
        domain=_domain(rule.domain, values),
        local=rule.type == "local",
    )


def _group_ids(local: LocalRule, values: Values) -> list[str]:
    found = many(local.group_ids, values) if isinstance(local.group_ids, str) else []
    if isinstance(local.group, GroupRule) and isinstance(local.group.id, str):
        found.append(text(local.group.id, values))
    return found


def _groups(local: LocalRule, values: Values) -> list[MappedGroup]:
    found: list[MappedGroup] = []
    group = local.group
    if isinstance(group, GroupRule) and isinstance(group.name, str) and (domain := _domain(group.domain, values)):
        found.append(MappedGroup(text(group.name, values), domain))
    if isinstance(local.groups, str):
        domain = _domain(local.domain, values)
        for name in many(local.groups, values):
            if name.startswith(JSON):
                found.append(_group_from_json(name.removeprefix(JSON)))
            elif domain is None:
                raise MappingFailed("The mapping names groups without a domain: `groups` and `domain` go together.")
            else:
                found.append(MappedGroup(name, domain))
    return found


class _NamedDomain(Struct):
    id: str = ""
    name: str = ""


class _NamedGroup(Struct):
    name: str
    domain: _NamedDomain


def _group_from_json(data: str) -> MappedGroup:
    try:
        group = msgspec.json.decode(data, type=_NamedGroup)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise MappingFailed("A group in the assertion is no JSON object with a name and a domain.") from None
    if not (group.domain.id or group.domain.name):
        raise MappingFailed("A group in the assertion names a domain without id and name.")
    return MappedGroup(group.name, DomainRef(group.domain.id, "" if group.domain.id else group.domain.name))


def _projects(local: LocalRule, values: Values) -> list[MappedProject]:
    found = [
        MappedProject(text(p.name, values), tuple(text(r.name, values) for r in p.roles), _domain(p.domain, values))
        for p in (local.projects if not isinstance(local.projects, UnsetType) else [])
    ]
    if isinstance(local.projects_json, str):
        try:
            told = msgspec.json.decode(text(local.projects_json, values), type=list[ProjectRule])
        except (msgspec.DecodeError, UnicodeEncodeError):
            raise MappingFailed("What the assertion says of projects is no JSON list of projects with roles.") from None
        found += [MappedProject(p.name, tuple(r.name for r in p.roles), _told_domain(p.domain)) for p in told]
    return found


def _told_domain(domain: DomainRule | UnsetType) -> DomainRef | None:
    """A domain that the assertion names: there is nothing to fill in."""
    if isinstance(domain, UnsetType):
        return None
    return DomainRef(domain.id or "", domain.name or "") if domain.id or domain.name else None
