"""Storage policies: the kinds of storage that containers can be made with, each with a ring of its own.

They stand in `swift.conf` beside the rings, as swift has them, together with the salt of the cluster's hashes:

    [swift-hash]
    swift_hash_path_suffix = ...
    [storage-policy:0]
    name = Policy-0
    default = yes

Copies are what every policy here keeps: erasure-coded ones (`policy_type = erasure_coding`) are refused at the start.
Reference: https://docs.openstack.org/swift/latest/overview_policies.html
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass
from pathlib import Path

from cumulet.files import write_atomic
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.ring.data import RingError
from cumulet.services.object_store.values import is_true

FILE = "swift.conf"
SECTION = "storage-policy:"
NAME = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Policy:
    """One storage policy. With a deprecated one no container is made any more."""

    index: int
    name: str
    aliases: tuple[str, ...] = ()
    default: bool = False
    deprecated: bool = False

    @property
    def ring(self) -> str:
        """The name of its ring, and of its directory of objects on a device."""
        return tail("object", self.index)

    @property
    def objects(self) -> str:
        return tail("objects", self.index)


def tail(name: str, index: int) -> str:
    """A name of something that each policy has one of: nothing is added for policy 0."""
    return f"{name}-{index}" if index else name


class Policies:
    """All storage policies of a cluster."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._by_index = {policy.index: policy for policy in policies}
        self._by_name = {name.lower(): policy for policy in policies for name in (policy.name, *policy.aliases)}
        self.default = next(policy for policy in policies if policy.default)

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._by_index.values())

    def get(self, index: int) -> Policy | None:
        return self._by_index.get(index)

    def named(self, name: str) -> Policy | None:
        """By its name or an alias, in any case of letters."""
        return self._by_name.get(name.lower())

    @property
    def told(self) -> list[dict[str, object]]:
        """What `GET /info` says of them."""
        return [
            {"name": policy.name, "aliases": ", ".join((policy.name, *policy.aliases))}
            | ({"default": True} if policy.default else {})
            for policy in self
            if not policy.deprecated
        ]


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What `swift.conf` says."""

    salt: HashSalt
    policies: Policies


def read(path: Path) -> ClusterFile:
    """RingError if it cannot be used."""
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text())
        salt = HashSalt(
            parser.get("swift-hash", "swift_hash_path_prefix", fallback="").encode(),
            parser.get("swift-hash", "swift_hash_path_suffix", fallback="").encode(),
        )
        found = [_policy(parser, section) for section in parser.sections() if section.startswith(SECTION)]
    except OSError as error:
        raise RingError(f"cannot read {path}: {error.strerror or error}") from error
    except (ConfigError, ValueError) as error:
        raise RingError(f"{path} cannot be used: {error}") from error
    if not salt.prefix and not salt.suffix:
        raise RingError(
            f"{path} has no swift_hash_path_suffix in its section [swift-hash]: one is needed, and is kept for ever"
        )
    return ClusterFile(salt, Policies(_checked(found or [Policy(0, "Policy-0", default=True)], path)))


def make(path: Path) -> None:
    """A new cluster's file: a salt of its own, and one policy."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = (
        "# What is put around names before they are hashed. Copy it to every node; with another one nothing is found again.\n"
        f"[swift-hash]\nswift_hash_path_prefix = {secrets.token_hex(16)}\nswift_hash_path_suffix = {secrets.token_hex(16)}\n"
        "\n[storage-policy:0]\nname = Policy-0\ndefault = yes\n"
    )
    write_atomic(path, text, mode=0o600)


def _policy(parser: ConfigParser, section: str) -> Policy:
    told = parser[section]
    index = int(section.removeprefix(SECTION))
    name = told.get("name", "")
    if not NAME.fullmatch(name):
        raise ValueError(f"[{section}] needs a name of letters, digits and hyphens")
    if told.get("policy_type", "replication") != "replication":
        raise ValueError(f"[{section}] is of type {told['policy_type']}; only replication is served here")
    aliases = tuple(alias.strip() for alias in told.get("aliases", "").split(",") if alias.strip())
    default, deprecated = is_true(told.get("default")), is_true(told.get("deprecated"))
    return Policy(index, name, tuple(a for a in aliases if a != name), default, deprecated)


def _checked(policies: list[Policy], path: Path) -> list[Policy]:
    defaults = [policy for policy in policies if policy.default]
    if len(defaults) > 1 or (defaults and defaults[0].deprecated):
        raise RingError(f"{path}: one storage policy is the default, and that is not deprecated")
    if not any(policy.index == 0 for policy in policies):
        raise RingError(f"{path}: there is no [storage-policy:0], which names what containers of old have")
    if not defaults:
        usual = next((policy for policy in policies if not policy.deprecated), None)
        if usual is None:
            raise RingError(f"{path}: every storage policy is deprecated, so no container can be made")
        policies[policies.index(usual)] = Policy(usual.index, usual.name, usual.aliases, default=True)
    names = [name.lower() for policy in policies for name in (policy.name, *policy.aliases)]
    if len(set(names)) < len(names):
        raise RingError(f"{path}: two storage policies have one name")
    return policies
