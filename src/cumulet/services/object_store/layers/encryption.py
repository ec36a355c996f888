"""Encryption at rest: from here to the disk, objects, their metadata and their ETags are encrypted; clients see nothing of it.

What is encrypted stays readable when the setting is off again: it decides about new data only. Names, sizes and types are not
encrypted, nor is the metadata of accounts and containers. As swift's, so that either reads what the other wrote.
Reference: https://docs.openstack.org/swift/latest/overview_encryption.html
"""

import hmac
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable
from hashlib import md5
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives.ciphers import CipherContext

from cumulet.core.tasks import in_thread
from cumulet.services.object_store.conditional import tags
from cumulet.services.object_store.encryption.cipher import (
    CryptoError,
    CryptoMeta,
    decrypt_text,
    decrypt_value,
    encrypt_value,
    encryptor,
    random_iv,
    split_value,
    unwrap,
    wrap,
)
from cumulet.services.object_store.encryption.decrypt import decrypted
from cumulet.services.object_store.encryption.keymaster import Keymaster, Keys
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    drain,
    empty,
    refuse,
)
from cumulet.services.object_store.proxy.limits import check_metadata

if TYPE_CHECKING:
    from cumulet.services.object_store.inside import Inside

log = logging.getLogger("cumulet.object_store")

META, TRANSIENT, SYSMETA = "x-object-meta-", "x-object-transient-sysmeta-crypto-", "x-object-sysmeta-crypto-"
ETAG, MAC, BODY = (
    "X-Object-Sysmeta-Crypto-Etag",
    "X-Object-Sysmeta-Crypto-Etag-Mac",
    "X-Object-Sysmeta-Crypto-Body-Meta",
)
POSTED = "X-Object-Transient-Sysmeta-Crypto-Meta"
LISTED_ETAG = "X-Object-Sysmeta-Container-Update-Override-Etag"
"""What an object's ETag is to be in listings."""
NOTHING = md5(b"", usedforsecurity=False).hexdigest()
ETAG_AT = "X-Backend-Etag-Is-At"
UNKNOWN = "<unknown>"
MARK = b"swift_meta="
LARGE = 128 << 10
"""Bytes of a piece that are hashed and encrypted in a thread."""


def encryption(service: "Inside", app: Handler) -> Handler:
    """The layer; none where nothing is to be encrypted, and nothing ever was."""
    if service.keymaster is None:
        return app
    wanted = service.kernel.settings.object_encryption
    service.told["encryption"] = service.told_admin["encryption"] = {"enabled": wanted}
    return Encryption(app, service.keymaster, wanted)


class Encryption:
    def __init__(self, app: Handler, keymaster: Keymaster, wanted: bool) -> None:
        self.app = app
        self.keymaster = keymaster
        self.wanted = wanted

    def __call__(self, request: Request) -> Awaitable[Response]:
        if request.object:
            if request.method in ("GET", "HEAD"):
                return self._read(request)
            if self.wanted and request.method in ("PUT", "POST"):
                return self._write(request)
        elif request.container and request.method == "GET":
            return self._list(request)
        return self.app(request)

    async def _write(self, request: Request) -> Response:
        refusal = check_metadata(request, "object")
        if refusal is not None:
            return refusal
        return await (self._put(request) if request.method == "PUT" else self._post(request))

    def _keys(self, request: Request) -> Keys:
        return self.keymaster.keys(request.account, request.container, request.object)

    async def _put(self, request: Request) -> Response:
        keys = self._keys(request)
        _encrypt_metadata(request.headers, keys)
        upload = Upload(request, keys)
        request.body, request.trailer = upload.pieces(), upload.trailer
        response = await self.app(request)
        etag = response.headers.get("Etag", "").strip('"')
        if response.ok and upload.encrypts and etag == upload.hidden.hexdigest():
            response.headers["Etag"] = upload.plain.hexdigest()
        return response

    async def _post(self, request: Request) -> Response:
        _encrypt_metadata(request.headers, self._keys(request))
        return await self.app(request)

    async def _read(self, request: Request) -> Response:
        """An object, or what is told of one. Nodes hold conditions against what they know of the ETag: a MAC of it."""
        before = {name: request.headers.get(name) for name in ("If-Match", "If-None-Match")}
        self._mask(request)
        response = await self.app(request)
        for name, value in before.items():
            if value is not None:
                request.headers[name] = value
        try:
            await self._reveal(request, response)
        except CryptoError as error:
            log.error("%s cannot be decrypted: %s", request.path, error)
            return refuse(500, "Error decrypting object")
        return response

    def _mask(self, request: Request) -> None:
        masked = False
        for name in ("If-Match", "If-None-Match"):
            wanted = tags(request.headers.get(name))
            if not wanted - {"*"}:
                continue
            found = [f'"{tag}"' if tag != "*" else tag for tag in wanted]
            for keys in self.keymaster.all_keys(request.account, request.container, request.object):
                found += [f'"{_mac(keys, tag)}"' for tag in wanted if tag != "*"]
            request.headers[name] = ", ".join(found)
            masked = True
        if masked:
            known = request.headers.get(ETAG_AT)
            request.headers[ETAG_AT] = f"{known},{MAC}" if known else MAC

    async def _reveal(self, request: Request, response: Response) -> None:
        headers = response.headers
        if response.ok or response.status in (304, 412, 416):
            body = CryptoMeta.load(headers[BODY]) if BODY in headers else None
            posted = CryptoMeta.load(headers[POSTED], check=False) if POSTED in headers else None
            path = request.account, request.container, request.object
            if body is not None:
                keys = self.keymaster.keys_of(body.key_id, *path)
                if ETAG in headers:
                    headers["Etag"] = decrypt_value(keys.object, headers[ETAG])
            if LISTED_ETAG in headers:
                headers[LISTED_ETAG] = self._listed_etag(request, headers[LISTED_ETAG])
            if posted is not None or any(name.lower().startswith(f"{TRANSIENT}meta-") for name in headers):
                _decrypt_metadata(headers, self.keymaster.keys_of(posted.key_id if posted else None, *path))
            if body is not None and request.method == "GET" and response.ok:
                if body.body_key is None:
                    raise CryptoError("the key of the data is missing")
                response.body = await decrypted(response, unwrap(keys.object, body.body_key), body.iv)
        for name in [name for name in headers if name.lower().startswith((TRANSIENT, SYSMETA))]:
            headers.popall(name, None)

    async def _list(self, request: Request) -> Response:
        """The ETags in a listing, each of which may be encrypted with another key."""
        response = await self.app(request)
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if not response.ok or kind != "application/json":
            return response
        data = await drain(response)
        if MARK in data:
            rows: list[dict[str, Any]] = msgspec.json.decode(data)
            for row in rows:
                if "hash" in row:
                    row["hash"] = self._hash(request, row["hash"])
            data = msgspec.json.encode(rows)
            response.headers["Content-Length"] = str(len(data))
        response.body = data
        return response

    def _hash(self, request: Request, value: str) -> str:
        try:
            return self._listed_etag(request, value)
        except CryptoError as error:
            log.error("an ETag in the listing of %s cannot be decrypted: %s", request.path, error)
            return UNKNOWN

    def _listed_etag(self, request: Request, value: str) -> str:
        found = split_value(value)
        if found is None:
            return value
        text, meta = found
        keys = self.keymaster.keys_of(meta.key_id, request.account, request.container, request.object)
        return decrypt_text(keys.container, text, meta)


