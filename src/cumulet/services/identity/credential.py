"""Credentials of users for other protocols (EC2 keys, secrets of TOTP, certificates): GET|POST /v3/credentials,
GET|PATCH|DELETE of one.

The blob is stored encrypted. That of type `ec2` is JSON with an access key, a hash of which is the credential's id, and says by
whose leave it was made: whoever logs in with the key gets no more than who made it had.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection

from cumulet.api.query import Listing
from cumulet.api.resource import FILTER, FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.context import Caller
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, Str64, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard, inexact, refuse_restricted
from cumulet.services.identity.claims import ACCESS_TOKEN, APPLICATION_CREDENTIAL, TRUST
from cumulet.services.identity.fields import Label
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, ANYBODY
from cumulet.services.identity.user import User

EC2 = "ec2"
LEAVES: Mapping[str, str] = {
    TRUST: "trust_id",
    APPLICATION_CREDENTIAL: "app_cred_id",
    ACCESS_TOKEN: "access_token_id",
}
"""The names under which the blob of an EC2 credential keeps each kind of delegation that it was made by."""
KEPT = (*LEAVES.values(), "access_id")
"""What an update may not change in the blob of an EC2 credential."""


class Credential(Resource, table="identity_credential", path="/v3/credentials", extra="extra"):
    """A secret of a user; its blob is stored encrypted."""

    id: Id = read("The ID of the credential.", use=FIND)
    type: Label = edit("What it is for, such as `ec2`.", use=FILTER)
    blob: str = edit("The secret itself, often JSON.")
    user_id: Id = edit("Whose it is.", use=FILTER, index=True)
    project_id: Str64 | None = edit("The project that it is for; one of type `ec2` needs it.", None)
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
    """Admins and readers of the system see all, others their own; by a delegation, only what is for its project."""
    caller, c = ctx.caller, Credential.table.c
    within = (c.project_id == (caller.project_id or ""),) if caller.delegation else ()
    if caller.is_admin or (caller.system and "reader" in caller.roles):
        return within
    return (c.user_id == caller.user_id, *within)


def reveal(ctx: Ctx, row: Any) -> Credential:
    """The credential with its blob in the clear."""
    found = Credential(**{c.name: getattr(row, c.name) for c in Credential.table.columns})
    found.blob = ctx.service.vault.open(found.blob)
    return found


def show_credential(ctx: Ctx, credential: Any) -> Credential:
    """The same, if it is within the bounds of the caller's delegation."""
    check_delegation(ctx.caller, credential.project_id)
    return reveal(ctx, credential)


def check_delegation(caller: Caller, project_id: str | None) -> None:
    """Forbidden where the caller speaks by a delegation, which is good for one project only, and this is another one.

    What is for no project (a secret of TOTP) belongs to the user himself, and is out of reach of all that he delegates.
    """
    if caller.delegation and (project_id is None or project_id != caller.project_id):
        raise Forbidden(rule="Credential project does not match the project scope of the delegated token")


def ec2_id(access: str) -> str:
    """The id of the credential that has this access key."""
    return hashlib.sha256(access.encode(errors="surrogatepass")).hexdigest()


def ec2_blob(text: str) -> dict[str, Any]:
    """The blob of an EC2 credential; Invalid where it is none."""
    try:
        blob = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        raise Invalid("Invalid blob in credential: a JSON object with `access` is expected.") from None
    if not isinstance(blob.get("access"), str):
        raise Invalid("Expecting to find access in credential: the access key, as text, in the blob.")
    return blob


def by_leave(caller: Caller, user_id: str) -> dict[str, str]:
    """What the blob of a key for this user keeps of the delegation by which the caller speaks. By one he makes keys for its
    user only: what it gives is given to nobody else."""
    name = LEAVES.get(caller.delegation)
    if name is None:
        return {}
    if user_id != caller.user_id:
        raise Forbidden("A token issued via delegation makes access keys for its own user only.")
    return {name: caller.delegation_id}


