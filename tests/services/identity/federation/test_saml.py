"""Two clouds: one vouches for its users by signed assertions, the other believes it, and nobody else."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import session
from keystoneauth1.identity.v3 import Keystone2Keystone, Password

from cumulet.config import SettingsError
from cumulet.services.identity.federation import saml_xml
from cumulet.services.identity.federation.saml2 import Signer, _make_pair
from cumulet.services.identity.federation.saml_xml import SamlError, Statement, Verified, response, verified
from cumulet.services.identity.federation.sources import load_sources
from tests.services.identity.conftest import Identity, identity_in, wanted
from tests.services.identity.federation.conftest import put

AUTH = "/v3/OS-FEDERATION/identity_providers/home/protocols/saml2/auth"
EXCHANGE = "/v3/auth/OS-FEDERATION/saml2"
ISSUER = "https://home.test/idp"
HERE = "https://here.test/auth"
FILE = """
[[source]]
type = "saml"
identity_provider = "home"
protocol = "saml2"
issuer = "{issuer}"
certificate = "home.pem"
recipients = ["{recipient}"]
"""
RULES: list[Any] = [
    {
        "local": [{"user": {"name": "{0} of {1}"}}],
        "remote": [{"type": "openstack_user"}, {"type": "openstack_user_domain"}],
    },
    {"local": [{"groups": "{0}"}], "remote": [{"type": "openstack_groups"}]},
]


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, str]:
    key, certificate = _make_pair()
    return key, certificate.decode()


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Identity]:
    (tmp_path / "home").mkdir()
    async with identity_in(tmp_path / "home") as identity:
        await identity.runtime.ensure_bootstrap(wanted(identity_url=f"{identity.http.url}/v3"))
        yield identity


class Clouds:
    def __init__(self, home: Identity, away: Identity) -> None:
        self.home, self.away = home, away

    async def exchange(self, token: str = "", path: str = f"{EXCHANGE}/ecp", provider: str = "away") -> Any:
        if not token:
            token = await self.home.token("demo", scope="demo")
        identity = {"methods": ["token"], "token": {"id": token}}
        body = {"auth": {"identity": identity, "scope": {"service_provider": {"id": provider}}}}
        return await self.home.http("POST", path, body, token="nobody")

    async def enter(self, data: bytes) -> Any:
        return await self.away.http("POST", AUTH, data=data, token="nobody", Content_Type="application/vnd.paos+xml")


@pytest.fixture
async def clouds(tmp_path: Path, home: Identity) -> AsyncIterator[Clouds]:
    metadata = (await home.http("GET", "/v3/OS-FEDERATION/saml2/metadata", token="nobody")).data.decode()
    issuer = metadata.partition('entityID="')[2].partition('"')[0]
    directory = tmp_path / "away"
    directory.mkdir()
    body = re.findall("X509Certificate>(.*?)<", metadata)[0]
    (directory / "home.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    (directory / "federation.toml").write_text(FILE.format(issuer=issuer, recipient=HERE))
    async with identity_in(directory, federation=directory / "federation.toml") as away:
        await away.runtime.ensure_bootstrap(wanted(identity_url=f"{away.http.url}/v3"))
        await put(away, "identity_providers/home", "identity_provider", enabled=True, remote_ids=[issuer])
        await put(away, "mappings/home", "mapping", rules=RULES)
        await put(away, "identity_providers/home/protocols/saml2", "protocol", mapping_id="home")
        place: Any = {"auth_url": f"{away.http.url}{AUTH}", "sp_url": HERE, "enabled": True}
        await put(home, "service_providers/away", "service_provider", **place)
        yield Clouds(home, away)


async def test_a_user_of_one_cloud_enters_the_other(clouds: Clouds) -> None:
    group = await clouds.home.made("groups", name="crew", domain_id="default")
    await clouds.home.call("PUT", f"/v3/groups/{group['id']}/users/{clouds.home.accounts.demo_user_id}")
    there = await clouds.away.made("groups", name="crew", domain_id="default")
    made = await clouds.exchange()
    assert made.status == 200 and made.headers["Content-Type"] == "text/xml"
    assert made.headers["X-sp-url"] == HERE and made.headers["X-auth-url"].endswith(AUTH)
    assert b"ss:mem:" in made.data
    entered = await clouds.enter(made.data)
    assert entered.status == 201, entered.data
    user = entered.json()["token"]["user"]
    assert user["name"] == "demo of Default"
    assert user["OS-FEDERATION"]["groups"] == [{"id": there["id"]}]
    assert (await clouds.enter(made.data)).status == 401  # once
    plain = await clouds.exchange(path=EXCHANGE)
    assert plain.status == 200 and b"Envelope" not in plain.data
    assert (await clouds.enter(plain.data)).json()["token"]["user"]["id"] == user["id"]


async def test_an_assertion_is_remembered_over_a_restart_and_not_for_ever(clouds: Clouds) -> None:
    from sqlalchemy import func, select, update

    from cumulet.services.identity.federation.tables import used_assertion

    def count(tx: Any) -> Any:
        return tx.execute(select(func.count()).select_from(used_assertion)).scalar()

    def age(tx: Any) -> None:
        tx.execute(update(used_assertion).values(expires_at=1))

    database = clouds.away.runtime.kernel.db
    for _ in range(2):
        assert (await clouds.enter((await clouds.exchange()).data)).status == 201
    assert await database.read(count) == 2
    await database.run(age)
    assert (await clouds.enter((await clouds.exchange()).data)).status == 201
    assert await database.read(count) == 1


async def test_keystoneauth_goes_from_cloud_to_cloud(clouds: Clouds) -> None:
    """Its plugin, unmodified, where the assertion is sent to the login itself."""
    project = await clouds.away.made("projects", name="guests", domain_id="default")
    group = await clouds.away.made("groups", name="crew", domain_id="default")
    await clouds.away.grant("reader", f"projects/{project['id']}", f"groups/{group['id']}")
    own = await clouds.home.made("groups", name="crew", domain_id="default")
    await clouds.home.call("PUT", f"/v3/groups/{own['id']}/users/{clouds.home.accounts.demo_user_id}")
    url = f"{clouds.away.http.url}{AUTH}"
    await put(clouds.home, "service_providers/away", "service_provider", 200, "PATCH", sp_url=url)
    reader: Any = clouds.away.runtime.sources.reader("home", "saml2")
    reader.source.recipients.append(url)

    def go() -> Any:
        first = Password(
            f"{clouds.home.http.url}/v3", username="demo", password="demo-secret", user_domain_id="default",
            project_name="demo", project_domain_id="default",
        )  # fmt: skip
        plugin = Keystone2Keystone(first, "away", project_id=project["id"])
        made = session.Session(auth=plugin)
        try:
            return plugin.get_access(made)
        finally:
            made.session.close()

    found = await asyncio.to_thread(go)
    assert found.project_id == project["id"] and found.role_names == ["reader"] and found.is_federated


async def test_what_makes_no_assertion(clouds: Clouds) -> None:
    token = await clouds.home.token("demo", scope="demo")
    assert (await clouds.exchange("nonsense")).status == 401
    assert (await clouds.exchange(await clouds.home.token("demo", scope="unscoped"))).status == 403
    assert (await clouds.exchange(await clouds.home.token("admin", scope={"system": {"all": True}}))).status == 403
    assert (await clouds.exchange(token, provider="none")).status == 404
    bodies: list[Any] = [{}, {"auth": {}}, {"auth": {"identity": {"token": {"id": token}}}},
                 {"auth": {"identity": {"token": {"id": token}}, "scope": {"service_provider": {}}}}]  # fmt: skip
    for body in bodies:
        assert (await clouds.home.http("POST", EXCHANGE, body, token="nobody")).status == 400
    assert (await clouds.home.http("GET", EXCHANGE, token=token)).status == 405
    await put(clouds.home, "service_providers/away", "service_provider", 200, "PATCH", enabled=False)
    assert (await clouds.exchange(token)).status == 403


async def test_what_was_lent_is_not_passed_on(clouds: Clouds) -> None:
    token = await clouds.home.token("demo", scope="demo")
    path = f"/v3/users/{clouds.home.accounts.demo_user_id}/application_credentials"
    made = await clouds.home.http("POST", path, {"application_credential": {"name": "robot"}}, token=token)
    credential = made.json()["application_credential"]
    how = {
        "methods": ["application_credential"],
        "application_credential": {k: credential[k] for k in ("id", "secret")},
    }
    login = await clouds.home.http("POST", "/v3/auth/tokens", {"auth": {"identity": how}}, token="nobody")
    assert login.status == 201, login.data
    assert (await clouds.exchange(login.headers["X-Subject-Token"])).status == 403


async def test_the_key_is_its_owners_alone_and_is_kept(home: Identity) -> None:
    first = await home.http("GET", "/v3/OS-FEDERATION/saml2/metadata", token="nobody")
    directory = home.runtime.kernel.settings.data / "identity" / "saml"
    assert {(f.name, f.stat().st_mode & 0o777) for f in directory.iterdir()} == {
        ("key.pem", 0o600),
        ("certificate.pem", 0o600),
    }
    again = Signer(directory)
    assert (await again.pair())[1].splitlines()[1] in first.data.decode()


# ---- what is believed ---------------------------------------------------------------------------------------------------


def made(pair: tuple[bytes, str], **changes: Any) -> bytes:
    attributes = {"openstack_user": ["ann"], "roles": ["a", "b"]}
    values = {"issuer": ISSUER, "recipient": HERE, "subject": "ann", "attributes": attributes} | changes
    return response(Statement(**values), *pair)


def believed(data: bytes, pair: tuple[bytes, str]) -> Verified:
    return verified(data, ISSUER, pair[1], [HERE])


def test_what_is_good(pair: tuple[bytes, str]) -> None:
    found = believed(made(pair), pair)
    assert found.attributes == {"openstack_user": ["ann"], "roles": ["a", "b"]} and found.id.startswith("_")
    strange = made(pair, attributes={"openstack_user": ["<a>&\x00\ud800 J\u00f6rg"]})
    assert believed(strange, pair).attributes["openstack_user"] == ["<a>&?? J\u00f6rg"]


def test_another_issuer_key_or_recipient(pair: tuple[bytes, str]) -> None:
    key, certificate = _make_pair()
    for data in (
        made(pair, issuer="https://evil.test"),
        made(pair, recipient="https://elsewhere.test"),
        made((key, certificate.decode())),  # with a certificate of its own in the signature
    ):
        with pytest.raises(SamlError):
            believed(data, pair)


def test_times(pair: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for lifetime in (timedelta(seconds=-31), timedelta(hours=25)):
        monkeypatch.setattr(saml_xml, "LIFETIME", lifetime)
        with pytest.raises(SamlError, match="here and now"):
            believed(made(pair), pair)
    monkeypatch.setattr(saml_xml, "LIFETIME", timedelta(seconds=-5))
    assert believed(made(pair), pair)  # clocks differ


def with_conditions(
    pair: tuple[bytes, str], inner: str, monkeypatch: pytest.MonkeyPatch, attributes: str = ""
) -> bytes:
    """A signed assertion that has conditions too."""
    from lxml import etree

    original = saml_xml._assertion

    def more(statement: Statement, now: datetime) -> Any:
        root = original(statement, now)
        text = f'<saml:Conditions xmlns:saml="{saml_xml.SAML}" {attributes}>{inner}</saml:Conditions>'
        root.insert(3, etree.fromstring(text))
        return root

    with monkeypatch.context() as patch:
        patch.setattr(saml_xml, "_assertion", more)
        return made(pair)


def audience(name: str) -> str:
    return f"<saml:AudienceRestriction><saml:Audience>{name}</saml:Audience></saml:AudienceRestriction>"


def test_conditions(pair: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def at(minutes: int) -> str:
        return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")

    for inner, attributes in (
        (audience("https://elsewhere.test"), ""),
        (audience(HERE) + audience("https://elsewhere.test"), ""),
        ("<saml:AudienceRestriction/>", ""),
        ("", f'NotBefore="{at(5)}"'),
        ("", f'NotOnOrAfter="{at(-5)}"'),
        ("", 'NotBefore="soon"'),
    ):
        with pytest.raises(SamlError):
            believed(with_conditions(pair, inner, monkeypatch, attributes), pair)
    good = with_conditions(pair, audience(HERE), monkeypatch, f'NotBefore="{at(-5)}" NotOnOrAfter="{at(5)}"')
    assert believed(good, pair)


def test_any_change_is_noticed(pair: tuple[bytes, str]) -> None:
    data = made(pair)
    for old, new in ((b">ann<", b">eve<"), (HERE.encode(), b"https://here.test/other"), (b'Name="roles"', b'Name="role"'),
                     (b"rsa-sha256", b"rsa-sha1"), (b"xmlenc#sha256", b"xmlenc#sha512")):  # fmt: skip
        assert old in data
        with pytest.raises(SamlError):
            believed(data.replace(old, new), pair)


def test_an_assertion_wrapped_beside_another_is_not_believed(pair: tuple[bytes, str]) -> None:
    """XML signature wrapping: the signed assertion is there, but another one stands where it would be looked for."""
    data = made(pair).decode()
    assertion = re.findall(r"<saml:Assertion.*</saml:Assertion>", data, re.DOTALL)[0]
    forged = re.sub(r"<ds:Signature.*</ds:Signature>", "", assertion.replace(">ann<", ">admin<"), flags=re.DOTALL)
    own = re.sub(r' ID="[^"]*"', ' ID="_forged"', forged, count=1)
    inside = own.replace("</saml:Assertion>", f"<saml:Advice>{assertion}</saml:Advice></saml:Assertion>")
    signature = re.findall(r"<ds:Signature.*</ds:Signature>", assertion, re.DOTALL)[0]
    moved = own.replace("<saml:Subject>", f"{signature}<saml:Subject>")
    for wrapped in (
        own + assertion,
        assertion + own,
        inside,
        moved,
        moved.replace("</ds:Signature>", f"<ds:Object>{assertion}</ds:Object></ds:Signature>"),
        forged,
        f"<samlp:Extensions>{assertion}</samlp:Extensions>{own}",
    ):
        with pytest.raises(SamlError):
            believed(data.replace(assertion, wrapped).encode(), pair)


def test_a_comment_does_not_cut_a_name(pair: tuple[bytes, str]) -> None:
    data = made(pair, attributes={"openstack_user": ["admin@home.evil"]})
    cut = data.replace(b"admin@home.evil", b"admin@home<!-- x -->.evil")
    assert believed(cut, pair).attributes["openstack_user"] == ["admin@home.evil"]


BOMB = (
    """<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>"""
)


def test_hostile_documents(pair: tuple[bytes, str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    data = made(pair).decode().partition("?>")[2]
    outside = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{secret}">]>'
    for hostile in (
        "", "x", "<x/>", "<a>" * 5000, BOMB + "<x>&c;</x>", BOMB + data, outside + data.replace(">ann<", ">&e;<"),
        data.replace("Success", "Requester"),
        re.sub("<ds:SignatureValue>.*?<", "<ds:SignatureValue>!!<", data, flags=re.DOTALL),
        re.sub("<ds:DigestValue>.*?<", "<ds:DigestValue>AAAA<", data), data.replace("ds:Reference", "ds:Preference"),
        re.sub('URI="[^"]*"', 'URI=""', data), re.sub('URI="[^"]*"', f'URI="file://{secret}"', data),
        re.sub("<ds:Signature.*</ds:Signature>", "", data, flags=re.DOTALL), data.replace(saml_xml.BEARER, "x"),
    ):  # fmt: skip
        with pytest.raises(SamlError) as caught:
            believed(hostile.encode(), pair)
        assert "the secret" not in caught.value.message


async def test_what_is_no_assertion_is_a_401_over_http(clouds: Clouds) -> None:
    for data in (b"", b"<x/>", b"\x00", BOMB.encode() + b"<x/>", base64.b64encode(b"x")):
        assert (await clouds.enter(data)).status == 401
    assert (await clouds.enter(b"<" * (300 << 10))).status == 413
    assert (await clouds.enter(b"\xff")).status == 400


@pytest.mark.parametrize(("pem", "why"), [(None, "No such file"), ("nonsense", "no certificate")])
def test_a_certificate_that_is_none_stops_the_start(tmp_path: Path, pem: str | None, why: str) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(FILE.format(issuer=ISSUER, recipient=HERE))
    if pem is not None:
        (tmp_path / "home.pem").write_text(pem)
    with pytest.raises(SettingsError, match=rf"source\[0\]\.certificate.*{why}"):
        load_sources(file)