class Upload:
    """A body on its way to the disk: encrypted, with what is kept of it known at its end."""

    def __init__(self, request: Request, keys: Keys) -> None:
        self._body = request.body or empty()
        self._before = request.trailer
        self._keys = keys
        self._path = request.path
        self._expected = request.headers.pop("Etag", None)
        self._listed = request.headers.pop(LISTED_ETAG, None)
        self._kept: Headers | None = None
        self.plain, self.hidden = md5(usedforsecurity=False), md5(usedforsecurity=False)
        self.encrypts = False
        """Whether there was any data."""
        self._body_key, self._iv = b"", b""

    async def pieces(self) -> AsyncIterator[bytes]:
        cipher = None
        async for piece in self._body:
            if not piece:
                continue
            if cipher is None:
                self._body_key, self._iv = random_iv() + random_iv(), random_iv()
                cipher = encryptor(self._body_key, self._iv)
                self.encrypts = True
            yield self._hide(cipher, piece) if len(piece) < LARGE else await in_thread(self._hide, cipher, piece)
        told = self._before() if self._before is not None else Headers()
        expected = (told.get("Etag") or self._expected or "").strip().strip('"').lower()
        if self.encrypts and expected and expected != self.plain.hexdigest():
            raise Refusal(refuse(422))

    def _hide(self, cipher: CipherContext, piece: bytes) -> bytes:
        self.plain.update(piece)
        hidden = cipher.update(piece)
        self.hidden.update(hidden)
        return hidden

    def trailer(self) -> Headers:
        """Made once: what is random in it must be the same on every node."""
        if self._kept is None:
            self._kept = self._make()
        return self._kept

    def _make(self) -> Headers:
        told = Headers(self._before() if self._before is not None else ())
        etag = ""
        if self.encrypts:
            etag = self.plain.hexdigest()
            body_key = wrap(self._keys.object, self._body_key)
            told["Etag"] = self.hidden.hexdigest()
            told[ETAG] = encrypt_value(self._keys.object, etag)
            told[BODY] = CryptoMeta(self._iv, key_id=self._keys.id, body_key=body_key).dump()
            told[MAC] = _mac(self._keys, etag)
        elif self._expected is not None:
            told.setdefault("Etag", self._expected)
        listed = told.get(LISTED_ETAG, self._listed)
        if listed is None:
            listed = etag
        if listed and (listed != NOTHING or etag):
            told[LISTED_ETAG] = encrypt_value(self._keys.container, listed, self._keys.id)
        elif listed:
            told[LISTED_ETAG] = listed
        return told


def _encrypt_metadata(headers: Headers, keys: Keys) -> None:
    """X-Object-Meta-... becomes something that nodes keep and cannot read."""
    found = [name for name, value in headers.items() if name.lower().startswith(META) and value]
    for name in found:
        headers[f"{TRANSIENT}meta-{name[len(META) :]}".title()] = encrypt_value(keys.object, headers.pop(name))
    if found:
        headers[POSTED] = CryptoMeta(b"", key_id=keys.id).dump()


def _decrypt_metadata(headers: Headers, keys: Keys) -> None:
    prefix = f"{TRANSIENT}meta-"
    told = [name for name, value in headers.items() if name.lower().startswith(prefix) and value]
    for name in told:
        headers[f"X-Object-Meta-{name[len(prefix) :]}"] = decrypt_value(keys.object, headers[name])
    exposed = headers.get("Access-Control-Expose-Headers")
    if exposed is not None and told:
        names = ", ".join(f"x-object-meta-{name[len(prefix) :].lower()}" for name in told)
        headers["Access-Control-Expose-Headers"] = f"{exposed}, {names}"


def _mac(keys: Keys, etag: str) -> str:
    return b64encode(hmac.digest(keys.object, etag.encode("utf-8", "surrogateescape"), "sha256")).decode()
