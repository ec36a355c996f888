"""Groups: GET|POST /v3/groups, GET|PATCH|DELETE /v3/groups/{id}, their users, GET /v3/users/{id}/groups."""

from typing import Any

from msgspec import UNSET
from sqlalchemy import Connection, UniqueConstraint, delete, insert, select

from cumulet.api.crud import granted, list_page, viewer
from cumulet.api.http import Endpoint, Response
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import Id, Str255, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard, home_domain, own_domain, search, target
from cumulet.services.identity.cascade import forget_group
from cumulet.services.identity.directory_calls import seen_first
from cumulet.services.identity.federation.origins import membership_ends
from cumulet.services.identity.fields import DomainId, Label64, PlainTime
from cumulet.services.identity.project import check_domain
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, domain_rules, of_domain
from cumulet.services.identity.tables import membership
from cumulet.services.identity.user import LISTING as USERS
from cumulet.services.identity.user import User, refuse_foreign


class Group(Resource, table="identity_group", path="/v3/groups", extra="extra"):
    """Users who hold roles together."""

    id: Id = read("The ID of the group.", use=FIND)
    name: Label64 = edit("The name, unique in the domain.", use=FIND)
    domain_id: DomainId = edit("The domain of the group.", AUTO, FILTER, index=True)
    description: Text | None = edit("What it is for.", "")
    local_id: Str255 | None = hidden("The group's id in its domain's directory; none where it lives here.", None)
    gone_since: PlainTime | None = hidden("Since when its domain's directory does not have it any more.", None)
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


UniqueConstraint(Group.table.c.domain_id, Group.table.c.name, name="identity_group_name")

LISTING = search(Group)

_READ = f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.group.domain_id')}"
_BOTH = "domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s"
_MEMBER_READ = f"{ADMIN_OR_SYSTEM_READER} or (role:reader and {_BOTH})"
_MEMBER_WRITE = f"{ADMIN} or (role:manager and {_BOTH})"
RULES = {
    **domain_rules("group"),
    "identity:list_users_in_group": _READ,
    "identity:list_groups_for_user": (
        f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.user.domain_id')} or user_id:%(target.user.id)s"
    ),
    "identity:check_user_in_group": _MEMBER_READ,
    "identity:add_user_to_group": _MEMBER_WRITE,
    "identity:remove_user_from_group": _MEMBER_WRITE,
}


async def create_group(ctx: Ctx, body: Any) -> Group:
    guard(ctx, "create", Group, body)
    domain_id = home_domain(ctx) if body.domain_id is UNSET else body.domain_id
    group: Group = Group.new(body, id=new_hex_id(), domain_id=domain_id, name=body.name.strip())
    await ctx.service.directories.refuse(domain_id)

    def store(tx: Connection) -> None:
        check_domain(tx, domain_id)
        _check_name(tx, group)
        db.insert(tx, group)

    await ctx.service.write(store)
    return group


def _check_name(tx: Connection, group: Group) -> None:
    c = Group.table.c
    twin = select(c.id).where(c.domain_id == group.domain_id, c.name == group.name, c.id != group.id)
    if tx.execute(twin).first() is not None:
        raise Conflict(f"Conflict occurred attempting to store group - Duplicate entry found with name {group.name}.")


async def update_group(ctx: Ctx, group: Group, body: Any) -> Any:
    refuse_foreign(group)
    if body.given().get("domain_id", group.domain_id) != group.domain_id:
        raise Invalid("Cannot change Domain ID")

    given = body.given()
    more = {"name": given["name"].strip()} if "name" in given else {}

    def store(tx: Connection) -> Any:
        changed = change(tx, Group, group.id, body, **more)
        _check_name(tx, changed)
        return changed

    return await ctx.service.write(store)


async def delete_group(ctx: Ctx, group: Group) -> None:
    refuse_foreign(group)
    await ctx.service.write(remove_group, ctx.service, group.id)


def remove_group(tx: Connection, service: Any, id: str) -> None:
    """Remove a group with its roles and memberships."""
    forget_group(tx, id)
    db.remove(tx, Group, id)


# ---- membership ---------------------------------------------------------------------------------------------------------


def _pair(tx: Connection, group_id: str | None, user_id: str | None) -> tuple[Group | None, User | None]:
    group = None if group_id is None else db.first(tx, Group, Group.table.c.id == group_id)
    user = None if user_id is None else db.first(tx, User, User.table.c.id == user_id)
    return group, user


