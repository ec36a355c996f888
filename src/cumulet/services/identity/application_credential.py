"""Application credentials: GET|POST /v3/users/{user_id}/application_credentials, GET|DELETE of one.

A user's program logs in with one, on one project and with some of the user's roles, and never knows his password. They go with
the user (or when he is disabled), with the project, and with the roles they give.
"""

import base64
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct
from sqlalchemy import Connection, UniqueConstraint, insert, select

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Listing
from cumulet.api.resource import FILTER, Resource, constant, hidden, once, read, sent
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Column, Id, Text, new_hex_id
from cumulet.services.identity.access_rule import NOT_LENT, AccessRule, RuleRef, ensure_rules, link
from cumulet.services.identity.assignments import imply, role_ids_on
from cumulet.services.identity.calls import Ctx, refuse_delegated, refuse_restricted
from cumulet.services.identity.cascade import remove_application_credentials
from cumulet.services.identity.claims import APPLICATION_CREDENTIAL
from cumulet.services.identity.fields import Label, Password, future
from cumulet.services.identity.role import Role
from cumulet.services.identity.rules import ADMIN_OR_SYSTEM_READER, undomained
from cumulet.services.identity.tables import application_credential_role, application_credential_rule
from cumulet.services.identity.trust import RoleNames, chosen_roles

COLLECTION = "application_credentials"
SECRET_BYTES = 64

_role, _rule = application_credential_role.c, application_credential_rule.c


class ApplicationCredential(
    Resource, table="identity_application_credential", path="/v3/users/{user_id}/application_credentials"
):
    """What a user's program logs in with, in place of his password."""

    id: Id = read("The ID of the credential.")
    name: Label = once("The name, unique among the user's.", use=FILTER)
    description: Text | None = once("What it is for.", None)
    user_id: Id = read("Whose it is.", index=True)
    project_id: Id = read("The project that it is for: that of the token it was made with.", index=True)
    expires_at: Annotated[str, Column(26)] | None = once("When it ends; null is never.", None)
    unrestricted: bool | None = once("Whether it may make and delete further application credentials.", False)
    system: str | None = constant("Always null: it is for a project.", None)
    secret: Password | None = sent("The secret; one is made where none is sent. It is shown once.", None)
    roles: RoleNames = sent("The roles that it gives; all of the token's where none are named.", [])
    access_rules: Annotated[list[RuleRef], Meta(max_length=1000)] = sent(
        "The only requests that it may be used for; any where none are named.", []
    )
    sent_id: Any = sent("Of no effect.", None, wire="id")
    sent_project_id: Any = sent("Of no effect.", None, wire="project_id")
    sent_system: Any = sent("Of no effect.", None, wire="system")
    secret_hash: Text = hidden("The hash of the secret.")


UniqueConstraint(
    ApplicationCredential.table.c.user_id,
    ApplicationCredential.table.c.name,
    name="identity_application_credential_name",
)

_READ = undomained(f"{ADMIN_OR_SYSTEM_READER} or rule:owner")
RULES = {
    "identity:get_application_credential": _READ,
    "identity:list_application_credentials": _READ,
    "identity:create_application_credential": "not project_id:None and user_id:%(user_id)s",
    "identity:delete_application_credential": undomained("rule:admin_or_owner"),
}


# ---- what they give, and when they go -----------------------------------------------------------------------------------


def role_ids(tx: Connection, id: str) -> list[str]:
    """The ids of the roles that a credential gives, if its user has them."""
    return list(tx.execute(select(_role.role_id).where(_role.application_credential_id == id)).scalars())


def rules_of(tx: Connection, ids: Iterable[str]) -> Mapping[str, list[AccessRule]]:
    """The access rules of each of these credentials that has any."""
    linked = tx.execute(
        select(_rule.application_credential_id, _rule.access_rule_id).where(_rule.application_credential_id.in_(ids))
    ).all()
    if not linked:
        return {}
    rules = {r.id: r for r in db.find(tx, AccessRule, AccessRule.table.c.id.in_({rule for _, rule in linked}))}
    found: dict[str, list[AccessRule]] = {}
    for credential_id, rule_id in linked:
        found.setdefault(credential_id, []).append(rules[rule_id])
    return found


