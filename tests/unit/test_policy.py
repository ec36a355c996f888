"""The language of rules, and the operator's file: what each form means, and what is said of one that is wrong."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cumulet.api.dialect import IDENTITY
from cumulet.api.policy import Policy, PolicyError
from cumulet.api.policy_file import PolicyFile, PolicyFileError, policies, read
from cumulet.api.policy_language import CREDENTIALS, Either, Every, Fixed, Node, Not, Refers, parse
from cumulet.api.service import Service
from cumulet.cli import cumulet
from cumulet.core.context import Caller, ServiceUser
from tests.harness import caller
from tests.unit.test_start import ENVIRONMENT, started, until_ready, words

MEMBER = caller("ann", "p1", "member")
ADMIN = caller("root", "p0", "admin")
SYSTEM = Caller(user_id="sys", system=True, roles=frozenset({"reader"}))
BY_SERVICE = replace(MEMBER, service=ServiceUser(user_id="nova", project_id="services", roles=frozenset({"service"})))
TRUSTEE = replace(MEMBER, delegation="trust", delegation_id="t1", trustor_id="bob", trustee_id="user-ann")


@pytest.mark.parametrize(
    ("rule", "who", "target", "expected"),
    [
        ("@", MEMBER, {}, True),
        ("", MEMBER, {}, True),
        ("!", ADMIN, {}, False),
        ("not !", MEMBER, {}, True),
        ("role:Member", MEMBER, {}, True),
        ("role:%(wanted)s", MEMBER, {"wanted": "Reader"}, True),
        ("role:%(wanted)s", MEMBER, {}, False),
        ("role:admin OR role:member AND role:reader", MEMBER, {}, True),
        ("(role:admin or role:member) and role:manager", MEMBER, {}, False),
        ("not role:admin and (not (role:x or role:y))", MEMBER, {}, True),
        ("project_id:%(project_id)s", MEMBER, {"project_id": "p1"}, True),
        ("tenant:%(tenant_id)s", MEMBER, {"tenant_id": "p1"}, True),
        ("project_id:%(project_id)s", MEMBER, SimpleNamespace(project_id="p1"), True),
        ("project_id:%(project_id)s", SYSTEM, {"project_id": None}, False),
        ("project_id:%(project_id)s", SYSTEM, {}, False),
        ("user_name:%(user_name)s", replace(MEMBER, user_name="MISSING"), {}, False),
        ("user_name:%(user_name)s", replace(MEMBER, user_name="None"), {"user_name": None}, False),
        ("role:%(wanted)s or roles:%(wanted)s", replace(MEMBER, roles=frozenset({"missing"})), {}, False),
        ("roles:%(wanted)s and roles:member", MEMBER, {"wanted": "Reader"}, True),
        ("field:port:owner=MISSING", MEMBER, {}, False),
        ("domain_id:None", MEMBER, {}, True),
        ("None:%(project_id)s", MEMBER, {"project_id": None}, True),
        ("None:%(project_id)s", MEMBER, {}, False),
        ("user_id:user-ann", MEMBER, {}, True),
        ("'public':%(visibility)s", MEMBER, {"visibility": "public"}, True),
        ('"public":%(visibility)s', MEMBER, {"visibility": "private"}, False),
        ("True:%(shared)s", MEMBER, {"shared": True}, True),
        ("3:%(size)s", MEMBER, {"size": 3}, True),
        ("'a-p1':a-%(project_id)s", MEMBER, {"project_id": "p1"}, True),
        ("'100%':100%%", MEMBER, {}, True),
        ("user_id:%(target.user.id)s", MEMBER, {"target.user.id": "user-ann"}, True),
        ("user_id:%(target.user.id)s", MEMBER, {"target": {"user": SimpleNamespace(id="user-ann")}}, True),
        ("token.user.domain.id:%(target.token.user.domain.id)s", MEMBER, {"target.token.user.domain.id": "default"}, True),
        ("token.project.domain.id:default", MEMBER, {}, True),
        ("system_scope:all", SYSTEM, {}, True),
        ("system_scope:all", MEMBER, {}, False),
        ("is_admin:1", ADMIN, {}, True),
        ("is_admin:False", MEMBER, {}, True),
        ("is_admin_project:True", MEMBER, {}, True),
        ("service_role:service", BY_SERVICE, {}, True),
        ("service_roles:service and service_project_id:services", BY_SERVICE, {}, True),
        ("service_roles:service", replace(MEMBER, roles=frozenset({"service"})), {}, False),
        ("service_user_id:None", MEMBER, {}, True),
        ("trust.trustor_user_id:%(user_id)s", TRUSTEE, {"user_id": "bob"}, True),
        ("is_delegated_auth:True and trust_id:t1", TRUSTEE, {}, True),
        ("field:port:device_owner=~^network:", MEMBER, {"device_owner": "network:dhcp"}, True),
        ("field:port:device_owner=~^network:", MEMBER, {"device_owner": None}, False),
        ("field:networks:shared=True", MEMBER, {"shared": True}, True),
    ],
)  # fmt: skip
def test_what_a_rule_means(rule: str, who: Caller, target: Any, expected: bool) -> None:
    assert Policy({"r": rule}).allows("r", who, target) is expected


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("role:admin and", "ends too early"),
        ("role:admin role:member", "unexpected 'role:member' at character 12 of 'role:admin role:member'; is an `and`"),
        ("(role:admin", "the '(' at character 1 of '(role:admin' is not closed"),
        ("role:admin)", "unexpected ')' at character 11"),
        ("or role:admin", "unexpected 'or' at character 1"),
        ("admin", "'admin' is no check"),
        ("role:", "'role:' is no check"),
        ("porject_id:%(project_id)s", "a token has no `porject_id`; did you mean `project_id`? (at character 1"),
        ("http://policy.test/check", "`http:` checks are not supported"),
        ("user_id:%(user_id)", "neither `%(name)s` nor `%%`"),
        ("field:port:x=~(", "a field check is|no check|no regular expression"),
        ("field:port", "a field check is `field:resource:attribute=value`"),
        ("'x:%(y)s", "the quote of 'x is not closed"),
        ("(" * 100 + "@" + ")" * 100, "more than 64 levels, at character 65"),
        ("not " * 100 + "@", "more than 64 levels"),
        ("rule:nowhere", "refers to `rule:nowhere`, which is not declared"),
        ("rule:r", "it refers to itself: r -> r"),
    ],
)
def test_what_is_said_of_a_wrong_rule(rule: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy({"r": rule})
    assert any(words in caught.value.message for words in said.split("|")), caught.value.message
    assert caught.value.rule == "r"


def test_long_chains_end() -> None:
    chain = {f"r{n}": f"rule:r{n + 1}" for n in range(500)} | {"r500": "@"}
    with pytest.raises(PolicyError, match="more than 64 rules"):
        Policy(chain)


ATOMS = [*(f"{name}:%({name})s" for name in CREDENTIALS), "@", "!", "rule:x", "role:a", "'a':%(b)s", "(", ")", "and",
         "or", "not", "a:b:c", "%", "%(", ")s", "field:a:b=c", "http://x", "'", '"', ":", "None:None"]  # fmt: skip


@settings(deadline=None)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(ATOMS), max_size=20).map(" ".join),
        st.lists(st.sampled_from(ATOMS)).map("".join),
    )
)
@example("(" * 5000)
@example("not " * 5000)
@example("field:a:b=~(?P<")
def test_no_text_gives_anything_but_a_check_or_a_policy_error(text: str) -> None:
    try:
        answer = Policy({"r": text, "x": "@"}).allows("r", MEMBER, {"project_id": "p"})
    except PolicyError:
        return
    assert answer in (True, False)


def nodes() -> st.SearchStrategy[str]:
    """Rules that are right, with parentheses around each part."""
    leaf = st.sampled_from(["@", "!", "role:member", "role:admin"])

    def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        two = st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        return two | inner.map(lambda t: f"(not {t})")

    return st.recursive(leaf, joined, max_leaves=12)


@settings(deadline=None)
@given(nodes())
def test_rules_mean_what_python_would_say(text: str) -> None:
    code = text
    for rule, value in {"role:member": "True", "role:admin": "False", "@": "True", "!": "False"}.items():
        code = code.replace(rule, value)
    assert Policy({"r": text}).allows("r", MEMBER, {}) is eval(code)


def test_precedence() -> None:
    tree: Node = parse("not rule:a and rule:b or rule:c")
    assert tree == Either((Every((Not(Refers("a")), Refers("b"))), Refers("c")))
    assert parse("  ") == Fixed(True)


# ---- the file -----------------------------------------------------------------------------------------------------------

NETWORK = Service(
    "network", "neutron", (), IDENTITY, (), rules={"admin_or_owner": "role:admin", "get_port": "rule:admin_or_owner"}
)
DNS = Service(
    "dns",
    "designate",
    (),
    IDENTITY,
    (),
    rules={"admin_or_owner": "@", "get_zone": "rule:admin_or_owner", "a": "rule:b", "b": "@"},
)


def compiled(tmp_path: Path, text: str, name: str = "policy.yaml") -> dict[str, Policy]:
    path = tmp_path / name
    path.write_text(text)
    return policies((NETWORK, DNS), read(path))


def test_two_services_have_a_rule_of_one_name(tmp_path: Path) -> None:
    plain = policies((NETWORK, DNS))
    assert not plain["network"].allows("get_port", MEMBER, {})
    assert plain["dns"].allows("get_zone", MEMBER, {})
    both = compiled(tmp_path, '"admin_or_owner": "role:nobody"')
    assert not both["dns"].allows("get_zone", MEMBER, {}) and not both["network"].allows("get_port", ADMIN, {})
    for section in ("network", "neutron"):
        one = compiled(tmp_path, f'"admin_or_owner": "role:nobody"\n{section}:\n  admin_or_owner: role:member\n')
        assert one["network"].allows("get_port", MEMBER, {}) and not one["dns"].allows("get_zone", ADMIN, {})


def test_rules_of_the_files_own_may_be_referred_to(tmp_path: Path) -> None:
    found = compiled(
        tmp_path, "get_port: rule:mine\nmine: rule:also_mine\nalso_mine: [[role:member, role:reader], role:x]\n"
    )
    assert found["network"].allows("get_port", MEMBER, {}) and not found["network"].allows("get_port", SYSTEM, {})
    assert "mine" not in found["dns"].texts


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "{}", "null", '{\n\t"get_port": [],\n\t"get_zone": "@"\n}', "\ufeffget_port: '@'"]
)
def test_files_that_are_right(tmp_path: Path, text: str) -> None:
    assert compiled(tmp_path, text, "policy.json")["dns"].allows("get_zone", MEMBER, {})


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: '@'\nget_prt: '@'\n", 2, "no rule here refers to it; did you mean `get_port`?"),
        ("network:\n  get_zone: '@'\n", 2, "network has no rule `get_zone`"),
        ("netwrk:\n  get_port: '@'\n", 1, "must be a service; did you mean `network`?"),
        ("get_port: role:x and\n", 1, "rule `get_port`: 'role:x and' ends too early"),
        ("\n\nget_port: rule:admin_or_ownr\n", 3, "did you mean `admin_or_owner`?"),
        ("b: rule:a\n", 1, "it refers to itself: b -> a -> b"),
        ("get_port: '@'\nget_port: '!'\n", 2, "`get_port` is there already, in line 1"),
        ("get_port: @\n", 1, "must be in quotes"),
        ("get_port: !\n", 1, "it has no value"),
        ("get_port: yes\n", 1, "a rule is a text in quotes"),
        ("get_port:\n", 1, "it has no value"),
        ("get_port: [role:x, [role:y, 3, {}]]\n", 1, "holds checks"),
        ("get_port: ['role:x or role:y']\n", 1, "must be one check"),
        ("get_port: [a\n", 2, "no valid YAML"),
        ("- get_port\n", 1, "names and rules are expected"),
        ("? [a]\n: '@'\n", 1, "the name of a rule is expected"),
        ("a: &x [*x]\n", 1, "holds checks"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_wrong_file(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(PolicyFileError) as caught:
        compiled(tmp_path, text)
    assert f"{tmp_path / 'policy.yaml'} is wrong in line {line}: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for data, said in (
        (b"a: '\xff'", "not encoded in UTF-8"),
        (b"\0", "no valid YAML"),
        (b" " * (1 << 21), "larger"),
        (b"[" * 9000, "deep"),
    ):
        (tmp_path / "f").write_bytes(data)
        with pytest.raises(PolicyFileError, match=said):
            read(tmp_path / "f")
    with pytest.raises(PolicyFileError, match="cannot be read: Is a directory"):
        read(tmp_path)


@settings(deadline=None)
@given(st.one_of(st.binary(), st.text(alphabet="ab:[]{}'\"@!&*%-,#? \n\t", max_size=60).map(str.encode)))
def test_no_file_gives_anything_but_rules_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        file = read(path)
        policies((NETWORK, DNS), file)
    except PolicyFileError:
        return
    assert isinstance(file, PolicyFile)


# ---- the command, and the start -----------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cumulet, ["policy", *arguments])


def test_the_command_lists_rules_and_what_overrides_them(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('"identity:list_users": "role:auditor"\n')
    shown = run("--data", str(tmp_path)).output
    assert "compute: os_compute_api:servers:show\n" in shown
    assert "override role:auditor" in shown
    few = run("--data", str(tmp_path), "--overridden").output
    assert few.startswith("identity: identity:list_users\n  default  rule:admin_required")
    assert "can be used; it overrides 1 rule\n" in run("check", str(file)).output
    file.write_text('"identity:list_usrs": "role:auditor"\n')
    for wrong in (run("check", str(file)), run("--data", str(tmp_path))):
        assert wrong.exit_code == 1 and "did you mean `identity:list_users`?" in wrong.output


def test_the_sample_can_be_used_as_it_is_and_uncommented(tmp_path: Path) -> None:
    text = run("sample").output
    file = tmp_path / "sample.yaml"
    for content in (text, text.replace('\n#"', '\n"')):
        file.write_text(content)
        assert run("check", str(file)).output.endswith("can be used; it overrides 0 rules\n")


def test_a_start_with_a_wrong_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text('"get_port": "role:admin"\n"get_network": "role:admin or or role:x"\n')
    done = subprocess.run(words(tmp_path), capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False)
    assert done.returncode == 1
    (sentence,) = [line for line in done.stdout.splitlines() if line.startswith("cannot start: ")]
    assert sentence == (
        f"cannot start: the policy file {tmp_path / 'policy.yaml'} is wrong in line 2: rule `get_network`: unexpected 'or' at "
        "character 15 of 'role:admin or or role:x'"
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "secrets.json").exists(), "nothing was begun"


def test_yaml_is_loaded_for_a_file_only() -> None:
    script = "import sys; import cumulet.program; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_override_is_in_force_over_http_and_the_audit_log_is_written(tmp_path: Path) -> None:
    file, audit = tmp_path / "mine.yaml", tmp_path / "audit.log"
    file.write_text('"identity:list_users": "!"\nnetwork:\n  create_network: rule:builders\n  builders: role:builder\n')
    more = ("--policy-file", str(file), "--audit-log", str(audit), "--admin-password", "adminpw")
    with started(words(tmp_path / "data", *more)) as process:
        urls = dict(line.split()[:2] for line in until_ready(process) if "http" in line)
        user = {"name": "admin", "password": "adminpw", "domain": {"id": "default"}}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        auth: Any = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        login = requests.post(f"{urls['identity']}/v3/auth/tokens", json={"auth": auth}, timeout=60)
        headers = {"X-Auth-Token": login.headers["X-Subject-Token"]}
        refused = requests.get(f"{urls['identity']}/v3/users", headers=headers, timeout=60)
        assert refused.status_code == 403 and "identity:list_users" in refused.text
        assert requests.get(f"{urls['identity']}/v3/projects", headers=headers, timeout=60).status_code == 200
        network = {"network": {"name": "n"}}
        made = requests.post(f"{urls['network']}/v2.0/networks", json=network, headers=headers, timeout=60)
        assert made.status_code == 403, made.text
        process.terminate()
        assert process.wait(60) == 0
    (login_line,) = [line for line in audit.read_text().splitlines() if '"identity.authenticate"' in line]
    assert '"outcome":"success"' in login_line and "adminpw" not in login_line
    assert audit.stat().st_mode & 0o077 == 0
