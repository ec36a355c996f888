"""Access keys for EC2 and S3: GET|POST /v3/users/{user_id}/credentials/OS-EC2, GET|DELETE of one, by its access key.

They are credentials of type `ec2` (`credential.py`), shown in a form of their own.
"""

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.errors import NotFound, Unauthorized
from cumulet.core.types import new_hex_id
from cumulet.services.identity.calls import Ctx, refuse_restricted, target
from cumulet.services.identity.credential import (
    EC2,
    Credential,
    by_leave,
    check_delegation,
    ec2_id,
    insert_credential,
    reveal,
)
from cumulet.services.identity.project import Project
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, undomained
from cumulet.services.identity.user import User

_OWN = "user_id:%(target.credential.user_id)s"
RULES = {
    "identity:ec2_get_credential": undomained(f"{ADMIN_OR_SYSTEM_READER} or {_OWN}"),
    "identity:ec2_list_credentials": undomained(f"{ADMIN_OR_SYSTEM_READER} or rule:owner"),
    "identity:ec2_create_credential": undomained(f"{ADMIN} or (role:member and {_OWN})"),
    "identity:ec2_delete_credential": undomained(f"{ADMIN} or (role:member and {_OWN})"),
}


class NewEc2Credential(Struct):
    tenant_id: str


def _shown(ctx: Ctx, credential: Credential) -> dict[str, Any]:
    """An EC2 credential, opened, as these calls show it."""
    blob = msgspec.json.decode(credential.blob, type=dict[str, Any])
    base = f"{ctx.request.base_url}/v3/users/{credential.user_id}/credentials/OS-EC2"
    return {
        "user_id": credential.user_id,
        "tenant_id": credential.project_id,
        "access": blob.get("access"),
        "secret": blob.get("secret"),
        "trust_id": blob.get("trust_id"),
        "links": {"self": f"{base}/{blob.get('access')}"},
    }


def _user(tx: Connection, id: str) -> None:
    if db.first(tx, User, User.table.c.id == id) is None:
        raise NotFound("user", id)


async def create_ec2_credential(ctx: Ctx, user_id: str, body: NewEc2Credential) -> Any:
    """Make an access key and its secret, for a project."""
    ctx.require("identity:ec2_create_credential", {"target.credential.user_id": user_id})
    refuse_restricted(ctx, "additional credentials.")
    access = new_hex_id()
    blob = {"access": access, "secret": new_hex_id(), "trust_id": None, **by_leave(ctx.caller, user_id)}
    credential: Credential = Credential.new(
        None,
        id=ec2_id(access),
        type=EC2,
        user_id=user_id,
        project_id=body.tenant_id,
        blob=ctx.service.vault.seal(msgspec.json.encode(blob).decode()),
    )

    def store(tx: Connection) -> None:
        _user(tx, user_id)
        c = Project.table.c
        if db.first(tx, Project, c.id == body.tenant_id, ~c.is_domain) is None:
            raise NotFound("project", body.tenant_id)
        check_delegation(ctx.caller, body.tenant_id)
        insert_credential(tx, credential, ctx.service.kernel.settings.credential_user_limit)

    await ctx.service.write(store)
    return {"credential": _shown(ctx, reveal(ctx, credential))}


async def list_ec2_credentials(ctx: Ctx, user_id: str) -> Any:
    """List a user's access keys."""
    ctx.require("identity:ec2_list_credentials", {"user_id": user_id})
    c, caller = Credential.table.c, ctx.caller
    where = [c.user_id == user_id, c.type == EC2]
    if caller.delegation:
        where.append(c.project_id == (caller.project_id or ""))

    def look(tx: Connection) -> list[Credential]:
        _user(tx, user_id)
        return db.find(tx, Credential, *where, order=[c.id])

    found = await ctx.service.kernel.db.read(look)
    shown = [_shown(ctx, reveal(ctx, item)) for item in found]
    return {"credentials": shown, "links": {"self": ctx.request.url, "previous": None, "next": None}}


async def _one(ctx: Ctx, verb: str, user_id: str, access: str) -> Credential:
    """The credential with this access key, if the caller may do this to it. That there is none is told to everybody."""

    def look(tx: Connection) -> Credential:
        found = db.get(tx, Credential, ec2_id(access))
        ctx.require(f"identity:ec2_{verb}_credential", target(found))
        _user(tx, user_id)
        return found

    credential = await ctx.service.kernel.db.read_inline(look)
    if credential.type != EC2:
        raise Unauthorized("EC2 access key not found.")
    check_delegation(ctx.caller, credential.project_id)
    return credential


async def show_ec2_credential(ctx: Ctx, user_id: str, access: str) -> Any:
    """Show an access key with its secret."""
    return {"credential": _shown(ctx, reveal(ctx, await _one(ctx, "get", user_id, access)))}


async def delete_ec2_credential(ctx: Ctx, user_id: str, access: str) -> Response:
    """Remove an access key."""
    credential = await _one(ctx, "delete", user_id, access)
    await ctx.service.write(db.remove, Credential, credential.id)
    return Response(204)


_COLLECTION = "/v3/users/{user_id}/credentials/OS-EC2"
endpoints = [
    Endpoint("GET", _COLLECTION, list_ec2_credentials, resource=Credential),
    Endpoint("POST", _COLLECTION, create_ec2_credential, body=NewEc2Credential, status=201, resource=Credential),
    Endpoint("GET", f"{_COLLECTION}/{{access}}", show_ec2_credential, resource=Credential),
    Endpoint("DELETE", f"{_COLLECTION}/{{access}}", delete_ec2_credential, resource=Credential),
]