def remove_unfounded(tx: Connection, project_id: str, user_ids: Sequence[str] | Any) -> None:
    """Remove the application credentials on a project of those of the users who have none of their roles there any more."""
    c = ApplicationCredential.table.c
    rows = tx.execute(
        select(c.id, c.user_id, _role.role_id)
        .join_from(ApplicationCredential.table, application_credential_role, _role.application_credential_id == c.id)
        .where(c.project_id == project_id, c.user_id.in_(user_ids))
    ).all()
    held = {user_id: role_ids_on(tx, user_id, "project", project_id) for user_id in {row.user_id for row in rows}}
    founded = {row.id for row in rows if row.role_id in held[row.user_id]}
    if unfounded := {row.id for row in rows} - founded:
        remove_application_credentials(tx, c.id.in_(unfounded))


# ---- calls --------------------------------------------------------------------------------------------------------------


async def create_application_credential(ctx: Ctx, user_id: str, body: Any) -> Any:
    """Create an application credential for the project of the token, with the token's roles or some of them."""
    caller = ctx.caller
    ctx.require("identity:create_application_credential", {"user_id": user_id})
    refuse_delegated(ctx, NOT_LENT, but=APPLICATION_CREDENTIAL)
    refuse_restricted(ctx, "additional application credentials")
    if caller.user_id != user_id:
        raise Forbidden(rule="Cannot create an application credential for another user")
    if not caller.project_id:
        raise Forbidden(rule="identity:create_application_credential")
    secret = body.secret or base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    credential: ApplicationCredential = ApplicationCredential.new(
        body,
        id=new_hex_id(),
        user_id=user_id,
        project_id=caller.project_id,
        expires_at=None if body.expires_at is None else future(body.expires_at),
        unrestricted=bool(body.unrestricted),
        secret_hash=await ctx.service.passwords.hash(secret),
    )
    session = await ctx.service.session(caller.token)
    limit = ctx.service.kernel.settings.application_credential_limit
    await ctx.service.write(_store, credential, body, [role.id for role in session.roles], limit)
    (whole,) = await ctx.service.kernel.db.read(_whole, [credential])
    return {"application_credential": {**_shown(ctx, whole), "secret": secret}}


def _store(
    tx: Connection, credential: ApplicationCredential, body: Any, token_roles: Sequence[str], limit: int
) -> None:
    """Store a credential with its roles and rules, if its user has and its token gives all of the roles."""
    c = ApplicationCredential.table.c
    if limit >= 0 and db.count(tx, ApplicationCredential, c.user_id == credential.user_id) >= limit:
        raise Forbidden(
            f"Unable to create additional application credentials, maximum of {limit} already exceeded for user."
        )
    if db.first(tx, ApplicationCredential, c.user_id == credential.user_id, c.name == credential.name) is not None:
        raise Conflict(
            f"Conflict occurred attempting to store application_credential - Duplicate entry found with name"
            f" {credential.name}."
        )
    wanted = imply(tx, set(chosen_roles(tx, body.roles))) if body.roles else set(token_roles)
    held = role_ids_on(tx, credential.user_id, "project", credential.project_id)
    if not wanted <= held & set(token_roles):
        raise Invalid("Invalid application credential: Cannot create an application credential with unassigned role")
    db.insert(tx, credential)
    tx.execute(
        insert(application_credential_role),
        [{"application_credential_id": credential.id, "role_id": id} for id in sorted(wanted)],
    )
    if rules := ensure_rules(tx, credential.user_id, body.access_rules):
        tx.execute(
            insert(application_credential_rule),
            [{"application_credential_id": credential.id, "access_rule_id": id} for id in sorted(rules)],
        )


