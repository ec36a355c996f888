"""Signatures of temporary URLs and of forms: HMACs (RFC 2104) with keys that an account or a container carries as metadata."""

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence

from cumulet.config import SettingsError
from cumulet.services.object_store.message import Handler, Request
from cumulet.services.object_store.proxy.info import Info, account_info, container_info
from cumulet.services.object_store.words import listed

DIGESTS = ("sha1", "sha256", "sha512")
DEPRECATED = frozenset({"sha1"})
LENGTHS = {40: "sha1", 64: "sha256", 128: "sha512"}
KEYS = ("temp-url-key", "temp-url-key-2")

Scope = str
"""`account` or `container`: how far a key reaches."""


def allowed_digests(setting: str) -> tuple[str, ...]:
    """The digests that `object_digests` lets count; SettingsError where it names another, or none."""
    found = listed(setting.lower())
    if not found or not set(found) <= set(DIGESTS):
        raise SettingsError(f"`object_digests` is {setting!r}, but must name some of {', '.join(DIGESTS)}")
    return tuple(sorted(set(found)))


def told_of(digests: Sequence[str]) -> dict[str, list[str]]:
    """What GET /info says of them."""
    old = sorted(DEPRECATED & set(digests))
    return {"allowed_digests": list(digests)} | ({"deprecated_digests": old} if old else {})


def digest_of(signature: str) -> tuple[str, str]:
    """(name of the digest, signature in hexadecimal): from hexadecimal alone, or from `name:base64`. ValueError else."""
    if ":" in signature:
        name, _, text = signature.partition(":")
        standard = text.replace("-", "+").replace("_", "/").rstrip("=")
        try:
            raw = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
        return name, raw.hex()
    bytes.fromhex(signature)
    if len(signature) not in LENGTHS:
        raise ValueError("no digest has this length")
    return LENGTHS[len(signature)], signature


def sign(key: str, digest: str, *parts: str) -> str:
    """The signature of lines of text, in hexadecimal."""
    return hmac.new(key.encode(), "\n".join(parts).encode(), digest).hexdigest()


def same(one: str, other: str) -> bool:
    """Compared in a time that tells nothing of where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def keys_in(info: Info) -> Iterable[str]:
    return (key for name in KEYS if (key := info.meta.get(name)))


async def keys_for(app: Handler, request: Request) -> list[tuple[str, Scope]]:
    """The keys that a request may be signed with: up to two of the account and two of the container."""
    account = await account_info(app, request)
    container = await container_info(app, request)
    return [(key, "account") for key in keys_in(account)] + [(key, "container") for key in keys_in(container)]
