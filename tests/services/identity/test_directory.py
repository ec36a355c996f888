"""Domains whose users are in an LDAP directory, against a real OpenLDAP server."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.identity import directory as module
from cumulet.services.identity.drivers import SourceError
from tests.services.identity import slapd
from tests.services.identity.conftest import Identity, identity_in
from tests.services.identity.slapd import ADMIN, SECRET, SUFFIX, Slapd

pytest.importorskip("ldap", reason="python-ldap is not installed")
if slapd.BINARY is None:
    pytest.skip("slapd is not installed", allow_module_level=True)

from cumulet.services.identity.drivers.ldap import LdapSource


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Slapd]:
    server = Slapd(tmp_path / "slapd")
    server.start()
    server.tree()
    yield server
    server.stop()


class Realm:
    """A domain with a directory."""

    def __init__(self, identity: Identity, id: str, server: Slapd) -> None:
        self.identity, self.id, self.server = identity, id, server
        self.config: dict[str, dict[str, Any]] = {
            "identity": {"driver": "ldap"},
            "ldap": {"url": server.url, "user": ADMIN, "password": SECRET, "suffix": SUFFIX},
        }
        identity.runtime.directories.config = lambda tx, domain: self.config if domain == self.id else {}
        identity.runtime.directories.forget()

    def set(self, **options: Any) -> None:
        self.config = {**self.config, "ldap": {**self.config["ldap"], **options}}
        self.identity.runtime.directories.forget()

    async def get(self, path: str) -> Any:
        reply = await self.identity.call("GET", f"/v3/{path}")
        assert reply.status == 200, reply.data
        return reply.json()

    async def users(self, **query: str) -> dict[str, Any]:
        """The realm's users by name."""
        more = "".join(f"&{name}={value}" for name, value in query.items())
        return {user["name"]: user for user in (await self.get(f"users?domain_id={self.id}{more}"))["users"]}

    async def groups(self) -> dict[str, Any]:
        return {group["name"]: group for group in (await self.get(f"groups?domain_id={self.id}"))["groups"]}

    async def login(self, name: str, password: str = "secret", **more: Any) -> int:
        return (await self.identity.login(name, password, domain=self.id, **more)).status

    def public(self, kind: str, local_id: str) -> str:
        return hashlib.sha256(f"{self.id}{kind}{local_id}".encode()).hexdigest()


@pytest.fixture
async def realm(tmp_path: Path, server: Slapd, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Realm]:
    monkeypatch.setattr(module, "REST", 0.0)
    async with identity_in(tmp_path) as identity:
        domain = await identity.made("domains", name="realm")
        yield Realm(identity, domain["id"], server)


async def test_users_are_listed_shown_and_found(realm: Realm) -> None:
    realm.server.user("u1", "ann", mail="ann@test", description="of tests")
    realm.server.user("u2", "bob")
    listed = await realm.users()
    assert set(listed) == {"ann", "bob"}
    ann = listed["ann"]
    assert ann["id"] == realm.public("user", "u1") and ann["domain_id"] == realm.id and ann["enabled"] is True
    assert (ann["email"], ann["description"]) == ("ann@test", "of tests")
    assert "local_id" not in ann and "gone_since" not in ann
    assert (await realm.get(f"users/{ann['id']}"))["user"] == ann
    realm.server.user("u3", "eve")
    assert set(await realm.users(name="eve")) == {"eve"}
    assert await realm.users(name="none") == {}
    realm.server.remove(f"cn=u3,ou=Users,{SUFFIX}")
    assert await realm.users(name="eve") == {}
    assert {u["name"] for u in (await realm.get("users?domain_id=default"))["users"]} == {"admin", "demo"}


async def test_what_changes_in_the_directory_changes_here(realm: Realm) -> None:
    ann = realm.server.user("u1", "ann", mail="a@test")
    bob = realm.server.user("u2", "bob")
    ids = {name: user["id"] for name, user in (await realm.users()).items()}
    realm.server.change(ann, sn="bob", mail=[])
    realm.server.change(bob, sn="ann")
    swapped = await realm.users()
    assert {name: user["id"] for name, user in swapped.items()} == {"ann": ids["bob"], "bob": ids["ann"]}
    assert "email" not in swapped["bob"]
    realm.server.remove(bob)
    assert set(await realm.users()) == {"bob"}
    assert (await realm.identity.call("GET", f"/v3/users/{ids['bob']}")).status == 404
    realm.server.user("u2", "back")
    assert (await realm.users())["back"]["id"] == ids["bob"]
    realm.server.remove(ann)
    assert (await realm.identity.call("GET", f"/v3/users/{ids['ann']}")).status == 404


