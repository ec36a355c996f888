"""Hashes of passwords that other programs made: bcrypt, scrypt and PBKDF2, in the text that keystone (and passlib before it)
kept them in. They are only verified; new hashes are argon2id (`password.py`).

Reference: passlib's documentation, "Modular Crypt Format"; RFC 7914 (scrypt), RFC 8018 (PBKDF2).
"""

import base64
import hashlib
import hmac
from collections.abc import Callable

import bcrypt

BCRYPT_BYTES = 72
"""What bcrypt takes of a password; upstream cuts it there."""
SCRYPT_MEMORY = 1 << 30
"""The most that verifying one hash may take: a row of the database must not be able to fill memory."""


def is_imported(stored: str) -> bool:
    """Whether a hash was made elsewhere, by its first characters."""
    return any(stored.startswith(prefix) for prefix in _VERIFY)


def verify_imported(stored: str, password: bytes) -> bool:
    """Whether an imported hash is of this password; False as well where it is damaged."""
    verify = next((fn for prefix, fn in _VERIFY.items() if stored.startswith(prefix)), None)
    try:
        return verify is not None and verify(stored, password)
    except (ValueError, KeyError, OverflowError):
        return False


def _bcrypt(stored: str, password: bytes) -> bool:
    return bcrypt.checkpw(password[:BCRYPT_BYTES], stored.encode())


def _bcrypt_sha256(stored: str, password: bytes) -> bool:
    """`$bcrypt-sha256$v=2,t=2b,r=12$salt$digest`: bcrypt of an HMAC, so that no byte of a long password is lost."""
    _, _, options, salt, digest = stored.split("$")
    named = dict(option.split("=", 1) for option in options.split(","))
    inner = base64.b64encode(hmac.digest(salt.encode(), password, "sha256"))
    return bcrypt.checkpw(inner, f"${named['t']}${int(named['r']):02}${salt}{digest}".encode())


def _scrypt(stored: str, password: bytes) -> bool:
    """`$scrypt$ln=16,r=8,p=1$salt$digest`"""
    _, _, options, salt, digest = stored.split("$")
    named = {name: int(value) for name, _, value in (option.partition("=") for option in options.split(","))}
    wanted = _decode(digest)
    made = hashlib.scrypt(
        password, salt=_decode(salt), n=2 ** named["ln"], r=named["r"], p=named["p"], maxmem=SCRYPT_MEMORY,
        dklen=len(wanted),
    )  # fmt: skip
    return hmac.compare_digest(made, wanted)


def _pbkdf2(stored: str, password: bytes) -> bool:
    """`$pbkdf2-sha512$25000$salt$digest`"""
    _, name, rounds, salt, digest = stored.split("$")
    wanted = _decode(digest)
    made = hashlib.pbkdf2_hmac(name.removeprefix("pbkdf2-"), password, _decode(salt), int(rounds), len(wanted))
    return hmac.compare_digest(made, wanted)


def _decode(text: str) -> bytes:
    """Base64 without its padding, `.` standing for `+`."""
    return base64.b64decode(text.replace(".", "+") + "=" * (-len(text) % 4), validate=True)


_VERIFY: dict[str, Callable[[str, bytes], bool]] = {
    "$2a$": _bcrypt,
    "$2b$": _bcrypt,
    "$2y$": _bcrypt,
    "$bcrypt-sha256$": _bcrypt_sha256,
    "$scrypt$": _scrypt,
    "$pbkdf2-sha256$": _pbkdf2,
    "$pbkdf2-sha512$": _pbkdf2,
}
