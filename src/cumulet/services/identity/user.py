"""Users: GET|POST /v3/users, GET|PATCH|DELETE /v3/users/{id}, GET /v3/users/{id}/projects."""

import operator
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, UniqueConstraint, and_, select

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, read, sent_always
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, Str64, Str255, new_hex_id, now, timestamp
from cumulet.services.identity.calls import Ctx, calls, change, guard, home_domain, own_domain, search, target
from cumulet.services.identity.cascade import forget_programs, forget_user
from cumulet.services.identity.directory_calls import seen_first
from cumulet.services.identity.federation.origins import Origins, origin_filters, store_origins, with_origins
from cumulet.services.identity.fields import Day, DomainId, Label, Password, PlainTime
from cumulet.services.identity.lockout import is_enabled, today, unlock
from cumulet.services.identity.password_rule import check_form, password_columns, remember
from cumulet.services.identity.project import LISTING as PROJECTS
from cumulet.services.identity.project import Project, check_domain, held_by
from cumulet.services.identity.rules import ADMIN_OR_SYSTEM_READER, domain_rules, of_domain
from cumulet.services.identity.user_option import merged

READ_ONLY = "The users and groups of this domain are in a directory (LDAP), which is only read: change them there."


class User(Resource, table="identity_user", path="/v3/users", extra="extra"):
    """Somebody who can have tokens."""

    id: Id = read("The ID of the user.", use=FIND)
    name: Label = edit("The name, unique in the domain.", use=FIND)
    domain_id: DomainId = edit("The domain of the user.", AUTO, FILTER, index=True)
    enabled: bool = edit("Whether the user can have tokens.", True, FILTER)
    default_project_id: Str64 | None = edit("The project of a token that asks for no scope.", None)
    password: Password | None = sent_always("The password; it is never shown.", None)
    password_expires_at: PlainTime | None = read("When the password has to be changed.", None)
    option_values: dict[str, Any] = edit("Options of the user.", {}, wire="options")
    federated: Origins | None = sent_always("The identity providers that know the user, and by which ids.", None)
    password_hash: str | None = hidden("The hash of the password.", None)
    password_created_at: int | None = hidden("When the password was set, in microseconds since 1970.", None)
    password_self_service: bool | None = hidden("Whether the user chose the password himself.", None)
    created_at: PlainTime | None = hidden("When the user was made.", None)
    last_active_at: Day | None = hidden("The day of the last login, kept where inactivity disables.", None)
    local_id: Str255 | None = hidden("The user's id in his domain's directory; none where he lives here.", None)
    gone_since: PlainTime | None = hidden("Since when his domain's directory does not have him any more.", None)
    extra: dict[str, Any] = hidden("Attributes that nobody declared, such as `email` and `description`.", {})


UniqueConstraint(User.table.c.domain_id, User.table.c.name, name="identity_user_name")

RULES = {
    **domain_rules("user", own="user_id:%(target.user.id)s"),
    "identity:list_user_projects": (
        f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.user.domain_id')} or user_id:%(target.user.id)s"
    ),
}


def _check_extra(extra: dict[str, Any]) -> None:
    """Invalid where an attribute that nobody declared, but everybody uses, is not what it is taken for."""
    if not isinstance(extra.get("description"), str | None):
        raise Invalid("Invalid input for description: text, or null, is expected.")


async def create_user(ctx: Ctx, body: Any) -> User:
    """Store the user; without a password he cannot log in with one."""
    service, settings = ctx.service, ctx.service.kernel.settings
    guard(ctx, "create", User, body)
    domain_id = home_domain(ctx) if body.domain_id is UNSET else body.domain_id
    user: User = User.new(body, id=new_hex_id(), domain_id=domain_id, name=body.name.strip(), created_at=now())
    await service.directories.refuse(user.domain_id)
    _check_extra(user.extra)
    user.option_values = merged(None, body.option_values)
    if body.password is not None:
        check_form(settings, body.password)
        hashed = await service.passwords.hash(body.password)
        for name, value in password_columns(settings, user.option_values, hashed).items():
            setattr(user, name, value)

    def store(tx: Connection) -> None:
        insert_user(tx, user)
        store_origins(tx, user.id, body.federated or ())

    await service.write(store)
    return user


def insert_user(tx: Connection, user: User) -> None:
    check_domain(tx, user.domain_id)
    _check(tx, user)
    db.insert(tx, user)


