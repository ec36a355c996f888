"""Assertions from OpenID Connect: the request carries a bearer access token, whose claims become attributes.

    [[source]]
    type = "oidc"
    identity_provider = "acme"
    protocol = "openid"
    issuer = "https://login.example/realms/acme"
    audience = ["cumulet"]
    verify = "jwks"                 # the token is a JWT (RFC 9068); or "introspection": the issuer is asked (RFC 7662)
    algorithms = ["RS256", "ES256"]
    jwks_uri = "https://..."        # found by discovery, if not given; likewise introspection_endpoint
    client_id = "cumulet"           # for introspection
    client_secret = "..."

A claim `x_y` is the attributes `OIDC-x_y` and `HTTP_OIDC_X_Y`. Nothing that a token says leads anywhere: who is asked stands in
the file or in the issuer's own discovery document.
"""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from msgspec import Meta, Struct

from cumulet.api.http import Request
from cumulet.core.errors import Unauthorized, Unavailable
from cumulet.services.identity.federation.asserted import Asserted, Turns

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
"""Only those with a private key: one who can verify a token cannot make it."""
FRESH = 600.0
"""Seconds for which the issuer's keys are kept."""
PATIENCE = 30.0
"""Seconds between two looks for a key that was not there."""
LEEWAY = 30
"""Seconds by which clocks may differ."""
ANSWER_LIMIT = 1 << 20
AT_ONCE, WAITING = 16, 256
"""Questions that one issuer is asked at a time, and that wait to be asked."""
RESPITE = 5.0
"""Seconds for which an issuer that did not answer is left alone."""


SILENT = "The identity provider does not answer as it should."


class OidcSource(Struct, forbid_unknown_fields=True, frozen=True, tag_field="type", tag="oidc"):
    """A source of this type in the file."""

    identity_provider: str
    protocol: str
    issuer: str
    audience: Annotated[list[str], Meta(min_length=1)]
    verify: Literal["jwks", "introspection"] = "jwks"
    algorithms: Annotated[list[Algorithm], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["RS256", "ES256"]
    )
    jwks_uri: str = ""
    introspection_endpoint: str = ""
    client_id: str = ""
    client_secret: str = ""


