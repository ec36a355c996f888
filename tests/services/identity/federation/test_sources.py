"""The file of sources: a wrong one is told of by the place that is wrong, before anything listens."""

from pathlib import Path

import pytest

from cumulet.config import SettingsError
from cumulet.services.identity.federation.sources import load_sources

OIDC = """
[[source]]
type = "oidc"
identity_provider = "acme"
protocol = "openid"
issuer = "https://login.acme.test"
audience = ["cumulet"]
"""
HEADERS = """
[[source]]
type = "headers"
identity_provider = "acme"
protocol = "saml2"
attributes = {user = "X-User"}
"""
FRONT_END = """
[front_end]
addresses = ["192.0.2.1"]
secret = "0123456789abcdef"
"""

WRONG = [
    ("source = 3", "source"),
    ("unknown = 3", "unknown"),
    ("trusted_dashboards = [1]", "trusted_dashboards[0]"),
    ("[[source]]\n", "type"),
    (OIDC.replace("oidc", "ldap"), "source[0]"),
    (OIDC.replace('issuer = "https://login.acme.test"', ""), "issuer"),
    (OIDC.replace("https", "http"), "source[0].issuer"),
    (OIDC.replace("https://login.acme.test", "login"), "source[0].issuer"),
    (OIDC.replace("https://login.acme.test", "https://[x"), "source[0].issuer"),
    (OIDC + 'jwks_uri = "http://keys.test"', "source[0].jwks_uri"),
    (OIDC + 'algorithms = ["HS256"]', "source[0].algorithms[0]"),
    (OIDC + 'algorithms = ["none"]', "source[0].algorithms[0]"),
    (OIDC + "algorithms = []", "source[0].algorithms"),
    (OIDC.replace('["cumulet"]', "[]"), "source[0].audience"),
    (OIDC + 'verify = "introspection"', "client_id"),
    (OIDC + 'verify = "no"', "source[0].verify"),
    (OIDC + "more = 1", "source[0]"),
    (OIDC + OIDC, "source[1]"),
    (HEADERS, "front_end"),
    (FRONT_END + HEADERS.replace("X-User", "X User"), "source[0].attributes"),
    (FRONT_END + HEADERS + 'remote_id_attribute = "idp"', "source[0].remote_id_attribute"),
    (FRONT_END.replace("192.0.2.1", "192.0.2.1/8"), "front_end.addresses"),
    (FRONT_END.replace("192.0.2.1", "front"), "front_end.addresses"),
    (FRONT_END.replace('["192.0.2.1"]', "[]"), "front_end.addresses"),
    (FRONT_END.replace("0123456789abcdef", "short"), "front_end.secret"),
    ("[", "no valid TOML"),
    ("\xff", "no valid TOML"),
]


@pytest.mark.parametrize(("text", "place"), WRONG, ids=[place for _, place in WRONG])
def test_a_wrong_file_names_the_place(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "federation.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError) as caught:
        load_sources(file)
    assert place in str(caught.value) and str(file) in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*/none\.toml"):
        load_sources(tmp_path / "none.toml")


def test_a_right_file_is_read_and_without_one_nothing_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.write_text('trusted_dashboards = ["https://Dash.Test/A"]\n' + FRONT_END + OIDC + HEADERS)
    found = load_sources(file)
    assert found.trusted_dashboards == {"https://dash.test/A"}
    assert found.reader("acme", "openid") and found.reader("acme", "saml2") and not found.reader("acme", "x")
    assert [idp for idp, _ in found.of_protocol("saml2")] == ["acme"]
    none = load_sources(None)
    assert not none.trusted_dashboards and none.front_end is None and none.reader("acme", "openid") is None


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(OIDC)
    file.chmod(0o644)
    load_sources(file)
    assert "others than its owner" in caplog.text
    caplog.clear()
    file.chmod(0o600)
    load_sources(file)
    assert not caplog.text
