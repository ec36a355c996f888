"""Key pairs: public keys of a user's that are put into servers.

GET, POST /os-keypairs · GET, DELETE /os-keypairs/{name}
"""

import asyncio
import base64
import binascii
import hashlib
from typing import Annotated, Any, Literal

from msgspec import Meta
from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ANYBODY
from cumulet.api.resource import AUTO, Resource, hidden, once, read, sent
from cumulet.core import db, quota
from cumulet.core.db.store import load
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound, QuotaExceeded
from cumulet.core.types import Column, Id, Str255, Time, new_id, now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.quota import DEFAULTS

PREFIX = "os_compute_api:os-keypairs:"
INDEX, SHOW, CREATE, DELETE = (PREFIX + verb for verb in ("index", "show", "create", "delete"))
RULES = dict.fromkeys((INDEX, SHOW, CREATE, DELETE), ANYBODY)

KeyName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[a-zA-Z0-9@._ -]+\Z"), Column(255)]
SSH_TYPES = frozenset(
    {"ssh-rsa", "ssh-dss", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
     "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"}
)  # fmt: skip


class Keypair(Resource, table="compute_keypair", path="/v2.1/os-keypairs", key="keypair", primary_key=("row_id",)):
    """A public key of a user's."""

    row_id: Id = hidden("A key of its own.")
    name: KeyName = once("Its name, unique among the user's.")
    public_key: Annotated[str, Meta(min_length=1, max_length=65535), Column(0)] = once("The public key.", AUTO)
    fingerprint: Str255 = read("Its MD5 fingerprint.")
    user_id: Str255 = read("Its owner.", index=True)
    type: Literal["ssh", "x509"] = once("Its type.", "ssh", since=(2, 2))
    created_at: Time = hidden("When it was made.")
    owner: Str255 = sent("Another owner, for admins.", AUTO, wire="user_id", since=(2, 10))


def find_keypair(tx: Connection, user_id: str, name: str) -> Keypair:
    """The user's key pair of that name; NotFound else."""
    columns = Keypair.table.c
    found = db.first(tx, Keypair, columns.user_id == user_id, columns.name == name)
    if found is None:
        raise NotFound(message=f"Keypair {name} not found for user {user_id}")
    return found


def _owner(ctx: Ctx, asked: str | None) -> str:
    """Whose key pairs are meant: the caller's, or (2.10, admins) another user's."""
    if asked is None or asked == ctx.caller.user_id:
        return ctx.caller.user_id
    if ctx.version < (2, 10):
        return ctx.caller.user_id
    if not ctx.caller.is_admin:
        raise Forbidden(rule=INDEX)
    return asked


