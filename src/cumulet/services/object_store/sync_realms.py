"""Realms and clusters that containers are synchronised among: `container-sync-realms.conf` beside the rings, in swift's form.

    [realm1]
    key = a secret that all clusters of the realm share
    key2 = one before it, or after it
    cluster_name1 = https://host1/v1/

Reference: https://docs.openstack.org/swift/latest/overview_container_sync.html
"""

import hashlib
import hmac
import logging
import os
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cumulet.services.object_store.words import listed

log = logging.getLogger("cumulet.object_store")

FILE = "container-sync-realms.conf"
CLUSTER = "cluster_"


class SyncError(Exception):
    """A container cannot be synchronised to there; the text says why."""


@dataclass(frozen=True, slots=True)
class Realm:
    """The keys of a realm, and where its clusters are."""

    key: str = ""
    key2: str = ""
    clusters: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return [key for key in (self.key, self.key2) if key]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container is synchronised to. Without a realm the containers' own key is all that counts."""

    url: str
    realm: str = ""
    key: str = ""


class Realms:
    """What the file says; it is read anew where it has changed."""

    def __init__(self, path: Path, hosts: str) -> None:
        self.path = path
        self.hosts = frozenset(listed(hosts))
        self._seen: tuple[int, int] | None = None
        self._realms: dict[str, Realm] = {}

    def realm(self, name: str) -> Realm:
        """An empty one where there is none."""
        self._read()
        return self._realms.get(name.upper(), Realm())

    def told(self, current: str) -> dict[str, Any]:
        """What GET /info says. `current` is //realm/cluster of this one."""
        self._read()
        here = current.strip("/").upper().split("/")
        return {
            name: {"clusters": {one: {"current": True} if [name, one] == here else {} for one in realm.clusters}}
            for name, realm in self._realms.items()
            if realm.clusters
        }

    def target(self, said: str) -> Target | None:
        """What X-Container-Sync-To means; None for nothing, SyncError where that is nowhere to synchronise to."""
        value = said.rstrip("/")
        if not value:
            return None
        if value.startswith("//"):
            return self._in_realm(said, value)
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https"):
            raise SyncError(
                f'Invalid scheme {parts.scheme!r} in X-Container-Sync-To, must be "//", "http", or "https".'
            )
        if not parts.path:
            raise SyncError("Path required in X-Container-Sync-To")
        if parts.query or parts.fragment or ";" in parts.path:
            raise SyncError("Params, queries, and fragments not allowed in X-Container-Sync-To")
        if parts.hostname not in self.hosts:
            raise SyncError(f"Invalid host {parts.hostname!r} in X-Container-Sync-To")
        return Target(value)

    def _in_realm(self, said: str, value: str) -> Target:
        names = value[2:].split("/")
        if len(names) != 4:
            raise SyncError(f"Invalid X-Container-Sync-To format {said!r}")
        name, cluster, account, container = names
        realm = self.realm(name)
        if not realm.key:
            raise SyncError(f"No realm key for {name!r}")
        url = realm.clusters.get(cluster.upper())
        if not url:
            raise SyncError(f"No cluster endpoint for {name!r} {cluster!r}")
        return Target(f"{url.rstrip('/')}/{account}/{container}", name.upper(), realm.key)

    def _read(self) -> None:
        try:
            found = os.stat(self.path)
        except OSError:
            self._realms, self._seen = {}, None
            return
        seen = (found.st_mtime_ns, found.st_ino)
        if seen == self._seen:
            return
        self._seen = seen
        parser = ConfigParser(interpolation=None)
        try:
            parser.read_string(self.path.read_text())
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            log.error("%s cannot be used: %s", self.path, error)
            return
        self._realms = {name.upper(): _realm(dict(parser[name])) for name in parser.sections()}


def _realm(told: dict[str, str]) -> Realm:
    clusters = {name.removeprefix(CLUSTER).upper(): url for name, url in told.items() if name.startswith(CLUSTER)}
    return Realm(told.get("key", ""), told.get("key2", ""), clusters)


def signature(method: str, path: str, timestamp: str, nonce: str, realm_key: str, container_key: str) -> str:
    """HMAC-SHA1 of a request, as swift's clusters sign it. `path` is percent-encoded."""
    text = "\n".join((method, path, timestamp, nonce, container_key))
    return hmac.new(realm_key.encode(), text.encode(), hashlib.sha1).hexdigest()
