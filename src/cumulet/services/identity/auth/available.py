"""What a token's holder may have: GET /v3/auth/catalog, /v3/auth/projects, /v3/auth/domains, /v3/auth/system, and the older
names of two of them, GET /v3/OS-FEDERATION/projects and /v3/OS-FEDERATION/domains."""

from typing import Any

from sqlalchemy import select

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint
from cumulet.core.errors import Forbidden
from cumulet.services.identity.assignments import roles_on
from cumulet.services.identity.auth.issue import catalog
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.domain import Domain
from cumulet.services.identity.project import Project, held_by, of_user
from cumulet.services.identity.rules import ANYBODY
from cumulet.services.identity.tables import SYSTEM, assignment

RULES = {
    "identity:get_auth_catalog": ANYBODY,
    "identity:get_auth_projects": ANYBODY,
    "identity:get_auth_domains": ANYBODY,
    "identity:get_auth_system": ANYBODY,
}


async def show_catalog(ctx: Ctx) -> Any:
    """Show the catalogue as the caller's token sees it."""
    caller = ctx.caller
    if not (caller.project_id or caller.domain_id or caller.system):
        raise Forbidden(rule="identity:get_auth_catalog")
    return {"catalog": await catalog(ctx, caller.project_id, caller.user_id), "links": {"self": ctx.request.url}}


def _groups(ctx: Ctx) -> tuple[str, ...]:
    """The groups that the caller is in because his identity provider says so."""
    federation = ctx.service.keys.open(ctx.caller.token).federation
    return federation.group_ids if federation else ()


async def list_own_projects(ctx: Ctx) -> Any:
    """List the projects that the caller can have a token for."""
    held = held_by(ctx.caller.user_id, _groups(ctx))
    return await list_page(ctx, Project, lambda _: [*held, Project.table.c.enabled])


async def list_own_domains(ctx: Ctx) -> Any:
    """List the domains that the caller can have a token for."""
    a, c = assignment.c, Project.table.c
    held = select(a.target_id).where(of_user(ctx.caller.user_id, _groups(ctx)), a.target_type == "domain", ~a.inherited)
    return await list_page(ctx, Domain, lambda _: [c.id.in_(held), c.is_domain, c.enabled])


async def list_own_system(ctx: Ctx) -> Any:
    """List the systems that the caller can have a token for: all of it, or none."""
    where = (ctx.caller.user_id, "system", SYSTEM, _groups(ctx))
    roles = await ctx.service.kernel.db.read_inline(roles_on, *where)
    return {"system": [{"all": True}] if roles else [], "links": {"self": ctx.request.url}}


endpoints = [
    Endpoint("GET", "/v3/auth/catalog", show_catalog, "identity:get_auth_catalog"),
    Endpoint("GET", "/v3/auth/projects", list_own_projects, "identity:get_auth_projects", resource=Project),
    Endpoint("GET", "/v3/auth/domains", list_own_domains, "identity:get_auth_domains", resource=Domain),
    Endpoint("GET", "/v3/OS-FEDERATION/projects", list_own_projects, "identity:get_auth_projects", resource=Project),
    Endpoint("GET", "/v3/OS-FEDERATION/domains", list_own_domains, "identity:get_auth_domains", resource=Domain),
    Endpoint("GET", "/v3/auth/system", list_own_system, "identity:get_auth_system"),
]