def insert_credential(tx: Connection, credential: Credential, limit: int) -> None:
    """Store a credential, whose blob is sealed already."""
    if db.first(tx, User, User.table.c.id == credential.user_id) is None:
        raise NotFound("user", credential.user_id)
    if db.first(tx, Credential, Credential.table.c.id == credential.id) is not None:
        raise Conflict(f"Conflict occurred attempting to store credential - Duplicate ID, {credential.id}.")
    if limit >= 0 and db.count(tx, Credential, Credential.table.c.user_id == credential.user_id) >= limit:
        raise Forbidden(f"Unable to create additional credentials, maximum of {limit} already exceeded for user.")
    db.insert(tx, credential)


async def create_credential(ctx: Ctx, body: Any) -> Credential:
    """Store the credential; an EC2 one is known by a hash of its access key, as clients expect."""
    credential: Credential = Credential.new(body, id=new_hex_id())
    guard(ctx, "create", Credential, credential)
    if body.type.lower() == EC2:
        refuse_restricted(ctx, "additional credentials.")
        if not credential.project_id:
            raise Invalid("Expecting to find project_id in credential: one of type ec2 needs it.")
        blob = ec2_blob(body.blob)
        credential.id = ec2_id(blob["access"])
        if leave := by_leave(ctx.caller, credential.user_id):
            credential.blob = msgspec.json.encode({**blob, **leave}).decode()
    check_delegation(ctx.caller, credential.project_id)
    credential.blob = ctx.service.vault.seal(credential.blob)
    await ctx.service.write(insert_credential, credential, ctx.service.kernel.settings.credential_user_limit)
    return credential


async def update_credential(ctx: Ctx, credential: Credential, body: Any) -> Any:
    """Change a credential; neither its owner nor its project may end beyond what the caller may act on."""
    given = body.given()
    if not {**given, **(given.get("extra") or {})}.keys() - {"extra"}:
        raise Invalid("The credential of the request is empty: it must have what is to be changed.")
    before = reveal(ctx, credential)
    changed = msgspec.structs.replace(before, **given)
    check_delegation(ctx.caller, credential.project_id)
    check_delegation(ctx.caller, changed.project_id)
    guard(ctx, "update", Credential, changed)
    _check_ec2(before, changed)
    more = {"blob": ctx.service.vault.seal(changed.blob)} if "blob" in given else {}
    return await ctx.service.write(_store_update, credential.id, body, more)


def _store_update(tx: Connection, id: str, body: Any, more: dict[str, Any]) -> Any:
    owner = body.given().get("user_id")
    if owner is not None and db.first(tx, User, User.table.c.id == owner) is None:
        raise NotFound("user", owner)
    return change(tx, Credential, id, body, **more)


def _check_ec2(before: Credential, changed: Credential) -> None:
    """Invalid where an update of an EC2 credential drops what binds it, or where it makes one without a project."""
    if changed.type.lower() == EC2 and not changed.project_id:
        raise Invalid("Expecting to find project_id in credential: one of type ec2 needs it.")
    if before.type.lower() != EC2:
        return
    try:
        known = ec2_blob(before.blob)
    except Invalid:  # it became one of EC2 as it was, and is no key yet
        known = {}
    if any(known.get(name) for name in LEAVES.values()):
        # As another type it could lose its bounds, and then become one of EC2 again.
        for name in ("type", "project_id", "user_id"):
            if getattr(before, name) != getattr(changed, name):
                raise Invalid(f"{name} can not be updated for credential: it was made by a delegation")
    if changed.type == before.type:
        blob = ec2_blob(changed.blob)
        for name in KEPT:
            if known.get(name) != blob.get(name):
                raise Invalid(f"{name} can not be updated for credential")


async def delete_credential(ctx: Ctx, credential: Credential) -> None:
    check_delegation(ctx.caller, credential.project_id)
    await ctx.service.write(db.remove, Credential, credential.id)


endpoints = calls(
    Credential,
    create=create_credential,
    update=update_credential,
    delete=delete_credential,
    scope=visible,
    listing=Listing(sort=(("id", "asc"),), filters=inexact(Credential, "type", "user_id")),
    reveal=show_credential,
)
