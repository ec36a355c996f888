"""Server groups: servers that are to be placed together or apart.

GET, POST /os-server-groups · GET, DELETE /os-server-groups/{id}
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from sqlalchemy import Connection, select

from cumulet.api.crud import list_page, own_project
from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.query import Listing
from cumulet.api.resource import Resource, hidden, once, read, sent
from cumulet.core import db, quota
from cumulet.core.errors import Forbidden, Invalid, NotFound
from cumulet.core.types import Column, Id, Str255, Time, new_id, now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.quota import DEFAULTS
from cumulet.services.compute.server.resource import Server

PREFIX = "os_compute_api:os-server-groups:"
INDEX, SHOW, CREATE, DELETE, ALL = (PREFIX + v for v in ("index", "show", "create", "delete", "index:all_projects"))
RULES = {
    INDEX: ADMIN_OR_OWNER_READER, SHOW: ADMIN_OR_OWNER_READER, CREATE: ADMIN_OR_OWNER_MEMBER,
    DELETE: ADMIN_OR_OWNER_MEMBER, ALL: ADMIN,
}  # fmt: skip

GroupName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A\S(.*\S)?\Z"), Column(255)]
GroupPolicy = Literal["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"]


class Rules(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    max_server_per_host: Annotated[int, Meta(ge=1)] | None = None


class ServerGroup(Resource, table="compute_server_group", path="/v2.1/os-server-groups"):
    """A group of servers with a rule of placement."""

    id: Id = read("Its id.")
    name: GroupName = once("Its name.")
    project_id: Str255 = read("The project that owns it.", since=(2, 13), index=True)
    user_id: Str255 = read("Who made it.", since=(2, 13))
    policies: list[GroupPolicy] = once("Its one rule.", until=(2, 63))
    policy: GroupPolicy = sent("Its rule.", since=(2, 64))
    rules: Rules = once("Bounds of the rule.", Rules(), since=(2, 64))
    created_at: Time = hidden("When it was made.")


def _shown(ctx: Ctx, group: Any, members: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": group.id, "name": group.name, "members": members}
    if ctx.version >= (2, 13):
        shown.update(project_id=group.project_id, user_id=group.user_id)
    if ctx.version >= (2, 64):
        shown.update(policy=group.policies[0], rules=group.rules)
    else:
        shown.update(policies=group.policies, metadata={})
    return shown


def _members(tx: Connection, ids: list[str]) -> dict[str, list[str]]:
    columns = Server.table.c
    found: dict[str, list[str]] = {key: [] for key in ids}
    for row in tx.execute(
        select(columns.id, columns.group_id).where(columns.group_id.in_(ids), columns.deleted_at.is_(None))
    ):
        found[row.group_id].append(row.id)
    return found


async def list_groups(ctx: Ctx) -> Any:
    """List the project's server groups; all of them for admins who ask so."""
    every = "all_projects" in ctx.request.query and ctx.allows(ALL)
    scope = () if every else (ServerGroup.table.c.project_id == ctx.caller.project_id,)
    listing = Listing(sort=(("created_at", "asc"),), ignore=frozenset({"all_projects", "offset"}))

    def view(tx: Connection, rows: list[Any]) -> list[Any]:
        members = _members(tx, [row.id for row in rows])
        return [_shown(ctx, row, members[row.id]) for row in rows]

    return await list_page(ctx, ServerGroup, lambda _: scope, listing=listing, enrich=view, view=lambda shown: shown)


def _get(tx: Connection, ctx: Ctx, id: str) -> ServerGroup:
    try:
        return db.get(tx, ServerGroup, id, *own_project(ServerGroup)(ctx))
    except NotFound:
        raise NotFound(message=f"Instance group {id} could not be found.") from None


async def show_group(ctx: Ctx, id: str) -> Any:
    """Show one server group."""

    def look(tx: Connection) -> Any:
        return _shown(ctx, _get(tx, ctx, id), _members(tx, [id])[id])

    return {"server_group": await ctx.service.kernel.db.read_inline(look)}


async def create_group(ctx: Ctx, body: Any) -> Any:
    """Make a server group."""
    given = body.given()
    policies = [given["policy"]] if "policy" in given else given["policies"]
    if len(policies) != 1:
        raise Invalid("Invalid input for field/attribute policies: exactly one policy is taken.")
    if ctx.version < (2, 15) and policies[0].startswith("soft"):
        raise Invalid(f"Invalid input for field/attribute policies. '{policies[0]}' needs version 2.15")
    rules = given.get("rules", Rules())
    if rules.max_server_per_host is not None and policies[0] != "anti-affinity":
        raise Invalid("Only anti-affinity policy supports rules.")
    project = ctx.caller.project_id or ""
    group = ServerGroup(
        id=new_id(), name=body.name, project_id=project, user_id=ctx.caller.user_id, policies=policies, rules=rules,
        created_at=now(),
    )  # fmt: skip

    def unit(tx: Connection) -> None:
        limit = quota.limits(tx, "compute", project, DEFAULTS)["server_groups"]
        if limit != -1 and db.count(tx, ServerGroup, ServerGroup.table.c.project_id == project) >= limit:
            raise Forbidden("Quota exceeded, too many server groups.")
        db.insert(tx, group)

    await ctx.service.kernel.db.run(unit)
    return {"server_group": _shown(ctx, group, [])}


async def delete_group(ctx: Ctx, id: str) -> Any:
    """Delete a server group; its servers stay."""

    def unit(tx: Connection) -> None:
        _get(tx, ctx, id)
        db.update_where(tx, Server, [Server.table.c.group_id == id], group_id=None)
        db.remove(tx, ServerGroup, id)

    await ctx.service.kernel.db.run(unit)
    return Response(204)


ONE = "/v2.1/os-server-groups/{id}"
endpoints = [
    Endpoint("GET", "/v2.1/os-server-groups", list_groups, INDEX, resource=ServerGroup),
    Endpoint("POST", "/v2.1/os-server-groups", create_group, CREATE, ServerGroup, resource=ServerGroup),
    Endpoint("GET", ONE, show_group, SHOW, resource=ServerGroup),
    Endpoint("DELETE", ONE, delete_group, DELETE, resource=ServerGroup),
]