async def test_a_user_logs_in_with_his_password_and_has_roles(realm: Realm) -> None:
    realm.server.user("u1", "ann")
    assert await realm.login("ann", "wrong") == 401
    assert await realm.login("none", "secret") == 401
    assert await realm.login("ann", "x\0") == 401
    assert await realm.login("*") == 401
    assert await realm.login("ann") == 201
    user_id = realm.public("user", "u1")
    assert (
        await realm.identity.grant("member", f"projects/{realm.identity.accounts.demo_project_id}", f"users/{user_id}")
    ).status == 204
    scope = {"project": {"id": realm.identity.accounts.demo_project_id}}
    reply = await realm.identity.login(user_id, "secret", by_id=True, scope=scope)
    assert {role["name"] for role in reply.json()["token"]["roles"]} == {"member", "reader"}
    assert reply.json()["token"]["user"]["id"] == user_id
    assert (await realm.identity.login(user_id, "wrong", by_id=True)).status == 401


async def test_who_is_disabled_or_removed_there_is_out_here(realm: Realm) -> None:
    realm.set(user_enabled_attribute="employeeType")
    ann = realm.server.user("u1", "ann", employeeType="TRUE")
    assert await realm.login("ann") == 201
    token = await realm.identity.token("ann", domain=realm.id)
    realm.server.change(ann, employeeType="FALSE")
    assert await realm.login("ann") == 401
    assert (await realm.users())["ann"]["enabled"] is False
    assert (await realm.identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    realm.server.change(ann, employeeType="TRUE")
    assert await realm.login("ann") == 201
    token = await realm.identity.token("ann", domain=realm.id)
    realm.server.remove(ann)
    await realm.identity.runtime.directories.refresh_all()
    assert (await realm.identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    assert await realm.login("ann") == 401


async def test_without_its_directory_a_domain_has_none_of_its_users(realm: Realm) -> None:
    realm.server.group("g1", "crew", realm.server.user("u1", "ann"))
    token = await realm.identity.token("ann", domain=realm.id)
    assert set(await realm.groups()) == {"crew"}
    with_directory, realm.config = realm.config, {}
    realm.identity.runtime.directories.forget()
    assert await realm.login("ann") == 401
    await realm.identity.runtime.directories.refresh_all()
    assert (await realm.identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    assert await realm.users() == {} and await realm.groups() == {}
    realm.config = with_directory
    realm.identity.runtime.directories.forget()
    assert await realm.login("ann") == 201
    assert set(await realm.users()) == {"ann"}


async def test_groups_and_their_roles(realm: Realm) -> None:
    ann, bob = realm.server.user("u1", "ann"), realm.server.user("u2", "bob")
    crew = realm.server.group("g1", "crew", ann.upper(), bob, f"cn=gone,{SUFFIX}")
    realm.server.group("g2", "others", bob)
    groups = await realm.groups()
    assert {name: group["id"] for name, group in groups.items()} == {
        "crew": realm.public("group", "g1"), "others": realm.public("group", "g2"),
    }  # fmt: skip
    members = (await realm.get(f"groups/{groups['crew']['id']}/users"))["users"]
    assert {user["name"] for user in members} == {"ann", "bob"}
    user_id = realm.public("user", "u1")
    assert {g["name"] for g in (await realm.get(f"users/{user_id}/groups"))["groups"]} == {"crew"}
    member = f"/v3/groups/{groups['crew']['id']}/users/{user_id}"
    assert (await realm.identity.call("HEAD", member)).status == 204
    demo = realm.identity.accounts.demo_project_id
    await realm.identity.grant("member", f"projects/{demo}", f"groups/{groups['crew']['id']}")
    assert await realm.login("ann", scope={"project": {"id": demo}}) == 201
    realm.server.change(crew, member=[bob])
    assert await realm.login("ann", scope={"project": {"id": demo}}) == 401
    assert await realm.login("bob", scope={"project": {"id": demo}}) == 201
    realm.server.remove(crew)
    assert set(await realm.groups()) == {"others"}
    assert (await realm.identity.call("GET", f"/v3/groups/{groups['crew']['id']}")).status == 404


async def test_nothing_is_written_to_the_directory(realm: Realm) -> None:
    ann = realm.server.user("u1", "ann")
    realm.server.group("g1", "crew", ann)
    user, group = (await realm.users())["ann"]["id"], (await realm.groups())["crew"]["id"]
    local = await realm.identity.made("groups", name="local")
    demo = realm.identity.accounts.demo_user_id
    calls: list[tuple[str, str, Any]] = [
        ("POST", "users", {"user": {"name": "new", "domain_id": realm.id}}),
        ("POST", "groups", {"group": {"name": "new", "domain_id": realm.id}}),
        ("PATCH", f"users/{user}", {"user": {"name": "new"}}), ("DELETE", f"users/{user}", None),
        ("PATCH", f"groups/{group}", {"group": {"name": "new"}}), ("DELETE", f"groups/{group}", None),
        ("PUT", f"groups/{group}/users/{user}", None), ("DELETE", f"groups/{group}/users/{user}", None),
        ("PUT", f"groups/{group}/users/{demo}", None), ("PUT", f"groups/{local['id']}/users/{user}", None),
    ]  # fmt: skip
    for method, path, body in calls:
        reply = await realm.identity.call(method, f"/v3/{path}", body)
        assert reply.status == 403, (method, path)
        assert "director" in reply.json()["error"]["message"]
    body = {"user": {"original_password": "secret", "password": "other"}}
    assert (await realm.identity.http("POST", f"/v3/users/{user}/password", body, token="nobody")).status == 403
    body = {"user": {"original_password": "wrong", "password": "other"}}
    assert (await realm.identity.http("POST", f"/v3/users/{user}/password", body, token="nobody")).status == 401
    assert await realm.login("ann") == 201


async def test_users_of_the_domain_that_live_here_keep_their_names(realm: Realm) -> None:
    directories = realm.identity.runtime.directories
    with_directory, directories.config = directories.config, module.no_config
    directories.forget()
    await realm.identity.made("users", name="ann", domain_id=realm.id, password="here")
    directories.config = with_directory
    directories.forget()
    realm.server.user("u1", "ann")
    realm.server.user("u2", "bob")
    realm.server.user("u3", "bob")  # nobody can tell which is meant
    realm.server.user("u4", "x" * 300)
    listed = await realm.users()
    assert set(listed) == {"ann", "bob"} and listed["ann"]["id"] != realm.public("user", "u1")
    assert await realm.login("bob") == 401
    assert (await realm.identity.login(listed["ann"]["id"], "here", by_id=True)).status == 201


async def test_a_domain_ends_with_what_was_seen_of_its_directory(realm: Realm) -> None:
    ann = realm.server.user("u1", "ann")
    realm.server.group("g1", "crew", ann)
    user, group = (await realm.users())["ann"]["id"], (await realm.groups())["crew"]["id"]
    await realm.identity.call("PATCH", f"/v3/domains/{realm.id}", {"domain": {"enabled": False}})
    assert await realm.login("ann") == 401
    assert (await realm.identity.call("DELETE", f"/v3/domains/{realm.id}")).status == 204
    realm.config = {}
    for path in (f"users/{user}", f"groups/{group}"):
        assert (await realm.identity.call("GET", f"/v3/{path}")).status == 404


async def test_nothing_is_stored_where_nothing_has_changed(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = realm.server.user("u1", "ann")
    realm.server.group("g1", "crew", ann)
    assert await realm.login("ann") == 201
    await realm.groups()

    async def write(*args: Any) -> None:
        raise AssertionError("written")

    monkeypatch.setattr(realm.identity.runtime, "write", write)
    assert await realm.login("ann") == 201
    assert set(await realm.users()) == {"ann"} and set(await realm.groups()) == {"crew"}


# ---- when it fails ------------------------------------------------------------------------------------------------------


async def test_a_directory_that_is_down_is_a_503_and_comes_back(realm: Realm) -> None:
    realm.server.user("u1", "ann")
    user_id = (await realm.users())["ann"]["id"]
    realm.server.stop()
    assert await realm.login("ann") == 503
    for path in (f"users?domain_id={realm.id}", f"users/{user_id}", f"groups?domain_id={realm.id}"):
        assert (await realm.identity.call("GET", f"/v3/{path}")).status == 503
    assert (await realm.identity.login("demo")).status == 201
    realm.server.start()
    assert await realm.login("ann") == 201
    assert set(await realm.users()) == {"ann"}


async def test_a_directory_that_is_down_is_left_alone_for_a_moment(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 3600.0)
    realm.server.user("u1", "ann")
    realm.server.stop()
    assert await realm.login("ann") == 503
    realm.server.start()
    assert await realm.login("ann") == 503
    realm.set(page_size=10)  # another configuration is another directory
    assert await realm.login("ann") == 201


async def test_a_directory_that_hangs_holds_up_nobody_else(realm: Realm) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        realm.set(url=f"ldap://127.0.0.1:{silent.getsockname()[1]}", connection_timeout=1)
        waiting = [asyncio.ensure_future(realm.login("ann")) for _ in range(module.THREADS)]
        assert (await realm.identity.login("demo")).status == 201
        assert (await realm.identity.call("GET", "/v3/users?domain_id=default")).status == 200
        assert not any(task.done() for task in waiting)
        assert set(await asyncio.gather(*waiting)) == {503}


@pytest.mark.parametrize(
    "options",
    [
        {"user": "cn=nobody", "password": "x"}, {"password": "wrong"}, {"query_scope": "all"}, {"page_size": "many"},
        {"url": "http://nowhere"}, {"user_filter": "(("}, {"use_tls": True},
    ],
)  # fmt: skip
async def test_options_that_cannot_work_are_a_503(realm: Realm, options: Mapping[str, Any], caplog: Any) -> None:
    realm.server.user("u1", "ann")
    realm.set(**options)
    assert await realm.login("ann") == 503
    assert f"the directory of domain {realm.id} failed" in caplog.text
    assert SECRET not in caplog.text


# ---- options ------------------------------------------------------------------------------------------------------------


def source(server: Slapd, **options: Any) -> LdapSource:
    return LdapSource({"url": server.url, "user": ADMIN, "password": SECRET, "suffix": SUFFIX, **options})


def test_the_options_take_text(server: Slapd) -> None:
    made = source(
        server, page_size="3", use_tls="false", user_attribute_ignore="a, b", chase_referrals="True", user_filter=""
    )
    assert (made.options.page_size, made.options.use_tls, made.options.chase_referrals) == (3, False, True)
    for number in range(10):
        server.user(f"u{number}", f"user-{number}")
    assert len(made.people()) == 10
    made.close()


def test_more_than_the_server_gives_needs_pages(tmp_path: Path) -> None:
    server = Slapd(tmp_path / "slapd", sizelimit="size.soft=5 size.hard=100 size.prtotal=unlimited")
    server.start()
    try:
        server.tree()
        for number in range(12):
            server.user(f"u{number}", f"user-{number}")
        anonymous = {"user": "", "password": ""}  # whoever is root there has no limits
        assert len(source(server, page_size=4, **anonymous).people()) == 12
        with pytest.raises(SourceError, match="Size limit exceeded"):
            source(server, **anonymous).people()
    finally:
        server.stop()


def test_filters_scopes_and_names_of_attributes(server: Slapd) -> None:
    server.user("u1", "ann", employeeType="staff", displayName="Ann A.", mail="a@test", employeeNumber="7")
    server.user("u2", "bob", employeeType="guest")
    server.add(f"ou=Deep,ou=Users,{SUFFIX}", {"objectClass": "organizationalUnit", "ou": "Deep"})
    deep = {"objectClass": "inetOrgPerson", "cn": "u3", "sn": "eve", "employeeType": "staff"}
    server.add(f"cn=u3,ou=Deep,ou=Users,{SUFFIX}", deep)

    def names(**options: Any) -> set[str]:
        return {person.name for person in source(server, **options).people()}

    assert names() == {"ann", "bob"}
    assert names(query_scope="sub") == {"ann", "bob", "eve"}
    assert names(user_filter="(employeeType=staff)", query_scope="sub") == {"ann", "eve"}
    assert names(user_filter="employeeType=guest") == {"bob"}
    assert names(user_tree_dn=f"ou=Deep,ou=Users,{SUFFIX}") == {"eve"}
    assert names(user_tree_dn=f"ou=None,{SUFFIX}") == set()
    assert names(user_objectclass="posixAccount") == set()
    mapped = source(
        server, user_id_attribute="employeeNumber", user_name_attribute="displayName", user_mail_attribute="sn",
        user_additional_attribute_mapping=["employeeType:kind", "mail:other"], user_attribute_ignore=["other"],
    )  # fmt: skip
    (person,) = mapped.people()
    assert (person.id, person.name, person.extra) == ("7", "Ann A.", {"email": "ann", "kind": "staff"})
    assert mapped.person(id="7") == mapped.person(name="Ann A.") == person
    assert mapped.person(name="Ann*") is None
    assert mapped.is_password(person, "secret") and not mapped.is_password(person, "wrong")
    assert not mapped.is_password(None, "secret") and not mapped.is_password(person, "")


@pytest.mark.parametrize(
    ("options", "value", "enabled"),
    [
        ({}, None, True), ({"user_enabled_default": "False"}, None, False),
        ({}, "TRUE", True), ({}, "false", False), ({}, "other", False),
        ({"user_enabled_invert": True}, "TRUE", False), ({"user_enabled_invert": "true"}, "FALSE", True),
        ({"user_enabled_mask": 2, "user_enabled_default": "512"}, None, True),
        ({"user_enabled_mask": 2, "user_enabled_default": 512}, "514", False),
        ({"user_enabled_mask": "2", "user_enabled_default": "514"}, None, False),
        ({"user_attribute_ignore": ["enabled"]}, "FALSE", True),
    ],
)  # fmt: skip
def test_ways_to_say_who_is_enabled(server: Slapd, options: Any, value: str | None, enabled: bool) -> None:
    server.user("u1", "ann", **({} if value is None else {"employeeType": value}))
    (person,) = source(server, user_enabled_attribute="employeeType", **options).people()
    assert person.enabled is enabled


def test_a_group_can_say_who_is_enabled(server: Slapd) -> None:
    ann = server.user("u1", "ann")
    server.user("u2", "bob")
    place = server.group("enabled", "x", ann)
    emulated = source(server, user_enabled_emulation=True, user_enabled_emulation_dn=place)
    assert {person.name: person.enabled for person in emulated.people()} == {"ann": True, "bob": False}
    one, other = emulated.person(name="ann"), emulated.person(name="bob")
    assert one is not None and other is not None and one.enabled and not other.enabled
    nowhere = source(server, user_enabled_emulation=True)
    assert {person.enabled for person in nowhere.people()} == {False}


def test_groups_whose_members_are_ids(server: Slapd) -> None:
    server.user("u1", "ann")
    server.user("u2", "bob")
    group: dict[str, str | list[str]] = {
        "objectClass": "posixGroup",
        "cn": "crew",
        "gidNumber": "7",
        "memberUid": ["u1", "none"],
        "description": "all",
    }
    server.add(f"cn=crew,ou=UserGroups,{SUFFIX}", group)
    posix = source(
        server, group_objectclass="posixGroup", group_id_attribute="gidNumber", group_name_attribute="cn",
        group_member_attribute="memberUid", group_members_are_ids=True,
    )  # fmt: skip
    people = posix.people()
    (team,) = posix.teams(people)
    assert (team.id, team.name, team.description, list(team.members)) == ("7", "crew", "all", ["u1"])
    assert [[t.id for t in posix.teams_of(person)] for person in sorted(people, key=lambda p: p.id)] == [["7"], []]


def test_a_connection_that_died_is_replaced(server: Slapd) -> None:
    server.user("u1", "ann")
    kept = source(server)
    assert len(kept.people()) == 1
    server.stop()
    server.start()
    assert len(kept.people()) == 1


# ---- TLS ----------------------------------------------------------------------------------------------------------------


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that it signed itself, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files[1].write_bytes(private)
    return files


def test_tls_is_used_and_checked(tmp_path: Path) -> None:
    ours = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")
    server = Slapd(tmp_path / "slapd", tls=ours)
    server.start()
    try:
        server.tree()
        server.user("u1", "ann")
        assert len(source(server, use_tls=True, tls_cacertfile=str(ours[0])).people()) == 1
        assert len(source(server, use_tls=True, tls_req_cert="never").people()) == 1
        with pytest.raises(SourceError):
            source(server, use_tls=True, tls_cacertfile=str(other[0])).people()
    finally:
        server.stop()


async def test_a_directory_is_set_by_the_domains_configuration(identity: Identity, server: Slapd) -> None:
    domain = (await identity.made("domains", name="realm"))["id"]
    server.user("u1", "ann")
    path = f"/v3/domains/{domain}/config"
    options = {"url": server.url, "user": ADMIN, "password": SECRET, "suffix": SUFFIX}
    config = {"identity": {"driver": "ldap"}, "ldap": options}
    assert (await identity.call("PUT", path, {"config": config})).status == 201

    async def login() -> int:
        return (await identity.login("ann", "secret", domain=domain, scope="unscoped")).status

    assert await login() == 201
    assert (await identity.call("DELETE", f"{path}/identity/driver")).status == 204
    assert await login() == 401
    assert (await identity.call("PATCH", path, {"config": {"identity": {"driver": "ldap"}}})).status == 200
    assert await login() == 201