def _shown(ctx: Ctx, pair: Keypair, *more: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": pair.name, "public_key": pair.public_key, "fingerprint": pair.fingerprint}
    if ctx.version >= (2, 2):
        shown["type"] = pair.type
    if "user_id" in more:
        shown["user_id"] = pair.user_id
    if "times" in more:
        number = int(pair.row_id.replace("-", "")[:7], 16)
        shown.update(created_at=pair.created_at, updated_at=None, deleted_at=None, deleted=False, id=number)
    return shown


async def list_keypairs(ctx: Ctx) -> Any:
    """List the key pairs of the caller (or, for admins, of another user)."""
    query = ctx.request.query
    user_id = _owner(ctx, query.get("user_id"))
    limit, marker = (_limit(query.get("limit")), query.get("marker")) if ctx.version >= (2, 35) else (1000, None)

    def look(tx: Connection) -> list[Keypair]:
        columns = Keypair.table.c
        where = [columns.user_id == user_id]
        if marker:
            try:
                find_keypair(tx, user_id, marker)
            except NotFound:
                raise Invalid(f"Marker {marker} could not be found.") from None
            where.append(columns.name > marker)
        rows = tx.execute(select(Keypair.table).where(*where).order_by(columns.name).limit(limit))
        return [load(Keypair, row) for row in rows]

    pairs = await ctx.service.kernel.db.read(look)
    reply: dict[str, Any] = {"keypairs": [{"keypair": _shown(ctx, pair)} for pair in pairs]}
    if len(pairs) == limit and ctx.version >= (2, 35):
        href = f"{ctx.request.base_url}{ctx.request.path}?{query.replaced(marker=pairs[-1].name)}"
        reply["keypairs_links"] = [{"rel": "next", "href": href}]
    return reply


def _limit(text: str | None) -> int:
    if text is None:
        return 1000
    if not text.isdecimal():
        raise Invalid(f"Invalid input for query parameters limit. Value: {text}.")
    return min(int(text) or 1000, 1000)


async def show_keypair(ctx: Ctx, name: str) -> Any:
    """Show one key pair."""
    user_id = _owner(ctx, ctx.request.query.get("user_id"))
    pair = await ctx.service.kernel.db.read_inline(find_keypair, user_id, name)
    return {"keypair": _shown(ctx, pair, "user_id", "times")}


async def create_keypair(ctx: Ctx, body: Any) -> Any:
    """Import a public key or, before 2.92, have a pair made whose private half is told once."""
    given = body.given()
    user_id = _owner(ctx, given.get("owner"))
    if given.get("type") == "x509":
        raise Invalid("Keys of type x509 are not served here; 'ssh' is.")
    public, private = given.get("public_key"), None
    if public is None:
        if ctx.version >= (2, 92):
            raise Invalid("Invalid input for field/attribute keypair. 'public_key' is a required property")
        public, private = await asyncio.to_thread(_generate)
    public = public.strip()
    pair = Keypair.new(
        row_id=new_id(), name=body.name, public_key=public, fingerprint=fingerprint(public), user_id=user_id,
        type="ssh", created_at=now(),
    )  # fmt: skip

    def unit(tx: Connection) -> None:
        columns = Keypair.table.c
        if db.first(tx, Keypair, columns.user_id == user_id, columns.name == pair.name):
            raise Conflict(f"Key pair '{pair.name}' already exists.")
        used = db.count(tx, Keypair, columns.user_id == user_id)
        try:
            quota.check(tx, "compute", ctx.caller.project_id or "", DEFAULTS, {"key_pairs": used}, {"key_pairs": 1})
        except QuotaExceeded:
            raise Forbidden("Quota exceeded, too many key pairs.") from None
        db.insert(tx, pair)

    await ctx.service.kernel.db.run(unit)
    shown = _shown(ctx, pair, "user_id")
    if private is not None:
        shown["private_key"] = private
    return Response(201 if ctx.version >= (2, 2) else 200, {"keypair": shown})


async def delete_keypair(ctx: Ctx, name: str) -> Any:
    """Delete a key pair. Servers that have the key keep it."""
    user_id = _owner(ctx, ctx.request.query.get("user_id"))

    def unit(tx: Connection) -> None:
        db.remove(tx, Keypair, find_keypair(tx, user_id, name).row_id)

    await ctx.service.kernel.db.run(unit)
    return Response(204 if ctx.version >= (2, 2) else 202)


def fingerprint(public_key: str) -> str:
    """The MD5 fingerprint of an OpenSSH public key (RFC 4716, section 4); Invalid where it is none."""
    words = public_key.split(None, 2)
    try:
        blob = base64.b64decode(words[1], validate=True)
        length = int.from_bytes(blob[:4], "big")
        name = blob[4 : 4 + length].decode("ascii")
    except (IndexError, binascii.Error, UnicodeDecodeError, ValueError):
        name, words = "", ["?"]
        blob = b""
    if name not in SSH_TYPES or words[0] != name or len(blob) <= 4 + len(name):
        raise Invalid("Keypair data is invalid: failed to generate fingerprint")
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))


def _generate() -> tuple[str, str]:
    """A new RSA pair: (public in OpenSSH's form, private in PEM)."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.TraditionalOpenSSL, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return f"{public.decode()} Generated-by-Nova", private.decode()


ONE = "/v2.1/os-keypairs/{name}"
endpoints = [
    Endpoint("GET", "/v2.1/os-keypairs", list_keypairs, INDEX, resource=Keypair),
    Endpoint("POST", "/v2.1/os-keypairs", create_keypair, CREATE, Keypair, resource=Keypair),
    Endpoint("GET", ONE, show_keypair, SHOW, resource=Keypair),
    Endpoint("DELETE", ONE, delete_keypair, DELETE, resource=Keypair),
]
