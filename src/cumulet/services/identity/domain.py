"""Domains: GET|POST /v3/domains, GET|PATCH|DELETE /v3/domains/{id}."""

from typing import Annotated, Any, ClassVar

from msgspec import Meta
from sqlalchemy import Connection, Table, select

from cumulet.api.query import Listing
from cumulet.api.resource import FILTER, FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.errors import Forbidden
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, guard, inexact
from cumulet.services.identity.cascade import forget_project
from cumulet.services.identity.fields import DomainId, Label64
from cumulet.services.identity.group import Group, remove_group
from cumulet.services.identity.project import Project, Tag, insert_project, remove_project, store_change
from cumulet.services.identity.role import Role, remove_role
from cumulet.services.identity.rules import ADMIN_OR_SYSTEM_READER, of_domain, system_rules
from cumulet.services.identity.user import User, remove_user


class Domain(Resource, path="/v3/domains", extra="extra"):
    """A realm of users, groups and projects."""

    table: ClassVar[Table] = Project.table

    id: Id = read("The ID of the domain.", use=FIND)
    name: Label64 = edit("The name, unique in the cloud.", use=FIND)
    description: Text | None = edit("What it is for.", "")
    enabled: bool = edit("Whether its users can have tokens.", True, FILTER)
    tags: Annotated[list[Tag], Meta(max_length=80)] = edit("Simple labels.", [])
    option_values: dict[str, Any] = edit("Options such as `immutable`.", {}, wire="options")
    domain_id: DomainId = hidden("None: a domain is in no other.", "")
    parent_id: Id | None = hidden("None: nothing is above a domain.", None)
    is_domain: bool = hidden("Always true.", True)
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


RULES = {
    **system_rules("domain"),
    "identity:get_domain": (
        f"{ADMIN_OR_SYSTEM_READER} or domain_id:%(target.domain.id)s or project_domain_id:%(target.domain.id)s"
    ),
    "identity:list_domains": f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.domain_id')}",
}


def own(ctx: Ctx) -> Any:
    return (Project.table.c.id == ctx.caller.domain_id,) if ctx.caller.domain_id else ()


async def create_domain(ctx: Ctx, body: Any) -> Domain:
    domain = Domain.new(body, id=new_hex_id())
    guard(ctx, "create", Domain, domain)
    await ctx.service.write(insert_project, _as_project(domain))
    return domain


def _as_project(domain: Domain) -> Project:
    return Project(**{c.name: getattr(domain, c.name) for c in Project.table.columns})


async def update_domain(ctx: Ctx, domain: Domain, body: Any) -> Any:
    return await ctx.service.write(store_change, ctx.service, Domain, domain.id, body)


async def delete_domain(ctx: Ctx, domain: Domain) -> None:
    """Remove a disabled domain with all that is in it."""
    if domain.enabled:
        raise Forbidden(rule="Cannot delete a domain that is enabled, please disable it first")
    await ctx.service.write(_remove, ctx.service, domain.id)


def _remove(tx: Connection, service: Any, id: str) -> None:
    for cls, remove in ((User, remove_user), (Group, remove_group), (Role, remove_role)):
        table = cls.table
        for (found,) in tx.execute(select(table.c.id).where(table.c.domain_id == id)).all():
            remove(tx, service, found)
    left = db.find(tx, Project, Project.table.c.domain_id == id)
    while left:  # the lowest first
        parents = {p.parent_id for p in left}
        for project in [p for p in left if p.id not in parents]:
            remove_project(tx, service, project.id)
        left = [p for p in left if p.id in parents]
    forget_project(tx, id)
    service.revocations.add(tx, "domain", id)
    db.remove(tx, Domain, id)


endpoints = calls(
    Domain,
    create=create_domain,
    update=update_domain,
    delete=delete_domain,
    scope=own,
    where=(Project.table.c.is_domain,),
    listing=Listing(sort=(("id", "asc"),), filters=inexact(Domain, "name")),
)
