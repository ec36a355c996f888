"""Where settings come from: flags, environment and file, what is made of them, and what is said of a wrong one."""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cumulet.config.settings import ENVIRONMENT_PREFIX, SETTINGS, Setting, Settings

CONFIG_VARIABLE = "CUMULET_CONFIG"
"""Names the TOML file, as `--config` does; the only `CUMULET_` variable that is no setting."""

_BY_NAME = {row.name: row for row in SETTINGS}

_WORDS = (("`int`", "a whole number"), ("`str`", "text"), ("`bool`", "true or false"))
"""Names of types as users know them, for messages about values."""

_ADDRESSES: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("bind", ipaddress.ip_address, "an IP address of this host, such as 127.0.0.1 or 0.0.0.0"),
    ("object_bind", ipaddress.ip_address, "an IP address of this host, such as 127.0.0.1 or 10.0.0.1"),
    ("public_cidr", ipaddress.ip_network, "a network with its prefix length, such as 172.24.4.0/24"),
)


class SettingsError(Exception):
    """A setting is unknown or its value cannot be used; the text says which, where it was set, and what would do."""


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Put the settings together from flags (None: not given), environment and TOML file.

    Without `file`, `CUMULET_CONFIG` may name one. A variable that is set to nothing counts as not set.
    Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(CONFIG_VARIABLE)
    if file is None and named:
        file = Path(named)
    values = _from_file(file) if file is not None else {}
    values |= _from_environment(environ)
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = _convert(_known(name, f"the flag {name}"), value, _BY_NAME[name].flag, strict=False)
    settings = Settings(**values)
    _check(settings)
    return settings


def _from_file(file: Path) -> dict[str, Any]:
    import tomllib  # most starts have no file, and are faster without

    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {file} is no valid TOML: {error}") from error
    return {
        name: _convert(_known(name, f"`{name}` in {file}"), value, f"`{name}` in {file}", strict=True)
        for name, value in content.items()
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable, value in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != CONFIG_VARIABLE and value:
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            values[name] = _convert(_known(name, variable), value, f"{variable}={value}", strict=False)
    return values


def _known(name: str, source: str) -> Setting:
    if name in _BY_NAME:
        return _BY_NAME[name]
    import difflib  # only for this message: starts are faster without

    near = difflib.get_close_matches(name, _BY_NAME, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"the settings are: {', '.join(_BY_NAME)}"
    raise SettingsError(f"{source} is not a setting; {hint}")


def _convert(row: Setting, value: object, source: str, *, strict: bool) -> Any:
    try:
        return msgspec.convert(value, row.type, strict=strict, dec_hook=_path)
    except msgspec.ValidationError as error:
        if row.choices:
            raise SettingsError(f"{source}: must be one of {', '.join(row.choices)}") from error
        reason = str(error).removesuffix(" - at `$`")
        for python, words in _WORDS:
            reason = reason.replace(python, words)
        raise SettingsError(f"{source}: {reason[:1].lower() + reason[1:]}") from error


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    raise ValueError("expected a path")


def _check(settings: Settings) -> None:
    """Refuse what the types alone cannot."""
    for name, parse, wanted in _ADDRESSES:
        value = getattr(settings, name)
        try:
            parse(value)
        except ValueError as error:
            raise SettingsError(f"`{name}` is {value!r}, but must be {wanted}") from error
    try:
        re.compile(settings.password_regex)
    except re.error as error:
        raise SettingsError(f"`password_regex` is no regular expression: {error}") from error
    if settings.guest_image is not None and not settings.guest_image.is_file():
        raise SettingsError(f"`guest_image` names {settings.guest_image}, which is no file")
    protections = settings.image_property_protections
    if protections is not None and not protections.is_file():
        raise SettingsError(f"`image_property_protections` names {protections}, which is no file")
    certificates = settings.image_signature_certificates
    if certificates is not None and not certificates.is_dir():
        raise SettingsError(f"`image_signature_certificates` names {certificates}, which is no directory")
    if settings.image_metadefs is not None and not settings.image_metadefs.is_dir():
        raise SettingsError(f"`image_metadefs` names {settings.image_metadefs}, which is no directory")
