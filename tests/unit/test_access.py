"""Access rules bind a token to calls, and a service's own token speaks for the service: in any service, before policy."""

import re
from collections.abc import AsyncIterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cumulet.api.dialect import COMPUTE
from cumulet.api.http import Endpoint
from cumulet.api.service import Service
from cumulet.core.access import matcher, permits
from cumulet.core.context import AccessRule, Caller, Context
from cumulet.core.errors import Unauthorized
from tests.harness import CALLERS, Client, serve

MEMBER = CALLERS["member"]
RULES = (AccessRule("compute", "GET", "/things/{id}"), AccessRule("compute-old", "POST", "/things/*/do/**"))
NOVA = Caller(user_id="nova", project_id="services", roles=frozenset({"service"}))
KNOWN = {
    "member": MEMBER,
    "bound": replace(MEMBER, access_rules=RULES),
    "shut": replace(MEMBER, access_rules=()),
    "nova": NOVA,
    "plain": replace(NOVA, user_id="someone", roles=frozenset({"member"})),
}


async def authenticate(token: str, *, allow_expired: bool = False) -> Caller:
    if token == "late" and allow_expired:
        return MEMBER
    if token not in KNOWN:
        raise Unauthorized()
    return KNOWN[token]


async def answer(ctx: Context[Any], **_: str) -> Any:
    """Answer."""
    service = ctx.caller.service
    return {"user": ctx.caller.user_id, "by": service.user_id if service else None}


SERVICE = Service(
    "compute",
    "nova",
    (),
    COMPUTE,
    (
        Endpoint("GET", "/things", answer, "never"),
        Endpoint("GET", "/things/{id}", answer),
        Endpoint("POST", "/things/{id}/do/{rest:rest}", answer),
        Endpoint("GET", "/always", answer, beyond_rules=True),
        Endpoint("GET", "/internal", answer, "internal"),
    ),
    rules={"never": "!", "internal": "service_roles:service and role:member"},
    aliases=("compute-old",),
)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serve(SERVICE, SimpleNamespace(), authenticate=authenticate) as one:
        yield one


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        ("GET", "/things/1", "member", 200),
        ("GET", "/things/1", "bound", 200),
        ("POST", "/things/1/do/this/and/that", "bound", 200),
        ("GET", "/always", "bound", 200),
        ("GET", "/always", "shut", 200),
        ("GET", "/internal", "bound", 403),
        ("GET", "/things/1", "shut", 403),
        ("GET", "/nowhere", "bound", 404),
    ],
)
async def test_a_token_with_rules_is_good_for_those_calls(
    client: Client, method: str, path: str, token: str, status: int
) -> None:
    assert (await client(method, path, token=token)).status == status


async def test_the_refusal_comes_before_policy_and_names_the_call(client: Client) -> None:
    reply = await client("GET", "/things", token="bound")
    assert reply.json()["forbidden"]["message"] == "The access rules of the token do not allow GET /things of compute."


async def test_a_services_token_speaks_for_the_service(client: Client) -> None:
    by_nova = await client("GET", "/internal", token="member", X_Service_Token="nova")
    assert by_nova.json() == {"user": MEMBER.user_id, "by": "nova"}
    assert (await client("GET", "/internal", token="member")).status == 403
    assert (await client("GET", "/internal", token="member", X_Service_Token="plain")).status == 403
    assert (await client("GET", "/internal", token="nobody", X_Service_Token="nova")).status == 401
    assert (await client("GET", "/internal", token="member", X_Service_Token="wrong")).status == 401


async def test_a_service_may_hand_on_what_has_expired_and_what_has_rules(client: Client) -> None:
    assert (await client("GET", "/things/1", token="late")).status == 401
    assert (await client("GET", "/things/1", token="late", X_Service_Token="nova")).status == 200
    assert (await client("GET", "/things/1", token="late", X_Service_Token="plain")).status == 401
    assert (await client("GET", "/internal", token="bound", X_Service_Token="nova")).status == 200
    assert (await client("GET", "/internal", token="bound", X_Service_Token="plain")).status == 403


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/v2.1/servers", "/v2.1/servers", True),
        ("/v2.1/servers", "/v2x1/servers", False),
        ("/v2.1/servers", "/v2.1/servers/1", False),
        ("/v2.1/servers/*", "/v2.1/servers/1", True),
        ("/v2.1/servers/*", "/v2.1/servers/", False),
        ("/v2.1/servers/*", "/v2.1/servers/1/ips", False),
        ("/v2.1/{what}/*/ips", "/v2.1/servers/1/ips", True),
        ("/v2.1/**", "/v2.1/servers/1/ips", True),
        ("/v2.1/**/ips", "/v2.1/servers/1/ips", True),
        ("**", "/", True),
        ("/a{", "/a{", True),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    assert matcher(pattern)(path) is expected
    assert permits((AccessRule("x", "GET", pattern),), {"x"}, "GET", path) is expected
    assert not permits((AccessRule("x", "GET", pattern),), {"y"}, "GET", path)
    assert not permits((AccessRule("x", "GET", pattern),), {"x"}, "POST", path)


PARTS = {"**": ".*", "*": "[^/]+", "{n}": "[^/]+", "/": "/", "a": "a", ".": r"\."}


@given(st.lists(st.sampled_from(list(PARTS)), max_size=7), st.text("/a.b", max_size=9))
def test_patterns_are_what_expressions_would_be(parts: list[str], path: str) -> None:
    if any(one[-1:] == "*" and two[:1] == "*" for one, two in pairwise(parts)):
        return  # `**` next to `*` reads in more ways than one
    expression = "".join(PARTS[part] for part in parts)
    assert matcher("".join(parts))(path) is (re.fullmatch(expression, path) is not None)


def test_no_pattern_takes_long() -> None:
    steps = len("/" + "**a" * 80)
    assert not matcher("/" + "**a" * 80)("/" + "a" * 4000 + "b"), f"{steps} steps"
