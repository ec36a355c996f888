"""Who may make which call of object storage: the admin (of another project), manager, member and reader of a project, a member
of another one, and nobody; and what an ACL changes for each of them.
"""

from collections.abc import Iterator

import pytest

from tests.authz.scene import Scene

CALLERS = ("admin", "manager", "member", "reader", "stranger", "nobody")

# Verdicts in the order of CALLERS: a allowed, r refused (403), n nobody is known (401).
OWN = "raarrn"  # operators of the account: its managers and members
READ = "raaarn"  # they, and its readers
NONE = "rrrrrn"  # but the administrators of all accounts

ALONE: tuple[tuple[str, str, dict[str, str], str], ...] = (
    # method, path in the account, headers, who may: nothing is shared
    ("GET", "", {}, READ),
    ("HEAD", "", {}, READ),
    ("POST", "", {"X-Account-Meta-Colour": "red"}, OWN),
    ("PUT", "", {}, OWN),
    ("DELETE", "", {}, NONE),
    ("GET", "/box", {}, READ),
    ("HEAD", "/box", {}, READ),
    ("PUT", "/box", {}, OWN),
    ("PUT", "/new", {}, OWN),
    ("POST", "/box", {"X-Container-Meta-Colour": "red"}, OWN),
    ("DELETE", "/none", {}, OWN),
    ("GET", "/box/thing", {}, READ),
    ("HEAD", "/box/thing", {}, READ),
    ("PUT", "/box/other", {}, OWN),
    ("POST", "/box/thing", {"X-Object-Meta-Colour": "red"}, OWN),
    ("DELETE", "/box/nothing", {}, OWN),
    ("GET", "/box/nothing", {}, READ),
)
READ_CALLS = (("GET", "/box"), ("HEAD", "/box"), ("GET", "/box/thing"), ("HEAD", "/box/thing"))
WRITE_CALLS = (("PUT", "/box/other"), ("POST", "/box/thing"), ("DELETE", "/box/nothing"))

ACLS = (
    # name of the header, its value, who may list, read and write then
    ("X-Container-Read", "{elsewhere}:{stranger}", "raaaan", "raaaan", OWN),
    ("X-Container-Read", "{elsewhere}:*", "raaaan", "raaaan", OWN),
    ("X-Container-Read", "elsewhere:scene-stranger", "raaaan", "raaaan", OWN),
    ("X-Container-Read", "*:*", "aaaaan", "aaaaan", OWN),
    ("X-Container-Read", "*:{stranger}", "raaaan", "raaaan", OWN),
    ("X-Container-Read", "{demo}:{stranger}", READ, READ, OWN),
    ("X-Container-Read", ".r:*", READ, "aaaaaa", OWN),
    ("X-Container-Read", ".r:*,.rlistings", "aaaaaa", "aaaaaa", OWN),
    ("X-Container-Read", ".rlistings", READ, READ, OWN),
    ("X-Container-Read", ".r:*.example.com", READ, READ, OWN),
    ("X-Container-Read", "reader", READ, READ, OWN),
    ("X-Container-Write", "{elsewhere}:{stranger}", READ, READ, "raaran"),
    ("X-Container-Write", "*:*", READ, READ, "aaaaan"),
    ("X-Container-Write", "{demo}:{reader}", READ, READ, "raaarn"),
    ("X-Container-Write", "reader", READ, READ, "raaarn"),
)


@pytest.fixture
def account(scene: Scene) -> Iterator[str]:
    """The demo project's account with a container and an object in it, shared with nobody."""
    path = f"/v1/AUTH_{scene.demo}"
    for name in ("/box", "/box/thing"):
        assert call(scene, "member", "PUT", path + name) in (201, 202)
    yield path
    for name in ("/box/thing", "/box/other", "/box", "/new"):
        call(scene, "member", "DELETE", path + name)