class OidcReader:
    """Verifies bearer tokens of one issuer."""

    def __init__(self, source: OidcSource) -> None:
        import jwt  # read at the start, by clouds that have such a source only

        self._jwt = jwt
        self.source = source
        self._session: aiohttp.ClientSession | None = None
        self._turns = Turns(AT_ONCE, WAITING)
        self._failed_at = -RESPITE
        self._lock = asyncio.Lock()
        self._discovered: Mapping[str, Any] | None = None
        self._keys: Mapping[str, Any] = {}
        self._read_at = -FRESH

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, request: Request) -> Asserted:
        """What the issuer says of who holds the token; Unauthorized where it is not his, has expired, or is for others."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token or not token.isascii():
            raise _refused("a bearer token of the identity provider is expected")
        claims = await (self._verified(token) if self.source.verify == "jwks" else self._introspected(token))
        return Asserted(attributes_of({**claims, "iss": self.source.issuer}), "HTTP_OIDC_ISS")

    # ---- a token that is signed ------------------------------------------------------------------------------------------

    async def _verified(self, token: str) -> Mapping[str, Any]:
        jwt = self._jwt
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self.source.algorithms:
                raise _refused("its signature is of a kind that is not taken")
            key = await self._key(header.get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(self.source.algorithms),
                issuer=self.source.issuer,
                audience=self.source.audience,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise _refused(f"the bearer token is not valid: {error}") from None
        return claims

    async def _key(self, kid: Any) -> Any:
        """The issuer's key of this name (or his only one, for a token that names none)."""
        for maximum_age in (FRESH, PATIENCE):
            async with self._lock:
                if time.monotonic() - self._read_at > maximum_age:
                    await self._read_keys()
            if isinstance(kid, str) and kid in self._keys:
                return self._keys[kid]
            if kid is None and len(self._keys) == 1:
                return next(iter(self._keys.values()))
        raise _refused("it is signed with a key that the issuer does not publish")

    async def _read_keys(self) -> None:
        uri = self.source.jwks_uri or await self._endpoint("jwks_uri")
        answer = await self._ask("GET", uri)
        try:
            keys = self._jwt.PyJWKSet.from_dict(dict(answer)).keys
        except self._jwt.PyJWTError as error:
            raise Unavailable(f"The keys of the identity provider cannot be read: {error}") from None
        self._keys = {
            key.key_id or "": key.key for key in keys if key.public_key_use in (None, "sig") and key.key_type != "oct"
        }
        self._read_at = time.monotonic()

    # ---- a token that the issuer is asked about --------------------------------------------------------------------------

    async def _introspected(self, token: str) -> Mapping[str, Any]:
        source = self.source
        uri = source.introspection_endpoint or await self._endpoint("introspection_endpoint")
        form = {"token": token, "token_type_hint": "access_token"}
        claims = await self._ask("POST", uri, data=form, headers={"Authorization": _client(source)})
        if claims.get("active") is not True:
            raise _refused("the bearer token is not valid")
        if claims.get("iss", source.issuer) != source.issuer:
            raise _refused("it is another issuer's")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if not {a for a in [*audiences, claims.get("client_id")] if isinstance(a, str)} & {*source.audience}:
            raise _refused("it is for somebody else")
        end = claims.get("exp")
        if isinstance(end, int | float) and end + LEEWAY < time.time():
            raise _refused("it has expired")
        return claims

    # ---- the issuer ------------------------------------------------------------------------------------------------------

    async def _endpoint(self, name: str) -> str:
        """An URL from the issuer's discovery document (OpenID Connect Discovery 1.0), which must be the issuer's own."""
        if self._discovered is None:
            document = await self._ask("GET", f"{self.source.issuer.rstrip('/')}/.well-known/openid-configuration")
            if document.get("issuer") != self.source.issuer:
                raise Unavailable("The discovery document of the identity provider is another issuer's.")
            self._discovered = document
        uri = self._discovered.get(name)
        if not isinstance(uri, str) or not is_safe_url(uri):
            raise Unavailable(f"The discovery document of the identity provider has no {name} that can be used.")
        return uri

    async def _ask(self, method: str, uri: str, **what: Any) -> Mapping[str, Any]:
        """The issuer's answer, a JSON object; Unavailable where there is none."""
        if time.monotonic() - self._failed_at < RESPITE:
            raise Unavailable(SILENT)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        try:
            async with self._turns.one(), self._session.request(method, uri, allow_redirects=False, **what) as reply:
                if reply.status != 200:
                    raise Unavailable(f"The identity provider answered {reply.status}.")
                data = b""
                async for piece in reply.content.iter_any():
                    data += piece
                    if len(data) > ANSWER_LIMIT:
                        raise Unavailable(SILENT)
                return msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError:
            raise Unavailable(SILENT) from None
        except (aiohttp.ClientError, TimeoutError):
            self._failed_at = time.monotonic()
            raise Unavailable(SILENT) from None


def _client(source: OidcSource) -> str:
    """How the cloud shows who it is (RFC 6749, 2.3.1)."""
    pair = f"{quote(source.client_id, safe='')}:{quote(source.client_secret, safe='')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def is_safe_url(uri: str) -> bool:
    """Whether an URL is good for secrets: encrypted, or of this host."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost"))
    )


def attributes_of(claims: Mapping[str, Any]) -> dict[str, list[str]]:
    """Claims as mod_auth_openidc names them, each with its values as text."""
    found: dict[str, list[str]] = {}
    for name, value in claims.items():
        values = [_text(item) for item in (value if isinstance(value, list) else [value]) if item is not None]
        if values:
            found[f"OIDC-{name}"] = values
            found[f"HTTP_OIDC_{name.upper().replace('-', '_')}"] = values
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else json.dumps(value)


def _refused(why: str) -> Unauthorized:
    return Unauthorized(f"The login was refused: {why}.", headers={"WWW-Authenticate": "Bearer"})
