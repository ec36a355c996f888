"""Users: GET|POST /v3/users, GET|PATCH|DELETE /v3/users/{id}, POST /v3/users/{id}/password,
GET /v3/users/{id}/projects."""

from typing import Any

from msgspec import UNSET, Struct
from sqlalchemy import Connection, UniqueConstraint, select

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Listing
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, read, sent_always
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid, NotFound, Unauthorized
from cumulet.core.types import Id, MicroTime, Str64, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard, home_domain, inexact, own_domain, target
from cumulet.services.identity.cascade import forget_programs, forget_user
from cumulet.services.identity.fields import DomainId, Label, Password
from cumulet.services.identity.project import LISTING as PROJECTS
from cumulet.services.identity.project import Project, check_domain, held_by
from cumulet.services.identity.rules import ADMIN_OR_SYSTEM_READER, domain_rules, of_domain


class User(Resource, table="identity_user", path="/v3/users", extra="extra"):
    """Somebody who can have tokens."""

    id: Id = read("The ID of the user.", use=FIND)
    name: Label = edit("The name, unique in the domain.", use=FIND)
    domain_id: DomainId = edit("The domain of the user.", AUTO, FILTER, index=True)
    enabled: bool = edit("Whether the user can have tokens.", True, FILTER)
    default_project_id: Str64 | None = edit("The project of a token that asks for no scope.", None)
    password: Password | None = sent_always("The password; it is never shown.", None)
    password_expires_at: MicroTime | None = read("When the password has to be changed.", None)
    option_values: dict[str, Any] = edit("Options of the user.", {}, wire="options")
    password_hash: str | None = hidden("The hash of the password.", None)
    extra: dict[str, Any] = hidden("Attributes that nobody declared, such as `email` and `description`.", {})


UniqueConstraint(User.table.c.domain_id, User.table.c.name, name="identity_user_name")

RULES = {
    **domain_rules("user", own="user_id:%(target.user.id)s"),
    "identity:list_user_projects": (
        f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.user.domain_id')} or user_id:%(target.user.id)s"
    ),
}


async def create_user(ctx: Ctx, body: Any) -> User:
    domain_id = home_domain(ctx) if body.domain_id is UNSET else body.domain_id
    user: User = User.new(body, id=new_hex_id(), domain_id=domain_id)
    guard(ctx, "create", User, user)
    if body.password is not None:
        user.password_hash = await ctx.service.passwords.hash(body.password)
    await ctx.service.write(insert_user, user)
    return user


def insert_user(tx: Connection, user: User) -> None:
    check_domain(tx, user.domain_id)
    _check_name(tx, user)
    db.insert(tx, user)


def _check_name(tx: Connection, user: User) -> None:
    c = User.table.c
    twin = select(c.id).where(c.domain_id == user.domain_id, c.name == user.name, c.id != user.id)
    if tx.execute(twin).first() is not None:
        raise Conflict(f"Conflict occurred attempting to store user - Duplicate entry found with name {user.name}.")


async def update_user(ctx: Ctx, user: User, body: Any) -> Any:
    """Change a user. A new password, or being disabled, voids the tokens that are out; the latter removes his application
    credentials too."""
    given = body.given()
    if given.get("domain_id", user.domain_id) != user.domain_id:
        raise Invalid("Cannot change Domain ID")
    more: dict[str, Any] = {}
    if "password" in given:
        more["password_hash"] = None if body.password is None else await ctx.service.passwords.hash(body.password)

    def store(tx: Connection) -> Any:
        changed = change(tx, User, user.id, body, **more)
        _check_name(tx, changed)
        if more or not changed.enabled:
            ctx.service.revocations.add(tx, "user", user.id)
        if not changed.enabled:
            forget_programs(tx, user.id)
        return changed

    return await ctx.service.write(store)


async def delete_user(ctx: Ctx, user: User) -> None:
    await ctx.service.write(remove_user, ctx.service, user.id)


def remove_user(tx: Connection, service: Any, id: str) -> None:
    """Remove a user with his roles, memberships and credentials."""
    forget_user(tx, id)
    service.revocations.add(tx, "user", id)
    db.remove(tx, User, id)


class NewPassword(Struct):
    original_password: Password
    password: Password


class PasswordChange(Struct):
    user: NewPassword


async def change_password(ctx: Ctx, id: str, body: PasswordChange) -> Response:
    """Change a user's password, by who knows the one he has."""
    user = await ctx.service.kernel.db.read_inline(db.first, User, User.table.c.id == id)
    known = await ctx.service.passwords.verify(user.password_hash if user else None, body.user.original_password)
    if user is None or not known or not user.enabled:
        raise Unauthorized()
    if body.user.password == body.user.original_password:
        raise Invalid("The new password cannot be identical to a previous password.")
    hashed = await ctx.service.passwords.hash(body.user.password)

    def store(tx: Connection) -> None:
        c = User.table.c
        if not db.update_where(tx, User, (c.id == id, c.password_hash == user.password_hash), password_hash=hashed):
            raise Conflict("The password was changed by another request at the same time.")
        ctx.service.revocations.add(tx, "user", id)
        db.note(tx, "user", "updated", id)

    await ctx.service.write(store)
    return Response(204)


async def list_user_projects(ctx: Ctx, id: str) -> Any:
    """List the projects on which a user holds a role."""
    user = await ctx.service.kernel.db.read_inline(db.first, User, User.table.c.id == id)
    ctx.require("identity:list_user_projects", target(user))
    if user is None:
        raise NotFound("user", id)
    return await list_page(ctx, Project, lambda _: held_by(id), listing=PROJECTS)


endpoints = [
    *calls(
        User,
        create=create_user,
        update=update_user,
        delete=delete_user,
        scope=own_domain(User),
        listing=Listing(sort=(("id", "asc"),), filters=inexact(User, "name")),
    ),
    Endpoint("POST", "/v3/users/{id}/password", change_password, body=PasswordChange, status=204, auth=False),
    Endpoint("GET", "/v3/users/{id}/projects", list_user_projects, resource=Project),
]