async def _both(ctx: Ctx, rule: str, group_id: str | None, user_id: str | None) -> tuple[Any, Any]:
    """The group and the user, if the rule lets the caller at them; NotFound tells which of them does not exist."""
    group, user = await ctx.service.kernel.db.read_inline(_pair, group_id, user_id)
    ctx.require(rule, {**target(group), **target(user)})
    if group is None and group_id is not None:
        raise NotFound("group", group_id)
    if user is None and user_id is not None:
        raise NotFound("user", user_id)
    return group, user


def _refuse_foreign_pair(group: Group, user: User) -> None:
    """Forbidden where a directory says who is in the group, or only the user is in one."""
    refuse_foreign(group)
    if user.local_id is not None:
        raise Forbidden(
            f"Group membership across backend boundaries is not allowed: the user {user.id} is in a directory, the group"
            f" {group.id} is not."
        )


async def list_members(ctx: Ctx, id: str) -> Any:
    """List the users of a group."""
    group, _ = await _both(ctx, "identity:list_users_in_group", id, None)
    await ctx.service.directories.refresh_item(group)
    users = select(membership.c.user_id).where(membership.c.group_id == id)
    there = [User.table.c.id.in_(users), User.table.c.gone_since.is_(None)]
    return await list_page(ctx, User, own_domain(User), listing=USERS, extra=there)


async def list_user_groups(ctx: Ctx, id: str) -> Any:
    """List the groups that a user is in; of those that his identity provider put him into, until when."""
    _, user = await _both(ctx, "identity:list_groups_for_user", None, id)
    await ctx.service.directories.refresh_item(user)
    groups = select(membership.c.group_id).where(membership.c.user_id == id)
    ends = await ctx.service.kernel.db.read_inline(membership_ends, id)
    show = viewer(ctx, Group, granted(ctx, Group))

    def view(row: Any) -> Any:
        return {**show(row), "membership_expires_at": ends[row.id]} if row.id in ends else show(row)

    in_one = Group.table.c.id.in_(groups) | Group.table.c.id.in_(list(ends))
    return await list_page(ctx, Group, own_domain(Group), listing=LISTING, extra=[in_one], view=view)


def _is_member(tx: Connection, group_id: str, user_id: str) -> bool:
    where = (membership.c.group_id == group_id, membership.c.user_id == user_id)
    return tx.execute(select(membership).where(*where)).first() is not None


async def check_member(ctx: Ctx, id: str, user_id: str) -> Response:
    """Tell whether a user is in a group."""
    await _both(ctx, "identity:check_user_in_group", id, user_id)
    if not await ctx.service.kernel.db.read_inline(_is_member, id, user_id):
        raise NotFound(message=f"User {user_id} not found in group {id}.")
    return Response(204)


def _actor(user_id: str, operation: str) -> dict[str, str]:
    """What is told of a group's change beside its id."""
    return {"actor_id": user_id, "actor_type": "user", "actor_operation": operation}


async def add_member(ctx: Ctx, id: str, user_id: str) -> Response:
    """Put a user into a group."""
    _refuse_foreign_pair(*await _both(ctx, "identity:add_user_to_group", id, user_id))

    def add(tx: Connection) -> None:
        db.get(tx, Group, id)
        db.get(tx, User, user_id)
        if not _is_member(tx, id, user_id):
            tx.execute(insert(membership).values(group_id=id, user_id=user_id))
            db.note(tx, "group", "updated", id, **_actor(user_id, "added"))

    await ctx.service.write(add)
    return Response(204)


async def remove_member(ctx: Ctx, id: str, user_id: str) -> Response:
    """Take a user out of a group, and with that the roles he has from it."""
    _refuse_foreign_pair(*await _both(ctx, "identity:remove_user_from_group", id, user_id))

    def take_out(tx: Connection) -> None:
        if not _is_member(tx, id, user_id):
            raise NotFound(message=f"User {user_id} not found in group {id}.")
        tx.execute(delete(membership).where(membership.c.group_id == id, membership.c.user_id == user_id))
        db.note(tx, "group", "updated", id, **_actor(user_id, "removed"))

    await ctx.service.write(take_out)
    return Response(204)


endpoints = [
    *seen_first(
        Group,
        calls(
            Group,
            create=create_group,
            update=update_group,
            delete=delete_group,
            scope=own_domain(Group),
            told=("delete",),
            where=(Group.table.c.gone_since.is_(None),),
        ),
    ),
    Endpoint("GET", "/v3/groups/{id}/users", list_members, resource=User),
    Endpoint("GET", "/v3/users/{id}/groups", list_user_groups, resource=Group),
    Endpoint("GET", "/v3/groups/{id}/users/{user_id}", check_member),
    Endpoint("PUT", "/v3/groups/{id}/users/{user_id}", add_member),
    Endpoint("DELETE", "/v3/groups/{id}/users/{user_id}", remove_member),
]
