"""The mapping rules: each kind of condition, each kind of result, and that no assertion breaks them."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.core.errors import Invalid
from cumulet.services.identity.federation.rules import (
    DomainRef,
    Mapped,
    MappedGroup,
    MappedProject,
    MappingFailed,
    apply,
    many,
    parsed,
    text,
)

TESTER = {
    "UserName": ["tester"],
    "Email": ["tester@example.com"],
    "First": ["Ada"],
    "Last": ["Lovelace"],
    "kind": ["Employee", "Contractor"],
    "groups": ["blue", "green", "red"],
}


def mapped(rules: Any, assertion: Any = None, version: str = "1.0") -> Mapped:
    return apply(parsed(rules, version), version, TESTER if assertion is None else assertion)


def rule(local: Any, *remote: Any) -> dict[str, Any]:
    return {"local": local if isinstance(local, list) else [local], "remote": list(remote)}


NAME = rule({"user": {"name": "{0}"}}, {"type": "UserName"})


def test_values_of_the_assertion_are_filled_in_by_place() -> None:
    found = mapped(
        [rule({"user": {"name": "{0} {1}", "email": "{2}"}}, *({"type": n} for n in ("First", "Last", "Email")))]
    )
    assert (found.user.name, found.user.email, found.user.local) == ("Ada Lovelace", "tester@example.com", False)


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({"any_one_of": ["Employee", "Boss"]}, True),
        ({"any_one_of": ["Boss"]}, False),
        ({"any_one_of": ["employee"]}, False),
        ({"any_one_of": ["^Empl"], "regex": True}, True),
        ({"any_one_of": ["^mpl"], "regex": True}, False),
        ({"any_one_of": ["^Empl"], "regex": False}, False),
        ({"not_any_of": ["Boss"]}, True),
        ({"not_any_of": ["Contractor"]}, False),
        ({"not_any_of": ["tor$"], "regex": True}, False),
        ({"not_any_of": ["^tor$"], "regex": True}, True),
        ({"any_one_of": []}, False),
        ({"not_any_of": []}, True),
    ],
)
def test_conditions(condition: dict[str, Any], applies: bool) -> None:
    rules = [rule({"user": {"name": "{0}"}}, {"type": "UserName"}, {"type": "kind", **condition})]
    if applies:
        assert mapped(rules).user.name == "tester"
    else:
        with pytest.raises(MappingFailed):
            mapped(rules)


def test_a_condition_carries_nothing_over_and_does_not_count_as_a_place() -> None:
    rules = [rule({"user": {"name": "{0}"}}, {"type": "kind", "any_one_of": ["Employee"]}, {"type": "UserName"})]
    assert mapped(rules).user.name == "tester"
    rules = [rule({"user": {"name": "{1}"}}, {"type": "kind", "any_one_of": ["Employee"]}, {"type": "UserName"})]
    with pytest.raises(MappingFailed, match="1 attributes"):
        mapped(rules)


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ({}, ["blue", "green", "red"]),
        ({"whitelist": ["red", "blue", "black"]}, ["blue", "red"]),
        ({"whitelist": []}, []),
        ({"whitelist": ["^.{3,4}$"], "regex": True}, ["blue", "red"]),
        ({"blacklist": ["red"]}, ["blue", "green"]),
        ({"blacklist": []}, ["blue", "green", "red"]),
        ({"blacklist": ["e"], "regex": True}, []),
    ],
)
def test_lists_cut_down_what_is_carried_over(condition: dict[str, Any], left: list[str]) -> None:
    local = [{"user": {"name": "{0}"}}, {"groups": "{1}", "domain": {"id": "d"}}, {"group_ids": "{1}"}]
    found = mapped([rule(local, {"type": "UserName"}, {"type": "groups", **condition})])
    assert found.groups == tuple(MappedGroup(name, DomainRef(id="d")) for name in left)
    assert list(found.group_ids) == left


def test_an_attribute_that_is_missing_or_has_no_value_makes_the_rule_not_apply() -> None:
    assertions: list[Any] = [{}, {"UserName": []}, {"username": ["x"]}]
    for assertion in assertions:
        with pytest.raises(MappingFailed, match="no rule applies"):
            mapped([NAME], assertion)


def test_the_first_user_and_the_groups_of_all_rules_count() -> None:
    found = mapped([
        rule([{"user": {"name": "{0}"}}, {"group": {"id": "a"}}], {"type": "UserName"}),
        rule([{"user": {"name": "other"}}, {"group": {"id": "b"}}, {"group": {"id": "a"}}], {"type": "Email"}),
        rule({"group": {"name": "n", "domain": {"name": "Default"}}}, {"type": "Email"}),
        rule({"group": {"id": "never"}}, {"type": "nothing"}),
    ])  # fmt: skip
    assert found.user.name == "tester"
    assert found.group_ids == ("a", "b")
    assert found.groups == (MappedGroup("n", DomainRef(name="Default")),)


def test_groups_can_name_their_own_domains_in_json() -> None:
    told = [json.dumps({"name": f"g{n}", "domain": {"name": f"d{n}"}}) for n in (1, 2)]
    found = mapped([NAME, rule({"groups": "{0}"}, {"type": "g"})], {**TESTER, "g": [f"JSON:{t}" for t in told]})
    assert found.groups == tuple(MappedGroup(f"g{n}", DomainRef(name=f"d{n}")) for n in (1, 2))
    for bad in ("JSON:", "JSON:{}", 'JSON:{"name":"x"}', 'JSON:{"name":"x","domain":{}}', "JSON:[", "JSON:\ud800"):
        with pytest.raises(MappingFailed):
            mapped([NAME, rule({"groups": "{0}"}, {"type": "g"})], {**TESTER, "g": [bad]})


def test_plain_groups_need_a_domain() -> None:
    with pytest.raises(MappingFailed, match="domain"):
        mapped([NAME, rule({"groups": "{0}"}, {"type": "groups"})])


def test_an_assertion_is_never_taken_for_a_list_or_a_place() -> None:
    """What somebody can have his provider say of him puts him into no group but the one that is called so."""
    for value in ("['admins', 'x']", "{1}", "{0.__class__}", "[]"):
        found = mapped([NAME, rule({"group_ids": "{0}"}, {"type": "g"}, {"type": "Email"})], {**TESTER, "g": [value]})
        assert found.group_ids == (value,)
        assert mapped([rule({"user": {"name": "x-{0}"}}, {"type": "g"})], {"g": [value]}).user.name == f"x-{value}"


def test_a_list_that_the_rules_themselves_write_is_one() -> None:
    assert many("['a', 'b']", []) == ["a", "b"]
    for written in ("[1]", "['a'", "[", "[" * 5000, "['a', ['b']]"):
        assert many(written.replace("{", ""), []) == [written]


def test_text_has_places_numbers_and_doubled_braces() -> None:
    values = [["a"], ["b", "c"], []]
    assert text("{0}-{{0}}-{}{}", values) == "a-{0}-a['b', 'c']"
    assert text("<{2}>", values) == "<>"
    assert text("{name} {0!r} {0.x} {", values) == "{name} {0!r} {0.x} {"
    for beyond in ("{3}", "{}{}{}{}"):
        with pytest.raises(MappingFailed):
            text(beyond, values)


def test_users_have_types_and_domains() -> None:
    local = mapped([rule({"user": {"name": "{0}", "domain": {"id": "d"}, "type": "local"}}, {"type": "UserName"})])
    assert local.user.local and local.user.domain == DomainRef(id="d")
    named = mapped([rule({"user": {"id": "{0}", "domain": {"name": "{1}"}}}, {"type": "UserName"}, {"type": "Last"})])
    assert named.user.domain == DomainRef(name="Lovelace") and named.user.id == "tester" and not named.user.local


PROJECTS = {
    "projects": [
        {"name": "Project of {0}", "roles": [{"name": "member"}, {"name": "reader"}]},
        {"name": "x", "roles": []},
    ]
}


def test_projects_come_with_roles() -> None:
    found = mapped([rule({"user": {"name": "{0}"}, **PROJECTS}, {"type": "UserName"})])
    assert found.projects == (MappedProject("Project of tester", ("member", "reader")), MappedProject("x", ()))


def test_the_domain_beside_is_the_default_from_version_2_on() -> None:
    both = {"name": "x", "roles": [], "domain": {"name": "own"}}
    local = {"user": {"name": "{0}"}, "domain": {"id": "d"}, "projects": [{"name": "y", "roles": []}, both]}
    found = mapped([rule(local, {"type": "UserName"})], version="2.0")
    assert found.user.domain == DomainRef(id="d")
    assert [p.domain for p in found.projects] == [DomainRef(id="d"), DomainRef(name="own")]
    local["projects"].pop()  # type: ignore[attr-defined]
    old = mapped([rule(local, {"type": "UserName"})])
    assert old.user.domain is None and old.projects[0].domain is None


def test_projects_in_json_from_version_3_on() -> None:
    told = json.dumps(
        [{"name": "{7}", "roles": [{"name": "member"}], "domain": {"id": "d"}}, {"name": "q", "roles": []}]
    )
    rules = [rule({"user": {"name": "{0}"}, "projects_json": "{1}"}, {"type": "UserName"}, {"type": "p"})]
    found = mapped(rules, {**TESTER, "p": [told]}, "3.0")
    assert found.projects == (MappedProject("{7}", ("member",), DomainRef(id="d")), MappedProject("q", ()))
    for bad in ("", "{}", "[{}]", '[{"name": "x"}]', '[{"name":"x","roles":["member"]}]', "null"):
        with pytest.raises(MappingFailed):
            mapped(rules, {**TESTER, "p": [bad]}, "3.0")


REMOTE = [{"type": "UserName"}]
BAD: list[Any] = [
    None, {}, [], "rules", [None], [{}], [{"local": []}], [{"remote": REMOTE}],
    [{"local": {}, "remote": REMOTE}], [{"local": [], "remote": []}], [{"local": [], "remote": [{}]}],
    [{"local": [], "remote": REMOTE, "more": 1}], [{"local": [], "remote": [{"type": 3}]}],
    [{"local": [], "remote": [{"type": "x", "any_one_of": "y"}]}],
    [{"local": [], "remote": [{"type": "x", "any_one_of": [1]}]}],
    [{"local": [], "remote": [{"type": "x", "any_one_of": ["("], "regex": True}]}],
    [{"local": [], "remote": [{"type": "x", "any_one_of": ["y"], "regex": "yes"}]}],
    [{"local": [], "remote": [{"type": "x", "regex": True}]}],
    [{"local": [], "remote": [{"type": "x", "whitelist": [], "blacklist": []}]}],
    [{"local": [], "remote": [{"type": "x", "any_one_of": [], "not_any_of": []}]}],
    [{"local": [], "remote": [{"type": "x", "unknown": []}]}],
    [{"local": [{"user": "{0}"}], "remote": REMOTE}], [{"local": [{"user": {"age": 3}}], "remote": REMOTE}],
    [{"local": [{"user": {"type": "other"}}], "remote": REMOTE}], [{"local": [{"unknown": 1}], "remote": REMOTE}],
    [{"local": [{"user": {"domain": {"x": "y"}}}], "remote": REMOTE}],
    [{"local": [{"group": {}}], "remote": REMOTE}], [{"local": [{"group": {"name": "x"}}], "remote": REMOTE}],
    [{"local": [{"group": {"id": "x", "name": "y", "domain": {}}}], "remote": REMOTE}],
    [{"local": [{"group": {"id": "x", "domain": {}}}], "remote": REMOTE}],
    [{"local": [{"group": {"domain": {}}}], "remote": REMOTE}], [{"local": [{"groups": ["x"]}], "remote": REMOTE}],
    [{"local": [{"group_ids": ["x"]}], "remote": REMOTE}], [{"local": [{"domain": "x"}], "remote": REMOTE}],
    [{"local": [{"projects": [{"name": "x"}]}], "remote": REMOTE}],
    [{"local": [{"projects": [{"name": "x", "roles": ["member"]}]}], "remote": REMOTE}],
    [{"local": [{"projects": "x"}], "remote": REMOTE}],
]  # fmt: skip


@pytest.mark.parametrize("rules", BAD, ids=str)
@pytest.mark.parametrize("version", ["1.0", "2.0", "3.0"])
def test_rules_that_make_no_sense_are_refused(rules: Any, version: str) -> None:
    with pytest.raises(Invalid):
        parsed(rules, version)


def test_versions() -> None:
    local: Any = {"projects": [{"name": "x", "roles": [], "domain": {"id": "d"}}]}
    with pytest.raises(Invalid, match=r"2\.0"):
        parsed([rule(local, *REMOTE)], "1.0")
    assert parsed([rule(local, *REMOTE)], "2.0")
    for version in ("1.0", "2.0"):
        with pytest.raises(Invalid, match=r"3\.0"):
            parsed([rule({"projects_json": "{0}"}, *REMOTE)], version)
    for version in ("", "1", "4.0", "x" * 100):
        with pytest.raises(Invalid, match="schema_version"):
            parsed([NAME], version)


# ---- whatever a provider says, and whatever rules an admin gives ----------------------------------------------------------

ATTRIBUTE = st.sampled_from(["a", "b", "c", "groups"])
VALUE = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["['x']", "JSON:{}", 'JSON:{"name":"n","domain":{"id":"d"}}', "{0}", '[{"name":"p","roles":[]}]']),
)
TEMPLATE = st.one_of(
    st.text(max_size=8), st.sampled_from(["{0}", "{1}", "{0} {1}", "{}", "['x', 'y']", "{{{0}}}", "{99999}"])
)
DOMAIN = st.fixed_dictionaries({}, optional={"id": TEMPLATE, "name": TEMPLATE})
PROJECT = st.fixed_dictionaries(
    {"name": TEMPLATE, "roles": st.lists(st.fixed_dictionaries({"name": TEMPLATE}), max_size=2)},
    optional={"domain": DOMAIN},
)
USER = st.fixed_dictionaries(
    {},
    optional={
        "id": TEMPLATE, "name": TEMPLATE, "email": TEMPLATE, "domain": DOMAIN, "type": st.sampled_from(["local", "ephemeral"]),
    },
)  # fmt: skip
GROUP = st.one_of(st.fixed_dictionaries({"id": TEMPLATE}), st.fixed_dictionaries({"name": TEMPLATE, "domain": DOMAIN}))
LOCAL = st.fixed_dictionaries(
    {},
    optional={
        "user": USER, "group": GROUP, "groups": TEMPLATE, "group_ids": TEMPLATE, "domain": DOMAIN,
        "projects": st.lists(PROJECT, max_size=2), "projects_json": TEMPLATE,
    },
)  # fmt: skip
PATTERN = st.one_of(VALUE, st.sampled_from(["^a", ".*", "[a-z]+$", "("]))


@st.composite
def remotes(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"type": draw(ATTRIBUTE)}
    kind = draw(st.sampled_from(["", "any_one_of", "not_any_of", "whitelist", "blacklist"]))
    if kind:
        found[kind] = draw(st.lists(PATTERN, max_size=3))
        if draw(st.booleans()):
            found["regex"] = draw(st.booleans())
    return found


RULES = st.lists(
    st.fixed_dictionaries(
        {"local": st.lists(LOCAL, max_size=3), "remote": st.lists(remotes(), min_size=1, max_size=3)}
    ),
    min_size=1,
    max_size=3,
)
ASSERTION = st.dictionaries(ATTRIBUTE, st.lists(VALUE, max_size=3))


@settings(max_examples=400, deadline=None)
@given(RULES, ASSERTION, st.sampled_from(["1.0", "2.0", "3.0"]))
def test_no_assertion_breaks_rules_that_were_taken(rules: Any, assertion: Any, version: str) -> None:
    try:
        taken = parsed(rules, version)
    except Invalid:
        return
    try:
        found = apply(taken, version, assertion)
    except MappingFailed:
        return
    assert len(set(found.group_ids)) == len(found.group_ids) and all(isinstance(i, str) for i in found.group_ids)
    assert all(g.domain.id or g.domain.name for g in found.groups)


WORD = st.sampled_from(["local", "remote", "type", "user", "regex", "any_one_of"])
SCALAR = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3)))
def test_whatever_is_given_for_rules_is_taken_or_refused(rules: Any) -> None:
    with contextlib.suppress(Invalid):
        assert parsed(rules, "1.0")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(max_size=10), min_size=1, max_size=4), st.lists(st.text(max_size=10), max_size=4), st.booleans()
)
def test_what_a_whitelist_leaves_is_what_a_blacklist_takes(
    values: list[str], listed: list[str], as_pattern: bool
) -> None:
    import re

    patterns = [re.escape(v) for v in listed] if as_pattern else listed
    both = [
        mapped(
            [rule({"group_ids": "{0}"}, {"type": "a", kind: patterns, "regex": as_pattern})], {"a": values}
        ).group_ids
        for kind in ("whitelist", "blacklist")
    ]
    assert set(both[0]) | set(both[1]) == {v for v in values if v}
    assert not set(both[0]) & set(both[1])