class Whole(Struct, frozen=True):
    """An application credential with what belongs to it."""

    credential: Any
    roles: list[Role]
    rules: list[AccessRule]


def _whole(tx: Connection, credentials: list[Any]) -> list[Whole]:
    ids = [credential.id for credential in credentials]
    linked = tx.execute(
        select(_role.application_credential_id, _role.role_id).where(_role.application_credential_id.in_(ids))
    ).all()
    roles = {r.id: r for r in db.find(tx, Role, Role.table.c.id.in_({role for _, role in linked}))}
    rules = rules_of(tx, ids)
    return [
        Whole(c, [roles[role] for id, role in linked if id == c.id and role in roles], rules.get(c.id, []))
        for c in credentials
    ]


def _shown(ctx: Ctx, whole: Whole) -> dict[str, Any]:
    """How a credential is shown: never with its secret."""
    credential = whole.credential
    view = ApplicationCredential.view()(credential)
    shown = {name: getattr(view, name) for name in view.__struct_fields__}
    shown["links"] = link(ctx, credential.user_id, COLLECTION, credential.id)
    shown["roles"] = [
        {
            "id": role.id,
            "name": role.name,
            "domain_id": role.domain_id or None,
            "description": role.description,
            "options": role.option_values,
        }
        for role in whole.roles
    ]
    if whole.rules:
        shown["access_rules"] = [
            {"id": r.id, "service": r.service, "path": r.path, "method": r.method} for r in whole.rules
        ]
    return shown


async def list_application_credentials(ctx: Ctx, user_id: str) -> Any:
    """List a user's application credentials."""
    ctx.require("identity:list_application_credentials", {"user_id": user_id})
    refuse_delegated(ctx, NOT_LENT, but=APPLICATION_CREDENTIAL)
    where = ApplicationCredential.table.c.user_id == user_id
    return await list_page(
        ctx,
        ApplicationCredential,
        lambda _: (where,),
        listing=Listing(sort=(("id", "asc"),)),
        enrich=_whole,
        view=lambda whole: _shown(ctx, whole),
    )


async def _asked(ctx: Ctx, user_id: str, id: str, verb: str) -> ApplicationCredential:
    """The credential that a call is about. The rule asks for its owner, whoever the path names."""
    c = ApplicationCredential.table.c
    found = await ctx.service.kernel.db.read_inline(db.first, ApplicationCredential, c.id == id)
    ctx.require(f"identity:{verb}_application_credential", {"user_id": found.user_id if found else user_id})
    refuse_delegated(ctx, NOT_LENT, but=APPLICATION_CREDENTIAL)
    if found is None:
        raise NotFound("application_credential", id)
    return found


async def show_application_credential(ctx: Ctx, user_id: str, id: str) -> Any:
    """Show an application credential."""
    credential = await _asked(ctx, user_id, id, "get")
    (whole,) = await ctx.service.kernel.db.read_inline(_whole, [credential])
    return {"application_credential": _shown(ctx, whole)}


async def delete_application_credential(ctx: Ctx, user_id: str, id: str) -> Response:
    """Delete an application credential; its tokens are void at once."""
    await _asked(ctx, user_id, id, "delete")
    refuse_restricted(ctx, "additional application credentials")
    if not await ctx.service.write(remove_application_credentials, ApplicationCredential.table.c.id == id):
        raise NotFound("application_credential", id)
    return Response(204)


_path, _one = f"/v3/users/{{user_id}}/{COLLECTION}", f"/v3/users/{{user_id}}/{COLLECTION}/{{id}}"
endpoints = [
    Endpoint("GET", _path, list_application_credentials, resource=ApplicationCredential),
    Endpoint(
        "POST",
        _path,
        create_application_credential,
        body=ApplicationCredential,
        status=201,
        resource=ApplicationCredential,
    ),
    Endpoint("GET", _one, show_application_credential, resource=ApplicationCredential),
    Endpoint("DELETE", _one, delete_application_credential, resource=ApplicationCredential),
]
