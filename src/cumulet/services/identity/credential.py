"""Credentials of users for other protocols (EC2 keys, and the like): GET|POST /v3/credentials, GET|PATCH|DELETE of one."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection

from cumulet.api.query import Listing
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.types import Id, Str64, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard
from cumulet.services.identity.fields import Label
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, ANYBODY
from cumulet.services.identity.user import User


class Credential(Resource, table="identity_credential", path="/v3/credentials", extra="extra"):
    """A secret of a user; its blob is stored encrypted."""

    id: Id = read("The ID of the credential.", use=FIND)
    type: Label = edit("What it is for, such as `ec2`.", use=FILTER)
    blob: str = edit("The secret itself, often JSON.")
    user_id: Id = edit("Whose it is.", AUTO, FILTER, index=True)
    project_id: Str64 | None = edit("The project that it is for.", None)
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


_OWN = "user_id:%(target.credential.user_id)s"
RULES = {
    "identity:get_credential": f"{ADMIN_OR_SYSTEM_READER} or {_OWN}",
    "identity:list_credentials": ANYBODY,  # each sees his own, as in the scope below
    "identity:create_credential": f"{ADMIN} or {_OWN}",
    "identity:update_credential": f"{ADMIN} or {_OWN}",
    "identity:delete_credential": f"{ADMIN} or {_OWN}",
}


def visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """Admins and readers of the system see all, others their own."""
    caller = ctx.caller
    if caller.is_admin or (caller.system and "reader" in caller.roles):
        return ()
    return (Credential.table.c.user_id == caller.user_id,)


def reveal(ctx: Ctx, row: Any) -> Credential:
    """The credential with its blob in the clear."""
    found = Credential(**{c.name: getattr(row, c.name) for c in Credential.table.columns})
    found.blob = ctx.service.vault.open(found.blob)
    return found


class Ec2Blob(msgspec.Struct):
    access: str


async def create_credential(ctx: Ctx, body: Any) -> Credential:
    """Store the credential; an EC2 one is known by a hash of its access key, as clients expect."""
    user_id = body.given().get("user_id", ctx.caller.user_id)
    sealed = ctx.service.vault.seal(body.blob)
    credential: Credential = Credential.new(body, id=new_hex_id(), user_id=user_id, blob=sealed)
    guard(ctx, "create", Credential, credential)
    if body.type == "ec2":
        try:
            access = msgspec.json.decode(body.blob, type=Ec2Blob).access
        except msgspec.DecodeError:
            raise Invalid("Invalid blob in credential: JSON with `access` is expected.") from None
        if not credential.project_id:
            raise Invalid("A credential of type ec2 needs a project_id.")
        credential.id = hashlib.sha256(access.encode()).hexdigest()

    def store(tx: Connection) -> None:
        if db.first(tx, User, User.table.c.id == user_id) is None:
            raise NotFound("user", user_id)
        if db.first(tx, Credential, Credential.table.c.id == credential.id) is not None:
            raise Conflict(f"Conflict occurred attempting to store credential - Duplicate ID, {credential.id}.")
        db.insert(tx, credential)

    await ctx.service.write(store)
    return credential


async def update_credential(ctx: Ctx, credential: Credential, body: Any) -> Any:
    given = body.given()
    if "user_id" in given:
        guard(ctx, "update", Credential, msgspec.structs.replace(credential, user_id=given["user_id"]))
    more = {"blob": ctx.service.vault.seal(given["blob"])} if "blob" in given else {}
    return await ctx.service.write(change, Credential, credential.id, body, **more)


async def delete_credential(ctx: Ctx, credential: Credential) -> None:
    await ctx.service.write(db.remove, Credential, credential.id)


endpoints = calls(
    Credential,
    create=create_credential,
    update=update_credential,
    delete=delete_credential,
    scope=visible,
    listing=Listing(sort=(("id", "asc"),)),
    reveal=reveal,
)
