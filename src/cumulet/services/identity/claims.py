"""What a token says, and the bytes in which it travels (msgpack; an id in hexadecimal takes 16 bytes)."""

import re

import msgspec
from msgspec import Struct

TRUST = "trust"
APPLICATION_CREDENTIAL = "application_credential"
ACCESS_TOKEN = "access_token"
"""Kinds of delegation, as `Claims.via` names them."""

HEX_ID = re.compile(r"^[0-9a-f]{32}$")


class BadToken(Exception):
    """Not a token of this cloud."""


class Federation(Struct, frozen=True, array_like=True):
    """Where a federated user comes from, and the groups that his provider's assertion put him into."""

    idp_id: str
    protocol_id: str
    group_ids: tuple[str, ...] = ()


class Claims(Struct, frozen=True, array_like=True):
    """What a token says. Times are microseconds since 1970; `scope` is project, domain, system or nothing.

    The first audit id is the token's own, the last that of the first token of its chain. `via` names the kind of delegation
    by whose leave the token speaks (a trust, an application credential, an access token of OAuth), `via_id` which one.
    `thumbprint` is that of the client's certificate that the token is bound to (RFC 8705), in base64.
    """

    user_id: str
    methods: tuple[str, ...]
    issued_at: int
    expires_at: int
    audit_ids: tuple[str, ...]
    scope: str = ""
    scope_id: str = ""
    via: str = ""
    via_id: str = ""
    federation: Federation | None = None
    thumbprint: str = ""


class Packed(Struct, frozen=True, array_like=True, omit_defaults=True):
    """The same as it travels: an id in hexadecimal is `x` and 16 bytes, any other `t` and its text."""

    user_id: bytes
    methods: tuple[str, ...]
    issued_at: int
    expires_at: int
    audit_ids: tuple[str, ...]
    scope: str
    scope_id: bytes
    via: str = ""
    via_id: bytes = b"t"
    federation: tuple[str, str, tuple[bytes, ...]] | None = None
    thumbprint: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packed).decode


def pack(claims: Claims) -> bytes:
    """The bytes of a token's claims."""
    federation = claims.federation
    return _encode(
        Packed(
            _short(claims.user_id), claims.methods, claims.issued_at, claims.expires_at, claims.audit_ids,
            claims.scope, _short(claims.scope_id), claims.via, _short(claims.via_id),
            None if federation is None
            else (federation.idp_id, federation.protocol_id, tuple(map(_short, federation.group_ids))),
            claims.thumbprint,
        )
    )  # fmt: skip


def unpack(data: bytes) -> Claims:
    """What the bytes say; BadToken where they are not those of claims."""
    try:
        packed = _decode(data)
        federation = packed.federation
        return Claims(
            _long(packed.user_id), packed.methods, packed.issued_at, packed.expires_at, packed.audit_ids,
            packed.scope, _long(packed.scope_id), packed.via, _long(packed.via_id),
            None if federation is None
            else Federation(federation[0], federation[1], tuple(map(_long, federation[2]))),
            packed.thumbprint,
        )  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadToken from None


def _short(id: str) -> bytes:
    return b"x" + bytes.fromhex(id) if HEX_ID.match(id) else b"t" + id.encode()


def _long(id: bytes) -> str:
    return id[1:].hex() if id[:1] == b"x" else id[1:].decode()
