"""AES-256 in counter mode (NIST SP 800-38A), and what is kept beside encrypted data so that it can be decrypted: `crypto meta`,
in swift's form.

Data has a key of its own, which is kept wrapped (encrypted) with the object's; values of headers are encrypted with that one.
Counter mode decrypts any part by itself, so ranges need no more than their bytes.
"""

import base64
import json
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

NAME = "AES_CTR_256"
KEY, BLOCK = 32, 16
"""Bytes of a key; bytes of a block, and so of an initialisation vector."""

WITH_META = re.compile(r"(.*); swift_meta=([^;\s]+)", re.DOTALL)

KeyId = dict[str, str]
"""Which root secret and which path a key was made of."""


class CryptoError(Exception):
    """What should decrypt cannot; the text says why."""


@dataclass(frozen=True, slots=True)
class CryptoMeta:
    """What is needed to decrypt. `body_key` is (wrapped key, the vector it was wrapped with)."""

    iv: bytes
    cipher: str = NAME
    key_id: KeyId | None = None
    body_key: tuple[bytes, bytes] | None = None

    def dump(self) -> str:
        told: dict[str, Any] = {"cipher": self.cipher}
        if self.iv:
            told["iv"] = _text(self.iv)
        if self.key_id is not None:
            told["key_id"] = self.key_id
        if self.body_key is not None:
            told["body_key"] = {"key": _text(self.body_key[0]), "iv": _text(self.body_key[1])}
        return quote_plus(json.dumps(told, sort_keys=True))

    @classmethod
    def load(cls, text: str, *, check: bool = True) -> "CryptoMeta":
        """CryptoError where it is none. With `check` it must be good to decrypt with."""
        try:
            told = json.loads(unquote_plus(text))
            wrapped = told.get("body_key")
            found = cls(
                base64.b64decode(told.get("iv", "")),
                told["cipher"],
                told.get("key_id"),
                (base64.b64decode(wrapped["key"]), base64.b64decode(wrapped["iv"])) if wrapped else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CryptoError(f"bad crypto meta: {error}") from None
        if check and (found.cipher != NAME or len(found.iv) != BLOCK):
            raise CryptoError(f"bad crypto meta: {found.cipher} with a vector of {len(found.iv)} bytes")
        return found


def random_iv() -> bytes:
    return os.urandom(BLOCK)


def encryptor(key: bytes, iv: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()


def decryptor(key: bytes, iv: bytes, offset: int = 0) -> CipherContext:
    """Decrypts what begins `offset` bytes into the data."""
    blocks, rest = divmod(offset, BLOCK)
    counter = (int.from_bytes(iv, "big") + blocks) % (1 << 8 * BLOCK)
    made = Cipher(algorithms.AES(key), modes.CTR(counter.to_bytes(BLOCK, "big"))).decryptor()
    made.update(bytes(rest))
    return made


def wrap(key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """`secret`, encrypted with `key`, and the vector for it."""
    iv = random_iv()
    return encryptor(key, iv).update(secret), iv


def unwrap(key: bytes, wrapped: tuple[bytes, bytes]) -> bytes:
    secret, iv = wrapped
    if len(secret) != KEY or len(iv) != BLOCK:
        raise CryptoError(f"the key of the data is {len(secret)} bytes long")
    return decryptor(key, iv).update(secret)


def encrypt_value(key: bytes, value: str, key_id: KeyId | None = None) -> str:
    """A header's value, encrypted, with its crypto meta behind it."""
    iv = random_iv()
    data = encryptor(key, iv).update(value.encode("utf-8", "surrogateescape"))
    return f"{_text(data)}; swift_meta={CryptoMeta(iv, key_id=key_id).dump()}"


def split_value(value: str) -> tuple[str, CryptoMeta] | None:
    """(encrypted value, its crypto meta); None where it was never encrypted."""
    match = WITH_META.fullmatch(value)
    return (match[1], CryptoMeta.load(match[2])) if match else None


def decrypt_value(key: bytes, value: str) -> str:
    """CryptoError where it is not encrypted."""
    found = split_value(value)
    if found is None:
        raise CryptoError("a value is not encrypted")
    return decrypt_text(key, *found)


def decrypt_text(key: bytes, data: str, meta: CryptoMeta) -> str:
    try:
        return decryptor(key, meta.iv).update(base64.b64decode(data)).decode("utf-8", "surrogateescape")
    except ValueError as error:
        raise CryptoError(str(error)) from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