def call(scene: Scene, who: str, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    token = None if who == "nobody" else scene.tokens[who]
    data = b"" if method in ("PUT", "POST") else None
    return scene.cloud.request(method, "object-store", path, token=token, headers=headers or {}, data=data).status_code


def verdicts(scene: Scene, method: str, path: str, headers: dict[str, str] | None = None) -> str:
    """What each of CALLERS is told; those who may not, come first, so that what is not there yet is not made by others."""
    found = {who: call(scene, who, method, path, headers) for who in reversed(CALLERS)}
    return "".join({401: "n", 403: "r"}.get(found[who], "a" if found[who] < 500 else "!") for who in CALLERS)


@pytest.mark.parametrize(("method", "path", "headers", "expected"), ALONE)
def test_who_may(scene: Scene, account: str, method: str, path: str, headers: dict[str, str], expected: str) -> None:
    assert verdicts(scene, method, account + path, headers) == expected


@pytest.mark.parametrize(("header", "acl", "listing", "reading", "writing"), ACLS)
def test_what_an_acl_gives(
    scene: Scene, account: str, header: str, acl: str, listing: str, reading: str, writing: str
) -> None:
    told = acl.format(demo=scene.demo, elsewhere=scene.elsewhere, **scene.users)
    assert call(scene, "member", "POST", account + "/box", {header: told}) == 204
    for method, path in READ_CALLS:
        assert verdicts(scene, method, account + path) == (reading if "thing" in path else listing), (method, path)
    for method, path in WRITE_CALLS:
        assert verdicts(scene, method, account + path) == writing, (method, path)
    assert verdicts(scene, "POST", account + "/box") == OWN
    assert verdicts(scene, "DELETE", account + "/none") == OWN


def test_who_comes_from_a_site(scene: Scene, account: str) -> None:
    acl = {"X-Container-Read": ".r:*.example.com,.r:-thief.example.com"}
    assert call(scene, "member", "POST", account + "/box", acl) == 204
    for referrer, expected in (
        ("http://www.example.com/page", 200),
        ("http://thief.example.com/page", 401),
        ("http://example.org", 401),
        ("no address", 401),
    ):
        assert call(scene, "nobody", "GET", account + "/box/thing", {"Referer": referrer}) == expected, referrer


def test_owners_alone_see_acls_and_keys(scene: Scene, account: str) -> None:
    secret = {
        "X-Container-Read": f"{scene.elsewhere}:*",
        "X-Container-Meta-Temp-Url-Key": "key",
        "X-Container-Meta-A": "b",
    }
    assert call(scene, "member", "POST", account + "/box", secret) == 204
    for who, sees in (("manager", True), ("member", True), ("reader", False), ("stranger", False)):
        reply = scene.cloud.request("HEAD", "object-store", account + "/box", token=scene.tokens[who])
        assert reply.headers["X-Container-Meta-A"] == "b"
        assert ("X-Container-Read" in reply.headers) is sees, who
        assert ("X-Container-Meta-Temp-Url-Key" in reply.headers) is sees, who


def test_administrators_of_all_accounts(scene: Scene, account: str) -> None:
    """Whoever has ResellerAdmin in any project."""
    role = scene._call("POST", "identity", "/v3/roles", {"role": {"name": "ResellerAdmin"}})["id"]
    path = f"/v3/projects/{scene.elsewhere}/users/{scene.users['stranger']}/roles/{role}"
    scene._call("PUT", "identity", path)
    try:
        scene.tokens["reseller"] = scene.login("stranger")
        for method, name in (("GET", ""), ("PUT", "/box"), ("GET", "/box/thing"), ("PUT", "/box/other"), ("POST", "")):
            assert call(scene, "reseller", method, account + name) < 300, (method, name)
        assert call(scene, "reseller", "PUT", "/v1/AUTH_made") == 201
        assert call(scene, "reseller", "DELETE", "/v1/AUTH_made") == 204
    finally:
        scene._call("DELETE", "identity", path)
        scene.tokens["stranger"] = scene.login("stranger")


def test_tokens_that_are_no_tokens(scene: Scene, account: str) -> None:
    for token in ("nonsense", "", "\u00e9"):
        headers = {"X-Auth-Token": token.encode()}
        reply = scene.cloud.request("GET", "object-store", account, token=None, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["WWW-Authenticate"].startswith("Swift realm=")
