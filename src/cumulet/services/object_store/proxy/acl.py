"""The language of ACLs: those of containers name referrers (`.r:*.example.com`), users of projects (`project:user`) and roles;
those of accounts are JSON.

Reference: https://docs.openstack.org/swift/latest/overview_acl.html
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

REFERRER = frozenset((".r", ".ref", ".referer", ".referrer"))


class AclError(ValueError):
    """An ACL that means nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class Acl:
    """An ACL, taken apart: who may by where he comes from, and who may by who he is."""

    referrers: tuple[str, ...] = ()
    grantees: frozenset[str] = frozenset()

    @property
    def listings(self) -> bool:
        """Whether referrers may list, too."""
        return ".rlistings" in self.grantees


NONE = Acl()


def clean_acl(text: str, *, write: bool) -> str:
    """An ACL as it is kept; AclError if it is none. One for writing names no referrers."""
    return ",".join(_clean(part.strip(), write) for part in text.split(",") if part.strip())


def _clean(part: str, write: bool) -> str:
    first, colon, second = (piece.strip() for piece in part.partition(":"))
    if not colon or not first.startswith("."):
        return part
    if first not in REFERRER:
        raise AclError(f"Unknown designator {first!r} in ACL: {part!r}")
    if write:
        raise AclError(f"Referrers not allowed in write ACL: {part!r}")
    denied = "-" if second.startswith("-") else ""
    host = second.removeprefix("-").strip()
    if host.startswith("*") and host != "*":
        host = host[1:].strip()
    if host in ("", "."):
        raise AclError(f"No host/domain value after referrer designation in ACL: {part!r}")
    return f".r:{denied}{host}"


@lru_cache(maxsize=4096)
def parse_acl(text: str | None) -> Acl:
    """An ACL as it is kept, taken apart."""
    if not text:
        return NONE
    parts = text.split(",")
    referrers = tuple(part[3:] for part in parts if part.startswith(".r:"))
    return Acl(referrers, frozenset(unquote(part) for part in parts if not part.startswith(".r:")))


def referrer_allowed(referrer: str | None, allowed: Sequence[str]) -> bool:
    """Whether who comes from `referrer` may; the last entry that names his host counts."""
    if not allowed:
        return False
    try:
        host = urlsplit(referrer or "").hostname or "unknown"
    except ValueError:
        host = "unknown"
    answer = False
    for entry in allowed:
        named = entry.removeprefix("-")
        if named in ("*", host) or (named.startswith(".") and host.endswith(named)):
            answer = not entry.startswith("-")
    return answer


def parse_account_acl(text: str | None) -> dict[str, Any]:
    """An account's ACL; empty where there is none."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def format_account_acl(acl: dict[str, Any]) -> str:
    """As it is kept and shown: ASCII, always in the same order."""
    return json.dumps(acl, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
