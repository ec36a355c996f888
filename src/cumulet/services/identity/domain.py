"""Domains: GET|POST /v3/domains, GET|PATCH|DELETE /v3/domains/{id}; DELETE /v3/projects/{id}, which may be one."""

import re
from typing import Annotated, Any, ClassVar

from msgspec import Meta
from sqlalchemy import Connection, Table, select

from cumulet.api.resource import FILTER, FIND, Resource, edit, hidden, read, sent
from cumulet.core import db
from cumulet.core.errors import Conflict, Forbidden, Invalid
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, guard
from cumulet.services.identity.cascade import forget_project
from cumulet.services.identity.federation.identity_provider import remove_providers_of
from cumulet.services.identity.fields import DomainId, Label64
from cumulet.services.identity.group import Group, remove_group
from cumulet.services.identity.options import Options, merged, refuse_change, refuse_loss
from cumulet.services.identity.project import Project, Tag, insert_project, remove_project, store_change, tidy
from cumulet.services.identity.role import Role, remove_role
from cumulet.services.identity.rules import ADMIN_OR_SYSTEM_READER, of_domain, system_rules
from cumulet.services.identity.user import User, remove_user

HEX_ID = re.compile(r"[0-9a-f]{32}")


class Domain(Resource, path="/v3/domains", extra="extra"):
    """A realm of users, groups and projects."""

    table: ClassVar[Table] = Project.table

    id: Id = read("The ID of the domain.", use=FIND)
    name: Label64 = edit("The name, unique in the cloud.", use=FIND)
    description: Text | None = edit("What it is for.", "")
    enabled: bool = edit("Whether its users can have tokens.", True, FILTER)
    tags: Annotated[list[Tag], Meta(max_length=80)] = edit("Simple labels.", [])
    option_values: Options = edit("Options such as `immutable`.", {}, wire="options")
    explicit_domain_id: str | None = sent("The ID that the domain is to have: a UUID without dashes.", None)
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
    guard(ctx, "create", Domain, body)
    chosen = body.explicit_domain_id
    if chosen is not None and not HEX_ID.fullmatch(chosen):
        raise Invalid("A domain ID that is chosen must be a UUID of 32 hexadecimal digits without dashes.")
    domain = Domain.new(
        body,
        id=chosen or new_hex_id(),
        name=body.name.strip(),
        option_values=merged(None, body.option_values),
        tags=tidy(body.tags),
    )

    def store(tx: Connection) -> None:
        if chosen is not None and db.first(tx, Project, Project.table.c.id == chosen) is not None:
            raise Conflict(f"Conflict occurred attempting to store domain - Duplicate ID, {chosen}.")
        insert_project(tx, _as_project(domain))

    await ctx.service.write(store)
    return domain


def _as_project(domain: Domain) -> Project:
    return Project(**{c.name: getattr(domain, c.name) for c in Project.table.columns})


async def update_domain(ctx: Ctx, domain: Domain, body: Any) -> Any:
    given = body.given()
    if not given["extra"] and len(given) == 1:
        raise Invalid("The request changes nothing: at least one attribute of the domain is expected.")
    refuse_change(domain, given)
    return await ctx.service.write(store_change, ctx.service, Domain, domain.id, body)


async def delete_domain(ctx: Ctx, domain: Any) -> None:
    """Remove a disabled domain with all that is in it."""
    refuse_loss(domain)
    if domain.enabled:
        raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
    await ctx.service.write(_remove, ctx.service, domain.id)


def _remove(tx: Connection, service: Any, id: str) -> None:
    remove_providers_of(tx, service, id)
    for cls, remove in ((User, remove_user), (Group, remove_group), (Role, remove_role)):
        table = cls.table
        for (found,) in tx.execute(select(table.c.id).where(table.c.domain_id == id)).all():
            remove(tx, service, found)
    left = db.find(tx, Project, Project.table.c.domain_id == id)
    for project in left:
        refuse_loss(project)
    while left:  # the lowest first
        parents = {p.parent_id for p in left}
        for project in [p for p in left if p.id not in parents]:
            remove_project(tx, service, project.id)
        left = [p for p in left if p.id in parents]
    forget_project(tx, id)
    service.revocations.add(tx, "domain", id)
    db.remove(tx, Domain, id)


async def delete_project(ctx: Ctx, project: Project) -> None:
    """Remove a project, which may be a domain."""
    if project.is_domain:
        await delete_domain(ctx, project)
    else:
        refuse_loss(project)
        await ctx.service.write(remove_project, ctx.service, project.id)


endpoints = [
    *calls(
        Domain,
        create=create_domain,
        update=update_domain,
        delete=delete_domain,
        scope=own,
        where=(Project.table.c.is_domain,),
        told=("update", "delete"),
    ),
    *(call for call in calls(Project, delete=delete_project) if call.method == "DELETE"),
]