def _check(tx: Connection, user: User) -> None:
    """Conflict where the domain has another user of this name; Invalid where his default project is a domain."""
    c, p = User.table.c, Project.table.c
    twin = select(c.id).where(c.domain_id == user.domain_id, c.name == user.name, c.id != user.id)
    if tx.execute(twin).first() is not None:
        raise Conflict(f"Conflict occurred attempting to store user - Duplicate entry found with name {user.name}.")
    project = user.default_project_id
    if project and tx.execute(select(p.id).where(p.id == project, p.is_domain)).first() is not None:
        raise Invalid(f"User's default project ID cannot be a domain ID: {project}")


async def update_user(ctx: Ctx, user: User, body: Any) -> Any:
    """Change a user. A new password, or being disabled, voids the tokens that are out, the latter removes his application
    credentials too; being enabled ends a lockout."""
    service, settings, given = ctx.service, ctx.service.kernel.settings, body.given()
    refuse_foreign(user)
    if given.get("domain_id", user.domain_id) != user.domain_id:
        raise Invalid("Cannot change Domain ID")
    _check_extra(given.get("extra", {}))
    hashed: str | None = None
    if given.get("password") is not None:
        check_form(settings, body.password)
        hashed = await service.passwords.hash(body.password)

    def store(tx: Connection) -> Any:
        current: Any = db.get(tx, User, user.id)
        options = merged(current.option_values, given.get("option_values", {}))
        more: dict[str, Any] = {}
        if "name" in given:
            more["name"] = given["name"].strip()
        if "password" in given:
            remember(tx, settings, current)
            more |= password_columns(settings, options, hashed)
        if given.get("enabled"):
            unlock(tx, user.id)
            more["last_active_at"] = today() if settings.disable_user_account_days_inactive else None
        changed = change(tx, User, user.id, body, **more)
        _check(tx, changed)
        if given.get("federated"):
            store_origins(tx, user.id, body.federated)
        if "password" in given or not changed.enabled:
            service.revocations.add(tx, "user", user.id)
        if not changed.enabled:
            forget_programs(tx, user.id)
        return changed

    return await service.write(store)


def refuse_foreign(item: Any) -> None:
    """Forbidden where a user (or group) lives in a directory, which is only read."""
    if item.local_id is not None:
        raise Forbidden(READ_ONLY)


async def delete_user(ctx: Ctx, user: User) -> None:
    refuse_foreign(user)
    await ctx.service.write(remove_user, ctx.service, user.id)


def remove_user(tx: Connection, service: Any, id: str) -> None:
    """Remove a user with his roles, memberships and credentials."""
    forget_user(tx, id)
    service.revocations.add(tx, "user", id)
    db.remove(tx, User, id)


def reveal(ctx: Ctx, row: Any) -> Any:
    """The user with `enabled` as it counts at a login: inactivity is not stored."""
    settings = ctx.service.kernel.settings
    if not settings.disable_user_account_days_inactive or is_enabled(settings, row) == row.enabled:
        return row
    return replace(User(**{c.name: getattr(row, c.name) for c in User.table.columns}), enabled=False)


COMPARISONS: dict[str, Callable[[Any, str], ColumnElement[bool]]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "eq": operator.eq,
    "neq": operator.ne,
}


def _expiring(values: list[str]) -> ColumnElement[bool]:
    """`password_expires_at=lt:2026-01-31T09:15:00Z`; without an operator: at this moment."""
    return and_(*(_compared(value) for value in values))


def _compared(value: str) -> ColumnElement[bool]:
    name, _, moment = value.partition(":") if ":" in value[2:4] else ("eq", "", value)
    if name not in COMPARISONS:
        raise Invalid(f"The given operator {name} is not valid; these are: {', '.join(COMPARISONS)}.")
    try:
        stamp = datetime.fromisoformat(moment)
    except ValueError:
        raise Invalid(f"Timestamp not in expected format: {moment}; 2026-01-31T09:15:00Z would be.") from None
    stamp = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
    return COMPARISONS[name](User.table.c.password_expires_at, timestamp(stamp))


LISTING = search(User, password_expires_at=_expiring, **origin_filters(User.table.c.id))


async def list_user_projects(ctx: Ctx, id: str) -> Any:
    """List the projects on which a user holds a role."""
    user = await ctx.service.kernel.db.read_inline(db.first, User, User.table.c.id == id)
    ctx.require("identity:list_user_projects", target(user))
    if user is None:
        raise NotFound("user", id)
    return await list_page(ctx, Project, lambda _: held_by(id), listing=PROJECTS)


endpoints = [
    *seen_first(
        User,
        calls(
            User,
            create=create_user,
            update=update_user,
            delete=delete_user,
            scope=own_domain(User),
            listing=LISTING,
            reveal=reveal,
            finish=with_origins,
            where=(User.table.c.gone_since.is_(None),),
        ),
    ),
    Endpoint("GET", "/v3/users/{id}/projects", list_user_projects, resource=Project),
]
