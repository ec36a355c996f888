"""The root secrets, and the keys that are made of them: one for each container, one for each object.

They stand in `keymaster.conf` beside the rings, in the form that swift's keymaster reads, and for their owner only. Every node
needs the same ones. Whoever has them can read everything; without them nothing that is encrypted can be read again.

    [keymaster]
    encryption_root_secret_1 = <base64 of 32 bytes or more>
    active_root_secret_id = 1

Reference: https://docs.openstack.org/swift/latest/overview_encryption.html
"""

import base64
import binascii
import hmac
import logging
import os
import secrets
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cumulet.config import SettingsError
from cumulet.files import write_atomic
from cumulet.services.object_store.encryption.cipher import KEY, CryptoError, KeyId

log = logging.getLogger("cumulet.object_store")

FILE = "keymaster.conf"
SECTION, SECRET, ACTIVE = "keymaster", "encryption_root_secret", "active_root_secret_id"
NEWEST = "3"
"""The form of key ids that are written."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a path. `object` is empty where it is a container's."""

    id: KeyId
    container: bytes
    object: bytes = b""


class Keymaster:
    """Makes keys. `path` is the file of root secrets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._secrets: dict[str, bytes] = {}
        self._active = ""
        self._seen: tuple[int, int] | None = None

    def load(self) -> None:
        """Read the file; SettingsError where it cannot be used."""
        parser = ConfigParser(interpolation=None)
        try:
            seen = os.stat(self.path)
            parser.read_string(self.path.read_text())
            told = parser[SECTION]
        except OSError as error:
            raise SettingsError(f"cannot read {self.path}: {error.strerror or error}") from error
        except (ConfigError, KeyError) as error:
            raise SettingsError(f"{self.path} cannot be used: {error}") from error
        found = {}
        for name, value in told.items():
            if name == SECRET or name.startswith(f"{SECRET}_"):
                found[name[len(SECRET) + 1 :]] = _secret(self.path, name, value)
        active = told.get(ACTIVE, "")
        if active not in found:
            raise SettingsError(
                f"{self.path} has no {SECRET}{f'_{active}' if active else ''}, which is to be the active one"
            )
        self._secrets, self._active, self._seen = found, active, (seen.st_mtime_ns, seen.st_ino)

    def reload(self) -> None:
        """Read it anew where it has changed. What cannot be read now does not count; what was read before does."""
        try:
            seen = os.stat(self.path)
            if (seen.st_mtime_ns, seen.st_ino) != self._seen:
                self.load()
        except (OSError, SettingsError) as error:
            log.error("the root secrets were not read anew: %s", error)

    def keys(self, account: str, container: str, object: str = "") -> Keys:
        """The keys that a path's data is encrypted with now."""
        return self._make(self._active, account, container, object)

    def all_keys(self, account: str, container: str, object: str) -> list[Keys]:
        """Those of every root secret: data of before may have been encrypted with any."""
        return [self._make(secret, account, container, object) for secret in self._secrets]

    def keys_of(self, id: KeyId | None, account: str, container: str, object: str = "") -> Keys:
        """The keys that an id names; without one those of the path. CryptoError where they cannot be made."""
        if id is None:
            return self.keys(account, container, object)
        version, path, secret = id.get("v", ""), id.get("path", ""), id.get("secret_id") or ""
        if version not in ("1", "2", "3") or not path.startswith("/"):
            raise CryptoError(f"the id of a key is of version {version!r} and for {path!r}")
        if secret not in self._secrets:
            raise CryptoError(f"there is no root secret {secret!r}")
        names = [*path[1:].split("/", 2), "", ""][:3]
        if version != "3" and names != [account, container, object or names[2]]:
            with suppress(UnicodeError):  # most were written as they should have been
                names = [name.encode("latin-1").decode() for name in names]
        return self._make(secret, names[0], names[1] or container, names[2], version)

    def _make(self, secret: str, account: str, container: str, object: str, version: str = NEWEST) -> Keys:
        root = self._secrets[secret]
        path = f"/{account}/{container}"
        whole = f"{path}/{object}" if object else path
        id = {"v": version, "path": whole} | ({"secret_id": secret} if secret else {})
        return Keys(id, _key(root, path), _key(root, whole) if object else b"")


def keymaster(directory: Path, wanted: bool, alone: bool) -> Keymaster | None:
    """The root secrets in a directory: made if encryption is wanted, None where it is not and never was. A host that is not
    `alone` makes none of its own: nobody else could read what it encrypts."""
    path = directory / FILE
    if not path.exists():
        if not wanted:
            return None
        if not alone:
            way = (
                "copy it from another host, or make it with `cumulet keys rotate --objects` and copy it to all of them"
            )
            raise SettingsError(f"`object_encryption` needs {path}: {way}")
        make(path)
    made = Keymaster(path)
    made.load()
    return made


def make(path: Path) -> None:
    """A new cluster's root secret."""
    value = base64.b64encode(secrets.token_bytes(KEY)).decode()
    write_atomic(path, _text({"1": value}, "1"), mode=0o600)


def rotate(path: Path) -> str:
    """Add a root secret, which new data is encrypted with from now on; its id. what is there stays readable."""
    parser = ConfigParser(interpolation=None)
    parser.read_string(path.read_text())
    told = dict(parser[SECTION])
    known = {name[len(SECRET) + 1 :]: value for name, value in told.items() if name.startswith(SECRET)}
    numbers = [int(name) for name in known if name.isdigit()]
    new = str(max(numbers, default=0) + 1)
    known[new] = base64.b64encode(secrets.token_bytes(KEY)).decode()
    write_atomic(path, _text(known, new), mode=0o600)
    return new


def _text(known: dict[str, str], active: str) -> str:
    lines = [
        "# The root secrets of object storage. Without them nothing that is encrypted can be read again: keep a copy in a safe",
        "# place, not on this disk. Every node needs the same file.",
        f"[{SECTION}]",
        *(f"{SECRET}{f'_{name}' if name else ''} = {value}" for name, value in known.items()),
        f"{ACTIVE} = {active}",
    ]
    return "\n".join(lines) + "\n"


def _key(root: bytes, path: str) -> bytes:
    return hmac.digest(root, path.encode(), "sha256")


def _secret(path: Path, name: str, value: str) -> bytes:
    try:
        secret = base64.b64decode("".join(value.split()), validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) < KEY:
        raise SettingsError(f"{name} in {path} must be base64 of {KEY} bytes or more")
    return secret
