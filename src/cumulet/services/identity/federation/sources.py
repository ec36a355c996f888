"""The file that the setting `federation` names: where assertions come from.

trusted_dashboards = ["https://dashboard.example/auth/websso/"]

[front_end]                     # the web server in front, the only peer whose headers are believed (front_end.py)
addresses = ["192.0.2.10"]      # from which it connects
secret = "..."                  # what it sends in X-Front-End-Secret
external = true                 # it may say who somebody is: method `external`, X-Remote-User and X-Remote-Domain

[[source]]                      # one for each identity provider and protocol
type = "oidc"                   # or "headers", or "saml": by_oidc.py, by_headers.py and by_saml.py say what each takes
identity_provider = "acme"
protocol = "openid"
"""

import logging
import stat
from pathlib import Path

import msgspec
from msgspec import Struct, field

from cumulet.config import SettingsError
from cumulet.services.identity.federation.asserted import Reader
from cumulet.services.identity.federation.by_headers import HeadersReader, HeadersSource
from cumulet.services.identity.federation.by_oidc import OidcReader, OidcSource, is_safe_url
from cumulet.services.identity.federation.by_saml import SamlReader, SamlSource
from cumulet.services.identity.federation.front_end import FrontEnd, FrontEndTable

log = logging.getLogger("cumulet.identity")


class Table(Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file."""

    trusted_dashboards: list[str] = field(default_factory=list)
    front_end: FrontEndTable | None = None
    sources: list[OidcSource | HeadersSource | SamlSource] = field(default_factory=list, name="source")


class Sources:
    """Every source of the file, by identity provider and protocol."""

    def __init__(self, table: Table, file: Path | None = None) -> None:
        """SettingsError names what in the file is wrong."""
        self._file = file
        self.trusted_dashboards = frozenset(map(as_compared, table.trusted_dashboards))
        self.front_end = self._front_end(table.front_end)
        self._readers: dict[tuple[str, str], Reader] = {}
        for number, source in enumerate(table.sources):
            key = (source.identity_provider, source.protocol)
            if key in self._readers:
                raise self._wrong(f"source[{number}]", "there is one for this identity provider and protocol already")
            self._readers[key] = self._reader(source, f"source[{number}]")

    def _wrong(self, place: str, why: str) -> SettingsError:
        return SettingsError(f"`{place}` in {self._file}: {why}")

    def _front_end(self, table: FrontEndTable | None) -> FrontEnd | None:
        try:
            return None if table is None else FrontEnd(table)
        except ValueError as error:
            raise self._wrong("front_end.addresses", str(error)) from None

    def _reader(self, source: OidcSource | HeadersSource | SamlSource, place: str) -> Reader:
        if isinstance(source, HeadersSource):
            if self.front_end is None:
                raise self._wrong(place, "headers are believed from the `front_end` only, and the file names none")
            if source.remote_id_attribute and source.remote_id_attribute not in source.attributes:
                raise self._wrong(f"{place}.remote_id_attribute", "it is none of the source's attributes")
            return HeadersReader(source, self.front_end)
        if isinstance(source, SamlSource):
            try:
                return SamlReader(source, self._file.parent if self._file else Path())
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is no certificate in PEM"
                raise self._wrong(f"{place}.certificate", f"{source.certificate}: {why}") from None
        for name in ("issuer", "jwks_uri", "introspection_endpoint"):
            value = getattr(source, name)
            if (value or name == "issuer") and not is_safe_url(value):
                raise self._wrong(f"{place}.{name}", "must be an https URL")
        if source.verify == "introspection" and not (source.client_id and source.client_secret):
            raise self._wrong(place, "introspection needs a client_id and a client_secret")
        return OidcReader(source)

    def reader(self, idp_id: str, protocol_id: str) -> Reader | None:
        """The source of a provider's assertions, if there is one."""
        return self._readers.get((idp_id, protocol_id))

    def of_protocol(self, protocol_id: str) -> list[tuple[str, Reader]]:
        """Every source of a protocol, with its identity provider."""
        return [(idp, reader) for (idp, protocol), reader in self._readers.items() if protocol == protocol_id]

    async def stop(self) -> None:
        for reader in self._readers.values():
            if isinstance(reader, OidcReader):
                await reader.stop()


def load_sources(file: Path | None) -> Sources:
    """The sources of the file (without one, none); SettingsError says what in it is wrong, and where."""
    if file is None:
        return Sources(Table())
    import tomllib  # most starts have no file, and are faster without

    try:
        table = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Table)
        open_to_others = file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except OSError as error:
        raise SettingsError(f"cannot read the file {file} that `federation` names: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the file {file} that `federation` names is no valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        place = place.rstrip("`").lstrip(".")
        raise SettingsError(f"{f'`{place}` in ' if place else ''}{file}: {reason}") from None
    if open_to_others:
        log.warning("%s holds secrets, and others than its owner can read it", file)
    return Sources(table, file)


def as_compared(url: str) -> str:
    """A dashboard's URL as it is compared: its host in small letters."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.lower()}{slash}{path}"
